"""Which photos are measured, and what is asked about each."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semantic.pictures import picture_endings

# Asked where nobody asks: it leans to nothing.
DEFAULT_QUERY = "What is in the picture?"


class PhotosError(ValueError):
    """A folder of photos or a listing of questions that is missing, empty or malformed."""


@dataclass(frozen=True)
class AskedPhoto:
    """A photo and one question about it.

    Args:
        file: the photo.
        question: one line of text.
    """

    file: Path
    question: str


def read_photos(
    data: Path,
    questions: Path | None = None,
    query: str = DEFAULT_QUERY,
    limit: int | None = None,
) -> list[AskedPhoto]:
    """Photos of a folder, or the rows of a listing.

    Args:
        data: a folder of photos; if it has a folder ``images``, that one.
        questions: JSON lines with ``image`` (a file of that folder) and ``question``; None means every
            photo of the folder, in the order of names, with ``query``.
        query: the question where there is no listing.
        limit: so many rows at most, spread evenly over all of them.

    Raises:
        PhotosError: a folder or listing that is missing, empty or malformed.
    """
    folder = data / "images" if (data / "images").is_dir() else data
    if not folder.is_dir():
        raise PhotosError(f"{data}: {'not a folder' if data.exists() else 'no such folder'}")
    if questions is None:
        rows = [AskedPhoto(file, query) for file in list_photos(folder)]
    else:
        rows = _read_listing(questions, folder)
    return rows if limit is None else spread_evenly(rows, limit)


def list_photos(folder: Path) -> list[Path]:
    """Files whose suffix is that of a picture, in the order of their names.

    Raises:
        PhotosError: there is none.
    """
    suffixes = picture_endings()
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in suffixes)
    if not files:
        raise PhotosError(f"{folder}: no photos in this folder")
    return files


def spread_evenly(rows: list[Any], limit: int) -> list[Any]:
    """At most ``limit`` of the rows: sorted by class, the first ones would all be of one kind."""
    if len(rows) <= limit:
        return rows
    return [rows[number * len(rows) // limit] for number in range(limit)]


def _read_listing(file: Path, folder: Path) -> list[AskedPhoto]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise PhotosError(f"{file}: {reason}") from None
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            image, question = row["image"], row["question"]
        except (ValueError, KeyError, TypeError):
            image = question = None
        if not isinstance(image, str) or not isinstance(question, str):
            raise PhotosError(
                f"{file}, line {number}: expected a JSON object with the texts image and question"
            )
        rows.append(AskedPhoto(folder / image, question))
    if not rows:
        raise PhotosError(f"{file}: no questions in this file")
    return rows
