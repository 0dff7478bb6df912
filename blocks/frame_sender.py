"""FrameSender: index frames to a transmitter that may be busy, restart, or not be there. No GNU Radio."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import zmq

from blocks.guarded_sockets import GuardedSockets
from blocks.zmq_messages import (
    TOPIC_FRAME,
    TOPIC_RECEIPT,
    MessageError,
    MessageReader,
    MessageWriter,
    Refusal,
    SocketLimits,
    unpack_header,
)
from blocks.zmq_security import CurveKeys
from semantic.index_frame import IndexFrame

# Frames without a receipt at a time: two with the modulator, two ready to follow them.
WINDOW = 4
_MAX_RECEIPT_BYTES = 4096
_POLL_MS = 20
_NOTICE_S = 1.0
# "replayed": the receipt was lost with a connection, the frame was not.
_ON_THE_AIR = ("sent", Refusal.REPLAYED.value)


class NobodyTakesError(RuntimeError):
    """No transmitter took a frame in time."""


@dataclass(frozen=True)
class Receipt:
    """What became of a frame.

    Args:
        frame_id: its number.
        sent: whether it has gone to the radio.
        reason: why not, empty otherwise.
    """

    frame_id: int
    sent: bool
    reason: str


@dataclass
class _Waiting:
    """A frame without a receipt, the message that it is, and the number of the connection that took it."""

    frame: IndexFrame
    parts: list[bytes]
    connection: int = 0


class FrameSender:
    """DEALER socket to a transmitter's ROUTER. A context manager.

    A frame counts as sent when the transmitter's receipt says so. At most :data:`WINDOW` wait for one; after
    a connection was lost they are sent again, and a transmitter that has them already says that.

    Args:
        address: ZMQ address to connect to.
        patience_s: how long to wait while no receipt comes.
        told: called with every receipt.
        keys: None where the transmitter has none.

    Raises:
        AddressError: an address that cannot be understood.
    """

    def __init__(
        self,
        address: str,
        patience_s: float,
        told: Callable[[Receipt], None] = lambda receipt: None,
        keys: CurveKeys | None = None,
    ) -> None:
        self._address = address
        self._patience_s = patience_s
        self._told = told
        self._writer, self._reader = MessageWriter(), MessageReader(_MAX_RECEIPT_BYTES)
        self._waiting: OrderedDict[int, _Waiting] = OrderedDict()
        self._moved_s = 0.0
        self._sockets = GuardedSockets(keys, binds=False)
        limits = SocketLimits(2 * WINDOW, 0, _MAX_RECEIPT_BYTES)
        self._socket = self._sockets.open(zmq.DEALER, connect=address, limits=limits)
        self._sockets.start()

    def __enter__(self) -> FrameSender:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def waiting(self) -> list[int]:
        """Frame ids of those without a receipt: with the transmitter, on the way to it, or lost with it."""
        return [one.frame.frame_id for one in self._waiting.values()]

    def close(self) -> None:
        """Give the socket back."""
        self._sockets.close()

    def send(self, frame: IndexFrame, notice: Callable[[], None] = lambda: None) -> None:
        """Hand a frame over, once there is room for it.

        Args:
            frame: to send.
            notice: called once if it takes longer than a second.

        Raises:
            NobodyTakesError: nothing moved for as long as the patience; the message says why, as far as
                known.
        """
        self._wait(lambda: self.offer(frame), notice)

    def offer(self, frame: IndexFrame) -> bool:
        """Hand a frame over if there is room for it now."""
        while self._read_receipts():
            pass
        self._send_again()
        if len(self._waiting) >= WINDOW or not self._connected:
            return False
        self._hand_over(self._number(frame))
        return True

    def listen(self, seconds: float) -> None:
        """Take the receipts that come while there is nothing to send."""
        end_s = time.monotonic() + seconds
        while True:
            while self._read_receipts():
                pass
            self._send_again()
            left_s = end_s - time.monotonic()
            if left_s <= 0:
                return
            self._socket.poll(max(1, min(int(1000 * left_s), _POLL_MS)))

    def finish(self, notice: Callable[[], None] = lambda: None) -> None:
        """Wait for the receipts of all frames; arguments and errors as of :meth:`send`."""
        self._wait(lambda: not self._waiting, notice)

    @property
    def _connected(self) -> bool:
        return self._sockets.guard.connections > 0 and bool(self._socket.poll(0, zmq.POLLOUT))

    def _wait(self, done: Callable[[], bool], notice: Callable[[], None]) -> None:
        self._moved_s = started_s = time.monotonic()
        noticed = False
        while self._read_receipts() or not done():
            now_s = time.monotonic()
            if now_s - self._moved_s > self._patience_s:
                raise NobodyTakesError(self._reason())
            if now_s - started_s > _NOTICE_S and not noticed:
                noticed = True
                notice()
            self._send_again()
            self._socket.poll(_POLL_MS)

    def _number(self, frame: IndexFrame) -> _Waiting:
        number = self._writer.next_number
        one = self._waiting[number] = _Waiting(frame, self._writer.pack_frame(TOPIC_FRAME, frame))
        return one

    def _hand_over(self, one: _Waiting) -> None:
        try:
            self._socket.send_multipart(one.parts)
        except zmq.Again:
            return  # the connection has just gone
        one.connection = self._sockets.guard.connections

    def _send_again(self) -> None:
        """What another connection took than the present one: it may have gone with a transmitter."""
        now = self._sockets.guard.connections
        for one in self._waiting.values():
            if one.connection != now and self._connected:
                self._hand_over(one)

    def _read_receipts(self) -> bool:
        """Take one receipt; True where there was a message."""
        if not self._socket.poll(0):
            return False
        found = self._reader.read(self._socket, _parse)
        waiting = None if found is None else self._waiting.pop(found[0], None)
        if found is not None and waiting is not None:
            _, outcome, detail = found
            self._moved_s = time.monotonic()
            if outcome == Refusal.OUT_OF_ORDER:
                # A later one was quicker over a new connection.
                self._hand_over(self._number(waiting.frame))
                return True
            sent = outcome in _ON_THE_AIR
            reason = "" if sent else f"{outcome.replace('_', ' ')}{detail and ': '}{detail}"
            self._told(Receipt(waiting.frame.frame_id, sent, reason))
        return True

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
        if self._waiting and self._connected:
            return (
                f"{text}the transmitter has {len(self._waiting)} that it has not sent for "
                f"{self._patience_s:g} s; is uoisc rx running, where it waits for one?"
            )
        return text + "is uoisc tx running with this profile, and sending?"


def _parse(parts: list[bytes]) -> tuple[int, str, str]:
    """Which message a receipt is of, the outcome, and details."""
    header = unpack_header(parts)
    number, outcome, detail = (header.get(key) for key in ("of", "outcome", "detail"))
    if parts[0] != TOPIC_RECEIPT or type(number) is not int:
        raise MessageError("not a receipt of a message")
    if not (isinstance(outcome, str) and isinstance(detail, str)):
        raise MessageError("receipt: outcome or detail is missing or of the wrong type")
    return number, outcome, detail
