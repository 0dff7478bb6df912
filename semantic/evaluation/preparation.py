"""What is done once for every set and system, before anything goes over the air.

1. :func:`refer`: what the judge says about the sources of a set, and about a grey picture.
2. :func:`encode`: what a system sends of every row, and how good it is where it arrives whole.

Both leave a file, which every cell reads. A file that is there is not made again. Networks compute in one
thread, and on batches that depend on the step alone, so that it gives the same file in whichever process it
runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import polars as pl
import torch
from PIL import Image

from semantic.evaluation.assignment import Assignment, Workplace, workplace
from semantic.evaluation.kept_pictures import keep_sources, to_png
from semantic.evaluation.quality import Quality, SourceAnswers
from semantic.evaluation.table import write_parquet
from semantic.index_frame import IndexFrame
from semantic.judge import ask_reference
from semantic.systems.controls import grey_picture
from semantic.systems.system import Received, UnreachableError

_QUALITY: dict[str, pl.DataType] = {
    "psnr_db": pl.Float64(),
    "ms_ssim": pl.Float64(),
    "feature_distance": pl.Float64(),
    "intent_loss": pl.Float64(),
    "answer": pl.String(),
    "answer_without_query": pl.String(),
}
_REFERENCE: dict[str, pl.DataType] = {
    "source_answer": pl.String(),
    "source_answer_without_query": pl.String(),
    "blank_match": pl.Boolean(),
    "unrelated_match": pl.Boolean(),
    **_QUALITY,  # of a grey picture
}
_ENCODED: dict[str, pl.DataType] = {
    "status": pl.String(),  # ok, undecodable, unreachable
    "frame": pl.Binary(),
    "picture": pl.Binary(),  # PNG
    **_QUALITY,  # of the picture shown
}


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch's threads would fight with those of the other processes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def refer(assignment: Assignment, data_set: str) -> None:
    """Step 1; also keeps the sources of the first rows."""
    file = assignment.reference_file(data_set)
    here = workplace(assignment)
    sources, queries = here.sources(data_set), here.queries(data_set)
    kept = assignment.plan.keep_pictures
    keep_sources(assignment.output / "pictures", data_set, sources[:kept])
    if file.exists():
        return
    with one_thread():
        reference = ask_reference(here.meter.judge, sources, queries)
        greys = [grey_picture(assignment.image_size)] * len(sources)
        qualities = here.meter.measure(sources, greys, queries)
    rows = [
        asdict(SourceAnswers.of(reference, row)) | asdict(quality)
        for row, quality in enumerate(qualities)
    ]
    write_parquet(pl.DataFrame(rows, schema=_REFERENCE), file)


def encode(assignment: Assignment, data_set: str, system: str) -> None:
    """Step 2."""
    file = assignment.encoded_file(data_set, system)
    if file.exists():
        return
    here = workplace(assignment)
    sources, queries = here.sources(data_set), here.queries(data_set)
    with one_thread():
        coded = _encode_rows(here, data_set, system)
        grey = grey_picture(assignment.image_size)
        there = [row for row, (frame, _) in enumerate(coded) if frame is not None]
        qualities = here.meter.measure(
            [sources[row] for row in there],
            [coded[row][1] or grey for row in there],
            [queries[row] for row in there],
        )
    by_row = dict(zip(there, qualities, strict=True))
    rows = [
        {
            "status": _status_of_whole(frame, picture),
            "frame": None if frame is None else frame.to_bytes(),
            "picture": None if picture is None else to_png(picture),
            **(asdict(by_row[row]) if row in by_row else dict.fromkeys(_QUALITY)),
        }
        for row, (frame, picture) in enumerate(coded)
    ]
    write_parquet(pl.DataFrame(rows, schema=_ENCODED), file)


def _encode_rows(
    here: Workplace, data_set: str, label: str
) -> list[tuple[IndexFrame | None, Image.Image | None]]:
    """Frame and picture of every row; once for a photo where the question changes nothing."""
    system = here.system(label)
    known: dict[tuple[int, str], tuple[IndexFrame | None, Image.Image | None]] = {}
    found = []
    pairs = zip(here.sources(data_set), here.queries(data_set), strict=True)
    for row, (source, query) in enumerate(pairs):
        key = (id(source), query if system.hears_query else "")
        if key not in known:
            try:
                frame = system.encode(source, query, row)
                known[key] = frame, system.decode(Received(frame, True), query)
            except UnreachableError:
                known[key] = None, None
        found.append(known[key])
    return found


def _status_of_whole(frame: IndexFrame | None, picture: Image.Image | None) -> str:
    if frame is None:
        return "unreachable"
    return "ok" if picture is not None else "undecodable"


@lru_cache(maxsize=64)
def read_encoded(file: Path) -> list[tuple[str, IndexFrame | None, Quality | None]]:
    """Status, frame and quality of every row; without the pictures, which are the most of it."""
    table = pl.read_parquet(file, columns=[name for name in _ENCODED if name != "picture"])
    return [
        (
            row["status"],
            None if row["frame"] is None else IndexFrame.from_bytes(row["frame"]),
            None if row["frame"] is None else _quality(row),
        )
        for row in table.iter_rows(named=True)
    ]


def read_source_answers(file: Path) -> list[SourceAnswers]:
    """What the judge says about the source of every row."""
    columns = [field.name for field in fields(SourceAnswers)]
    rows = pl.read_parquet(file, columns=columns).iter_rows(named=True)
    return [SourceAnswers(**row) for row in rows]


@lru_cache(maxsize=8)
def read_greys(file: Path) -> list[Quality]:
    """Quality of a grey picture in place of every row."""
    return [_quality(row) for row in pl.read_parquet(file).iter_rows(named=True)]


def read_pictures(file: Path) -> list[bytes | None]:
    """PNG of every row of :func:`encode`; None where there is none."""
    found: list[bytes | None] = pl.read_parquet(file, columns=["picture"])["picture"].to_list()
    return found


def _quality(row: dict[str, Any]) -> Quality:
    return Quality(**{name: row[name] for name in _QUALITY})
