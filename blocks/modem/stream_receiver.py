"""The receiver as a plain object: push samples in any pieces, take bursts out.

All decisions are made at fixed places of the stream (search blocks aligned to its start, candidates by
position), never at the borders of what happens to be pushed. The result therefore depends on the
samples alone, however a scheduler cuts them.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from blocks.modem import acquisition as acq
from blocks.modem import demodulator as dem
from blocks.modem import waveform as wf
from blocks.modem.header import BurstHeader
from blocks.modem.ldpc_decoder import DEFAULT_MAX_ITERATIONS

_SPS = wf.RECEIVER_SAMPLES_PER_SYMBOL
SEARCH_BLOCK_SAMPLES = 8192
# Zeros that flush() appends, enough for the search to report on the last real sample.
_FLUSH_SAMPLES = acq.SEARCH_CONTEXT_AFTER + SEARCH_BLOCK_SAMPLES + acq.CONFIRM_SPAN_SAMPLES


class Outcome(StrEnum):
    """What became of a confirmed preamble inside the receiver."""

    DEMODULATED = "demodulated"
    HEADER_FAILED = "header_failed"
    TRUNCATED = "truncated"  # the stream ended, or samples were lost, before the burst was complete
    OVERFLOW = "overflow"


@dataclass(frozen=True)
class ReceivedBurst:
    """One confirmed preamble and what could be made of it.

    Args:
        outcome: how far it got.
        start: instant of the first preamble symbol in samples since the start of the stream.
        measurement: from all known symbols that were there.
        header: None where it failed or was not there.
        burst: code blocks and constellation; None unless demodulated.
    """

    outcome: Outcome
    start: float
    measurement: dem.BurstMeasurement
    header: BurstHeader | None = None
    burst: dem.DemodulatedBurst | None = None


class StreamReceiver:
    """Finds and demodulates bursts in a stream at 2 samples per symbol.

    Args:
        max_iterations: limit of the LDPC decoder.
    """

    def __init__(self, max_iterations: int = DEFAULT_MAX_ITERATIONS) -> None:
        self._max_iterations = max_iterations
        self._chunks: deque[NDArray[np.complex64]] = deque()
        # Everything below counts samples from the start of the stream. The stream is taken to be
        # silent before its start: search and filters may look there.
        self._origin = -acq.SEARCH_CONTEXT_BEFORE - dem.LEAD_SAMPLES - acq.CONFIRM_MARGIN_SAMPLES
        self._buffer: NDArray[np.complex64] = np.zeros(-self._origin, np.complex64)
        self._searched = 0
        self._resume = 0
        self._failed_start = -np.inf
        self._candidates: deque[acq.Candidate] = deque()
        self._pending: tuple[acq.Acquisition, BurstHeader] | None = None
        self._pending_measurement: dem.BurstMeasurement | None = None

    @property
    def position(self) -> int:
        """Samples received so far."""
        return self._origin + self._buffer.size + sum(chunk.size for chunk in self._chunks)

    def push(self, samples: NDArray[np.complex64]) -> list[ReceivedBurst]:
        """Take samples, return the bursts that are complete with them.

        Args:
            samples: ``complex64 [n]``; copied, NaN and infinity count as silence.
        """
        self._chunks.append(np.nan_to_num(samples, copy=True, nan=0.0, posinf=0.0, neginf=0.0))
        # Merging on every small push would copy the buffer each time.
        if sum(chunk.size for chunk in self._chunks) < SEARCH_BLOCK_SAMPLES // 2:
            return []
        return self._run()

    def flush(self, overflow: bool = False) -> list[ReceivedBurst]:
        """End of the stream, or of an unbroken stretch of it: report what is still open.

        The receiver must not be used afterwards; a new stretch needs a new receiver.

        Args:
            overflow: True where samples were lost here: an open burst is counted as such.
        """
        end = self.position
        outcome = Outcome.OVERFLOW if overflow else Outcome.TRUNCATED
        self._chunks.append(np.zeros(_FLUSH_SAMPLES, np.complex64))
        bursts = self._run()
        if self._pending is not None:
            acquisition, header = self._pending
            measurement = self._pending_measurement
            assert measurement is not None
            bursts.append(ReceivedBurst(outcome, acquisition.start, measurement, header))
            self._pending = None
        return [_cut(burst, end, outcome) for burst in bursts if burst.start < end]

    def _run(self) -> list[ReceivedBurst]:
        self._buffer = np.concatenate([self._buffer, *self._chunks])
        self._chunks.clear()
        bursts: list[ReceivedBurst] = []
        progress = True
        while progress:
            progress = self._finish_pending(bursts) and (
                self._take_candidate(bursts) or self._search_block()
            )
        self._forget()
        return bursts

    def _available(self, end: float) -> bool:
        return end <= self._origin + self._buffer.size

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

    def _take_candidate(self, bursts: list[ReceivedBurst]) -> bool:
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
        absolute = acq.Acquisition(acquisition.start + low, acquisition.cfo, acquisition.score)
        if header is None:
            # A weaker peak of the same preamble is not another burst; anything else near it may be.
            if abs(absolute.start - self._failed_start) < wf.WORD_SYMBOLS * _SPS:
                return True
            self._failed_start = absolute.start
            bursts.append(ReceivedBurst(Outcome.HEADER_FAILED, absolute.start, measurement))
            return True
        self._pending, self._pending_measurement = (absolute, header), measurement
        return True

    def _finish_pending(self, bursts: list[ReceivedBurst]) -> bool:
        """Demodulate the burst whose header is known; False where it is not complete yet."""
        if self._pending is None:
            return True
        acquisition, header = self._pending
        low = int(acquisition.start) - dem.LEAD_SAMPLES
        high = int(acquisition.start) + 1 + dem.burst_span_samples(header)
        if not self._available(high):
            return False
        local = acq.Acquisition(acquisition.start - low, acquisition.cfo, acquisition.score)
        burst = dem.demodulate_burst(self._slice(low, high), local, header, self._max_iterations)
        bursts.append(
            ReceivedBurst(Outcome.DEMODULATED, acquisition.start, burst.measurement, header, burst)
        )
        # The next burst's first word may lie right behind this one's last pilot.
        length = (header.burst_symbols - 2 * wf.RAMP_SYMBOLS) * _SPS
        self._resume = int(acquisition.start) + length
        self._pending = None
        return True

    def _forget(self) -> None:
        """Drop samples that nothing can ask for any more."""
        oldest = self._searched - acq.SEARCH_CONTEXT_BEFORE
        if self._candidates:
            oldest = min(oldest, self._candidates[0].position)
        if self._pending is not None:
            oldest = min(oldest, int(self._pending[0].start))
        keep = oldest - acq.CONFIRM_MARGIN_SAMPLES - dem.LEAD_SAMPLES
        drop = keep - self._origin
        if drop > 0:
            self._buffer = self._buffer[drop:].copy()
            self._origin = keep


def _cut(received: ReceivedBurst, end: int, outcome: Outcome) -> ReceivedBurst:
    """Name the reason where header or code blocks failed because the stream ended inside the burst."""
    if received.outcome is Outcome.HEADER_FAILED:
        # Without a header nobody knows whether the burst goes on; that samples were lost is known.
        cut = outcome is Outcome.OVERFLOW and received.start + dem.HEADER_SPAN_SAMPLES > end
        return replace(received, outcome=outcome) if cut else received
    if received.burst is None or all(block.ok for block in received.burst.blocks):
        return received
    length = (received.burst.header.burst_symbols - 2 * wf.RAMP_SYMBOLS) * _SPS
    return replace(received, outcome=outcome) if received.start + length > end else received
