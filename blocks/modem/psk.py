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
from functools import lru_cache

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


@njit(nogil=True, cache=True)
def _jacobian(a: np.float32, b: np.float32) -> np.float32:
    """log(exp(a) + exp(b)) without overflow for any finite a, b."""
    return max(a, b) + np.log1p(np.exp(-abs(a - b)))


@njit(nogil=True, cache=True)
def _demap_8psk(symbols: ComplexArray, noise_variance: FloatArray, out: FloatArray) -> None:
    """Neighbouring points enter the sums of two bits in pairs, so the eight pairs are shared."""
    varies = noise_variance.size > 1
    scale = np.float32(2.0) / noise_variance[0]
    for n in range(symbols.size):
        if varies:
            scale = np.float32(2.0) / noise_variance[n]
        x, y = symbols[n].real * scale, symbols[n].imag * scale
        d, u = (x + y) * _HALF_SQRT, (y - x) * _HALF_SQRT  # along 45 and 135 degrees
        # Metrics of points 0..3 are x, d, y, u; those of 4..7 are their negatives.
        p01, p23, p45, p67 = _jacobian(x, d), _jacobian(y, u), _jacobian(-x, -d), _jacobian(-y, -u)
        p12, p34, p56, p70 = _jacobian(d, y), _jacobian(u, -x), _jacobian(-d, -y), _jacobian(-u, x)
        out[3 * n] = _jacobian(p01, p23) - _jacobian(p45, p67)
        out[3 * n + 1] = _jacobian(p67, p01) - _jacobian(p23, p45)
        out[3 * n + 2] = _jacobian(p70, p34) - _jacobian(p12, p56)


def _checked_noise(symbols: ComplexArray, noise_variance: float | FloatArray) -> FloatArray:
    variance = np.atleast_1d(np.asarray(noise_variance, np.float32))
    if symbols.ndim != 1 or symbols.dtype != np.complex64:
        raise ValueError(f"expected complex64 [n], got {symbols.dtype} {list(symbols.shape)}")
    if variance.shape not in ((1,), symbols.shape):
        raise ValueError(f"expected one noise variance or [{symbols.size}], got {variance.shape}")
    if not (np.all(variance > 0) and np.all(np.isfinite(variance))):
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
    _demap_8psk(symbols, variance, llrs)
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
        first += float(weights @ (BITS_PER_SYMBOL - lost))
        second += float(weights @ (BITS_PER_SYMBOL - lost) ** 2)
    return first, second - first**2


def bicm_capacity_8psk(snr_db: float) -> float:
    """Bits per symbol that Gray bit-interleaved 8-PSK can carry at Es/N0 = ``snr_db`` (AWGN).

    Dividing by 3 gives the code rate: 1/2 is reached at 3.23 dB.
    """
    return bicm_density_8psk(snr_db)[0]
