"""What the air gives back."""

from __future__ import annotations

from dataclasses import dataclass

from semantic.index_frame import IndexFrame


@dataclass(frozen=True)
class Received:
    """What came of a frame.

    Args:
        frame: with an erasure mask where blocks are missing; None where nothing came.
        complete: everything is there.
    """

    frame: IndexFrame | None
    complete: bool
