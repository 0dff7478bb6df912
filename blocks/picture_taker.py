"""PictureTaker: pictures from a receiver that may restart or not be there. No GNU Radio."""

from __future__ import annotations

import time
from dataclasses import dataclass

import zmq

from blocks.guarded_sockets import GuardedSockets
from blocks.modem.header import STREAMS
from blocks.picture_desk import Ready
from blocks.zmq_messages import (
    TOPIC_PICTURE,
    TOPIC_READY,
    MessageError,
    MessageReader,
    MessageWriter,
    SocketLimits,
    origin,
    unpack_frame,
    unpack_header,
)
from blocks.zmq_security import CurveKeys
from semantic.index_frame import IndexFrame

_POLL_MS = 50
_LINGER_MS = 200


@dataclass(frozen=True)
class Picture:
    """A picture as it was received.

    Args:
        frame: its indices.
        stream: of its sender, 0..31.
        number: by which the receiver knows it.
    """

    frame: IndexFrame
    stream: int
    number: int


class PictureTaker:
    """DEALER socket to a receiver's ROUTER. A context manager.

    Args:
        address: ZMQ address to connect to.
        ahead: pictures that it takes beside the one in hand.
        keys: None where the receiver has none.

    Attributes:
        asking: False: take what was asked for already, and ask for no more.

    Raises:
        AddressError: an address that cannot be understood.
    """

    def __init__(self, address: str, ahead: int = 1, keys: CurveKeys | None = None) -> None:
        self.reader = MessageReader()
        self._writer = MessageWriter()
        self._address = address
        self._ahead = ahead
        self._connection = 0
        self._done: list[int] = []
        self._owed = 0
        self.asking = True
        self._sockets = GuardedSockets(keys, binds=False)
        limits = SocketLimits(ahead + 2, send_timeout_ms=0)
        self._socket = self._sockets.open(zmq.DEALER, connect=address, limits=limits)
        self._sockets.start()

    def __enter__(self) -> PictureTaker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Tell what is done, and give the socket back. What was taken ahead is lost, and not told as done."""
        self.asking = False
        if self._done:
            self._tell()
            self._socket.setsockopt(zmq.LINGER, _LINGER_MS)
        self._sockets.close()

    def ask(self, timeout_s: float) -> None:
        """Wait until a receiver knows that pictures are wanted; LookupError where there is none."""
        end_s = time.monotonic() + timeout_s
        while not self._ask():
            if time.monotonic() > end_s:
                raise LookupError(f"nobody hands pictures on at {self._address}")
            time.sleep(0.001)

    def take(self, timeout_ms: int) -> Picture | None:
        """The next picture; None where none comes in time, or what comes is none (it is counted)."""
        end_s = time.monotonic() + timeout_ms / 1000
        while True:
            self._ask()
            left_ms = int(1000 * (end_s - time.monotonic()))
            if self._socket.poll(max(0, min(left_ms, _POLL_MS))):
                break
            if left_ms <= 0:
                return None
        self._owed += 1
        return self.reader.read(self._socket, _parse)

    def done(self, picture: Picture) -> None:
        """The picture has been decoded, or found to be no good: the receiver may forget it."""
        self._done.append(picture.number)

    def _ask(self) -> bool:
        """Say what is wanted and what is done, where that is new; True where the receiver knows."""
        connection = self._sockets.guard.connections
        if connection != self._connection:
            # A receiver that has not heard of us yet.
            self._connection = connection
            self._done.clear()
            self._owed = self._ahead + 1
        if (self._owed and self.asking) or self._done:
            self._tell()
        return connection > 0 and not self._owed

    def _tell(self) -> None:
        ready = Ready(self._owed if self.asking else 0, tuple(self._done))
        try:
            self._socket.send_multipart(self._writer.pack(TOPIC_READY, ready.to_header()))
        except zmq.Again:
            return  # told as soon as there is a receiver
        self._owed = 0
        self._done.clear()


def _parse(parts: list[bytes]) -> Picture:
    frame = unpack_frame(parts, TOPIC_PICTURE)
    header = unpack_header(parts)
    stream = header.get("stream", 0)
    if type(stream) is not int or not 0 <= stream < STREAMS:
        raise MessageError(f"header: stream: expected 0 to {STREAMS - 1}")
    return Picture(frame, stream, origin(header)[1])
