"""The arithmetic of the search for the repeated word: what is done to every sample that arrives.

Whoever listens does this all the time, so it decides what listening costs. Real and imaginary parts lie in
arrays of their own, and the work is cut into loops that write one array and read at most two, which is what
the compiler turns into vector instructions. Sums over a window are trees of shifted additions: a running sum
would need as many operations, carry rounding errors along, and could not be cut into vectors.

The stages, for samples x at 2 per symbol:

- matched filter, 17 taps, symmetric;
- W+ and W-, correlation with the 8-symbol word turned by +-1/2 of the promised carrier offset: the worst
  offset is then 2.5 % of the symbol rate from one of them and costs 0.6 dB instead of 2.4. The two share
  their products: W+- = P -+ jQ, where P has the cosines of the turns for weights and Q the sines;
- S = sum over 15 pairs of neighbouring words of conj(W[n]) W[n + 16]: a carrier offset turns all of them by
  the same angle, so they add up whatever it is;
- energy of the 256 samples that the 16 words cover.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from blocks.modem import waveform as wf

_SPS = wf.RECEIVER_SAMPLES_PER_SYMBOL
WORD_SAMPLES = wf.WORD_SYMBOLS * _SPS
REPEAT_SAMPLES = wf.WORD_REPEATS * WORD_SAMPLES
_PAIRS = wf.WORD_REPEATS - 1

# Half length of the short matched filter in front of the search.
_HALF_SPAN_SYMBOLS = 4
FILTER_HALF_TAPS = _HALF_SPAN_SYMBOLS * _SPS

# Energy counts 256 samples, the pairs 15 of 16 words of 8 symbols after a gain of 8: with this factor the
# score of a noiseless preamble without carrier offset is 1.
_SCALE = REPEAT_SAMPLES / (_PAIRS * wf.WORD_SYMBOLS**2)

# Positions are tested in tiles; only those that hold one above the threshold are looked at one by one.
_TILE = 256


def _filter_taps() -> NDArray[np.float32]:
    """Matched filter from its middle to its right end, ``float32 [9]``."""
    time = np.arange(FILTER_HALF_TAPS + 1) / _SPS
    return (wf.root_raised_cosine(time) / _SPS).astype(np.float32)


def _word_weights() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weights of P and of Q, each ``float32 [2, 8]``: of real and imaginary samples in the real part."""
    word = wf.preamble()[: wf.WORD_SYMBOLS].astype(np.complex128)
    centred = np.arange(wf.WORD_SYMBOLS) - (wf.WORD_SYMBOLS - 1) / 2
    turn = 2 * np.pi * wf.MAX_CFO_SYMBOL_RATES / 2 * centred
    # The word consists of quarter turns: half of the weights are zero, and exactly so, to be left out.
    parts = np.round([word.real, word.imag])
    return (np.cos(turn) * parts).astype(np.float32), (np.sin(turn) * parts).astype(np.float32)


# Global, so that the compiler knows the values.
_TAPS = _filter_taps()
_COSINES, _SINES = _word_weights()


class Repetition(NamedTuple):
    """What the repeated word looks like at every position of a stretch, whatever the stretch's level.

    Position n is for a preamble whose first symbol lies at sample ``n + FILTER_HALF_TAPS``.

    Args:
        sums: ``float32 [4, n]``, real and imaginary part of S for W+, then for W-.
        power: ``float32 [n]``, the larger of the two |S|^2.
        energy: ``float32 [n]``, of the samples behind S.
    """

    sums: NDArray[np.float32]
    power: NDArray[np.float32]
    energy: NDArray[np.float32]

    def score(self, positions: NDArray[np.int64]) -> NDArray[np.float64]:
        """0..1, ``float64 [k]``: 1 is a noiseless preamble without carrier offset; 0 where there is silence.

        The score does not say where a preamble starts: a window that holds silence and half of the words
        scores as well as one that holds them all. The strength, :func:`find_peaks`, does.
        """
        scores: NDArray[np.float64] = _score(self.power, self.energy, positions)
        return scores

    def phase(self, positions: NDArray[np.int64]) -> NDArray[np.float64]:
        """Angle from one word to the next in radians, ``float64 [k]``."""
        phases: NDArray[np.float64] = _phase(self.sums, positions)
        return phases


@njit(nogil=True, cache=True)
def _score(power, energy, positions):  # type: ignore[no-untyped-def]
    out = np.zeros(positions.size)
    for k, n in enumerate(positions):
        if energy[n] > 0:
            out[k] = _SCALE * np.sqrt(np.float64(power[n])) / energy[n]
    return out


@njit(nogil=True, cache=True)
def _phase(sums, positions):  # type: ignore[no-untyped-def]
    out = np.empty(positions.size)
    for k, n in enumerate(positions):
        plus = complex(np.float64(sums[0, n]), np.float64(sums[1, n]))
        minus = complex(np.float64(sums[2, n]), np.float64(sums[3, n]))
        larger = plus if abs(plus) >= abs(minus) else minus
        out[k] = np.arctan2(larger.imag, larger.real)
    return out


def correlate(samples: NDArray[np.complex64]) -> Repetition:
    """Look for the repeated word in ``complex64 [n + REPEAT_SAMPLES + 2 FILTER_HALF_TAPS]``.

    The mean of the samples, which is a receiver's DC offset, is taken out first.
    """
    pairs = np.ascontiguousarray(samples).view(np.float32)
    return Repetition(*_correlate(pairs))


def find_peaks(
    repetition: Repetition, threshold: float, reach: int, lag: int, share: float
) -> NDArray[np.int64]:
    """Positions with a score above the threshold and the largest strength around, no plateau.

    The strength is correlation times score: where only a part of the words is in the window the score may
    be as good, but not the correlation.

    Args:
        repetition: of the stretch.
        threshold: of the score.
        reach: a peak is the largest strength within so many samples on either side, plateaus left out.
        lag: a position lies on a plateau where so many samples later ...
        share: ... more than this share of its strength is left.

    Returns:
        ``int64 [k]``, none within ``reach`` of the start and ``reach + lag`` of the end.
    """
    limit = np.float32((threshold / _SCALE) ** 2)
    found: NDArray[np.int64] = _find_peaks(
        repetition.power, repetition.energy, limit, reach, lag, np.float32(share)
    )
    return found


# Reordering sums and contracting products is what vector instructions need; values are finite by contract.
_FAST = {"reassoc", "contract", "nsz"}


@njit(nogil=True, cache=True, fastmath=_FAST)
def _split(pairs, scale, real, imaginary):  # type: ignore[no-untyped-def]
    for n in range(real.size):
        real[n] = pairs[2 * n] * scale
    for n in range(real.size):
        imaginary[n] = pairs[2 * n + 1] * scale


@njit(nogil=True, cache=True)
def _exponent(pairs):  # type: ignore[no-untyped-def]
    """Largest exponent bits of all floats; integers, since the largest float is found one by one."""
    bits = pairs.view(np.int32)
    largest = np.int32(0)
    for n in range(bits.size):
        largest = max(largest, bits[n] & np.int32(0x7F800000))
    return largest >> 23


@njit(nogil=True, cache=True, fastmath=_FAST)
def _mean(line):  # type: ignore[no-untyped-def]
    # In float64: the mean of a constant is that constant. What rounding left of it would have a score.
    total = 0.0
    for n in range(line.size):
        total += line[n]
    return np.float32(total / line.size)


@njit(nogil=True, cache=True, fastmath=_FAST)
def _matched_filter(line, mean, out):  # type: ignore[no-untyped-def]
    for n in range(out.size):
        middle = n + FILTER_HALF_TAPS
        total = _TAPS[0] * (line[middle] - mean)
        for k in range(1, FILTER_HALF_TAPS + 1):
            total += _TAPS[k] * ((line[middle - k] - mean) + (line[middle + k] - mean))
        out[n] = total


@njit(nogil=True, cache=True, fastmath=_FAST)
def _weigh_with_cosines(a, b, out):  # type: ignore[no-untyped-def]
    for n in range(out.size):
        total = np.float32(0.0)
        for k in range(_COSINES.shape[1]):
            if _COSINES[0, k] != 0:
                total += _COSINES[0, k] * a[n + _SPS * k]
            if _COSINES[1, k] != 0:
                total += _COSINES[1, k] * b[n + _SPS * k]
        out[n] = total


@njit(nogil=True, cache=True, fastmath=_FAST)
def _weigh_with_sines(a, b, out):  # type: ignore[no-untyped-def]
    for n in range(out.size):
        total = np.float32(0.0)
        for k in range(_SINES.shape[1]):
            if _SINES[0, k] != 0:
                total += _SINES[0, k] * a[n + _SPS * k]
            if _SINES[1, k] != 0:
                total += _SINES[1, k] * b[n + _SPS * k]
        out[n] = total


@njit(nogil=True, cache=True)
def _negate(line, out):  # type: ignore[no-untyped-def]
    for n in range(out.size):
        out[n] = -line[n]


@njit(nogil=True, cache=True)
def _sum_and_difference(a, b):  # type: ignore[no-untyped-def]
    """``a, b = a + b, a - b`` in place."""
    for n in range(a.size):
        total = a[n] + b[n]
        b[n] = a[n] - b[n]
        a[n] = total


@njit(nogil=True, cache=True, fastmath=_FAST)
def _product_real(real, imaginary, out):  # type: ignore[no-untyped-def]
    for n in range(out.size):
        m = n + WORD_SAMPLES
        out[n] = real[n] * real[m] + imaginary[n] * imaginary[m]


@njit(nogil=True, cache=True, fastmath=_FAST)
def _product_imaginary(real, imaginary, out):  # type: ignore[no-untyped-def]
    for n in range(out.size):
        m = n + WORD_SAMPLES
        out[n] = real[n] * imaginary[m] - imaginary[n] * real[m]


@njit(nogil=True, cache=True, fastmath=_FAST)
def _sum_3(line, out):  # type: ignore[no-untyped-def]
    """Sum over 3 neighbouring words."""
    for n in range(out.size):
        out[n] = line[n] + line[n + WORD_SAMPLES] + line[n + 2 * WORD_SAMPLES]


@njit(nogil=True, cache=True, fastmath=_FAST)
def _sum_5_of_3(line, out):  # type: ignore[no-untyped-def]
    """Sum over 5 groups of 3 words."""
    for n in range(out.size):
        total = line[n]
        for group in range(1, 5):
            total += line[n + 3 * WORD_SAMPLES * group]
        out[n] = total


@njit(nogil=True, cache=True, fastmath=_FAST)
def _square(real, imaginary, out):  # type: ignore[no-untyped-def]
    for n in range(out.size):
        out[n] = real[n] * real[n] + imaginary[n] * imaginary[n]


@njit(nogil=True, cache=True, fastmath=_FAST)
def _sum_16(line, out):  # type: ignore[no-untyped-def]
    """Sum over 16 neighbouring samples."""
    for n in range(out.size):
        total = line[n]
        for k in range(1, 16):
            total += line[n + k]
        out[n] = total


@njit(nogil=True, cache=True, fastmath=_FAST)
def _sum_16_of_16(line, out):  # type: ignore[no-untyped-def]
    for n in range(out.size):
        total = line[n]
        for k in range(1, 16):
            total += line[n + 16 * k]
        out[n] = total


@njit(nogil=True, cache=True)
def _keep_larger(line, out):  # type: ignore[no-untyped-def]
    for n in range(out.size):
        out[n] = max(out[n], line[n])


@njit(nogil=True, cache=True)
def _correlate(pairs):  # type: ignore[no-untyped-def]
    samples = pairs.size // 2
    real, imaginary = np.empty(samples, np.float32), np.empty(samples, np.float32)
    # The result goes with the fourth power of the level: a power of two that brings it near 1.
    scale = np.float32(2.0 ** min(127 - _exponent(pairs), 126))
    _split(pairs, scale, real, imaginary)

    filtered = samples - 2 * FILTER_HALF_TAPS
    x, y = np.empty(filtered, np.float32), np.empty(filtered, np.float32)
    _matched_filter(real, _mean(real), x)
    _matched_filter(imaginary, _mean(imaginary), y)
    minus_x = np.empty(filtered, np.float32)
    _negate(x, minus_x)

    # W+ = P - jQ and W- = P + jQ: real parts Re P +- Im Q, imaginary parts Im P -+ Re Q.
    words = filtered - WORD_SAMPLES
    plus_real, minus_real = np.empty(words, np.float32), np.empty(words, np.float32)
    plus_imaginary, minus_imaginary = np.empty(words, np.float32), np.empty(words, np.float32)
    _weigh_with_cosines(x, y, plus_real)
    _weigh_with_sines(y, minus_x, minus_real)
    _sum_and_difference(plus_real, minus_real)
    _weigh_with_cosines(y, minus_x, minus_imaginary)
    _weigh_with_sines(x, y, plus_imaginary)
    _sum_and_difference(minus_imaginary, plus_imaginary)

    positions = filtered - REPEAT_SAMPLES
    sums = np.empty((4, positions), np.float32)
    products = np.empty(words - WORD_SAMPLES, np.float32)
    threes = np.empty(words - 3 * WORD_SAMPLES, np.float32)
    _product_real(plus_real, plus_imaginary, products)
    _sum_3(products, threes)
    _sum_5_of_3(threes, sums[0])
    _product_imaginary(plus_real, plus_imaginary, products)
    _sum_3(products, threes)
    _sum_5_of_3(threes, sums[1])
    _product_real(minus_real, minus_imaginary, products)
    _sum_3(products, threes)
    _sum_5_of_3(threes, sums[2])
    _product_imaginary(minus_real, minus_imaginary, products)
    _sum_3(products, threes)
    _sum_5_of_3(threes, sums[3])

    power, energy = np.empty(positions, np.float32), np.empty(positions, np.float32)
    _square(sums[2], sums[3], energy)
    _square(sums[0], sums[1], power)
    _keep_larger(energy, power)
    squares = np.empty(filtered, np.float32)
    sixteens = np.empty(filtered - 15, np.float32)
    _square(x, y, squares)
    _sum_16(squares, sixteens)
    _sum_16_of_16(sixteens, energy)
    return sums, power, energy


@njit(nogil=True, cache=True, fastmath=_FAST)
def _above(power, energy, limit):  # type: ignore[no-untyped-def]
    """How many positions have ``power > limit energy^2``."""
    count = 0
    for n in range(power.size):
        count += power[n] > limit * energy[n] * energy[n]
    return count


@njit(nogil=True, cache=True)
def _find_peaks(power, energy, limit, reach, lag, share):  # type: ignore[no-untyped-def]
    found = [0 for _ in range(0)]
    strength = np.empty(0, np.float32)
    last = power.size - lag - reach
    for tile in range(reach, last, _TILE):
        end = min(tile + _TILE, last)
        if _above(power[tile:end], energy[tile:end], limit) == 0:
            continue
        if strength.size == 0:
            strength = power / np.maximum(energy, np.float32(1e-30))
        for n in range(tile, end):
            value = strength[n]
            if not value > limit * energy[n] or strength[n + lag] > share * value:
                continue
            largest = True
            for m in range(n - reach, n + reach + 1):
                larger = strength[m] > value or (strength[m] == value and m < n)
                # What stands on a plateau hides nobody: a burst may begin where it ends.
                if larger and strength[m + lag] <= share * strength[m]:
                    largest = False
                    break
            if largest:
                found.append(n)
    return np.array(found, dtype=np.int64)
