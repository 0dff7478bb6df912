"""Controls: what a measure says of pictures that were never sent.

A system that scores no better than a grey picture, or than some other photo, has brought nothing over.
"""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from semantic.judges.agreement import GREY, another_each
from semantic.systems.system import UnreachableError


def grey_picture(side: int) -> Image.Image:
    """What is judged where there is nothing to show."""
    return Image.new("RGB", (side, side), GREY)


class BlankControl:
    """A grey picture for everything."""

    kind = "blank"

    def __init__(self, label: str) -> None:
        self.label = label

    def pictures(self, sources: Sequence[Image.Image]) -> list[Image.Image]:
        """See :class:`semantic.systems.system.Control`; one object for all rows of one size."""
        greys = {source.width: grey_picture(source.width) for source in sources}
        return [greys[source.width] for source in sources]


class WrongPictureControl:
    """For every photo the source of another one of the set, each used once.

    Args:
        label: name in tables and figures.
        seed: of the choice.
    """

    kind = "wrong_picture"

    def __init__(self, label: str, seed: int) -> None:
        self.label = label
        self._seed = seed

    def pictures(self, sources: Sequence[Image.Image]) -> list[Image.Image]:
        """See :class:`semantic.systems.system.Control`."""
        photos = list({id(source): source for source in sources}.values())
        others = another_each(len(photos), self._seed)
        if others is None:
            raise UnreachableError(f"{self.label}: there is no other photo to show")
        shown = {id(photo): photos[other] for photo, other in zip(photos, others, strict=True)}
        return [shown[id(source)] for source in sources]
