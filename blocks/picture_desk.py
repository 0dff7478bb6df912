"""PictureDesk: received pictures to decoders that ask for them. No GNU Radio.

A decoder says how many pictures it will take and which it is done with. What none has asked for waits here,
so that a decoder that is killed loses what it had in hand and no more, and that is known.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import zmq

from blocks.zmq_messages import (
    TOPIC_PICTURE,
    TOPIC_READY,
    MessageError,
    MessageReader,
    MessageWriter,
    unpack_header,
)
from semantic.index_frame import IndexFrame

MAX_READY_BYTES = 4096
MAX_READY = 1024
MAX_DONE = 64
# Asked for by all decoders together, and pictures out whose decoder never said that it was done.
_MOST_ASKED = 4096
_MOST_OUT = 4096
_READIES_AT_A_TIME = 256


@dataclass(frozen=True)
class Ready:
    """What a decoder says: so many more pictures, and the numbers of those that it is done with."""

    count: int
    done: tuple[int, ...] = ()

    def to_header(self) -> dict[str, Any]:
        """For a message."""
        return {"count": self.count, "done": list(self.done)}

    @classmethod
    def from_header(cls, header: Mapping[str, Any]) -> Ready:
        """Inverse of :meth:`to_header`; raises MessageError."""
        count, done = header.get("count"), header.get("done", [])
        if type(count) is not int or not 0 <= count <= MAX_READY:
            raise MessageError(f"header: count: expected 0 to {MAX_READY}")
        if not isinstance(done, list) or len(done) > MAX_DONE:
            raise MessageError(f"header: done: expected a list of at most {MAX_DONE}")
        if any(type(one) is not int for one in done):
            raise MessageError("header: done: expected whole numbers")
        return cls(count, tuple(done))


class PictureDesk:
    """Deals pictures out over a ROUTER socket. Used by one thread at a time.

    Args:
        socket: bound; it gets ``ROUTER_MANDATORY``.
        most_waiting: pictures that wait for a decoder.
    """

    def __init__(self, socket: zmq.Socket[bytes], most_waiting: int) -> None:
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self.done = 0
        self.reader = MessageReader(MAX_READY_BYTES)
        self._socket = socket
        self._most_waiting = most_waiting
        self._writer = MessageWriter()
        self._asked: deque[list[bytes]] = deque()
        self._waiting: deque[tuple[IndexFrame, int]] = deque()
        self._out: OrderedDict[int, None] = OrderedDict()

    @property
    def waiting(self) -> int:
        """Pictures that no decoder has asked for yet."""
        return len(self._waiting)

    @property
    def out(self) -> int:
        """Pictures that a decoder took and has not said to be done with."""
        return len(self._out)

    def offer(self, frame: IndexFrame, stream: int, patience_s: float) -> bool:
        """Deal a picture out, or keep it; False where there is no room for it within the patience."""
        self._waiting.append((frame, stream))
        self.serve()
        end_s = time.monotonic() + patience_s
        while len(self._waiting) > self._most_waiting:
            left_s = end_s - time.monotonic()
            if left_s <= 0:
                self._waiting.pop()
                return False
            self._socket.poll(int(1000 * left_s) + 1)
            self.serve()
        return True

    def offer_now(self, frame: IndexFrame, stream: int) -> bool:
        """Deal a picture out to a decoder that has asked for it already; False where there is none."""
        self._waiting.append((frame, stream))
        self.serve()
        if self._waiting:
            self._waiting.pop()
            return False
        return True

    def serve(self) -> None:
        """Hear decoders, and give them what waits."""
        for _ in range(_READIES_AT_A_TIME):
            if not self._socket.poll(0):
                break
            envelope, parts = open_envelope(self.reader.receive(self._socket))
            ready = self.reader.check(parts, _parse)
            if ready is not None:
                for number in ready.done:
                    self.done += self._out.pop(number, 0) is None
                room = _MOST_ASKED - len(self._asked)
                self._asked.extend([envelope] * min(ready.count, room))
        while self._waiting and self._asked:
            self._deal(self._asked.popleft())

    def _deal(self, envelope: list[bytes]) -> None:
        frame, stream = self._waiting[0]
        number = self._writer.next_number
        parts = self._writer.pack_frame(TOPIC_PICTURE, frame, stream)
        try:
            self._socket.send_multipart([*envelope, *parts], zmq.NOBLOCK)
        except zmq.ZMQError:
            return  # gone, or it asked for more than it takes
        self._waiting.popleft()
        self._out[number] = None
        if len(self._out) > _MOST_OUT:
            self._out.popitem(last=False)


def open_envelope(parts: list[bytes]) -> tuple[list[bytes], list[bytes]]:
    """A message as a ROUTER gets it: the envelope (the peer's address, REQ's empty part) and the rest."""
    size = 2 if len(parts) == 5 and not parts[1] else 1
    return parts[:size], parts[size:]


def _parse(parts: list[bytes]) -> Ready:
    header = unpack_header(parts)
    if parts[0] != TOPIC_READY:
        raise MessageError(f"topic {parts[0][:40]!r}, expected {TOPIC_READY!r}")
    return Ready.from_header(header)
