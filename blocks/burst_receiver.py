"""BurstReceiver: samples in, bursts out.

The one Python block of the receive path that touches the sample stream. ``work`` only copies into a ring
and returns; two threads do the signal processing in compiled code that lets go of Python's lock: one
finds bursts, the other decodes them in order. What a full ring means is the user's choice: a radio drops
samples (counted, and told apart from bad reception), a simulation or a file makes the flowgraph wait.

A radio that lost samples before they got here says so by the time on the next one (tag ``rx_time``): the
stream breaks there, and no burst is put together from both sides of the break.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from queue import Queue
from typing import Literal

import numpy as np
import pmt
from gnuradio import gr
from numpy.typing import NDArray

from blocks.burst_messages import END_MESSAGE, to_pdu
from blocks.burst_modulator import END_TAG
from blocks.modem import waveform as wf
from blocks.modem.burst_finder import BurstFinder, FoundBurst
from blocks.modem.ldpc_decoder import DEFAULT_MAX_ITERATIONS
from blocks.modem.stream_receiver import Outcome, ReceivedBurst, receive_burst, warm_up
from blocks.pmt_arrays import array_to_pmt
from blocks.rx_time import RX_TIME_TAG, RxClock
from blocks.sample_ring import Gap, SampleRing
from blocks.worker_thread import WorkerThread
from semantic.link_statistics import BurstRecord, Fate, LinkStatistics

PORT_BURSTS = pmt.intern("bursts")
PORT_CONSTELLATION = pmt.intern("constellation")

# What the finder takes from the ring at a time, at most.
_PIECE_SAMPLES = 32_768
# Bursts that may wait for the decoder.
_BURSTS_WAITING = 4
_WAIT_S = 0.05
# Between two looks whether whoever comes next has caught up.
_HELD_S = 0.005
_CONSTELLATION_SYMBOLS = 2048
# Records of the latest bursts; the totals in `statistics` cover all of them.
_RECORDS_KEPT = 10_000


@dataclass(frozen=True)
class _Job:
    """A burst on its way from the finder to the decoder.

    ``stretch_start`` is the sample at which its unbroken stretch of the stream began; ``overflow`` says
    that samples were lost at the end of that stretch.
    """

    found: FoundBurst
    stretch_start: int
    overflow: bool = False


class BurstReceiver(gr.sync_block):
    """Stream sink at 2 samples per symbol.

    Message ports (out): ``bursts`` one PDU per demodulated burst
    (:mod:`blocks.burst_messages`), ``constellation`` one PDU of equalised symbols per burst.

    Args:
        symbol_rate_hz: to report frequencies in Hz, and to find gaps by the radio's time.
        ring_samples: samples that may wait for the worker.
        when_full: ``block`` makes the flowgraph wait, ``drop`` drops samples.
        max_iterations: limit of the LDPC decoder.
        settle_samples: samples at every start that are passed over, while a radio settles.

    Attributes:
        is_behind: asked before a burst is handed on: where the flowgraph may wait, it waits while whoever
            comes next has too many bursts before it.
    """

    def __init__(
        self,
        symbol_rate_hz: float,
        ring_samples: int = 1 << 20,
        when_full: Literal["block", "drop"] = "drop",
        max_iterations: int = DEFAULT_MAX_ITERATIONS,
        settle_samples: int = 0,
    ) -> None:
        gr.sync_block.__init__(self, name="BurstReceiver", in_sig=[np.complex64], out_sig=None)
        # Not in start(): by then the radio is sending already.
        warm_up()
        self.message_port_register_out(PORT_BURSTS)
        self.message_port_register_out(PORT_CONSTELLATION)
        self.statistics = LinkStatistics()
        self.records: deque[BurstRecord] = deque(maxlen=_RECORDS_KEPT)
        self.last_constellation: NDArray[np.complex64] | None = None
        # Since the last start, whatever became of them; those behind an end do not count.
        self.samples_taken = 0
        self._symbol_rate_hz = symbol_rate_hz
        self._sample_rate_hz = symbol_rate_hz * wf.RECEIVER_SAMPLES_PER_SYMBOL
        self._when_full = when_full
        self._max_iterations = max_iterations
        self._settle_samples = settle_samples
        self._settling = 0
        self._ring = SampleRing(ring_samples)
        self._finder = BurstFinder()
        self._stretch_start = 0
        # None: the finder is done
        self._jobs: Queue[_Job | None] = Queue(_BURSTS_WAITING)
        self._find_worker = WorkerThread("BurstReceiver.find", self._find)
        self._decode_worker = WorkerThread("BurstReceiver.decode", self._decode)
        self._failure: BaseException | None = None
        self._ended = False
        self._end_key = pmt.intern(END_TAG)
        self._time_key = pmt.intern(RX_TIME_TAG)
        self._clock = RxClock(self._sample_rate_hz)
        self._times_read = 0
        self.is_behind: Callable[[], bool] = lambda: False

    @property
    def failure(self) -> BaseException | None:
        """What ended a worker, if it did not end in order."""
        return self._failure

    def packet_error_rate(self, latest: int = 100) -> float:
        """Share of the latest bursts heard that were not decoded whole; NaN before the first.

        For a live display, that should follow a change of the channel. Bursts that were never heard are
        not among them, see :meth:`bursts_heard`.
        """
        fates = [record.fate for record in self._latest_records(latest)]
        return 1 - fates.count(Fate.DECODED) / len(fates) if fates else math.nan

    def snr_db(self) -> float:
        """Es/N0 in dB as measured on the latest burst heard; NaN before the first."""
        return next((record.snr_db for record in self._latest_records(1)), math.nan)

    def bursts_heard(self) -> int:
        """Bursts heard so far, whatever became of them."""
        return self.statistics.detected

    def _latest_records(self, count: int) -> list[BurstRecord]:
        # A copy of a deque is made in one piece, as against iterating over one that another thread fills.
        return list(islice(reversed(self.records.copy()), count))

    def start(self) -> bool:
        """Called by the scheduler: start the workers."""
        self._failure = None
        self._ended = False
        self._ring.reopen()
        self.samples_taken = 0
        # GNU Radio counts anew from every start, and what comes first is no continuation of anything.
        self._clock = RxClock(self._sample_rate_hz)
        self._times_read = 0
        self._settling = self._settle_samples
        if self._settling:
            self._ring.mark_gap(self._settling)
        self._decode_worker.start()
        self._find_worker.start()
        return True

    def stop(self) -> bool:
        """Called by the scheduler: let the workers finish what they hold and end."""
        self._ring.end()
        # In this order: the finder tells the decoder when it is done.
        self._find_worker.stop()
        self._decode_worker.stop()
        return True

    def finish(self) -> None:
        """Nothing follows: as if an end mark came next. ``END_MESSAGE`` says when all is worked off."""
        self._ended = True
        self._ring.end()

    def work(self, inputs: list[NDArray[np.complex64]], _outputs: list[object]) -> int:
        """Copy samples into the ring."""
        samples = inputs[0]
        if self._failure is not None:
            raise RuntimeError("a worker of the receiver has failed") from self._failure
        end = self._end_of_stream(samples.size)
        if end is not None:
            samples = samples[:end]
        taken = self._take(samples)
        self.samples_taken += taken
        if end is not None and taken == samples.size:
            self._ended = True
            self._ring.end()
            return len(inputs[0])
        return taken

    def _take(self, samples: NDArray[np.complex64]) -> int:
        """Into the ring, with the gaps that the radio's times show; returns the count taken."""
        first = self.nitems_read(0)
        taken = 0
        for tag in self.get_tags_in_range(0, first, first + samples.size, self._time_key):
            # What did not go into the ring comes again, and its tags with it.
            if tag.offset < self._times_read:
                continue
            before = int(tag.offset - first)
            taken += self._store(samples[taken:before])
            if taken < before:
                return taken
            self._times_read = tag.offset + 1
            self._check_time(tag)
        return taken + self._store(samples[taken:])

    def _check_time(self, tag: gr.tag_t) -> None:
        if not (pmt.is_tuple(tag.value) and pmt.length(tag.value) == 2):
            return  # somebody else's tag of the same name
        whole_s = pmt.to_uint64(pmt.tuple_ref(tag.value, 0))
        fraction_s = pmt.to_double(pmt.tuple_ref(tag.value, 1))
        lost = self._clock.gap(tag.offset, whole_s, fraction_s)
        if lost is not None:
            self.statistics.overflows += 1
            self.statistics.samples_lost += lost
            self._ring.mark_gap(lost)

    def _store(self, samples: NDArray[np.complex64]) -> int:
        """Into the ring as far as they go, or dropped; returns the count taken."""
        passed = min(self._settling, samples.size)
        self._settling -= passed
        samples = samples[passed:]
        if self._when_full == "drop":
            self.statistics.samples_dropped += self._ring.write_or_drop(samples)
            return passed + samples.size
        if samples.size == 0:
            return passed
        return passed + self._ring.write(samples, timeout_s=_WAIT_S)

    def _end_of_stream(self, count: int) -> int | None:
        """Place of the end mark among the next ``count`` samples, None where there is none."""
        if self._ended:
            return 0
        first = self.nitems_read(0)
        tags = self.get_tags_in_range(0, first, first + count, self._end_key)
        return int(tags[0].offset - first) if tags else None

    def _find(self) -> None:
        """First worker: samples to bursts with a header."""
        try:
            self._find_until_the_end()
        except BaseException as error:
            self._failure = error
            raise
        finally:
            if self._failure is not None:
                # The flowgraph's thread must not wait for a reader that is gone; see work().
                self.statistics.samples_dropped += self._ring.abandon()
            self._jobs.put(None)

    def _find_until_the_end(self) -> None:
        while self._failure is None:
            piece = self._ring.read(_PIECE_SAMPLES, timeout_s=_WAIT_S)
            if isinstance(piece, Gap):
                self._end_stretch(overflow=True, skipped=piece.samples)
            elif piece is not None:
                self.statistics.samples += piece.size
                blanked = self._finder.blanked
                for found in self._finder.push(piece):
                    self._jobs.put(_Job(found, self._stretch_start))
                self.statistics.count_blanked(self._finder.blanked - blanked)
            elif self._ring.finished:
                self._end_stretch(overflow=False, skipped=0)
                return

    def _end_stretch(self, overflow: bool, skipped: int) -> None:
        """The stream breaks off here; what follows is a stream of its own."""
        length = self._finder.position
        for found in self._finder.flush():
            self._jobs.put(_Job(found, self._stretch_start, overflow))
        self._stretch_start += length + skipped
        self._finder = BurstFinder()

    def _decode(self) -> None:
        """Second worker: bursts to code blocks, in order."""
        try:
            for job in iter(self._jobs.get, None):
                received = receive_burst(job.found, self._max_iterations, job.overflow)
                self._report(received, job.stretch_start)
        except BaseException as error:
            self._failure = error
            # The finder must not wait for room.
            while self._jobs.get() is not None:
                pass
            raise
        if self._failure is None and self._ended:
            self.message_port_pub(PORT_BURSTS, END_MESSAGE)

    def _report(self, received: ReceivedBurst, stretch_start: int) -> None:
        record = self._to_record(received, stretch_start)
        self.statistics.add(record)
        self.records.append(record)
        if received.burst is None:
            return
        while self._when_full == "block" and self.is_behind() and not self._is_stopping():
            time.sleep(_HELD_S)
        self.message_port_pub(
            PORT_BURSTS, to_pdu(received.burst.header, received.burst.blocks, record)
        )
        self._publish_constellation(received.burst.constellation)

    def _is_stopping(self) -> bool:
        return self._find_worker.stopping.is_set() or self._decode_worker.stopping.is_set()

    def _publish_constellation(self, symbols: NDArray[np.complex64]) -> None:
        stride = max(1, symbols.size // _CONSTELLATION_SYMBOLS)
        self.last_constellation = symbols[::stride][:_CONSTELLATION_SYMBOLS].copy()
        vector = array_to_pmt(self.last_constellation)
        self.message_port_pub(PORT_CONSTELLATION, pmt.cons(pmt.make_dict(), vector))

    def _to_record(self, received: ReceivedBurst, stretch_start: int) -> BurstRecord:
        measured, header = received.measurement, received.header
        blocks = received.burst.blocks if received.burst is not None else []
        return BurstRecord(
            fate=_fate(received),
            start_sample=stretch_start + round(received.start),
            snr_db=measured.snr_db,
            cfo_hz=measured.cfo * self._symbol_rate_hz,
            level=measured.level,
            frame_id=header.frame_id if header else None,
            burst_number=header.burst_number if header else None,
            mcs=header.mcs if header else None,
            code_blocks=header.blocks if header else 0,
            code_blocks_ok=sum(block.ok for block in blocks),
            symbols=header.burst_symbols if header else wf.PREAMBLE_SYMBOLS,
            sample_rate_offset_ppm=measured.sample_rate_offset_ppm if blocks else None,
        )


def _fate(received: ReceivedBurst) -> Fate:
    if received.outcome is not Outcome.DEMODULATED:
        return Fate(received.outcome.value)
    assert received.burst is not None
    all_ok = all(block.ok for block in received.burst.blocks)
    return Fate.DECODED if all_ok else Fate.BLOCKS_FAILED
