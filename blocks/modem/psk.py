"""BPSK and Gray 8-PSK: mapping, and exact soft demapping.

Point ``k`` of 8-PSK lies at ``exp(j * pi * k / 4)``; its label (first bit most significant) is the Gray
code of k::

    k      0    1    2    3    4    5    6    7
    angle  0   45   90  135  180  225  270  315  degrees
    label 000  001  011  010  110  111  101  100

The first two bits of a label change twice round the circle, the third four times: it is the weak one,
and the interleaver of TS 38.212 gives it the last bits of the code block. BPSK is ``1 - 2 bit``.

A log-likelihood ratio is ``log P(bit = 0) - log P(bit = 1)``: positive means 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

BitArray = NDArray[np.uint8]
ComplexArray = NDArray[np.complex64]
FloatArray = NDArray[np.float32]

BITS_PER_SYMBOL = 3
_GRAY_LABELS = np.array([k ^ (k >> 1) for k in range(8)])
# Points in the order of their labels: CONSTELLATION_8PSK[4 b0 + 2 b1 + b2].
CONSTELLATION_8PSK: ComplexArray = np.empty(8, np.complex64)
CONSTELLATION_8PSK[_GRAY_LABELS] = np.exp(1j * np.pi / 4 * np.arange(8))
CONSTELLATION_8PSK.flags.writeable = False

_HALF_SQRT = np.float32(math.sqrt(0.5))


def _checked_bits(bits: BitArray, multiple: int) -> BitArray:
    if bits.ndim != 1 or bits.dtype != np.uint8 or bits.size % multiple:
        raise ValueError(f"expected uint8 bits [{multiple} n], got {bits.dtype} {list(bits.shape)}")
    if bits.size and bits.max() > 1:
        raise ValueError(f"expected bits of value 0 or 1, got {int(bits.max())}")
    return bits


def modulate_8psk(bits: BitArray) -> ComplexArray:
    """Map uint8 0/1 [3n] to unit-energy complex64 [n]. Raises ``ValueError`` for another shape or value."""
    labels = _checked_bits(bits, BITS_PER_SYMBOL).reshape(-1, BITS_PER_SYMBOL)
    return CONSTELLATION_8PSK[(labels[:, 0] << 2) | (labels[:, 1] << 1) | labels[:, 2]]


def modulate_bpsk(bits: BitArray) -> ComplexArray:
    """Map uint8 0/1 [n] to complex64 [n]: 0 to +1, 1 to -1. Raises ``ValueError`` as above."""
    return (1.0 - 2.0 * _checked_bits(bits, 1)).astype(np.complex64)


def _polynomial(function: Callable[[Any], Any], low: float, high: float, degree: int) -> Any:
    """Near-minimax coefficients in single precision, lowest power first."""
    fit = np.polynomial.chebyshev.Chebyshev.interpolate(function, degree, [low, high])
    power: Any = fit.convert(kind=np.polynomial.Polynomial)
    return tuple(np.float32(c) for c in power.coef)


# log(1 + exp(-x)) from two short polynomials, good to 1e-6: the library's exp and log1p are right to
# the last bit, but cannot be computed sixteen at a time.
_EXP2 = _polynomial(np.exp2, -0.5, 0.5, 5)
_LOG1P_OVER_T = _polynomial(lambda t: np.log1p(t) / t, 1e-9, 1.0, 8)
_LOG2_E = np.float32(1 / math.log(2))
_LOWEST_EXPONENT = np.float32(-126)


@njit(nogil=True, cache=True, inline="always", fastmath={"contract"})
def _log_1_plus_exp_minus(x):  # type: ignore[no-untyped-def]
    """log(1 + exp(-x)) of a float32 x >= 0."""
    power = max(-x * _LOG2_E, _LOWEST_EXPONENT)
    whole = np.floor(power + np.float32(0.5))
    f = power - whole
    a0, a1, a2, a3, a4, a5 = _EXP2
    fraction = a0 + f * (a1 + f * (a2 + f * (a3 + f * (a4 + f * a5))))
    # 2^whole, made from its bits: the exponent of a float32 starts at bit 23 and is biased by 127.
    t = fraction * np.int32((np.int32(whole) + 127) << 23).view(np.float32)
    b0, b1, b2, b3, b4, b5, b6, b7, b8 = _LOG1P_OVER_T
    high = b4 + t * (b5 + t * (b6 + t * (b7 + t * b8)))
    return t * (b0 + t * (b1 + t * (b2 + t * (b3 + t * high))))


@njit(nogil=True, cache=True, inline="always", fastmath={"contract"})
def _log_sum(a, b):  # type: ignore[no-untyped-def]
    """log(exp(a) + exp(b)) without overflow for any finite a, b."""
    return max(a, b) + _log_1_plus_exp_minus(abs(a - b))


@njit(nogil=True, cache=True, fastmath={"contract"}, error_model="numpy")
def _demap_8psk(parts: FloatArray, noise_variance: FloatArray, out: FloatArray) -> None:
    """``parts`` holds real and imaginary parts in turn.

    Neighbouring points enter the sums of two bits in pairs, so the eight pairs are shared.
    """
    for n in range(noise_variance.size):
        scale = np.float32(2.0) / noise_variance[n]
        x, y = parts[2 * n] * scale, parts[2 * n + 1] * scale
        d, u = (x + y) * _HALF_SQRT, (y - x) * _HALF_SQRT  # along 45 and 135 degrees
        # Metrics of points 0..3 are x, d, y, u; those of 4..7 are their negatives.
        p01, p23, p45, p67 = _log_sum(x, d), _log_sum(y, u), _log_sum(-x, -d), _log_sum(-y, -u)
        p12, p34, p56, p70 = _log_sum(d, y), _log_sum(u, -x), _log_sum(-d, -y), _log_sum(-u, x)
        out[3 * n] = _log_sum(p01, p23) - _log_sum(p45, p67)
        out[3 * n + 1] = _log_sum(p67, p01) - _log_sum(p23, p45)
        out[3 * n + 2] = _log_sum(p70, p34) - _log_sum(p12, p56)


def _checked_noise(symbols: ComplexArray, noise_variance: float | FloatArray) -> FloatArray:
    variance = np.atleast_1d(np.asarray(noise_variance, np.float32))
    if symbols.ndim != 1 or symbols.dtype != np.complex64:
        raise ValueError(f"expected complex64 [n], got {symbols.dtype} {list(symbols.shape)}")
    if variance.shape not in ((1,), symbols.shape):
        raise ValueError(f"expected one noise variance or [{symbols.size}], got {variance.shape}")
    if not ((variance > 0) & (variance < np.inf)).all():
        raise ValueError("noise variances must be positive and finite")
    return variance


def _checked_out(out: FloatArray | None, size: int) -> FloatArray:
    if out is None:
        return np.empty(size, np.float32)
    if out.shape != (size,) or out.dtype != np.float32:
        raise ValueError(f"expected out float32 [{size}], got {out.dtype} {list(out.shape)}")
    return out


def demap_8psk(
    symbols: ComplexArray, noise_variance: float | FloatArray, out: FloatArray | None = None
) -> FloatArray:
    """Exact bit LLRs of noisy 8-PSK ``symbols`` (complex64 [n], unit-energy points): float32 [3n].

    ``noise_variance`` is N0, the power of the complex noise per symbol: one value or float32 [n].
    Positive LLR = bit 0. ``out`` (float32 [3n]) is filled and returned when given. Raises
    ``ValueError`` for wrong shapes or a variance that is not positive and finite.
    """
    variance = _checked_noise(symbols, noise_variance)
    llrs = _checked_out(out, BITS_PER_SYMBOL * symbols.size)
    parts = np.ascontiguousarray(symbols).view(np.float32)
    if variance.shape != symbols.shape:
        variance = np.full(symbols.shape, variance[0])
    _demap_8psk(parts, np.ascontiguousarray(variance), llrs)
    return llrs


def demap_bpsk(
    symbols: ComplexArray, noise_variance: float | FloatArray, out: FloatArray | None = None
) -> FloatArray:
    """Exact LLRs ``4 Re(y) / N0`` of noisy BPSK ``symbols``: float32 [n]. Arguments as above."""
    variance = _checked_noise(symbols, noise_variance)
    llrs = _checked_out(out, symbols.size)
    np.divide(np.float32(4.0) * symbols.real, variance, out=llrs)
    return llrs


@lru_cache(maxsize=256)
def bicm_density_8psk(snr_db: float, nodes: int = 48) -> tuple[float, float]:
    """Mean and variance, in bits and bits^2 per symbol, of what Gray bit-interleaved 8-PSK tells.

    The information density of a symbol is the sum over its label bits of ``1 - log2(1 + exp(-L))``
    with L the LLR in favour of the sent bit, at Es/N0 = ``snr_db`` over white noise. Averaged over the
    points and ``nodes`` x ``nodes`` Gauss-Hermite points of noise.
    """
    noise_variance = 10.0 ** (-snr_db / 10.0)
    x, w = np.polynomial.hermite.hermgauss(nodes)
    noise = np.sqrt(noise_variance) * (x[:, None] + 1j * x[None, :]).ravel()
    weights = (w[:, None] * w[None, :]).ravel() / (8 * np.pi)
    points = CONSTELLATION_8PSK.astype(np.complex128)
    labels = (np.arange(8)[:, None] >> np.array([2, 1, 0])) & 1
    first = second = 0.0
    for point, label in zip(points, labels, strict=True):
        distance = np.abs((point + noise)[:, None] - points[None, :]) ** 2 / noise_variance
        likelihood = np.exp(-(distance - distance.min(axis=1, keepdims=True)))
        same = likelihood @ (labels == label)
        lost = np.log2(likelihood.sum(axis=1, keepdims=True) / same).sum(axis=1)
        first += float(weights @ lost)
        second += float(weights @ lost**2)
    # The variance of what is lost, which is that of what is left: near capacity both moments are tiny,
    # and their difference stays exact.
    return BITS_PER_SYMBOL - first, max(second - first**2, 0.0)


def bicm_capacity_8psk(snr_db: float) -> float:
    """Bits per symbol that Gray bit-interleaved 8-PSK can carry at Es/N0 = ``snr_db`` (AWGN).

    Dividing by 3 gives the code rate: 1/2 is reached at 3.23 dB.
    """
    return bicm_density_8psk(snr_db)[0]
