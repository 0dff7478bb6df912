"""What an evaluation compares: a system turns picture and question into an index frame, and a frame back.

What sends something over the air is a :class:`System`, what shows a picture without sending any is a
:class:`Control`; :mod:`semantic.systems.registry` makes both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from PIL import Image

from semantic.index_frame import IndexFrame


class UnreachableError(ValueError):
    """This system cannot code this picture as asked: "n/a" in a table, not a fault."""


class UnavailableError(RuntimeError):
    """Something that a system is made of is not on this machine; the text says what and how to get it."""


@dataclass(frozen=True)
class Received:
    """What the air gives back of one frame.

    Args:
        frame: with an erasure mask where code blocks are missing; None where nothing came.
        complete: True when every code block is there.
    """

    frame: IndexFrame | None
    complete: bool


class System(Protocol):
    """A way to send a picture. Neither direction depends on what was sent before.

    Attributes:
        label: name in tables and figures.
        kind: key of its specification, e.g. ``"uoisc"``.
        codec_id: of a trained codec; None where there is none.
        segment_length: d of its quantiser; None where there is none.
        image_size: side in pixels of the square pictures it takes and gives.
        hears_query: False where a question changes neither what is sent nor what is shown.
        own_judges: identities of the judges whose answers it sends, or whom it was trained or searches to
            please: they must not score it (:func:`semantic.judge.refuse_same_judge`).
    """

    label: str
    kind: str
    codec_id: str | None
    segment_length: int | None
    image_size: int
    hears_query: bool
    own_judges: tuple[str, ...]

    def encode(self, picture: Image.Image, query: str, frame_id: int) -> IndexFrame:
        """What is sent of a picture, given a question.

        Args:
            picture: RGB, ``image_size`` x ``image_size``.
            query: what the user wants to know.
            frame_id: 0..2**32-1.

        Raises:
            UnreachableError: it does not fit into what the system may spend.
        """

    def decode(self, received: Received, query: str) -> Image.Image | None:
        """What the receiver shows.

        Args:
            received: as the air gave it back, however damaged.
            query: the question, which the receiver has without being told.

        Returns:
            RGB, ``image_size`` x ``image_size``; None where nothing can be shown. Never raises for damage.
        """

    def notes(self) -> list[str]:
        """What a report must say about this system, a sentence each."""


class Control(Protocol):
    """Shows a picture and sends nothing: no symbols, no channel, no system.

    Attributes:
        label: name in tables and figures.
        kind: ``"blank"`` or ``"wrong_picture"``.
    """

    label: str
    kind: str

    def pictures(self, sources: Sequence[Image.Image]) -> list[Image.Image]:
        """What is shown in place of every source.

        Args:
            sources: one per row of the data set, RGB; rows about one photo hold the same object.

        Raises:
            UnreachableError: a wrong picture is asked for where there is only one photo.
        """
