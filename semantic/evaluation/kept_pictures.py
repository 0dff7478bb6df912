"""The pictures that an evaluation keeps: sources and what was received, of the first rows of every set."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from semantic.evaluation.cells import Cell
from semantic.evaluation.files import atomic_write


def picture_file(folder: Path, cell: Cell, policy: str, row: int) -> Path:
    """Where a received picture is kept."""
    snr = "none" if cell.snr_db is None else f"{cell.snr_db:g}"
    name = f"{cell.system}--{cell.channel}--{policy}--{snr}--{cell.seed}.png"
    return folder / cell.set / str(row) / name


def keep_sources(folder: Path, data_set: str, sources: Sequence[Image.Image]) -> None:
    """Write the sources of the first rows, all that are given."""
    for row, picture in enumerate(sources):
        file = folder / data_set / str(row) / "source.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(file, to_png(picture))


def keep_received(folder: Path, cell: Cell, pictures: Sequence[bytes | None]) -> None:
    """Write what was shown of the first rows, as PNG; None where nothing was."""
    for row, data in enumerate(pictures):
        if data is None:
            continue
        for policy in cell.policies:
            target = picture_file(folder, cell, policy, row)
            target.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(target, data)


def to_png(picture: Image.Image) -> bytes:
    """A picture as the content of a PNG file."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
