"""The receiver as a plain object: push samples in any pieces, take bursts out.

First half: :class:`~blocks.modem.burst_finder.BurstFinder`, which has to see the stream in order. Second
half: :func:`receive_burst`, which needs one burst and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cache

import numpy as np
from numpy.typing import NDArray

from blocks.modem import demodulator as dem
from blocks.modem import waveform as wf
from blocks.modem.burst import build_bursts
from blocks.modem.burst_finder import BurstFinder, FoundBurst
from blocks.modem.header import BurstHeader
from blocks.modem.ldpc_decoder import DEFAULT_MAX_ITERATIONS

# A burst of 5,000 symbols in one code block.
_WARM_UP_BITS = 6000
_WARM_UP_MCS = 4


class Outcome(StrEnum):
    """What became of a confirmed preamble inside the receiver."""

    DEMODULATED = "demodulated"
    HEADER_FAILED = "header_failed"
    TRUNCATED = "truncated"  # the stream ended before the burst did, and blocks failed for it
    OVERFLOW = "overflow"  # samples were lost inside the burst, and its header or blocks for it


@dataclass(frozen=True)
class ReceivedBurst:
    """One confirmed preamble and what could be made of it.

    Args:
        outcome: how far it got.
        start: instant of the first preamble symbol in samples since the start of the stream.
        measurement: from all known symbols that were there.
        header: None where it failed.
        burst: code blocks and constellation; None without a header. Of a burst that the stream cut,
            the blocks that were through before are as good as any.
    """

    outcome: Outcome
    start: float
    measurement: dem.BurstMeasurement
    header: BurstHeader | None = None
    burst: dem.DemodulatedBurst | None = None


def receive_burst(
    found: FoundBurst, max_iterations: int = DEFAULT_MAX_ITERATIONS, overflow: bool = False
) -> ReceivedBurst:
    """Demodulate and decode a burst that has been found.

    Args:
        found: the burst with its samples.
        max_iterations: limit of the LDPC decoder; 0 hands on what was received, not decoded.
        overflow: True where samples were lost behind the last one there.
    """
    if found.header is None:
        # Without a header nobody knows whether the burst goes on; that samples were lost is known.
        lost = overflow and found.incomplete
        outcome = Outcome.OVERFLOW if lost else Outcome.HEADER_FAILED
        return ReceivedBurst(outcome, found.start, found.measurement)
    burst = dem.demodulate_burst(found.samples, found.acquisition, found.header, max_iterations)
    if not found.incomplete or all(block.ok for block in burst.blocks):
        outcome = Outcome.DEMODULATED
    else:
        outcome = Outcome.OVERFLOW if overflow else Outcome.TRUNCATED
    return ReceivedBurst(outcome, found.start, burst.measurement, found.header, burst)


class StreamReceiver:
    """Finds and demodulates bursts in a stream at 2 samples per symbol, in one thread.

    Args:
        max_iterations: limit of the LDPC decoder; 0 hands on what was received, not decoded.
    """

    def __init__(self, max_iterations: int = DEFAULT_MAX_ITERATIONS) -> None:
        self._max_iterations = max_iterations
        self._finder = BurstFinder()

    @property
    def position(self) -> int:
        """Samples received so far."""
        return self._finder.position

    @property
    def blanked(self) -> int:
        """Of them those that were bad and count as silence."""
        return self._finder.blanked

    def push(self, samples: NDArray[np.complex64]) -> list[ReceivedBurst]:
        """Take samples, return the bursts that are complete with them.

        Args:
            samples: ``complex64 [n]``; copied; bad ones (:mod:`blocks.modem.sample_guard`) count as silence.
        """
        return [receive_burst(found, self._max_iterations) for found in self._finder.push(samples)]

    def flush(self, overflow: bool = False) -> list[ReceivedBurst]:
        """End of the stream, or of an unbroken stretch of it: report what is still open.

        The receiver must not be used afterwards; a new stretch needs a new receiver.

        Args:
            overflow: True where samples were lost here: an open burst is counted as such.
        """
        return [
            receive_burst(found, self._max_iterations, overflow) for found in self._finder.flush()
        ]


@cache
def warm_up() -> None:
    """Load the compiled code of every stage, so that the first burst of a stream does not wait for it.

    That takes 0.2 s, during which a stream would pile up; longer where nothing has been compiled yet.
    Done by receiving a burst, long enough for the sample clock to matter; the second call does nothing.
    """
    (burst,) = build_bursts(
        np.zeros(_WARM_UP_BITS, np.uint8), frame_id=0, codec_tag=0, mcs=_WARM_UP_MCS
    )
    receiver = StreamReceiver()
    receiver.push(burst.samples(wf.RECEIVER_SAMPLES_PER_SYMBOL))
    (received,) = receiver.flush()
    assert received.outcome is Outcome.DEMODULATED
