"""IndexSink: code blocks back to index frames, and out over ZMQ.

The last block of the receive path. It needs to know the codecs it may meet (their geometry, not their
weights), so that a machine with a radio needs no torch. PUSH hands each picture to one decoder; PUB lets
anybody watch pictures, bursts and totals.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterable

import pmt
import zmq
from gnuradio import gr

from blocks.burst_messages import END_MESSAGE, from_pdu
from blocks.frame_assembler import AssembledFrame, FrameAssembler
from blocks.guarded_sockets import GuardedSockets
from blocks.worker_thread import WorkerThread
from blocks.zmq_messages import (
    TOPIC_PICTURE,
    TOPIC_STATISTICS,
    MessageWriter,
    SocketLimits,
    bound_address,
)
from blocks.zmq_security import CurveKeys
from semantic.index_frame import FrameGeometry
from semantic.link_statistics import Fate, LinkStatistics

_LOG = logging.getLogger(__name__)

PORT_BURSTS = pmt.intern("bursts")
_TIMER_S = 0.05
_PICTURES_KEPT = 64
# Bursts in GNU Radio's queue before this block above which no decoder is waited for any more: that
# queue would grow to 8192 bursts, half a gigabyte, and then drop bursts that nobody counts.
_MAX_BURSTS_WAITING = 16


class IndexSink(gr.basic_block):
    """PDUs of bursts to ZMQ.

    Message port ``bursts`` (in): PDUs of :class:`~blocks.burst_receiver.BurstReceiver`.

    Args:
        pictures_address: ZMQ address to bind for PUSH.
        watch_address: ZMQ address to bind for PUB.
        geometries: of the codecs and rates that are known.
        statistics: the receiver's totals; this block corrects the fate of bursts whose picture nobody
            took or whose codec nobody knows.
        frame_timeout_s: an incomplete picture is handed on after this long without a burst of it; None
            waits for the next picture or the end of the stream, which is what a simulation needs, whose
            time is not the clock's.
        high_water_mark: messages that the sockets queue.
        send_timeout_ms: how long a picture waits for a decoder before it is dropped and counted; it does
            not wait where many bursts wait behind it.
        keys: whose holders get pictures; None: anybody who can reach the addresses.
        untaken_is_lost: False where pictures are a by-product: one that no decoder takes at once is
            dropped, and the fate of its bursts stays what the receiver said.

    Raises:
        AddressError: an address is in use.
    """

    def __init__(
        self,
        pictures_address: str,
        watch_address: str,
        geometries: Iterable[FrameGeometry],
        statistics: LinkStatistics,
        frame_timeout_s: float | None = None,
        high_water_mark: int = 8,
        send_timeout_ms: int = 1000,
        keys: CurveKeys | None = None,
        *,
        untaken_is_lost: bool = True,
    ) -> None:
        gr.basic_block.__init__(self, name="IndexSink", in_sig=None, out_sig=None)
        self.message_port_register_in(PORT_BURSTS)
        self.set_msg_handler(PORT_BURSTS, self._on_burst)
        self.statistics = statistics
        self.pictures: deque[AssembledFrame] = deque(maxlen=_PICTURES_KEPT)
        self.pictures_complete = 0
        self.pictures_incomplete = 0
        self.pictures_dropped = 0
        self.messages_malformed = 0
        self.finished = threading.Event()
        self._assembler = FrameAssembler(geometries)
        self._timeout_s = frame_timeout_s
        self._untaken_is_lost = untaken_is_lost
        self._last_burst_s = 0.0
        self._lock = threading.Lock()
        self._timer = WorkerThread("IndexSink", self._run_timer)
        self._sockets = GuardedSockets(keys, binds=True)
        limits = SocketLimits(high_water_mark, send_timeout_ms)
        self._push = self._sockets.open(zmq.PUSH, bind=pictures_address, limits=limits)
        self._pub = self._sockets.open(zmq.PUB, bind=watch_address, limits=limits)
        self._sockets.start()
        self._push_writer, self._pub_writer = MessageWriter(), MessageWriter()
        self.pictures_address = bound_address(self._push)
        self.watch_address = bound_address(self._pub)

    def start(self) -> bool:
        """Called by the scheduler: start the timer, where pictures may time out."""
        if self._timeout_s is not None:
            self._timer.start()
        return True

    def stop(self) -> bool:
        """Called by the scheduler: stop the timer. An incomplete picture stays until the next start."""
        self._timer.stop()
        return True

    def close(self) -> None:
        """Give the sockets back; the block cannot be started again."""
        self.stop()
        self._sockets.close()

    def socket_counts(self) -> dict[str, int]:
        """Peers that did not get in."""
        return self._sockets.guard.to_json()

    def _on_burst(self, message: pmt.pmt_base) -> None:
        with self._lock:
            if pmt.equal(message, END_MESSAGE):
                self._hand_on(self._assembler.finish())
                self._publish_statistics()
                self.finished.set()
                return
            try:
                burst = from_pdu(message)
            except ValueError as error:
                self.messages_malformed += 1
                _LOG.warning("message dropped: %s", error)
                return
            if not self._assembler.knows(burst.header):
                self.statistics.refate(Fate(burst.fate), Fate.UNKNOWN_CODEC)
                return
            self._last_burst_s = time.monotonic()
            self._hand_on(
                self._assembler.add(burst.header, burst.ok, burst.bits, burst.llrs, burst.fate)
            )

    def _run_timer(self) -> None:
        assert self._timeout_s is not None
        while not self._timer.stopping.wait(_TIMER_S):
            with self._lock:
                silent_s = time.monotonic() - self._last_burst_s
                if self._assembler.waiting and silent_s > self._timeout_s:
                    self._hand_on(self._assembler.finish())

    def _hand_on(self, pictures: list[AssembledFrame]) -> None:
        for picture in pictures:
            self.pictures.append(picture)
            if picture.frame is None:
                continue
            self.pictures_complete += picture.complete
            self.pictures_incomplete += not picture.complete
            patient = self._untaken_is_lost and self.nmsgs(PORT_BURSTS) <= _MAX_BURSTS_WAITING
            try:
                self._push.send_multipart(
                    self._push_writer.pack_frame(TOPIC_PICTURE, picture.frame),
                    flags=0 if patient else zmq.NOBLOCK,
                )
            except zmq.Again:
                self._count_untaken(picture)
            self._pub.send_multipart(self._pub_writer.pack_frame(TOPIC_PICTURE, picture.frame))
            self._publish_statistics()

    def _count_untaken(self, picture: AssembledFrame) -> None:
        self.pictures_dropped += 1
        if not self._untaken_is_lost:
            return
        for fate, count in picture.bursts.items():
            for _ in range(count):
                self.statistics.refate(Fate(fate), Fate.QUEUE_FULL)

    def _publish_statistics(self) -> None:
        self._pub.send_multipart(self._pub_writer.pack(TOPIC_STATISTICS, self.statistics.to_json()))
