"""Training photos with their questions, held in memory, and the frozen towers' answers to them."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from semantic.alignment import TextFeatures, TextForm
from semantic.backbone import Backbone
from semantic.pictures import PictureError, load_picture, picture_endings

_LOG = logging.getLogger(__name__)

# Asked about photos that come without questions: it leans to nothing.
DEFAULT_QUESTION = "What is in the picture?"
COCO_NAME = re.compile(r"COCO_\w+_(\d{12})\.jpg")


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


def read_photo_set(source: Path, side: int) -> PhotoSet:
    """Read photos and questions, cropped to the centre square and resized where they are not ``side``.

    Args:
        source: one of

            - JSON lines with ``image`` (a file in ``images/`` beside it) and ``question``,
            - a ``.json`` file of VQA v2 questions (``v2_OpenEnded_mscoco_..._questions.json``), with the
              photos of COCO, ``COCO_..._<twelve digits>.jpg``, in ``images/`` beside it or folders below,
            - a folder of photos (if it has a folder ``images``, that one), about each of which
              :data:`DEFAULT_QUESTION` is asked; those that cannot be read are left out, named and counted.
        side: of the pictures, in pixels.

    Raises:
        DatasetError: naming the file and what is missing or malformed.
    """
    if source.is_dir():
        digest, asked = hashlib.sha256(), _folder_questions(source)
        for file in asked:
            digest.update(f"{file.name}\n".encode())
    else:
        raw = _read_bytes(source)
        digest = hashlib.sha256(raw)
        asked = (_vqa_questions if source.suffix == ".json" else _line_questions)(source, raw)
    if not asked:
        raise DatasetError(f"{source}: no photos in it")
    pictures = torch.empty(len(asked), 3, side, side, dtype=torch.uint8)
    questions: list[tuple[str, ...]] = []
    for file, about in asked.items():
        digest.update(_read_bytes(file, f"{source}: photo "))
        try:
            pixels = np.asarray(load_picture(file, side))
        except PictureError as error:
            # A listing is meant as it stands; a folder is whatever somebody has put there.
            if not source.is_dir():
                raise DatasetError(f"{source}: photo {error}") from None
            _LOG.warning("photo left out: %s", error)
            continue
        pictures[len(questions)] = torch.from_numpy(pixels.transpose(2, 0, 1).copy())
        questions.append(tuple(about))
    if not questions:
        raise DatasetError(f"{source}: none of its {len(asked)} photos can be read")
    if len(questions) < len(asked):
        _LOG.warning(
            "%s: %d of %d photos left out", source, len(asked) - len(questions), len(asked)
        )
    return PhotoSet(pictures[: len(questions)], tuple(questions), digest.hexdigest())


def _read_bytes(file: Path, before: str = "") -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise DatasetError(f"{before}{file}: {error.strerror}") from None


def _folder_questions(folder: Path) -> dict[Path, list[str]]:
    """The same question about every photo of a folder, in the order of their names."""
    inner = folder / "images"
    suffixes = picture_endings()
    files = sorted((inner if inner.is_dir() else folder).iterdir())
    return {file: [DEFAULT_QUESTION] for file in files if file.suffix.lower() in suffixes}


def _line_questions(source: Path, raw: bytes) -> dict[Path, list[str]]:
    """Questions of every photo, from JSON lines."""
    found: dict[Path, list[str]] = {}
    for number, line in enumerate(raw.splitlines(), 1):
        if not line.strip():
            continue
        row = _json(line, f"{source}, line {number}")
        image = row.get("image") if isinstance(row, dict) else None
        if not isinstance(image, str) or not _inside(image) or not _is_question(row):
            raise DatasetError(
                f"{source}, line {number}: expected an object with image (a file in images/) and question, "
                f"found {_shorten(line.decode(errors='replace'))}"
            )
        found.setdefault(source.parent / "images" / image, []).append(row["question"])
    return found


def _vqa_questions(source: Path, raw: bytes) -> dict[Path, list[str]]:
    """Questions of every photo, from a VQA v2 file."""
    data = _json(raw, str(source))
    rows = data.get("questions") if isinstance(data, dict) else None
    if not isinstance(rows, list):
        raise DatasetError(f"{source}: expected an object with a list questions, as VQA v2 has")
    folder = source.parent / "images"
    photos = {
        int(match[1]): file
        for file in sorted(folder.rglob("COCO_*.jpg"))
        if (match := COCO_NAME.fullmatch(file.name))
    }
    found: dict[Path, list[str]] = {}
    for number, row in enumerate(rows):
        image = row.get("image_id") if isinstance(row, dict) else None
        if not isinstance(image, int) or not _is_question(row):
            raise DatasetError(
                f"{source}: questions[{number}]: expected an object with image_id and question, found "
                f"{_shorten(str(row))}"
            )
        if image not in photos:
            raise DatasetError(
                f"{source}: questions[{number}]: no photo COCO_*_{image:012d}.jpg in {folder}"
            )
        found.setdefault(photos[image], []).append(row["question"])
    return found


def _json(text: bytes, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{where}: not JSON ({error})") from None


def _is_question(row: dict[str, Any]) -> bool:
    question = row.get("question")
    return isinstance(question, str) and bool(question.strip())


def _inside(name: str) -> bool:
    """Whether a file name stays in its folder."""
    return bool(name) and not Path(name).is_absolute() and ".." not in Path(name).parts


def _shorten(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:80]}..."


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
