"""What is wrong with a received index frame, counted against the one that was sent. NumPy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from semantic.index_frame import IndexFrame


@dataclass(frozen=True)
class FrameErrors:
    """Errors of one frame.

    Args:
        bits: payload bits.
        bit_errors: of them wrong; where a code block failed, by the receiver's best guess.
        indices: indices sent.
        index_errors: of them wrong or missing.
    """

    bits: int
    bit_errors: int
    indices: int
    index_errors: int


def count_errors(sent: IndexFrame, received: IndexFrame) -> FrameErrors:
    """Compare a received frame with the one that was sent, of the same geometry."""
    wrong = 0
    unknown = received.unknown
    for number, (a, b) in enumerate(zip(sent.indices, received.indices, strict=True)):
        bad = a != b
        if unknown is not None:
            bad |= unknown[number]
        wrong += int((bad & sent.sent[number]).sum())
    bits = sent.to_bits()
    return FrameErrors(
        bits=bits.size,
        bit_errors=_bit_errors(bits, received),
        indices=sum(int(mask.sum()) for mask in sent.sent),
        index_errors=wrong,
    )


def _bit_errors(sent: np.ndarray, received: IndexFrame) -> int:
    if received.bit_llrs is not None:
        return int(((received.bit_llrs < 0) != sent.astype(np.bool_)).sum())
    return int((received.to_bits() != sent).sum())
