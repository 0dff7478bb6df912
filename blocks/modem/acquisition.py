"""Finding bursts: where one starts and how far its carrier is off.

Two stages. The first looks at every sample: correlation with the 8-symbol word (under two hypotheses of
the carrier offset), then correlation of neighbouring words with each other. A carrier offset turns all
the neighbour products by the same angle, so they add up whatever the offset is; noise, tones and a DC
line do not look like the word. The threshold is loose. The second stage takes each candidate and
correlates all 256 known symbols, trying the neighbouring words and the aliases of the coarse offset.

Amplitude plays no part: both stages are normalised by the energy they see.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blocks.modem import waveform as wf
from blocks.modem.known_symbols import known_preamble
from blocks.modem.preamble_alignment import (
    FREQUENCY_STEP,
    WORD_SHIFTS,
    Alignment,
    align,
    normalise,
    pn_score,
)
from blocks.modem.pulse import (
    BANK_MARGIN_SAMPLES,
    derotate,
    filter_real,
    matched_filter_bank,
)
from blocks.modem.tracking import residual_cfo, tone_powers
from blocks.modem.word_correlation import (
    FILTER_HALF_TAPS,
    REPEAT_SAMPLES,
    WORD_SAMPLES,
    correlate,
    find_peaks,
)

_SPS = wf.RECEIVER_SAMPLES_PER_SYMBOL
# Noise alone has a standard deviation of 1/sqrt(15 * 64) = 0.032; a burst at -2 dB reaches about 0.34.
SEARCH_THRESHOLD = 0.11
# A candidate is the largest value within this many samples on either side.
_PEAK_REACH = 3 * WORD_SAMPLES
# Fourteen words later only PN and data are left of a preamble, a thirtieth of its strength on average; a
# tone, or the word without end, is as strong there as here. What comes before is no sign: it may be another
# burst, and a stronger one. Largest share seen in 12,000 preambles at -2 dB: 0.38.
_PLATEAU_LAG = 14 * WORD_SAMPLES
_PLATEAU_SHARE = 0.5
# Noise alone exceeds this with probability exp(-0.12 * 256) per trial; a burst at -2 dB reaches 0.39.
CONFIRM_THRESHOLD = 0.12
# The PN part must be there by itself: a tone that ends, or the word without end, correlates with the
# repeated words well enough to pass on their account. 5 sigma below the mean at -2 dB.
PN_CONFIRM_THRESHOLD = 0.12

# A lag of 8 symbols leaves the offset uncertain by whole aliases.
_ALIASES = (0.0, -1.0 / wf.WORD_SYMBOLS, 1.0 / wf.WORD_SYMBOLS)
# No alias beyond this: half as much again as promised, and what the front end passes nearly unharmed.
_LARGEST_CFO = 1.5 * wf.MAX_CFO_SYMBOL_RATES

_LEFT_MIDDLE_RIGHT = np.array([-1.0, 0.0, 1.0])

# Samples that a candidate needs before and after its position.
CONFIRM_MARGIN_SAMPLES = (WORD_SHIFTS + 1) * WORD_SAMPLES + BANK_MARGIN_SAMPLES
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


# Samples of context that search() needs around the positions it reports on.
SEARCH_CONTEXT_BEFORE = _PEAK_REACH + FILTER_HALF_TAPS
SEARCH_CONTEXT_AFTER = _PEAK_REACH + _PLATEAU_LAG + REPEAT_SAMPLES + FILTER_HALF_TAPS


def search(samples: NDArray[np.complex64]) -> list[Candidate]:
    """Candidates in a stretch of the stream, in order of position.

    Args:
        samples: ``complex64 [SEARCH_CONTEXT_BEFORE + n + SEARCH_CONTEXT_AFTER]`` at 2 samples/symbol.

    Returns:
        Candidates at positions ``SEARCH_CONTEXT_BEFORE .. SEARCH_CONTEXT_BEFORE + n - 1``.
    """
    found = correlate(samples)
    peaks = find_peaks(found, SEARCH_THRESHOLD, _PEAK_REACH, _PLATEAU_LAG, _PLATEAU_SHARE)
    if peaks.size == 0:
        return []
    positions = (peaks + FILTER_HALF_TAPS).tolist()
    cfos = (found.phase(peaks) / (2 * np.pi * wf.WORD_SYMBOLS)).tolist()
    return [
        Candidate(*one) for one in zip(positions, cfos, found.score(peaks).tolist(), strict=True)
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
    stretch = normalise(samples[low:high])
    middle = CONFIRM_MARGIN_SAMPLES - (BANK_MARGIN_SAMPLES - 1)
    best, best_cfo, best_pn_score = Alignment(0.0, 0.0, middle, 0.0), 0.0, 0.0
    for cfo in _unaliased(candidate.cfo):
        filtered = filter_real(derotate(stretch, cfo / _SPS), matched_filter_bank()[0])
        alignment = align(filtered, middle)
        if alignment is not None and alignment.strength > best.strength:
            best, best_cfo = alignment, cfo + alignment.cfo
            best_pn_score = pn_score(filtered, alignment)
    if best.score < CONFIRM_THRESHOLD or best_pn_score < PN_CONFIRM_THRESHOLD:
        return None
    position = float(CONFIRM_MARGIN_SAMPLES + best.position - middle)
    start, cfo = refine(stretch, position, best_cfo)
    return Acquisition(low + start, cfo, best.score)


def _unaliased(cfo: float) -> list[float]:
    """The carrier offsets that a measured one may stand for, as far as the receiver can bear them."""
    return [cfo + alias for alias in _ALIASES if abs(cfo + alias) <= _LARGEST_CFO]


def refine(samples: NDArray[np.complex64], start: float, cfo: float) -> tuple[float, float]:
    """Maximum-likelihood time and carrier offset from the 256 known symbols, by coordinate ascent.

    Args:
        samples: ``complex64``.
        start: instant of the first preamble symbol in samples, right to about a sample.
        cfo: cycles per symbol, right to about 1/1024.

    Returns:
        Refined ``(start, cfo)``.
    """
    known = known_preamble()
    for step in (0.5, 0.25, 0.125):
        turned = derotate(samples, cfo / _SPS)
        phasors = known.phasors(turned, start + step * _LEFT_MIDDLE_RIGHT, float(_SPS))
        residual = residual_cfo(phasors[1], known.centres, 1.5 * FREQUENCY_STEP)
        start += step * _parabola(*tone_powers(phasors, known.centres, residual))
        cfo += residual
    return start, cfo


def _parabola(left: float, middle: float, right: float) -> float:
    """Position of the vertex through three equally spaced values, limited to +-1."""
    bend = left - 2 * middle + right
    if bend >= 0:
        return math.copysign(1.0, right - left) if right != left else 0.0
    return min(max(0.5 * (left - right) / bend, -1.0), 1.0)
