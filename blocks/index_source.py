"""IndexSource: index frames from ZMQ into the flowgraph.

It exists because GNU Radio's message queues have no limit: a fast encoder would fill the memory. This
block takes a frame off its socket only when the modulator downstream has room for one (it is told
through the ``sent`` port), so that the pressure reaches the encoder's own bounded, timed send.
"""

from __future__ import annotations

import threading

import numpy as np
import pmt
import zmq
from gnuradio import gr
from numpy.typing import NDArray

from blocks.guarded_sockets import GuardedSockets
from blocks.pmt_arrays import array_to_pmt, pmt_to_array
from blocks.worker_thread import WorkerThread
from blocks.zmq_messages import (
    TOPIC_FRAME,
    MessageReader,
    Refusal,
    SocketLimits,
    bound_address,
    unpack_frame,
)
from blocks.zmq_security import CurveKeys
from semantic.index_frame import IndexFrame

PORT_FRAMES = pmt.intern("frames")
PORT_SENT = pmt.intern("sent")
KEY_FRAME_ID = pmt.intern("frame_id")
KEY_CODEC_TAG = pmt.intern("codec_tag")

_POLL_MS = 50


def frame_to_pdu(frame: IndexFrame) -> pmt.pmt_base:
    """PDU of a frame: its id and codec tag, and its payload bits, one per byte."""
    meta = pmt.make_dict()
    meta = pmt.dict_add(meta, KEY_FRAME_ID, pmt.from_uint64(frame.frame_id))
    meta = pmt.dict_add(meta, KEY_CODEC_TAG, pmt.from_uint64(frame.geometry.codec_tag))
    bits = frame.to_bits()
    return pmt.cons(meta, array_to_pmt(bits))


class IndexSource(gr.basic_block):
    """ZMQ PULL socket to PDUs.

    Message ports: ``frames`` (out) one PDU per frame; ``sent`` (in) one message per frame that the
    modulator has finished.

    Args:
        address: ZMQ address to bind.
        high_water_mark: messages that the socket queues.
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
        self._reader = MessageReader()
        self._credit = threading.Semaphore(window)
        self._worker = WorkerThread("IndexSource", self._run)
        self._sockets = GuardedSockets(keys, binds=True)
        limits = SocketLimits(high_water_mark, send_timeout_ms=0)
        self._socket = self._sockets.open(zmq.PULL, bind=address, limits=limits)
        self._sockets.start()
        self.address = bound_address(self._socket)

    @property
    def messages_malformed(self) -> int:
        """Messages dropped because they are no frame."""
        return self._reader.refused[Refusal.MALFORMED]

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
        """Give the socket back; the block cannot be started again."""
        self.stop()
        self._sockets.close()

    def _on_sent(self, _message: pmt.pmt_base) -> None:
        self._credit.release()

    def _run(self) -> None:
        while not self._worker.stopping.is_set():
            if not self._credit.acquire(timeout=_POLL_MS / 1000):
                continue
            frame = self._next_frame()
            if frame is None:
                self._credit.release()
                continue
            self.frames_accepted += 1
            self.message_port_pub(PORT_FRAMES, frame_to_pdu(frame))

    def _next_frame(self) -> IndexFrame | None:
        if not self._socket.poll(_POLL_MS):
            return None
        return self._reader.read(self._socket, _parse)


def _parse(parts: list[bytes]) -> IndexFrame:
    return unpack_frame(parts, TOPIC_FRAME)


def pdu_to_bits(pdu: pmt.pmt_base) -> tuple[int, int, NDArray[np.uint8]]:
    """Inverse of :func:`frame_to_pdu`: frame id, codec tag and bits ``uint8 [n]``.

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
    bits = pmt_to_array(pmt.cdr(pdu))
    return int(pmt.to_uint64(frame_id)), int(pmt.to_uint64(codec_tag)), bits
