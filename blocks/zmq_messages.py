"""The messages on the ZMQ sockets: ``[topic, JSON header, raw little-endian payload]``.

The header of every message carries the sender's random id and a running number, so that a reader can
tell what it missed, a message that comes twice, and a restarted sender from a confused one. Nothing from a
socket is trusted: sizes are limited, every part is checked before use, nothing is ever unpickled, and what
is refused is counted by cause. docs/zmq.md describes the messages.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

import zmq

from blocks.zmq_security import ZAP_DOMAIN, CurveKeys, is_worth_a_line
from semantic.index_frame import MAX_HEADER_BYTES, IndexFrame, IndexFrameError

_LOG = logging.getLogger(__name__)
_Content = TypeVar("_Content")

TOPIC_FRAME = b"frame"  # to the transmitter: indices to send
TOPIC_RECEIPT = b"receipt"  # from the transmitter: what became of a frame
TOPIC_READY = b"ready"  # to the receiver: how many pictures somebody will take
TOPIC_PICTURE = b"picture"  # from the receiver: indices received
TOPIC_STATISTICS = b"statistics"  # from the receiver, PUB only: running totals

# The largest frame has 2**20 bits: 2 MiB of 16-bit indices at one bit each, flags and LLRs beside them.
MAX_MESSAGE_BYTES = 8 * 1024 * 1024
# The socket itself ends a connection over a part of twice what is allowed; in between a message can be
# received, counted as too large, and dropped.
_SOCKET_LIMIT = 2

# One more than any good message has, with a peer's address and REQ's empty part on top.
_MAX_PARTS = 6
# Senders whose numbers are remembered, and how far back; the longest name a sender may have.
_MAX_SENDERS = 1024
_WINDOW = 64
_MAX_SENDER_CHARACTERS = 64
_MAX_NUMBER = (1 << 63) - 1

# A peer that has gone without a word (power cut, cable pulled) is noticed by the kernel after 19 s of
# silence. Not by ZMQ's own heartbeats: behind a full queue libzmq does not read them, takes the peer for
# dead, and loses what is on its way or aborts the process.
_KEEPALIVE_IDLE_S, _KEEPALIVE_INTERVAL_S, _KEEPALIVE_COUNT = 10, 3, 3


class MessageError(ValueError):
    """A ZMQ message that is not of this project's form."""


class AddressError(RuntimeError):
    """A ZMQ address that cannot be bound or connected."""


class MessageWriter:
    """Numbers messages and packs them. One writer per socket."""

    def __init__(self) -> None:
        self.sender = secrets.token_hex(8)
        self._next = 0

    @property
    def next_number(self) -> int:
        """Number that the next message gets."""
        return self._next

    def pack(self, topic: bytes, header: Mapping[str, Any], payload: bytes = b"") -> list[bytes]:
        """Parts of one message; ``header`` gets ``sender`` and ``seq`` added."""
        numbered = {**header, "sender": self.sender, "seq": self._next}
        self._next += 1
        return [topic, json.dumps(numbered, separators=(",", ":")).encode(), payload]

    def pack_frame(self, topic: bytes, frame: IndexFrame, stream: int | None = None) -> list[bytes]:
        """Parts of a message that carries an index frame, and the stream in which it was received."""
        header, payload = frame.to_message()
        values = json.loads(header)
        return self.pack(topic, values if stream is None else {**values, "stream": stream}, payload)


def unpack_frame(parts: Sequence[bytes], topic: bytes) -> IndexFrame:
    """The index frame in a message.

    Raises:
        MessageError: another number of parts, another topic, or a frame that is malformed.
    """
    if len(parts) != 3:
        raise MessageError(f"message of {len(parts)} parts, expected topic, header and payload")
    if parts[0] != topic:
        raise MessageError(f"topic {parts[0][:40]!r}, expected {topic!r}")
    try:
        return IndexFrame.from_message(parts[1], parts[2])
    except IndexFrameError as error:
        raise MessageError(str(error)) from None


def unpack_header(parts: Sequence[bytes]) -> dict[str, Any]:
    """The JSON header of a message; raises MessageError where there is none."""
    if len(parts) != 3 or len(parts[1]) > MAX_HEADER_BYTES:
        raise MessageError("expected topic, header and payload")
    try:
        header = json.loads(parts[1])
    except (ValueError, RecursionError):
        raise MessageError("header is not JSON") from None
    if not isinstance(header, dict):
        raise MessageError("header is not a JSON object")
    return header


class Refusal(StrEnum):
    """Why a message was dropped. Exactly one applies to each."""

    OVERSIZED = "oversized"  # more bytes than this socket takes
    MALFORMED = "malformed"  # wrong parts, topic, header or payload
    REPLAYED = "replayed"  # this sender's message of this number has been here before
    OUT_OF_ORDER = "out_of_order"  # a later message of this sender has been here before


@dataclass(frozen=True)
class Dropped:
    """A message that must not pass: why, and what is wrong with it."""

    refusal: Refusal
    detail: str


class SequenceCheck:
    """Knows which numbers of which sender have been seen.

    A sender that restarts takes a new random id and begins a new sequence: its messages are no replay of
    the old one's. The numbers of the last 1024 senders are remembered, 64 back from the highest; what is
    older counts as seen.
    """

    def __init__(self) -> None:
        self.missed = 0
        self._seen: OrderedDict[str, tuple[int, int]] = OrderedDict()

    def refusal(self, sender: str, number: int) -> Refusal | None:
        """Note a message; the reason to drop it, None where it is new and in order."""
        highest, seen = self._seen.pop(sender, (number - 1, 0))
        ahead = number - highest
        if ahead > 0:
            self.missed += ahead - 1
            # Bit k stands for the number that is k below the highest.
            seen = (seen << ahead if ahead < _WINDOW else 0) & ((1 << _WINDOW) - 1) | 1
            highest, refusal = number, None
        elif -ahead < _WINDOW and not seen >> -ahead & 1:
            seen |= 1 << -ahead
            refusal = Refusal.OUT_OF_ORDER
        else:
            refusal = Refusal.REPLAYED
        self._seen[sender] = highest, seen
        if len(self._seen) > _MAX_SENDERS:
            self._seen.popitem(last=False)
        return refusal


class MessageReader:
    """Takes messages off a socket, drops what must not pass, and counts why. One reader per socket.

    Args:
        max_bytes: of a message, all parts together.
    """

    def __init__(self, max_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self.refused = dict.fromkeys(Refusal, 0)
        self._max_bytes = max_bytes
        self._sequence = SequenceCheck()

    @property
    def missed(self) -> int:
        """Messages that never came, as far as the numbers tell.

        Of a PUSH socket with several readers each reader sees its share only: there this means nothing.
        """
        return self._sequence.missed

    def read(
        self, socket: zmq.Socket[bytes], parse: Callable[[list[bytes]], _Content]
    ) -> _Content | None:
        """The next message of a socket that has one, parsed; None where it was dropped.

        Args:
            socket: to read from.
            parse: parts to content; raises MessageError.
        """
        return self.check(self.receive(socket), parse)

    def check(
        self, parts: list[bytes], parse: Callable[[list[bytes]], _Content]
    ) -> _Content | None:
        """As :meth:`read`, for a message that is here already."""
        found = self.examine(parts, parse)
        return None if isinstance(found, Dropped) else found

    def examine(
        self, parts: list[bytes], parse: Callable[[list[bytes]], _Content]
    ) -> _Content | Dropped:
        """As :meth:`check`, for who has to tell the sender."""
        if sum(map(len, parts)) > self._max_bytes:
            return self._drop(Refusal.OVERSIZED, f"more than {self._max_bytes} bytes")
        try:
            sender, number = origin(unpack_header(parts))
            content = parse(parts)
        except MessageError as error:
            return self._drop(Refusal.MALFORMED, str(error))
        # Only now: a damaged copy must not use up the number of the good one.
        refusal = self._sequence.refusal(sender, number)
        if refusal is not None:
            return self._drop(refusal, f"message {number} of sender {sender}")
        return content

    def to_json(self) -> dict[str, int]:
        """The counts by cause."""
        return {refusal.value: count for refusal, count in self.refused.items()}

    def receive(self, socket: zmq.Socket[bytes]) -> list[bytes]:
        """All parts, or as many as already make too large a message; the rest is forgotten."""
        parts: list[bytes] = []
        size = 0
        while True:
            part = socket.recv()
            if size <= self._max_bytes and len(parts) < _MAX_PARTS:
                parts.append(part)
                size += len(part)
            if not socket.getsockopt(zmq.RCVMORE):
                return parts

    def _drop(self, refusal: Refusal, detail: str) -> Dropped:
        self.refused[refusal] += 1
        count = self.refused[refusal]
        if is_worth_a_line(count):
            _LOG.warning("message dropped, %s (%d so far): %s", refusal.value, count, detail[:200])
        return Dropped(refusal, detail)


def origin(header: Mapping[str, Any]) -> tuple[str, int]:
    """Who sent a message, and its number; raises MessageError where the header does not say."""
    sender, number = header.get("sender"), header.get("seq")
    if not (isinstance(sender, str) and 1 <= len(sender) <= _MAX_SENDER_CHARACTERS):
        raise MessageError("header: sender is missing or of the wrong type")
    if not (sender.isascii() and sender.isprintable()):
        raise MessageError("header: sender is not printable ASCII")
    if type(number) is not int or not 0 <= number <= _MAX_NUMBER:
        raise MessageError("header: seq is missing or of the wrong type")
    return sender, number


@dataclass(frozen=True)
class SocketLimits:
    """Messages queued per peer, how long a send may wait for room, and the largest message taken."""

    high_water_mark: int
    send_timeout_ms: int
    max_message_bytes: int = MAX_MESSAGE_BYTES


def open_socket(
    context: zmq.Context[zmq.Socket[bytes]],
    kind: int,
    *,
    bind: str | None = None,
    connect: str | None = None,
    limits: SocketLimits,
    keys: CurveKeys | None = None,
    prepare: Callable[[zmq.Socket[bytes]], None] = lambda socket: None,
) -> zmq.Socket[bytes]:
    """A bounded socket: limited queue, limited message size, no endless waiting.

    Args:
        context: ZMQ context; where keys are given and something is bound, with a
            :class:`~blocks.zmq_security.SocketGuard`: without one nobody gets in.
        kind: ``zmq.PUSH``, ``zmq.PULL``, ``zmq.PUB``, ``zmq.SUB``, ...
        bind: address to bind, or None.
        connect: address to connect to, or None.
        limits: queue length, longest wait, largest message.
        keys: encrypt and authenticate with these; None: neither.
        prepare: called with the socket before it is bound or connected.

    Raises:
        AddressError: the address is in use or cannot be understood.
    """
    socket = context.socket(kind)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.SNDHWM, limits.high_water_mark)
    socket.setsockopt(zmq.RCVHWM, limits.high_water_mark)
    socket.setsockopt(zmq.SNDTIMEO, limits.send_timeout_ms)
    socket.setsockopt(zmq.MAXMSGSIZE, _SOCKET_LIMIT * limits.max_message_bytes)
    # A connection that has not come about takes no messages: a send waits for it and times out, instead
    # of filling a queue that nobody will ever read.
    socket.setsockopt(zmq.IMMEDIATE, 1)
    socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
    socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, _KEEPALIVE_IDLE_S)
    socket.setsockopt(zmq.TCP_KEEPALIVE_INTVL, _KEEPALIVE_INTERVAL_S)
    socket.setsockopt(zmq.TCP_KEEPALIVE_CNT, _KEEPALIVE_COUNT)
    if keys is not None:
        _encrypt(socket, keys, server=bind is not None)
    prepare(socket)
    # ZMQ binds to addresses and interfaces, not to names.
    bind, connect = (
        None if one is None else one.replace("tcp://localhost:", "tcp://127.0.0.1:", 1)
        for one in (bind, connect)
    )
    address = bind if bind is not None else connect
    try:
        if address is not None and "[" in address:
            socket.setsockopt(zmq.IPV6, 1)
        if bind is not None:
            socket.bind(bind)
        elif connect is not None:
            socket.connect(connect)
    except zmq.ZMQError as error:
        socket.close()
        raise AddressError(f"cannot open {address}: {str(error).lower()}") from None
    return socket


def _encrypt(socket: zmq.Socket[bytes], keys: CurveKeys, *, server: bool) -> None:
    socket.setsockopt(zmq.CURVE_PUBLICKEY, keys.public)
    socket.setsockopt(zmq.CURVE_SECRETKEY, keys.secret)
    if not server:
        socket.setsockopt(zmq.CURVE_SERVERKEY, keys.server)
        return
    socket.setsockopt(zmq.CURVE_SERVER, 1)
    socket.setsockopt(zmq.ZAP_DOMAIN, ZAP_DOMAIN.encode())
    socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)


def bound_address(socket: zmq.Socket[bytes]) -> str:
    """The address a socket is bound to, with the port that the system chose for ``:*``."""
    return socket.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")
