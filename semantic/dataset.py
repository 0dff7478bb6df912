"""Training photos with their questions, held in memory, and the frozen towers' answers to them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from semantic.alignment import TextFeatures, TextForm
from semantic.backbone import Backbone


class DatasetError(ValueError):
    """A training set that is missing or malformed."""


@dataclass(frozen=True)
class PhotoSet:
    """Photos and their questions.

    Args:
        pictures: uint8 ``[N, 3, side, side]``.
        questions: at least one per photo.
        digest: sha256 over the list and every photo file: which data a checkpoint was trained on.
    """

    pictures: Tensor
    questions: tuple[tuple[str, ...], ...]
    digest: str

    def __len__(self) -> int:
        return len(self.questions)


def read_photo_set(listing: Path, side: int) -> PhotoSet:
    """Read a VQA listing: JSON lines with ``image`` (a file in ``images/`` beside it) and ``question``.

    Photos that are not ``side`` x ``side`` are cropped to the centre square and resized.

    Raises:
        DatasetError: a missing listing or photo, or a line that is not as described.
    """
    try:
        raw = listing.read_bytes()
        rows = [json.loads(line) for line in raw.splitlines() if line.strip()]
        questions: dict[str, list[str]] = {}
        for row in rows:
            questions.setdefault(row["image"], []).append(row["question"])
    except OSError as error:
        raise DatasetError(f"{listing}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{listing}: not a listing of images and questions ({error})") from None
    digest = hashlib.sha256(raw)
    pictures = torch.empty(len(questions), 3, side, side, dtype=torch.uint8)
    for number, name in enumerate(questions):
        file = listing.parent / "images" / name
        try:
            digest.update(file.read_bytes())
            with Image.open(file) as picture:
                pictures[number] = torch.from_numpy(_square(picture, side))
        except OSError as error:
            raise DatasetError(f"{file}: {error}") from None
    return PhotoSet(pictures, tuple(tuple(q) for q in questions.values()), digest.hexdigest())


def _square(picture: Image.Image, side: int) -> NDArray[np.uint8]:
    """uint8 ``[3, side, side]``."""
    from semantic.pictures import fit_square

    return np.array(fit_square(picture.convert("RGB"), side)).transpose(2, 0, 1).copy()


class TowerFeatures:
    """Feature maps of photos and vectors of questions, each computed once.

    The towers are frozen, so their answer to a photo never changes: keeping it (float16, about 0.35 MB
    per photo at 160x160) saves half of a training step on a CPU.

    Args:
        backbone: the towers.
        photos: what to look at.
        keep: False computes everything anew each time, as towers that are being trained need.
        text_form: what of the questions is asked for.
    """

    def __init__(
        self, backbone: Backbone, photos: PhotoSet, *, keep: bool, text_form: TextForm = "pooled"
    ) -> None:
        self.backbone = backbone
        self.photos = photos
        self.keep = keep
        self.text_form: TextForm = text_form
        # Row 2 n is photo n, row 2 n + 1 its mirror image. Memory is taken as rows are written.
        self._known = np.zeros(2 * len(photos), np.bool_)
        self._maps: dict[int, Tensor] = {}
        self._text: dict[str, Tensor] = {}

    def pictures(self, numbers: Sequence[int], flips: Sequence[bool]) -> Tensor:
        """float32 ``[B, 3, side, side]``, 0..1, mirrored where asked."""
        chosen = self.photos.pictures[torch.as_tensor(numbers)].float().div_(255)
        mirrored = torch.as_tensor(flips)
        chosen[mirrored] = chosen[mirrored].flip(-1)
        return chosen

    def maps(self, numbers: Sequence[int], flips: Sequence[bool]) -> dict[int, Tensor]:
        """Feature maps of (mirrored) photos: index -> float32 ``[B, C, h, h]``."""
        if not self.keep:
            return self.backbone.image_features(self.pictures(numbers, flips))
        rows = [2 * n + int(flip) for n, flip in zip(numbers, flips, strict=True)]
        missing = [k for k, row in enumerate(rows) if not self._known[row]]
        if missing:
            found = self.backbone.image_features(
                self.pictures([numbers[k] for k in missing], [flips[k] for k in missing])
            )
            for index, values in found.items():
                if index not in self._maps:
                    shape = (2 * len(self.photos), *values.shape[1:])
                    self._maps[index] = torch.empty(shape, dtype=torch.float16)
                self._maps[index][[rows[k] for k in missing]] = values.half()
            self._known[[rows[k] for k in missing]] = True
        return {index: stored[rows].float() for index, stored in self._maps.items()}

    def text(self, queries: Sequence[str]) -> TextFeatures:
        """Vectors of questions, padded to the one with the most."""
        if not self.keep:
            return self.backbone.query_features(list(queries), self.text_form)
        missing = sorted({query for query in queries if query not in self._text})
        if missing:
            found = self.backbone.query_features(missing, self.text_form)
            for number, query in enumerate(missing):
                self._text[query] = found.vectors[number, found.mask[number]]
        known = [self._text[query] for query in queries]
        mask = pad_sequence([torch.ones(len(k), dtype=torch.bool) for k in known], batch_first=True)
        return TextFeatures(pad_sequence(known, batch_first=True), mask)
