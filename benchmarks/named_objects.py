"""Photos with named objects and their boxes: which questions about them can be measured.

The listing is ``objects.jsonl`` beside a folder ``images``: per line ``image`` and ``objects``, each with
``name`` and ``box`` (left, top, right, bottom as shares of the photo's sides).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from semantic.asked_photos import PhotosError

# Share of the photo that an asked object may cover, and of itself that another may hide.
SMALLEST, LARGEST = 0.02, 0.6
MOST_OVERLAP = 0.3
# It is no ImageNet class, and counted apart.
PERSON = "person"
# Cells per token and side from which a box's share of a token is counted.
_FINE = 8

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class NamedRegion:
    """Everything in a photo that has one name.

    Args:
        photo: number of the photo in the listing.
        file: the photo.
        name: for example ``dog``.
        boxes: one per object of that name, as shares of the sides.
    """

    photo: int
    file: Path
    name: str
    boxes: tuple[Box, ...]

    @property
    def question(self) -> str:
        """A question about it."""
        article = "an" if self.name[0] in "aeiou" else "a"
        return f"Is there {article} {self.name}?"

    def cover(self, grid: int) -> NDArray[np.float64]:
        """Share of each token that lies in one of the boxes: ``[grid, grid]``."""
        inside = np.zeros((grid * _FINE, grid * _FINE))
        for left, top, right, bottom in self.boxes:
            x, y = (
                slice(*(round(edge * grid * _FINE) for edge in edges))
                for edges in ((left, right), (top, bottom))
            )
            inside[y, x] = 1
        return inside.reshape(grid, _FINE, grid, _FINE).mean((1, 3))


def read_named_regions(data: Path) -> list[NamedRegion]:
    """Read ``data/objects.jsonl``; regions of one photo follow each other.

    Raises:
        PhotosError: a listing that is missing, empty or malformed.
    """
    file = data / "objects.jsonl"
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise PhotosError(f"{file}: {reason}") from None
    regions = []
    for photo, line in enumerate(line for line in lines if line.strip()):
        named: dict[str, list[Box]] = {}
        try:
            row = json.loads(line)
            picture = data / "images" / row["image"]
            for item in row["objects"]:
                named.setdefault(str(item["name"]), []).append(_box(item["box"]))
        except (ValueError, KeyError, TypeError) as error:
            raise PhotosError(f"{file}, photo {photo + 1}: {error}") from None
        regions += [NamedRegion(photo, picture, k, tuple(v)) for k, v in named.items()]
    if not regions:
        raise PhotosError(f"{file}: no objects in this file")
    return regions


def _box(values: list[float]) -> Box:
    left, top, right, bottom = (float(value) for value in values)
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise ValueError(f"box {values}: expected left, top, right, bottom within 0..1")
    return left, top, right, bottom


def askable(region: NamedRegion, grid: int) -> bool:
    """Whether a region is neither too small nor too large to ask about."""
    return SMALLEST <= float(region.cover(grid).mean()) <= LARGEST


def apart(asked: NamedRegion, other: NamedRegion, grid: int) -> bool:
    """Whether two regions of one photo have different names and little in common."""
    if asked.photo != other.photo or asked.name == other.name:
        return False
    cover = asked.cover(grid)
    shared = np.minimum(cover, other.cover(grid)).sum()
    return float(shared) < MOST_OVERLAP * float(cover.sum())
