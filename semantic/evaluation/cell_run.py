"""One cell: every frame of a set over its air, and what is then shown.

What arrives whole was decoded and measured before (:mod:`semantic.evaluation.preparation`), and of what is
lost a grey picture is shown; only what arrives in part is decoded and measured here.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image

from semantic.evaluation.assignment import Assignment, Workplace, workplace
from semantic.evaluation.cells import Cell
from semantic.evaluation.kept_pictures import keep_received, to_png
from semantic.evaluation.preparation import (
    one_thread,
    read_encoded,
    read_greys,
    read_pictures,
    read_source_answers,
)
from semantic.evaluation.quality import Quality, quality_columns
from semantic.evaluation.table import LINK, make_table, write_parquet
from semantic.index_frame import IndexFrame
from semantic.systems.controls import grey_picture
from semantic.systems.link import LinkResult, deliver, send
from semantic.systems.system import UnreachableError

_NO_LINK: dict[str, Any] = dict.fromkeys(name for name in LINK if name != "status")
_NO_SYMBOLS: dict[str, Any] = dict.fromkeys(_NO_LINK, 0) | {"energy": None}


@dataclass(frozen=True)
class _Shown:
    """What the receiver shows of one row; no quality where the system could not code it."""

    status: str
    quality: Quality | None
    link: dict[str, Any]
    picture: Image.Image | None = None  # None: grey, or that of :func:`encode`


def run_cell(assignment: Assignment, cell: Cell) -> None:
    """Write the rows of a cell, unless they are there; needs what the preparation left."""
    file = assignment.cell_file(cell)
    if file.exists():
        return
    here = workplace(assignment)
    with one_thread():
        control = assignment.systems[cell.system].kind in ("blank", "wrong_picture")
        shown = _show_control(here, cell) if control else _send_all(here, cell)
    _keep(here, cell, shown)
    write_parquet(make_table(_table_rows(here, cell, shown)), file)


def _show_control(here: Workplace, cell: Cell) -> list[_Shown]:
    sources = here.sources(cell.set)
    try:
        pictures = here.control(cell.system).pictures(sources)
    except UnreachableError:
        return [_Shown("unreachable", None, _NO_LINK)] * len(sources)
    qualities = here.meter.measure(sources, pictures, here.queries(cell.set))
    return [
        _Shown("ok", quality, _NO_SYMBOLS, picture)
        for quality, picture in zip(qualities, pictures, strict=True)
    ]


def _send_all(here: Workplace, cell: Cell) -> list[_Shown]:
    """Every row of a set over the air; pictures that arrived in part are measured together."""
    encoded = read_encoded(here.assignment.encoded_file(cell.set, cell.system))
    shown = [_send_row(here, cell, row, *one) for row, one in enumerate(encoded)]
    parts = {row: one.picture for row, one in enumerate(shown) if one.status == "partial"}
    sources, queries = here.sources(cell.set), here.queries(cell.set)
    measured = here.meter.measure(
        [sources[row] for row in parts],
        [picture for picture in parts.values() if picture is not None],
        [queries[row] for row in parts],
    )
    for row, quality in zip(parts, measured, strict=True):
        shown[row] = replace(shown[row], quality=quality)
    return shown


def _send_row(
    here: Workplace,
    cell: Cell,
    row: int,
    status: str,
    frame: IndexFrame | None,
    quality: Quality | None,
) -> _Shown:
    """One frame over the air.

    Args:
        here: where systems are loaded.
        cell: the air.
        row: of the set.
        status: where the frame arrives whole.
        frame: None where the system cannot code the picture.
        quality: where it arrives whole.

    Returns:
        Without quality where it arrived in part.
    """
    if frame is None:
        return _Shown("unreachable", None, _NO_LINK)
    result = _send(cell, row, frame)
    link = _link_columns(cell, frame, result)
    if result.received.complete:
        return _Shown(status, quality, link)
    grey = read_greys(here.assignment.reference_file(cell.set))[row]
    if result.received.frame is None:
        return _Shown("lost", grey, link)
    picture = here.system(cell.system).decode(result.received, here.queries(cell.set)[row])
    if picture is None:
        return _Shown("undecodable", grey, link)
    return _Shown("partial", None, link, picture)


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
        "bits_per_pixel": frame.bits_per_pixel,
        "energy": energy,
        "bursts": result.bursts,
        "bursts_lost": result.bursts_lost,
        "code_blocks": result.code_blocks,
        "code_blocks_ok": result.code_blocks_ok,
    }


def _table_rows(here: Workplace, cell: Cell, shown: Sequence[_Shown]) -> list[dict[str, Any]]:
    """Rows of the table, one for each picture and policy."""
    facts = here.assignment.systems[cell.system]
    reference = read_source_answers(here.assignment.reference_file(cell.set))
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
            **quality_columns(one.quality, reference[row]),
        }
        for policy in cell.policies
        for row, one in enumerate(shown)
    ]


def _keep(here: Workplace, cell: Cell, shown: Sequence[_Shown]) -> None:
    """Before the cell's rows are written: a cell that is there has its pictures."""
    kept = shown[: here.assignment.plan.keep_pictures]
    if not kept:
        return
    whole: list[bytes | None] = [None] * len(kept)
    if any(one.status == "ok" and one.picture is None for one in kept):
        whole = read_pictures(here.assignment.encoded_file(cell.set, cell.system))
    grey = to_png(grey_picture(here.assignment.image_size))
    pictures: list[bytes | None] = []
    for row, one in enumerate(kept):
        if one.status == "unreachable":
            pictures.append(None)
        elif one.picture is not None:
            pictures.append(to_png(one.picture))
        else:
            pictures.append(whole[row] if one.status == "ok" else grey)
    keep_received(here.assignment.output / "pictures", cell, pictures)
