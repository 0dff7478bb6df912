"""IndexSource: index frames from ZMQ into the flowgraph.

It exists because GNU Radio's message queues have no limit: a fast encoder would fill the memory. This
block takes a frame off its socket only when the modulator downstream has room for one (it is told
through the ``sent`` port), so that the pressure reaches the sender. Every message gets a receipt: a sender
knows what is on the air and what is not.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from dataclasses import dataclass

import numpy as np
import pmt
import zmq
from gnuradio import gr
from numpy.typing import NDArray

from blocks.guarded_sockets import GuardedSockets
from blocks.modem.header import STREAMS
from blocks.picture_desk import open_envelope
from blocks.pmt_arrays import array_to_pmt, pmt_to_array
from blocks.worker_thread import WorkerThread
from blocks.zmq_messages import (
    TOPIC_FRAME,
    TOPIC_RECEIPT,
    Dropped,
    MessageError,
    MessageReader,
    MessageWriter,
    Refusal,
    SocketLimits,
    bound_address,
    origin,
    unpack_frame,
    unpack_header,
)
from blocks.zmq_security import CurveKeys
from semantic.index_frame import IndexFrame, IndexFrameError

PORT_FRAMES = pmt.intern("frames")
PORT_SENT = pmt.intern("sent")
KEY_FRAME_ID = pmt.intern("frame_id")
KEY_CODEC_TAG = pmt.intern("codec_tag")
KEY_STREAM = pmt.intern("stream")

# What a receipt says of a frame that has gone to the radio, of one that the waveform cannot express, and of
# one that was taken when the transmitter ended. What was not taken gets a
# :class:`~blocks.zmq_messages.Refusal`.
SENT, REFUSED, GIVEN_UP = "sent", "refused", "given_up"

_POLL_MS = 50
# While frames are with the modulator their receipts are due soon.
_SHORT_POLL_MS = 5
_LAST_WORDS_S = 0.2
_MAX_DETAIL = 200


def frame_to_pdu(frame: IndexFrame, stream: int = 0) -> pmt.pmt_base:
    """PDU of a frame: its id, stream and codec tag, and its payload bits, one per byte.

    Raises:
        IndexFrameError: a received frame whose map was lost.
    """
    meta = pmt.make_dict()
    meta = pmt.dict_add(meta, KEY_STREAM, pmt.from_long(stream))
    meta = pmt.dict_add(meta, KEY_FRAME_ID, pmt.from_uint64(frame.frame_id))
    meta = pmt.dict_add(meta, KEY_CODEC_TAG, pmt.from_uint64(frame.geometry.codec_tag))
    bits = frame.to_bits()
    return pmt.cons(meta, array_to_pmt(bits))


@dataclass(frozen=True)
class _Taken:
    """A frame with the modulator: who sent it (the envelope of the receipt), and as which message."""

    envelope: list[bytes]
    number: int


class IndexSource(gr.basic_block):
    """ZMQ ROUTER socket to PDUs.

    Message ports: ``frames`` (out) one PDU per frame; ``sent`` (in) one message per frame that the
    modulator has finished, in the same order: true, or false for one that it refused.

    Senders get streams in the order in which they come, from 0, the 33rd the first one's.

    Args:
        address: ZMQ address to bind.
        high_water_mark: messages that the socket queues for each sender.
        window: frames on their way to the modulator at a time.
        keys: whose holders may send frames; None: anybody who can reach the address.

    Raises:
        AddressError: the address is in use.
    """

    def __init__(
        self,
        address: str,
        high_water_mark: int = 8,
        window: int = 2,
        keys: CurveKeys | None = None,
    ) -> None:
        gr.basic_block.__init__(self, name="IndexSource", in_sig=None, out_sig=None)
        self.message_port_register_out(PORT_FRAMES)
        self.message_port_register_in(PORT_SENT)
        self.set_msg_handler(PORT_SENT, self._on_sent)
        self.frames_accepted = 0
        self._window = window
        self._reader, self._writer = MessageReader(), MessageWriter()
        self._streams: OrderedDict[str, int] = OrderedDict()
        self._taken: deque[_Taken] = deque()
        self._outcomes: deque[str] = deque()
        self._finished = threading.Event()
        self._worker = WorkerThread("IndexSource", self._run)
        self._sockets = GuardedSockets(keys, binds=True)
        limits = SocketLimits(high_water_mark, send_timeout_ms=0)
        self._socket = self._sockets.open(zmq.ROUTER, bind=address, limits=limits)
        self._sockets.start()
        self.address = bound_address(self._socket)

    @property
    def messages_malformed(self) -> int:
        """Messages dropped because they are no frame."""
        return self._reader.refused[Refusal.MALFORMED]

    @property
    def failure(self) -> BaseException | None:
        """Why no more frames will be taken."""
        return self._worker.failure or self._sockets.guard.failure

    def socket_counts(self) -> dict[str, int]:
        """What did not get in: messages by cause, and peers."""
        return {**self._reader.to_json(), **self._sockets.guard.to_json()}

    def start(self) -> bool:
        """Called by the scheduler: begin to read the socket."""
        self._worker.start()
        return True

    def stop(self) -> bool:
        """Called by the scheduler: stop reading. Messages not yet taken stay in the socket."""
        self._worker.stop()
        return True

    def close(self) -> None:
        """Tell what was taken and not sent, and give the socket back; the block cannot be started again."""
        self.stop()
        self._answer_finished()
        if self._taken:
            for taken in self._taken:
                self._answer(taken.envelope, taken.number, GIVEN_UP)
            self._taken.clear()
            # A peer loses what it has not read when the connection goes (ZMQ_IMMEDIATE).
            time.sleep(_LAST_WORDS_S)
        self._sockets.close()

    def _on_sent(self, message: pmt.pmt_base) -> None:
        self._outcomes.append(SENT if pmt.is_true(message) else REFUSED)
        self._finished.set()

    def _run(self) -> None:
        while not self._worker.stopping.is_set():
            self._answer_finished()
            if len(self._taken) >= self._window:
                self._finished.wait(_POLL_MS / 1000)
            elif self._socket.poll(_SHORT_POLL_MS if self._taken else _POLL_MS):
                self._take()

    def _answer_finished(self) -> None:
        self._finished.clear()
        while self._outcomes and self._taken:
            taken = self._taken.popleft()
            self._answer(taken.envelope, taken.number, self._outcomes.popleft())

    def _take(self) -> None:
        envelope, parts = open_envelope(self._reader.receive(self._socket))
        found = self._reader.examine(parts, _parse)
        if isinstance(found, Dropped):
            self._answer(envelope, _number(parts), found.refusal.value, found.detail)
            return
        sender, number, frame = found
        self.frames_accepted += 1
        self._taken.append(_Taken(envelope, number))
        self.message_port_pub(PORT_FRAMES, frame_to_pdu(frame, self._stream(sender)))

    def _stream(self, sender: str) -> int:
        if sender not in self._streams:
            following = next(reversed(self._streams.values()), -1) + 1
            self._streams[sender] = following % STREAMS
            if len(self._streams) > STREAMS:
                self._streams.popitem(last=False)
        return self._streams[sender]

    def _answer(
        self, envelope: list[bytes], number: int | None, outcome: str, detail: str = ""
    ) -> None:
        header = {"of": number, "outcome": outcome, "detail": detail[:_MAX_DETAIL]}
        # A peer that has gone, or does not read its receipts, is not waited for.
        self._socket.send_multipart(
            [*envelope, *self._writer.pack(TOPIC_RECEIPT, header)], zmq.NOBLOCK
        )


def _parse(parts: list[bytes]) -> tuple[str, int, IndexFrame]:
    frame = unpack_frame(parts, TOPIC_FRAME)
    try:
        frame.to_bits()  # what cannot be sent must not get in
    except IndexFrameError as error:
        raise MessageError(str(error)) from None
    return *origin(unpack_header(parts)), frame


def _number(parts: list[bytes]) -> int | None:
    """Number of a message that was dropped, where it says one."""
    try:
        return origin(unpack_header(parts))[1]
    except MessageError:
        return None


def pdu_to_bits(pdu: pmt.pmt_base) -> tuple[int, int, int, NDArray[np.uint8]]:
    """Inverse of :func:`frame_to_pdu`: frame id, codec tag, stream (0 if none) and bits ``uint8 [n]``.

    Raises:
        ValueError: not such a PDU.
    """
    if not (pmt.is_pair(pdu) and pmt.is_dict(pmt.car(pdu)) and pmt.is_u8vector(pmt.cdr(pdu))):
        raise ValueError("expected a PDU of bytes")
    meta = pmt.car(pdu)
    frame_id = pmt.dict_ref(meta, KEY_FRAME_ID, pmt.PMT_NIL)
    codec_tag = pmt.dict_ref(meta, KEY_CODEC_TAG, pmt.PMT_NIL)
    if pmt.is_null(frame_id) or pmt.is_null(codec_tag):
        raise ValueError("PDU lacks frame_id or codec_tag")
    stream = pmt.to_long(pmt.dict_ref(meta, KEY_STREAM, pmt.from_long(0)))
    bits = pmt_to_array(pmt.cdr(pdu))
    return int(pmt.to_uint64(frame_id)), int(pmt.to_uint64(codec_tag)), int(stream), bits
