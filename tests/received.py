"""What the air may give back of a frame, made without any air."""

from __future__ import annotations

import numpy as np

from semantic.index_frame import IndexFrame
from semantic.systems.system import Received


def whole(frame: IndexFrame) -> Received:
    """The frame as a perfect link gives it back: through its bits, the question not sent along."""
    return Received(
        IndexFrame.from_bits(frame.geometry, frame.to_bits(), frame_id=frame.frame_id), True
    )


def without_bits(frame: IndexFrame, first: int, count: int) -> Received:
    """The frame after ``count`` of its bits were lost; the receiver's best guess at them is noise."""
    bits = frame.to_bits()
    lost = np.zeros(len(bits), np.bool_)
    lost[first : first + count] = True
    llrs = np.where(bits, -80, 80).astype(np.int8)
    random = np.random.default_rng(first)
    llrs[lost] = random.integers(-9, 10, int(lost.sum()))
    received = IndexFrame.from_bits(
        frame.geometry,
        np.where(lost, llrs < 0, bits).astype(np.uint8),
        frame_id=frame.frame_id,
        erased_bits=lost,
        bit_llrs=llrs,
    )
    return Received(received, False)


def with_noise(frame: IndexFrame, seed: int, share: float) -> Received:
    """The frame with wrong bits that nobody noticed."""
    bits = frame.to_bits()
    wrong = np.random.default_rng(seed).random(len(bits)) < share
    received = IndexFrame.from_bits(
        frame.geometry, (bits ^ wrong).astype(np.uint8), frame_id=frame.frame_id
    )
    return Received(received, True)


def by_bytes(frame: IndexFrame, data: bytes) -> Received:
    """A frame of the same geometry with other bytes, as a stranger could send it."""
    bits = np.unpackbits(np.frombuffer(data, np.uint8))
    assert len(bits) == frame.geometry.payload_bits
    return Received(IndexFrame.from_bits(frame.geometry, bits, frame_id=frame.frame_id), True)
