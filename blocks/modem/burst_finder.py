"""First half of the receiver: where the bursts are and what their headers say.

All decisions are made at fixed places of the stream (search blocks aligned to its start, candidates by
position), never at the borders of what happens to be pushed. The result therefore depends on the
samples alone, however a scheduler cuts them. What is found carries a copy of its samples, so that the
second half (:mod:`blocks.modem.stream_receiver`) may run in another thread.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from blocks.modem import acquisition as acq
from blocks.modem import demodulator as dem
from blocks.modem import waveform as wf
from blocks.modem.header import BurstHeader
from blocks.modem.sample_guard import blank_bad_samples

_SPS = wf.RECEIVER_SAMPLES_PER_SYMBOL
# A burst shorter than this waits for the end of the block it begins in: 1 ms at 1 million symbols per
# second. Blocks of 8192 would be searched 8 % faster.
SEARCH_BLOCK_SAMPLES = 2048
# Zeros that flush() appends, enough for the search to report on the last real sample.
_FLUSH_SAMPLES = acq.SEARCH_CONTEXT_AFTER + SEARCH_BLOCK_SAMPLES + acq.CONFIRM_SPAN_SAMPLES
# Samples that are looked at together, at most, however many are pushed: bounds the memory.
_PUSH_SAMPLES = 32_768
# Twice what can be asked for at a time: the longest burst, or a search block, and the samples around it.
_BUFFER_SAMPLES = 2 * (_SPS * wf.MAX_BURST_SYMBOLS + SEARCH_BLOCK_SAMPLES + _PUSH_SAMPLES + 2048)


@dataclass(frozen=True)
class FoundBurst:
    """A confirmed preamble and its header.

    Args:
        start: instant of the first preamble symbol in samples since the start of the stream.
        measurement: from preamble and header.
        header: None where it failed.
        incomplete: the stream ended, or broke off, before the burst did (without a header: before the
            header did).
        samples: ``complex64``, the burst and what the demodulator needs around it; empty without a
            header. Zeros stand for samples that never came.
        acquisition: with ``start`` relative to ``samples``.
    """

    start: float
    measurement: dem.BurstMeasurement
    header: BurstHeader | None
    acquisition: acq.Acquisition
    samples: NDArray[np.complex64] = field(repr=False)
    incomplete: bool = False

    @property
    def end(self) -> float:
        """Instant behind the last symbol that carries data, or of the header where that failed."""
        if self.header is None:
            return self.start + dem.HEADER_SPAN_SAMPLES
        return self.start + (self.header.burst_symbols - 2 * wf.RAMP_SYMBOLS) * _SPS


class BurstFinder:
    """Finds bursts in a stream at 2 samples per symbol.

    ``blanked`` counts the samples that were bad.
    """

    def __init__(self) -> None:
        # Everything below counts samples from the start of the stream. The stream is taken to be
        # silent before its start: search and filters may look there.
        self.blanked = 0
        self._origin = -acq.SEARCH_CONTEXT_BEFORE - dem.LEAD_SAMPLES - acq.CONFIRM_MARGIN_SAMPLES
        self._buffer: NDArray[np.complex64] = np.zeros(_BUFFER_SAMPLES, np.complex64)
        self._filled = -self._origin
        self._searched = 0
        self._resume = 0
        self._failed_start = -np.inf
        self._candidates: deque[acq.Candidate] = deque()
        self._pending: FoundBurst | None = None

    @property
    def position(self) -> int:
        """Samples received so far."""
        return self._origin + self._filled

    def push(self, samples: NDArray[np.complex64]) -> list[FoundBurst]:
        """Take samples, return the bursts whose last sample is there.

        Args:
            samples: ``complex64 [n]``; copied; bad ones (:mod:`blocks.modem.sample_guard`) count as silence.
        """
        found: list[FoundBurst] = []
        for first in range(0, samples.size, _PUSH_SAMPLES):
            self._store(samples[first : first + _PUSH_SAMPLES])
            found += self._run()
        return found

    def flush(self) -> list[FoundBurst]:
        """End of the stream: what is still open, with silence in place of what never came.

        The finder must not be used afterwards.
        """
        end = self.position
        found = self.push(np.zeros(_FLUSH_SAMPLES, np.complex64))
        if self._pending is not None:
            rest = int(self._pending.end) - self.position + _FLUSH_SAMPLES
            found += self.push(np.zeros(rest, np.complex64))
        return [replace(one, incomplete=one.end > end) for one in found if one.start < end]

    def _store(self, samples: NDArray[np.complex64]) -> None:
        end = self._filled + samples.size
        if end > self._buffer.size:
            self._buffer = np.concatenate([self._buffer, np.empty(end, np.complex64)])
        new = self._buffer[self._filled : end]
        new[:] = samples
        self.blanked += blank_bad_samples(new)
        self._filled = end

    def _run(self) -> list[FoundBurst]:
        found: list[FoundBurst] = []
        progress = True
        while progress:
            progress = self._finish_pending(found) and (
                self._take_candidate(found) or self._search_block()
            )
        self._forget()
        return found

    def _available(self, end: float) -> bool:
        return end <= self.position

    def _slice(self, low: int, high: int) -> NDArray[np.complex64]:
        return self._buffer[low - self._origin : high - self._origin]

    def _search_block(self) -> bool:
        """Search the next block; False where its samples are not there yet."""
        first, last = self._searched, self._searched + SEARCH_BLOCK_SAMPLES
        if not self._available(last + acq.SEARCH_CONTEXT_AFTER):
            return False
        low = first - acq.SEARCH_CONTEXT_BEFORE
        if last > self._resume:
            stretch = self._slice(low, last + acq.SEARCH_CONTEXT_AFTER)
            for found in acq.search(stretch):
                self._candidates.append(acq.Candidate(found.position + low, found.cfo, found.score))
        self._searched = last
        return True

    def _take_candidate(self, found: list[FoundBurst]) -> bool:
        """Work on the oldest candidate; False where there is none or its samples are not there."""
        if not self._candidates:
            return False
        candidate = self._candidates[0]
        if candidate.position < self._resume:
            self._candidates.popleft()
            return True
        # Reach of the confirmed start: a few words around the candidate.
        reach = acq.CONFIRM_MARGIN_SAMPLES
        if not self._available(candidate.position + reach + dem.HEADER_SPAN_SAMPLES):
            return False
        self._candidates.popleft()
        low = candidate.position - reach - dem.LEAD_SAMPLES
        stretch = self._slice(low, candidate.position + reach + dem.HEADER_SPAN_SAMPLES)
        local = acq.Candidate(candidate.position - low, candidate.cfo, candidate.score)
        acquisition = acq.confirm(stretch, local)
        if acquisition is None:
            return True
        header, measurement = dem.demodulate_header(stretch, acquisition)
        start = acquisition.start + low
        burst = FoundBurst(start, measurement, header, acquisition, np.empty(0, np.complex64))
        if header is not None:
            self._pending = burst
        # A weaker peak of the same preamble is not another burst; anything else near it may be.
        elif abs(start - self._failed_start) >= wf.WORD_SYMBOLS * _SPS:
            self._failed_start = start
            found.append(burst)
        return True

    def _finish_pending(self, found: list[FoundBurst]) -> bool:
        """Cut out the burst whose header is known; False where it is not complete yet."""
        if self._pending is None:
            return True
        burst = self._pending
        assert burst.header is not None
        low = int(burst.start) - dem.LEAD_SAMPLES
        high = int(burst.start) + 1 + dem.burst_span_samples(burst.header)
        if not self._available(high):
            return False
        local = replace(burst.acquisition, start=burst.start - low)
        samples = self._slice(low, high).copy()
        found.append(replace(burst, acquisition=local, samples=samples))
        # The next burst's first word may lie right behind this one's last pilot.
        self._resume = int(burst.end)
        self._pending = None
        return True

    def _forget(self) -> None:
        """Drop samples that nothing can ask for any more."""
        oldest = self._searched - acq.SEARCH_CONTEXT_BEFORE
        if self._candidates:
            oldest = min(oldest, self._candidates[0].position)
        if self._pending is not None:
            oldest = min(oldest, int(self._pending.start))
        keep = oldest - acq.CONFIRM_MARGIN_SAMPLES - dem.LEAD_SAMPLES
        drop = keep - self._origin
        rest = self._filled - drop
        # Only where it makes room for all that is left: each sample is moved about once.
        if drop >= rest:
            self._buffer[:rest] = self._buffer[drop : self._filled]
            self._origin, self._filled = keep, rest
