"""The messages on the ZMQ sockets: ``[topic, JSON header, raw little-endian payload]``.

The header of every message carries the sender's random id and a running number, so that a reader can
tell what it missed and a restarted sender from a confused one. Nothing from a socket is trusted: sizes
are limited by the socket itself, every part is checked before use, nothing is ever unpickled.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import zmq

from semantic.index_frame import MAX_HEADER_BYTES, IndexFrame, IndexFrameError

TOPIC_FRAME = b"frame"  # to the transmitter: indices to send
TOPIC_PICTURE = b"picture"  # from the receiver: indices received
TOPIC_STATISTICS = b"statistics"  # from the receiver, PUB only: running totals

# The largest frame has 2**20 bits: 2 MiB of 16-bit indices at one bit each, flags and LLRs beside them.
MAX_MESSAGE_BYTES = 8 * 1024 * 1024


class MessageError(ValueError):
    """A ZMQ message that is not of this project's form."""


class AddressError(RuntimeError):
    """A ZMQ address that cannot be bound or connected."""


class MessageWriter:
    """Numbers messages and packs them. One writer per socket."""

    def __init__(self) -> None:
        self.sender = secrets.token_hex(4)
        self._next = 0

    def pack(self, topic: bytes, header: Mapping[str, Any], payload: bytes = b"") -> list[bytes]:
        """Parts of one message; ``header`` gets ``sender`` and ``seq`` added."""
        numbered = {**header, "sender": self.sender, "seq": self._next}
        self._next += 1
        return [topic, json.dumps(numbered, separators=(",", ":")).encode(), payload]

    def pack_frame(self, topic: bytes, frame: IndexFrame) -> list[bytes]:
        """Parts of a message that carries an index frame."""
        header, payload = frame.to_message()
        return self.pack(topic, json.loads(header), payload)


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


@dataclass(frozen=True)
class SocketLimits:
    """Messages queued per peer, and how long a send may wait for room."""

    high_water_mark: int
    send_timeout_ms: int


def open_socket(
    context: zmq.Context[zmq.Socket[bytes]],
    kind: int,
    *,
    bind: str | None = None,
    connect: str | None = None,
    limits: SocketLimits,
) -> zmq.Socket[bytes]:
    """A bounded socket: limited queue, limited message size, no endless waiting.

    Args:
        context: ZMQ context.
        kind: ``zmq.PUSH``, ``zmq.PULL``, ``zmq.PUB`` or ``zmq.SUB``.
        bind: address to bind, or None.
        connect: address to connect to, or None.
        limits: queue length and longest wait.

    Raises:
        AddressError: the address is in use or cannot be understood.
    """
    socket = context.socket(kind)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.SNDHWM, limits.high_water_mark)
    socket.setsockopt(zmq.RCVHWM, limits.high_water_mark)
    socket.setsockopt(zmq.SNDTIMEO, limits.send_timeout_ms)
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
    # A connection that has not come about takes no messages: a send waits for it and times out, instead
    # of filling a queue that nobody will ever read.
    socket.setsockopt(zmq.IMMEDIATE, 1)
    try:
        if bind is not None:
            socket.bind(bind)
        if connect is not None:
            socket.connect(connect)
    except zmq.ZMQError as error:
        socket.close()
        address = bind if bind is not None else connect
        raise AddressError(f"cannot open {address}: {str(error).lower()}") from None
    return socket


def bound_address(socket: zmq.Socket[bytes]) -> str:
    """The address a socket is bound to, with the port that the system chose for ``:*``."""
    return socket.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")
