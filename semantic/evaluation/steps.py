"""The three steps of an evaluation, each a function of its assignment that leaves one file.

1. :func:`refer`: what the judge says about the sources of a set, and about a grey picture.
2. :func:`encode`: what a system sends of every row, and how good it is where it arrives whole.
3. :func:`run_cell`: every frame over the air of a cell; only what arrived in part is decoded and measured.

A file that is there is not made again. Networks compute in one thread, and on batches that depend on the step
alone, so that a step gives the same file in whichever process it runs.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import polars as pl
import torch
from PIL import Image

from semantic.evaluation.assignment import Assignment, Workplace, workplace
from semantic.evaluation.cells import Cell
from semantic.evaluation.files import atomic_write, picture_file
from semantic.evaluation.quality import Quality
from semantic.evaluation.table import make_table, write_parquet
from semantic.index_frame import IndexFrame
from semantic.judge import ask_reference
from semantic.systems.controls import grey_picture
from semantic.systems.link import LinkResult, deliver, send
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
_NO_LINK = dict.fromkeys(
    ("symbols", "payload_symbols", "bits", "bits_per_pixel", "energy"), None
) | dict.fromkeys(("bursts", "bursts_lost", "code_blocks", "code_blocks_ok"), None)
_NO_SYMBOLS = dict.fromkeys(_NO_LINK, 0) | {"energy": None}


@dataclass(frozen=True)
class _Shown:
    """What the receiver shows of one row; no quality where the system could not code it."""

    status: str
    quality: Quality | None
    link: dict[str, Any]
    picture: Image.Image | None = None  # None: grey, or that of :func:`encode`


@contextmanager
def _one_thread() -> Iterator[None]:
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
    _keep_sources(here, data_set)
    if file.exists():
        return
    sources, queries = here.sources(data_set), _queries(here, data_set)
    with _one_thread():
        reference = ask_reference(here.meter.judge, sources, queries)
        greys = [grey_picture(assignment.image_size)] * len(sources)
        qualities = here.meter.measure(sources, greys, queries)
    unrelated = reference.unrelated_matches
    rows = [
        {
            "source_answer": answer.text,
            "source_answer_without_query": answer.without_query,
            "blank_match": bool(reference.blank_matches[row]),
            "unrelated_match": None if unrelated is None else bool(unrelated[row]),
            **asdict(quality),
        }
        for row, (answer, quality) in enumerate(zip(reference.answers, qualities, strict=True))
    ]
    write_parquet(pl.DataFrame(rows, schema=_REFERENCE), file)


def encode(assignment: Assignment, data_set: str, system: str) -> None:
    """Step 2."""
    file = assignment.encoded_file(data_set, system)
    if file.exists():
        return
    here = workplace(assignment)
    sources, queries = here.sources(data_set), _queries(here, data_set)
    with _one_thread():
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
            "picture": None if picture is None else _png(picture),
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
    pairs = zip(here.sources(data_set), _queries(here, data_set), strict=True)
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


def run_cell(assignment: Assignment, cell: Cell) -> None:
    """Step 3; needs the files of the other two."""
    file = assignment.cell_file(cell)
    if file.exists():
        return
    here = workplace(assignment)
    with _one_thread():
        control = assignment.systems[cell.system].kind in ("blank", "wrong_picture")
        shown = _show_control(here, cell) if control else _send_all(here, cell)
    _keep_received(here, cell, shown)
    write_parquet(make_table(_table_rows(here, cell, shown)), file)


def _show_control(here: Workplace, cell: Cell) -> list[_Shown]:
    sources = here.sources(cell.set)
    try:
        pictures = here.control(cell.system).pictures(sources)
    except UnreachableError:
        return [_Shown("unreachable", None, _NO_LINK)] * len(sources)
    qualities = here.meter.measure(sources, pictures, _queries(here, cell.set))
    return [
        _Shown("ok", quality, _NO_SYMBOLS, picture)
        for quality, picture in zip(qualities, pictures, strict=True)
    ]


def _send_all(here: Workplace, cell: Cell) -> list[_Shown]:
    """Every row of a set over the air; pictures that arrived in part are measured together."""
    encoded = _read_encoded(here.assignment.encoded_file(cell.set, cell.system))
    greys = _grey_qualities(here.assignment.reference_file(cell.set))
    queries = _queries(here, cell.set)
    shown: list[_Shown] = []
    parts: dict[int, Image.Image] = {}
    for row, (status, frame, quality) in enumerate(encoded):
        if frame is None:
            shown.append(_Shown("unreachable", None, _NO_LINK))
            continue
        result = _send(cell, row, frame)
        link = _link_columns(cell, frame, result)
        if result.received.complete:
            shown.append(_Shown(status, quality, link))
        elif result.received.frame is None:
            shown.append(_Shown("lost", greys[row], link))
        else:
            picture = here.system(cell.system).decode(result.received, queries[row])
            if picture is not None:
                parts[row] = picture
            kind = "undecodable" if picture is None else "partial"
            shown.append(_Shown(kind, greys[row], link, picture))
    sources = here.sources(cell.set)
    measured = (
        here.meter.measure(
            [sources[row] for row in parts], list(parts.values()), [queries[row] for row in parts]
        )
        if parts
        else []
    )
    for row, quality in zip(parts, measured, strict=True):
        shown[row] = _Shown("partial", quality, shown[row].link, parts[row])
    return shown


def _send(cell: Cell, row: int, frame: IndexFrame) -> LinkResult:
    assert cell.mcs is not None  # only controls have none
    if cell.channel == "none" or cell.snr_db is None:
        return deliver(frame, mcs=cell.mcs)
    # The same air for all systems, and at every Es/N0.
    seed = [cell.seed, zlib.crc32(cell.set.encode()), row]
    return send(frame, mcs=cell.mcs, snr_db=cell.snr_db, channel=cell.channel, seed=seed)


def _link_columns(cell: Cell, frame: IndexFrame, result: LinkResult) -> dict[str, Any]:
    bits = frame.geometry.payload_bits
    energy = None if cell.snr_db is None else result.symbols * 10 ** (cell.snr_db / 10)
    return {
        "symbols": result.symbols,
        "payload_symbols": result.payload_symbols,
        "bits": bits,
        "bits_per_pixel": bits / frame.geometry.image_size**2,
        "energy": energy,
        "bursts": result.bursts,
        "bursts_lost": result.bursts_lost,
        "code_blocks": result.code_blocks,
        "code_blocks_ok": result.code_blocks_ok,
    }


def _table_rows(here: Workplace, cell: Cell, shown: Sequence[_Shown]) -> list[dict[str, Any]]:
    """Rows of the table, one for each picture and policy."""
    facts = here.assignment.systems[cell.system]
    reference = pl.read_parquet(here.assignment.reference_file(cell.set)).to_dicts()
    asked = here.rows(cell.set)
    return [
        {
            "system": cell.system,
            "kind": facts.kind,
            "codec_id": facts.codec_id,
            "segment_length": facts.segment_length,
            "channel": cell.channel,
            "snr_db": cell.snr_db,
            "policy": policy,
            "mcs": cell.mcs,
            "seed": cell.seed,
            "set": cell.set,
            "row": row,
            "photo": asked[row].file.name,
            "query": asked[row].question,
            "status": one.status,
            **one.link,
            **_quality_columns(one.quality, reference[row]),
        }
        for policy in cell.policies
        for row, one in enumerate(shown)
    ]


def _quality_columns(quality: Quality | None, reference: dict[str, Any]) -> dict[str, Any]:
    source, unasked = reference["source_answer"], reference["source_answer_without_query"]
    columns = {
        "answer_source": source,
        "blank_match": reference["blank_match"],
        "unrelated_match": reference["unrelated_match"],
    }
    if quality is None:
        names = ("psnr_db", "ms_ssim", "feature_distance", "intent_loss", "answer")
        return columns | dict.fromkeys((*names, "match", "match_without_query"))
    found = asdict(quality)
    received_unasked = found.pop("answer_without_query")
    return (
        columns
        | found
        | {
            "match": quality.answer == source,
            "match_without_query": None if unasked is None else received_unasked == unasked,
        }
    )


def _queries(here: Workplace, data_set: str) -> list[str]:
    return [row.question for row in here.rows(data_set)]


@lru_cache(maxsize=64)
def _read_encoded(file: Path) -> list[tuple[str, IndexFrame | None, Quality | None]]:
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


@lru_cache(maxsize=8)
def _grey_qualities(file: Path) -> list[Quality]:
    return [_quality(row) for row in pl.read_parquet(file).iter_rows(named=True)]


def _quality(row: dict[str, Any]) -> Quality:
    return Quality(**{name: row[name] for name in _QUALITY})


def _keep_sources(here: Workplace, data_set: str) -> None:
    kept = here.assignment.plan.keep_pictures
    for row, picture in enumerate(here.sources(data_set)[:kept]):
        file = here.assignment.output / "pictures" / data_set / str(row) / "source.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(file, _png(picture))


def _keep_received(here: Workplace, cell: Cell, shown: Sequence[_Shown]) -> None:
    """Before the cell's rows are written: a cell that is there has its pictures."""
    kept = shown[: here.assignment.plan.keep_pictures]
    if not kept:
        return
    whole: list[bytes | None] = [None] * len(kept)
    if any(one.status == "ok" and one.picture is None for one in kept):
        file = here.assignment.encoded_file(cell.set, cell.system)
        whole = pl.read_parquet(file, columns=["picture"])["picture"].to_list()
    grey = _png(grey_picture(here.assignment.image_size))
    for row, one in enumerate(kept):
        if one.status == "unreachable":
            continue
        ours = whole[row] if one.status == "ok" and one.picture is None else None
        data = ours or (grey if one.picture is None else _png(one.picture))
        for policy in cell.policies:
            target = picture_file(
                here.assignment.output / "pictures",
                *(cell.set, row, cell.system, cell.channel, policy, cell.snr_db, cell.seed),
            )
            target.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(target, data)


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
