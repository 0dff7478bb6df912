"""Finding bursts: where one starts and how far its carrier is off.

Two stages. The first looks at every sample: correlation with the 8-symbol word (under two hypotheses of
the carrier offset), then correlation of neighbouring words with each other. A carrier offset turns all
the neighbour products by the same angle, so they add up whatever the offset is; noise, tones and a DC
line do not look like the word. The threshold is loose. The second stage takes each candidate and
correlates all 256 known symbols, trying the neighbouring words and the aliases of the coarse offset.

Amplitude plays no part: both stages are normalised by the energy they see.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numba import njit
from numpy.typing import NDArray

from blocks.modem import waveform as wf
from blocks.modem.pulse import (
    BANK_MARGIN_SAMPLES,
    derotate,
    filter_real,
    matched_filter_bank,
    remove_mean,
    sample_symbols,
)

_SPS = wf.RECEIVER_SAMPLES_PER_SYMBOL
_WORD_SAMPLES = wf.WORD_SYMBOLS * _SPS
_WORD_PAIRS = wf.WORD_REPEATS - 1
_REPEAT_SAMPLES = wf.WORD_REPEATS * _WORD_SAMPLES

# Half length of the short matched filter in front of the search, in symbols.
_SEARCH_HALF_SPAN = 4
_SEARCH_HALF_TAPS = _SEARCH_HALF_SPAN * _SPS

# Word filters at +-1/2 of the promised offset: the worst offset is then 2.5 % of the symbol rate from
# one of them and costs 0.6 dB instead of 2.4.
_WORD_OFFSETS = (-wf.MAX_CFO_SYMBOL_RATES / 2, wf.MAX_CFO_SYMBOL_RATES / 2)

# Noise alone has a standard deviation of 1/sqrt(15 * 64) = 0.032; a burst at -2 dB reaches about 0.34.
SEARCH_THRESHOLD = 0.11
# A candidate is the largest value within this many samples on either side.
_PEAK_REACH = 3 * _WORD_SAMPLES
# Ten words off a preamble 1/9 of its strength is left; a tone is as strong there as here. Without this
# test a tone would cost a second stage every 100 samples, which no machine does in real time.
_PLATEAU_REACH = 10 * _WORD_SAMPLES
_PLATEAU_SHARE = 0.5
# Noise alone exceeds this with probability exp(-0.12 * 256) per trial; a burst at -2 dB reaches 0.39.
CONFIRM_THRESHOLD = 0.12
# The PN part must be there by itself: a tone that ends, or the word without end, correlates with the
# repeated words well enough to pass on their account. 5 sigma below the mean at -2 dB.
PN_CONFIRM_THRESHOLD = 0.12

# Second stage: the repeated word leaves the time uncertain by whole words ...
_WORD_SHIFTS = 6
_SAMPLE_SHIFTS = 2
# ... and the offset by the error of the first stage (sigma 0.003 at -2 dB) and by whole aliases.
_SEGMENT_SYMBOLS = 16
_FREQUENCY_STEP = 1.0 / 1024
_FREQUENCY_STEPS = 16
_ALIASES = (0.0, -1.0 / wf.WORD_SYMBOLS, 1.0 / wf.WORD_SYMBOLS)

# Samples that a candidate needs before and after its position.
CONFIRM_MARGIN_SAMPLES = (_WORD_SHIFTS + 1) * _WORD_SAMPLES + BANK_MARGIN_SAMPLES
CONFIRM_SPAN_SAMPLES = wf.PREAMBLE_SYMBOLS * _SPS + CONFIRM_MARGIN_SAMPLES


@dataclass(frozen=True)
class Candidate:
    """A place where the repeated word seems to start.

    ``position`` in samples of the searched stretch; ``cfo`` in cycles per symbol, known up to multiples
    of 1/8; ``score`` 0..1.
    """

    position: int
    cfo: float
    score: float


@dataclass(frozen=True)
class Acquisition:
    """A confirmed preamble.

    Args:
        start: instant of the first preamble symbol, in (fractional) samples.
        cfo: carrier offset in cycles per symbol.
        score: squared normalised correlation with the 256 known symbols, 0..1.
    """

    start: float
    cfo: float
    score: float


@cache
def _search_taps() -> NDArray[np.float32]:
    time = np.arange(-_SEARCH_HALF_TAPS, _SEARCH_HALF_TAPS + 1) / _SPS
    return (wf.root_raised_cosine(time) / _SPS).astype(np.float32)


@cache
def _word_filters() -> NDArray[np.complex64]:
    word = wf.preamble()[: wf.WORD_SYMBOLS].astype(np.complex128)
    time = np.arange(wf.WORD_SYMBOLS)
    rows = [np.conj(word * np.exp(2j * np.pi * offset * time)) for offset in _WORD_OFFSETS]
    return np.array(rows, np.complex64)


# Samples of context that search() needs around the positions it reports on.
SEARCH_CONTEXT_BEFORE = _PLATEAU_REACH + _SEARCH_HALF_TAPS
SEARCH_CONTEXT_AFTER = _PLATEAU_REACH + _REPEAT_SAMPLES + _SEARCH_HALF_TAPS


def search(samples: NDArray[np.complex64]) -> list[Candidate]:
    """Candidates in a stretch of the stream, in order of position.

    Args:
        samples: ``complex64 [SEARCH_CONTEXT_BEFORE + n + SEARCH_CONTEXT_AFTER]`` at 2 samples/symbol.

    Returns:
        Candidates at positions ``SEARCH_CONTEXT_BEFORE .. SEARCH_CONTEXT_BEFORE + n - 1``.
    """
    filtered = filter_real(remove_mean(samples), _search_taps())
    score, strength, phase = _repetition_score(filtered, _word_filters())
    peaks = _peaks(score, strength, np.float32(SEARCH_THRESHOLD), _PEAK_REACH)
    return [
        Candidate(
            position=int(n) + _SEARCH_HALF_TAPS,
            cfo=float(phase[n]) / (2 * np.pi * wf.WORD_SYMBOLS),
            score=float(score[n]),
        )
        for n in peaks
    ]


def confirm(samples: NDArray[np.complex64], candidate: Candidate) -> Acquisition | None:
    """Second stage: all 256 known symbols around a candidate; None where they are not there.

    Args:
        samples: ``complex64``, reaching ``CONFIRM_MARGIN_SAMPLES`` before the candidate's position and
            ``CONFIRM_SPAN_SAMPLES`` after it.
        candidate: with its position relative to ``samples``.
    """
    low = candidate.position - CONFIRM_MARGIN_SAMPLES
    high = candidate.position + CONFIRM_SPAN_SAMPLES
    if low < 0 or high > samples.size:
        raise ValueError(
            f"candidate at {candidate.position} lacks context in {samples.size} samples"
        )
    stretch = samples[low:high]
    stretch = remove_mean(stretch)
    known = wf.preamble()
    best = (0.0, 0.0, 0.0, 0, 0.0)
    for alias in _ALIASES:
        cfo = candidate.cfo + alias
        filtered = filter_real(derotate(stretch, cfo / _SPS), matched_filter_bank()[0])
        offset = CONFIRM_MARGIN_SAMPLES - (BANK_MARGIN_SAMPLES - 1)
        strength, score, position, residual = _best_alignment(filtered, offset, known)
        if strength > best[0]:
            pn_score = _pn_score(filtered, position, residual, known)
            best = (strength, score, pn_score, position - offset, cfo + residual)
    _, score, pn_score, shift, cfo = best
    if score < CONFIRM_THRESHOLD or pn_score < PN_CONFIRM_THRESHOLD:
        return None
    start, cfo = refine(stretch, float(CONFIRM_MARGIN_SAMPLES + shift), cfo)
    return Acquisition(low + start, cfo, score)


def _pn_score(
    filtered: NDArray[np.complex64], position: int, cfo: float, known: NDArray[np.complex64]
) -> float:
    """Squared normalised correlation of the PN part alone, 0..1."""
    first = wf.PREAMBLE_SYMBOLS - wf.PN_SYMBOLS
    received = filtered[position + _SPS * first : position + _SPS * known.size : _SPS]
    turn = np.exp(-2j * np.pi * cfo * np.arange(received.size))
    energy = float((np.abs(received.astype(np.complex128)) ** 2).sum())
    correlation = abs(np.vdot(known[first:], received * turn))
    return float(correlation**2 / max(known[first:].size * energy, 1e-300))


def refine(samples: NDArray[np.complex64], start: float, cfo: float) -> tuple[float, float]:
    """Maximum-likelihood time and carrier offset from the 256 known symbols, by coordinate ascent.

    Args:
        samples: ``complex64``.
        start: instant of the first preamble symbol in samples, right to about a sample.
        cfo: cycles per symbol, right to about 1/1024.

    Returns:
        Refined ``(start, cfo)``.
    """
    known = np.conj(wf.preamble())
    indices = np.arange(wf.PREAMBLE_SYMBOLS, dtype=np.float64)
    bank = matched_filter_bank()
    for step in (0.5, 0.25, 0.125):
        turned = derotate(samples, cfo / _SPS)
        products = [
            (sample_symbols(turned, bank, start + shift, float(_SPS), indices) * known)
            .reshape(-1, wf.WORD_SYMBOLS)
            .sum(axis=1)
            for shift in (-step, 0.0, step)
        ]
        residual = _tone_frequency(products[1], wf.WORD_SYMBOLS, 1.5 * _FREQUENCY_STEP)
        turn = np.exp(-2j * np.pi * residual * wf.WORD_SYMBOLS * np.arange(products[1].size))
        power = [abs(np.vdot(turn.conj(), product)) ** 2 for product in products]
        start += step * _parabola(*power)
        cfo += residual
    return start, cfo


def _tone_frequency(phasors: NDArray[np.complex64], spacing: float, reach: float) -> float:
    """Frequency (cycles per unit) of a tone sampled every ``spacing`` units, within +-``reach``."""
    resolution = 1.0 / (8 * spacing * phasors.size)
    steps = int(np.ceil(reach / resolution))
    grid = np.arange(-steps, steps + 1) * resolution
    time = spacing * np.arange(phasors.size)
    power = np.abs(np.exp(-2j * np.pi * np.outer(grid, time)) @ phasors) ** 2
    peak = int(np.clip(np.argmax(power), 1, grid.size - 2))
    return float(grid[peak] + resolution * _parabola(*power[peak - 1 : peak + 2]))


def _parabola(left: float, middle: float, right: float) -> float:
    """Position of the vertex through three equally spaced values, limited to +-1."""
    bend = left - 2 * middle + right
    if bend >= 0:
        return float(np.sign(right - left))
    return float(np.clip(0.5 * (left - right) / bend, -1.0, 1.0))


@njit(nogil=True, cache=True)
def _word_correlation(filtered, word, out):  # type: ignore[no-untyped-def]
    """out[n] = sum_k word[k] filtered[n + 2 k], on complex numbers as pairs of floats."""
    x = filtered.view(np.float32)
    y = out.view(np.float32)
    length = out.size
    y[:] = 0.0
    for k in range(word.size):
        wr = np.float32(word[k].real)
        wi = np.float32(word[k].imag)
        start = 4 * k
        for n in range(length):
            y[2 * n] += wr * x[start + 2 * n] - wi * x[start + 2 * n + 1]
            y[2 * n + 1] += wr * x[start + 2 * n + 1] + wi * x[start + 2 * n]


@njit(nogil=True, cache=True)
def _neighbour_products(words, out):  # type: ignore[no-untyped-def]
    """Sum over 15 pairs of neighbouring words of conj(first) * second, for every position."""
    length = out.size
    products = np.empty(length + (_WORD_PAIRS - 1) * _WORD_SAMPLES, np.complex64)
    for n in range(products.size):
        a = words[n]
        b = words[n + _WORD_SAMPLES]
        products[n] = complex(a.real * b.real + a.imag * b.imag, a.real * b.imag - a.imag * b.real)
    x = products.view(np.float32)
    y = out.view(np.float32)
    y[:] = 0.0
    for pair in range(_WORD_PAIRS):
        start = 2 * pair * _WORD_SAMPLES
        for n in range(2 * length):
            y[n] += x[start + n]


@njit(nogil=True, cache=True)
def _repetition_score(filtered, words):  # type: ignore[no-untyped-def]
    """Normalised score, strength and phase of the repeated word at every position of ``filtered``.

    Score 1 is a noiseless preamble without carrier offset. The score does not say where it starts: a
    window that holds silence and half of the words scores as well as one that holds them all. The
    strength, correlation times score, does.
    """
    length = filtered.size - _REPEAT_SAMPLES
    score = np.zeros(length, np.float32)
    strength = np.zeros(length, np.float64)
    phase = np.zeros(length, np.float32)
    word_output = np.empty(filtered.size - _WORD_SAMPLES, np.complex64)
    sums = np.empty(length, np.complex64)

    energy = np.empty(length, np.float64)
    total = 0.0
    peak = 0.0
    for n in range(_REPEAT_SAMPLES):
        total += filtered[n].real ** 2 + filtered[n].imag ** 2
    for n in range(length):
        energy[n] = total
        peak = max(peak, total)
        new = filtered[n + _REPEAT_SAMPLES]
        old = filtered[n]
        total += (new.real**2 + new.imag**2) - (old.real**2 + old.imag**2)

    # Where a stretch is silent, what is left of the running sum is rounding: no score there.
    floor = 1e-12 * peak + 1e-30
    # Energy counts 256 samples, the pairs 15 of 16 words of 8 symbols after a gain of 8.
    scale = _REPEAT_SAMPLES / (_WORD_PAIRS * wf.WORD_SYMBOLS**2)
    for row in range(words.shape[0]):
        _word_correlation(filtered, words[row], word_output)
        _neighbour_products(word_output, sums)
        for n in range(length):
            if energy[n] > floor:
                magnitude = np.float64(abs(sums[n]))
                value = np.float32(scale * magnitude / energy[n])
                if value > score[n]:
                    score[n] = value
                    strength[n] = magnitude * value
                    phase[n] = np.arctan2(sums[n].imag, sums[n].real)
    return score, strength, phase


@njit(nogil=True, cache=True)
def _peaks(score, strength, threshold, reach):  # type: ignore[no-untyped-def]
    """Positions with a score above the threshold and the largest strength within +-reach, no plateau."""
    found = []
    for n in range(_PLATEAU_REACH, score.size - _PLATEAU_REACH):
        if score[n] < threshold:
            continue
        value = strength[n]
        if min(strength[n - _PLATEAU_REACH], strength[n + _PLATEAU_REACH]) > _PLATEAU_SHARE * value:
            continue
        largest = True
        for m in range(n - reach, n + reach + 1):
            if strength[m] > value or (strength[m] == value and m < n):
                largest = False
                break
        if largest:
            found.append(n)
    return np.array(found, dtype=np.int64) if len(found) > 0 else np.empty(0, np.int64)


@njit(nogil=True, cache=True)
def _best_alignment(filtered, middle, known):  # type: ignore[no-untyped-def]
    """Best (strength, score, position, residual frequency) over shifts in time and frequency.

    The strength decides (see :func:`_repetition_score`): squared correlation times score.
    """
    segments = known.size // _SEGMENT_SYMBOLS
    partial = np.empty(segments, np.complex128)
    best_strength = 0.0
    best_score = 0.0
    best_position = 0
    best_frequency = 0.0
    for word in range(-_WORD_SHIFTS, _WORD_SHIFTS + 1):
        for shift in range(-_SAMPLE_SHIFTS, _SAMPLE_SHIFTS + 1):
            position = middle + word * _WORD_SAMPLES + shift
            energy = 0.0
            for segment in range(segments):
                total = 0.0 + 0.0j
                for k in range(_SEGMENT_SYMBOLS):
                    index = segment * _SEGMENT_SYMBOLS + k
                    value = filtered[position + _SPS * index]
                    total += np.conj(known[index]) * value
                    energy += value.real**2 + value.imag**2
                partial[segment] = total
            if energy <= 0.0:
                continue
            for step in range(-_FREQUENCY_STEPS, _FREQUENCY_STEPS + 1):
                frequency = step * _FREQUENCY_STEP
                turn = np.exp(-2j * np.pi * frequency * _SEGMENT_SYMBOLS)
                phasor = 1.0 + 0.0j
                total = 0.0 + 0.0j
                for segment in range(segments):
                    total += partial[segment] * phasor
                    phasor *= turn
                power = total.real**2 + total.imag**2
                score = power / (known.size * energy)
                if power * score > best_strength:
                    best_strength = power * score
                    best_score = score
                    best_position = position
                    best_frequency = frequency
    return best_strength, best_score, best_position, best_frequency
