"""Small parts that the tests of the blocks share: a codec's geometry, frames, and an ear in a flowgraph."""

from __future__ import annotations

import queue
import socket
import time
from collections.abc import Callable

import numpy as np
import pmt
from gnuradio import gr

from blocks.picture_taker import PictureTaker
from blocks.zmq_security import CurveKeys
from semantic.index_frame import FrameGeometry, IndexFrame, LayerGeometry

ANY_PORT = "tcp://127.0.0.1:*"
# Longest wait for anything: a machine under load is slow, a dead thread never answers.
PATIENCE_S = 20.0

# 8 + 2 + 0.5 kbit: the shape of a real picture, a few bursts at most.
GEOMETRY = FrameGeometry(
    "0123abcd", 96, 6, (LayerGeometry(144, 8), LayerGeometry(36, 8), LayerGeometry(9, 8))
)


def random_frame(
    frame_id: int, seed: int | None = None, geometry: FrameGeometry = GEOMETRY
) -> IndexFrame:
    """A frame of random indices."""
    generator = np.random.default_rng(frame_id if seed is None else seed)
    return IndexFrame(
        frame_id,
        geometry,
        tuple(
            generator.integers(
                0, 1 << geometry.bits_per_index, (layer.tokens, layer.segments)
            ).astype(np.uint16)
            for layer in geometry.layers
        ),
        "is there a cat?",
    )


def same_indices(one: IndexFrame, other: IndexFrame) -> bool:
    """Every index of two frames agrees."""
    return all(np.array_equal(a, b) for a, b in zip(one.indices, other.indices, strict=True))


class Decoder:
    """Takes pictures as a decoder does; to be polled like a socket.

    Args:
        address: of a receiver.
        keys: of its sockets.
    """

    def __init__(self, address: str, keys: CurveKeys | None = None) -> None:
        self._taker = PictureTaker(address, 99, keys)
        self._next: IndexFrame | None = None

    def poll(self, timeout_ms: float, _event: int = 0) -> bool:
        """Whether a picture is there, or comes in time."""
        if self._next is None and (picture := self._taker.take(int(timeout_ms))) is not None:
            self._next = picture.frame
            self._taker.done(picture)
        return self._next is not None

    def frame(self) -> IndexFrame:
        """The picture that is there."""
        assert self.poll(0), "no picture came"
        frame, self._next = self._next, None
        assert frame is not None
        return frame

    def close(self) -> None:
        """Give the socket back."""
        self._taker.close()


class Collector(gr.basic_block):
    """Puts every message that comes in on port ``in`` on a queue, so that a test can wait for it."""

    def __init__(self) -> None:
        gr.basic_block.__init__(self, name="Collector", in_sig=None, out_sig=None)
        self.messages: queue.Queue[pmt.pmt_base] = queue.Queue()
        self.message_port_register_in(pmt.intern("in"))
        self.set_msg_handler(pmt.intern("in"), self._on_message)

    def _on_message(self, message: pmt.pmt_base) -> None:
        self.messages.put(message)

    def get(self) -> pmt.pmt_base:
        """The next message; fails the test where none comes."""
        return self.messages.get(timeout=PATIENCE_S)

    def nothing_for(self, seconds: float) -> bool:
        """True where no message comes for so long."""
        try:
            self.messages.get(timeout=seconds)
        except queue.Empty:
            return True
        return False


def free_ports(count: int) -> list[int]:
    """Ports that nobody uses just now."""
    opened = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in opened]
    for one in opened:
        one.close()
    return ports


def post(block: gr.basic_block, port: str, message: pmt.pmt_base) -> None:
    """Hand a message to a block's input port, as the scheduler does."""
    block.to_basic_block()._post(pmt.intern(port), message)


def wait_until(done: Callable[[], bool], what: str) -> None:
    """For counters that no event announces; fails the test after ``PATIENCE_S``."""
    deadline = time.monotonic() + PATIENCE_S
    while not done():
        assert time.monotonic() < deadline, f"waited {PATIENCE_S:.0f} s for {what}"
        time.sleep(0.002)
