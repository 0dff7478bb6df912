"""What other picture coders make of the same photos in the same number of bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import joblib
import numpy as np
from PIL import Image

from semantic.systems.picture_coders import PICTURE_CODERS, CodedPicture

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class RivalPictures:
    """A coder's pictures of all photos within a number of bytes.

    Args:
        pictures: by photo, RGB in the size of the source.
        bits_per_pixel: mean of what was counted.
    """

    pictures: dict[Path, Image.Image]
    bits_per_pixel: float


def code_photos(
    photos: Mapping[Path, Image.Image],
    name: str,
    allowed_bytes: int,
    *,
    container: bool,
    progress: Progress = lambda done, total: None,
) -> RivalPictures | None:
    """Code all photos, on all cores.

    Args:
        photos: square pictures of one size.
        name: a key of :data:`semantic.systems.picture_coders.PICTURE_CODERS`.
        allowed_bytes: per picture.
        container: count whole files; otherwise what a receiver that knows coder and size lacks.
        progress: called with photos done, out of how many.

    Returns:
        None where a photo does not fit: a mean over those that do would be about easier photos.
    """
    calls = (
        joblib.delayed(_code)(photo, name, allowed_bytes, container) for photo in photos.values()
    )
    pictures: dict[Path, Image.Image] = {}
    counted: list[int] = []
    found = joblib.Parallel(n_jobs=-1, return_as="generator")(calls)
    for file, coded in zip(photos, found, strict=True):
        if coded is None:
            return None
        progress(len(pictures), len(photos))
        pictures[file] = coded.decoded
        counted.append(len(coded.data) if container else coded.payload_bytes)
    pixels = next(iter(photos.values())).width ** 2
    return RivalPictures(pictures, 8 * float(np.mean(counted)) / pixels)


def _code(
    photo: Image.Image, name: str, allowed_bytes: int, container: bool
) -> CodedPicture | None:
    return PICTURE_CODERS[name].code_within(photo, allowed_bytes, container=container)
