"""The arithmetic of confirmation: the 256 known symbols against the samples around a candidate.

The repeated word leaves the time uncertain by whole words and by a sample or two, and the carrier offset by
what the search could not see: 65 places and 33 frequencies. The known symbols are cut into segments of 16,
short enough for any of the frequencies; their correlations are formed once per place and then turned and
added for every frequency.

Nearly everything that the search takes for a preamble and is none (noise, tones, sweeps, somebody else's
repetition) lacks the PN part. That is looked at first, without regard to the phase between segments, which
needs no frequencies: a wrong candidate costs a third of a right one.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from blocks.modem import waveform as wf
from blocks.modem.word_correlation import WORD_SAMPLES

_SPS = wf.RECEIVER_SAMPLES_PER_SYMBOL

# How far from the candidate a preamble is looked for.
WORD_SHIFTS = 6
_SAMPLE_SHIFTS = 2
_WORDS = 2 * WORD_SHIFTS + 1
_SHIFTS = 2 * _SAMPLE_SHIFTS + 1
_PLACES = _WORDS * _SHIFTS
_PREAMBLE_WORDS = wf.PREAMBLE_SYMBOLS // wf.WORD_SYMBOLS

_SEGMENT_SYMBOLS = 16
_SEGMENTS = wf.PREAMBLE_SYMBOLS // _SEGMENT_SYMBOLS
_PN_SEGMENTS = wf.PN_SYMBOLS // _SEGMENT_SYMBOLS
# The search knows the offset to sigma 0.003 cycles per symbol at -2 dB.
FREQUENCY_STEP = 1.0 / 1024
_FREQUENCY_STEPS = 16

# Share of the PN part's energy that its segments must hold, phases between them apart: 0.41 for a burst at
# -2 dB, 1/16 for noise.
PN_SEGMENT_THRESHOLD = 0.18


class Alignment(NamedTuple):
    """The best fit of the known symbols.

    Args:
        strength: squared correlation times score, in units of the samples' energy; the largest is the best.
        score: squared normalised correlation with all known symbols, 0..1.
        position: of the first known symbol's instant, in samples of what was aligned.
        cfo: carrier offset that is left, in cycles per symbol.
    """

    strength: float
    score: float
    position: int
    cfo: float


def align(filtered: NDArray[np.complex64], middle: int) -> Alignment | None:
    """Find the known symbols around ``middle``; None where the PN part is not there.

    Args:
        filtered: ``complex64`` behind the matched filter, at 2 samples per symbol and a level around 1;
            reaches ``WORD_SHIFTS`` words and 2 samples before ``middle`` and as far after the preamble.
        middle: where the first known symbol is expected.
    """
    found = Alignment(*_align(filtered, middle, wf.preamble(), _turns()))
    return found if found.strength > 0 else None


def normalise(samples: NDArray[np.complex64]) -> NDArray[np.complex64]:
    """The samples without their mean and with a largest part of 1, so that no power of them overflows."""
    out: NDArray[np.complex64] = _normalise(np.ascontiguousarray(samples).view(np.float32))
    return out


def pn_score(filtered: NDArray[np.complex64], alignment: Alignment) -> float:
    """Squared normalised correlation of the PN part alone at an alignment, 0..1."""
    known = wf.preamble()[-wf.PN_SYMBOLS :]
    first = alignment.position + _SPS * (wf.PREAMBLE_SYMBOLS - wf.PN_SYMBOLS)
    received = filtered[first : first + _SPS * known.size : _SPS].astype(np.complex128)
    turned = received * np.exp(-2j * np.pi * alignment.cfo * np.arange(received.size))
    energy = float(np.vdot(received, received).real)
    return float(abs(np.vdot(known, turned)) ** 2 / (known.size * energy)) if energy > 0 else 0.0


@cache
def _turns() -> NDArray[np.complex64]:
    """``complex64 [33, 16]``: row f turns the segments back by the frequency ``(f - 16) / 1024``."""
    frequency = FREQUENCY_STEP * np.arange(-_FREQUENCY_STEPS, _FREQUENCY_STEPS + 1)
    time = _SEGMENT_SYMBOLS * np.arange(_SEGMENTS)
    return np.exp(-2j * np.pi * np.outer(frequency, time)).astype(np.complex64)


# Reordering the sums lets the compiler use vector instructions; the values are finite by contract.
_FAST = {"reassoc", "contract", "nsz"}


@njit(nogil=True, cache=True, fastmath=_FAST)
def _normalise(pairs):  # type: ignore[no-untyped-def]
    real = 0.0
    imaginary = 0.0
    for n in range(0, pairs.size, 2):
        real += pairs[n]
        imaginary += pairs[n + 1]
    real /= pairs.size // 2
    imaginary /= pairs.size // 2
    largest = 0.0
    for n in range(0, pairs.size, 2):
        largest = max(largest, abs(pairs[n] - real), abs(pairs[n + 1] - imaginary))
    out = np.zeros(pairs.size // 2, np.complex64)
    if largest > 0.0:
        for n in range(out.size):
            out[n] = complex(
                (pairs[2 * n] - real) / largest, (pairs[2 * n + 1] - imaginary) / largest
            )
    return out


@njit(nogil=True, cache=True)
def _rows(filtered, first):  # type: ignore[no-untyped-def]
    """Samples in the order in which they are needed, ``float32 [2, 8, 220]``: real and imaginary parts.

    Row p holds, for every word and shift, the sample of the word's symbol p. A place (5 word + shift) is so
    many entries on; all 65 places of a symbol lie side by side.
    """
    rows = np.empty((2, wf.WORD_SYMBOLS, _SHIFTS * (_WORDS - 1 + _PREAMBLE_WORDS)), np.float32)
    for p in range(rows.shape[1]):
        for word in range(_WORDS - 1 + _PREAMBLE_WORDS):
            for shift in range(_SHIFTS):
                value = filtered[first + word * WORD_SAMPLES + _SPS * p + shift]
                rows[0, p, _SHIFTS * word + shift] = value.real
                rows[1, p, _SHIFTS * word + shift] = value.imag
    return rows


@njit(nogil=True, cache=True, fastmath=_FAST)
def _add_product(real, imaginary, factor, total_real, total_imaginary):  # type: ignore[no-untyped-def]
    c, s = factor.real, factor.imag
    for n in range(total_real.size):
        total_real[n] += c * real[n] - s * imaginary[n]
        total_imaginary[n] += c * imaginary[n] + s * real[n]


@njit(nogil=True, cache=True)
def _correlate_segments(rows, known, first, last, real, imaginary):  # type: ignore[no-untyped-def]
    """Segments ``first .. last - 1`` at every place into ``float32 [16, 65]`` twice."""
    for segment in range(first, last):
        real[segment] = 0.0
        imaginary[segment] = 0.0
        for k in range(segment * _SEGMENT_SYMBOLS, (segment + 1) * _SEGMENT_SYMBOLS):
            p, start = k % wf.WORD_SYMBOLS, k // wf.WORD_SYMBOLS * _SHIFTS
            _add_product(
                rows[0, p, start : start + _PLACES],
                rows[1, p, start : start + _PLACES],
                np.conj(known[k]),
                real[segment],
                imaginary[segment],
            )


@njit(nogil=True, cache=True, fastmath=_FAST)
def _add_power(real, imaginary, out):  # type: ignore[no-untyped-def]
    for n in range(out.size):
        out[n] += real[n] * real[n] + imaginary[n] * imaginary[n]


@njit(nogil=True, cache=True, fastmath=_FAST)
def _keep_larger_power(real, imaginary, out):  # type: ignore[no-untyped-def]
    for n in range(out.size):
        out[n] = max(out[n], real[n] * real[n] + imaginary[n] * imaginary[n])


@njit(nogil=True, cache=True)
def _energies(rows, first, last):  # type: ignore[no-untyped-def]
    """Energy of the words ``first .. last - 1`` of the preamble at every place, ``float32 [65]``."""
    words = np.zeros(rows.shape[2], np.float32)
    for p in range(rows.shape[1]):
        _add_power(rows[0, p], rows[1, p], words)
    energy = np.zeros(_PLACES, np.float32)
    for word in range(first, last):
        energy += words[_SHIFTS * word : _SHIFTS * word + _PLACES]
    return energy


@njit(nogil=True, cache=True)
def _pn_segment_score(rows, real, imaginary):  # type: ignore[no-untyped-def]
    """Largest share of the PN part's energy, over all places, that its segments hold."""
    power = np.zeros(_PLACES, np.float32)
    for segment in range(_SEGMENTS - _PN_SEGMENTS, _SEGMENTS):
        _add_power(real[segment], imaginary[segment], power)
    energy = _energies(rows, wf.WORD_REPEATS, _PREAMBLE_WORDS)
    best = np.float32(0.0)
    for place in range(_PLACES):
        if power[place] > best * _SEGMENT_SYMBOLS * energy[place]:
            best = power[place] / (_SEGMENT_SYMBOLS * energy[place])
    return best


@njit(nogil=True, cache=True)
def _best_frequency(real, imaginary, turns):  # type: ignore[no-untyped-def]
    """Power and number of the frequency under which one place's segments add up best."""
    best, best_step = 0.0, 0
    for step in range(turns.shape[0]):
        total = 0.0 + 0.0j
        for segment in range(_SEGMENTS):
            total += turns[step, segment] * complex(real[segment], imaginary[segment])
        power = total.real**2 + total.imag**2
        if power > best:
            best, best_step = power, step
    return best, best_step


@njit(nogil=True, cache=True)
def _align(filtered, middle, known, turns):  # type: ignore[no-untyped-def]
    first = middle - WORD_SHIFTS * WORD_SAMPLES - _SAMPLE_SHIFTS
    rows = _rows(filtered, first)
    real = np.empty((_SEGMENTS, _PLACES), np.float32)
    imaginary = np.empty((_SEGMENTS, _PLACES), np.float32)
    _correlate_segments(rows, known, _SEGMENTS - _PN_SEGMENTS, _SEGMENTS, real, imaginary)
    if not _pn_segment_score(rows, real, imaginary) > PN_SEGMENT_THRESHOLD:
        return 0.0, 0.0, middle, 0.0
    _correlate_segments(rows, known, 0, _SEGMENTS - _PN_SEGMENTS, real, imaginary)

    power = np.zeros(_PLACES, np.float32)
    for step in range(turns.shape[0]):
        total_real = np.zeros(_PLACES, np.float32)
        total_imaginary = np.zeros(_PLACES, np.float32)
        for segment in range(_SEGMENTS):
            turn = turns[step, segment]
            _add_product(real[segment], imaginary[segment], turn, total_real, total_imaginary)
        _keep_larger_power(total_real, total_imaginary, power)

    # Where only some of the known symbols are in the window the score may be as good; the strength is not.
    energy = _energies(rows, 0, _PREAMBLE_WORDS)
    best_strength, best = 0.0, 0
    for place in range(_PLACES):
        if energy[place] > 0.0:
            strength = np.float64(power[place]) ** 2 / (wf.PREAMBLE_SYMBOLS * energy[place])
            if strength > best_strength:
                best_strength, best = strength, place
    best_power, step = _best_frequency(real[:, best], imaginary[:, best], turns)
    score = best_power / (wf.PREAMBLE_SYMBOLS * max(energy[best], np.float32(1e-30)))
    word, shift = divmod(best, _SHIFTS)
    position = first + shift + word * WORD_SAMPLES
    return best_strength, score, position, (step - _FREQUENCY_STEPS) * FREQUENCY_STEP
