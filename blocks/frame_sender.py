"""FrameSender: index frames to a transmitter that may be busy, restart, or not be there. No GNU Radio."""

from __future__ import annotations

import time
from collections.abc import Callable

import zmq

from blocks.guarded_sockets import GuardedSockets
from blocks.zmq_messages import TOPIC_FRAME, MessageWriter, SocketLimits
from blocks.zmq_security import CurveKeys
from semantic.index_frame import IndexFrame

_POLL_MS = 100
_NOTICE_S = 1.0


class NobodyTakesError(RuntimeError):
    """No transmitter took a frame in time."""


class FrameSender:
    """PUSH socket to a transmitter's PULL. A context manager.

    It queues as good as nothing: a frame that was handed over is in the transmitter's queue or on its way
    there, and is lost only if the transmitter is killed.

    Args:
        address: ZMQ address to connect to.
        patience_s: how long a frame may wait for room in the transmitter's queue.
        linger_ms: how long closing may wait for the last frame to leave.
        keys: None where the transmitter has none.

    Raises:
        AddressError: an address that cannot be understood.
    """

    def __init__(
        self, address: str, patience_s: float, linger_ms: int, keys: CurveKeys | None = None
    ) -> None:
        self._address = address
        self._patience_s = patience_s
        self._writer = MessageWriter()
        self._sockets = GuardedSockets(keys, binds=False)
        limits = SocketLimits(high_water_mark=1, send_timeout_ms=0)
        self._socket = self._sockets.open(zmq.PUSH, connect=address, limits=limits)
        self._socket.setsockopt(zmq.LINGER, linger_ms)
        self._sockets.start()

    def __enter__(self) -> FrameSender:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let the last frame leave, then give the socket back."""
        self._sockets.close()

    def send(self, frame: IndexFrame, notice: Callable[[], None] = lambda: None) -> None:
        """Hand a frame over.

        Args:
            frame: to send.
            notice: called once if it takes longer than a second.

        Raises:
            NobodyTakesError: nobody took it within the patience; the message says why, as far as known.
        """
        started_s = time.monotonic()
        noticed = False
        while not self._socket.poll(_POLL_MS, zmq.POLLOUT):
            waited_s = time.monotonic() - started_s
            if waited_s > self._patience_s:
                raise NobodyTakesError(self._reason())
            if waited_s > _NOTICE_S and not noticed:
                noticed = True
                notice()
        self._socket.send_multipart(self._writer.pack_frame(TOPIC_FRAME, frame))

    def _reason(self) -> str:
        text = f"nobody takes pictures at {self._address}: "
        if self._sockets.guard.keys_refused:
            return text + "our key is refused, expected its public half in zmq.keys.allowed there"
        if self._sockets.guard.handshakes_failed:
            return (
                text
                + "the handshake fails, expected zmq.keys on both sides or on neither, and the "
                "transmitter's public key in zmq.keys.server here"
            )
        return text + "is uoisc tx running with this profile, and sending?"
