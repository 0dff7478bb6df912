"""IndexSink: code blocks back to index frames, and out over ZMQ.

The last block of the receive path. It needs to know the codecs it may meet (their geometry, not their
weights), so that a machine with a radio needs no torch. Each picture goes to one decoder, that has asked for
it; PUB lets anybody watch pictures, bursts and totals.
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
from blocks.frame_gaps import FrameGaps
from blocks.guarded_sockets import GuardedSockets
from blocks.picture_desk import PictureDesk
from blocks.worker_thread import WorkerThread
from blocks.zmq_messages import (
    TOPIC_PICTURE,
    TOPIC_STATISTICS,
    MessageWriter,
    SocketLimits,
    bound_address,
)
from blocks.zmq_security import CurveKeys
from semantic.index_frame import FrameGeometry, IndexFrame
from semantic.link_statistics import Fate, LinkStatistics

_LOG = logging.getLogger(__name__)

PORT_BURSTS = pmt.intern("bursts")
_TIMER_S = 0.02
_PICTURES_KEPT = 64
# Bursts in GNU Radio's queue before this block above which no decoder is waited for any more: that
# queue would grow to 8192 bursts, half a gigabyte, and then drop bursts that nobody counts.
_MAX_BURSTS_WAITING = 16
_BURSTS_AT_EASE = 8


class IndexSink(gr.basic_block):
    """PDUs of bursts to ZMQ.

    Message port ``bursts`` (in): PDUs of :class:`~blocks.burst_receiver.BurstReceiver`.

    Args:
        pictures_address: ZMQ address to bind for decoders.
        watch_address: ZMQ address to bind for PUB.
        geometries: of the codecs and rates that are known.
        statistics: the receiver's totals; this block corrects the fate of bursts whose picture nobody
            took or whose codec nobody knows.
        frame_timeout_s: an incomplete picture is handed on after this long without a burst of it; None
            waits for the next picture or the end of the stream, which is what a simulation needs, whose
            time is not the clock's.
        high_water_mark: pictures that wait until a decoder asks for them.
        send_timeout_ms: how long one more may wait before it is dropped and counted; it does not wait where
            many bursts wait behind it.
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
        self.pictures_empty = 0
        self.messages_malformed = 0
        self.finished = threading.Event()
        self._assembler = FrameAssembler(geometries)
        self._timeout_s = frame_timeout_s
        self._untaken_is_lost = untaken_is_lost
        self._gaps = FrameGaps()
        self._failure: BaseException | None = None
        self._lock = threading.Lock()
        self._timer = WorkerThread("IndexSink", self._run_timer)
        self._sockets = GuardedSockets(keys, binds=True)
        limits = SocketLimits(high_water_mark, send_timeout_ms)
        pictures = self._sockets.open(zmq.ROUTER, bind=pictures_address, limits=limits)
        self._pub = self._sockets.open(zmq.PUB, bind=watch_address, limits=limits)
        self._sockets.start()
        self._desk = PictureDesk(pictures, high_water_mark)
        self._patience_s = send_timeout_ms / 1000
        self._pub_writer = MessageWriter()
        self.pictures_address = bound_address(pictures)
        self.watch_address = bound_address(self._pub)

    @property
    def failure(self) -> BaseException | None:
        """Why no more pictures will come."""
        return self._failure or self._timer.failure or self._sockets.guard.failure

    def pictures_counts(self) -> dict[str, int]:
        """Pictures by what became of them, and code blocks that came too late to matter.

        ``missing``: of which nothing was heard, by the gaps in their numbers; ``empty``: of which no code
        block survived. The complete and incomplete ones are ``dropped`` (no decoder asked for them in time),
        ``waiting`` for one, ``taken`` by one, or ``done``: decoded.
        """
        with self._lock:
            return {
                "complete": self.pictures_complete,
                "incomplete": self.pictures_incomplete,
                "done": self._desk.done,
                "taken": self._desk.out,
                "waiting": self._desk.waiting,
                "dropped": self.pictures_dropped,
                "empty": self.pictures_empty,
                "missing": self._gaps.missing,
                "blocks_late": self._assembler.blocks_late,
                "blocks_repeated": self._assembler.blocks_repeated,
            }

    def start(self) -> bool:
        """Called by the scheduler: begin to hear decoders, and to look for pictures that are overdue."""
        self._timer.start()
        return True

    def stop(self) -> bool:
        """Called by the scheduler: stop that. An incomplete picture stays until the next start."""
        self._timer.stop()
        return True

    def close(self) -> None:
        """Give the sockets back; the block cannot be started again."""
        self.stop()
        self._sockets.close()

    def is_behind(self) -> bool:
        """Whether bursts wait here that were better waited for."""
        return bool(self.nmsgs(PORT_BURSTS) > _BURSTS_AT_EASE)

    def socket_counts(self) -> dict[str, int]:
        """Messages and peers that did not get in."""
        return {**self._desk.reader.to_json(), **self._sockets.guard.to_json()}

    def _on_burst(self, message: pmt.pmt_base) -> None:
        try:
            self._take(message)
        except Exception as error:
            # GNU Radio would print it and go on.
            self._failure = error
            raise

    def _take(self, message: pmt.pmt_base) -> None:
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
            header = burst.header
            self._gaps.note(header.stream, header.frame_id)
            self._hand_on(
                self._assembler.add(
                    header, burst.ok, burst.bits, burst.llrs, burst.fate, time.monotonic()
                )
            )

    def _run_timer(self) -> None:
        while not self._timer.stopping.wait(_TIMER_S):
            with self._lock:
                self._desk.serve()
                if self._timeout_s is not None:
                    self._hand_on(self._assembler.overdue(time.monotonic() - self._timeout_s))

    def _hand_on(self, pictures: list[AssembledFrame]) -> None:
        for picture in pictures:
            self.pictures.append(picture)
            if picture.frame is None:
                self.pictures_empty += 1
                continue
            self.pictures_complete += picture.complete
            self.pictures_incomplete += not picture.complete
            if not self._offer(picture.frame, picture.stream):
                self._count_untaken(picture)
            self._pub.send_multipart(
                self._pub_writer.pack_frame(TOPIC_PICTURE, picture.frame, picture.stream)
            )
            self._publish_statistics()

    def _offer(self, frame: IndexFrame, stream: int) -> bool:
        if not self._untaken_is_lost:
            return self._desk.offer_now(frame, stream)
        patient = self.nmsgs(PORT_BURSTS) <= _MAX_BURSTS_WAITING
        return self._desk.offer(frame, stream, self._patience_s if patient else 0.0)

    def _count_untaken(self, picture: AssembledFrame) -> None:
        self.pictures_dropped += 1
        if not self._untaken_is_lost:
            return
        for fate, count in picture.bursts.items():
            for _ in range(count):
                self.statistics.refate(Fate(fate), Fate.QUEUE_FULL)

    def _publish_statistics(self) -> None:
        self._pub.send_multipart(self._pub_writer.pack(TOPIC_STATISTICS, self.statistics.to_json()))
