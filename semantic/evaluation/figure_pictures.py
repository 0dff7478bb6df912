"""Fig. 3 of the paper: what every system shows of a few photos, the question under each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from semantic.evaluation import figure_style as style
from semantic.evaluation.cells import Cell
from semantic.evaluation.kept_pictures import picture_file
from semantic.evaluation.summary import CONTROLS, rows_at

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PHOTOS = 5
_CELL_IN = 1.25
_SNR_DB = 0.0  # the paper's
_MISSING = "#e4e7ea"
_WRONG = "#B03A00"


def received_file(folder: Path, row: Mapping[str, Any]) -> Path:
    """Where an evaluation keeps the picture that a row of its table is about."""
    same = {key: row[key] for key in ("set", "system", "channel", "snr_db", "mcs", "seed")}
    cell = Cell(**same, policies=(row["policy"],))
    return picture_file(folder, cell, row["policy"], row["row"])


def draw_pictures(
    table: pl.DataFrame, folder: Path, systems: Sequence[str], name: str, channel: str
) -> Figure | str:
    """Photos by systems at 0 dB, or at the lowest Es/N0 there is; under each picture the judge's answer.

    Args:
        table: rows of an evaluation.
        folder: its ``pictures``.
        systems: labels, in the order of the columns; controls have none.
        name: of the data set.
        channel: of the air.
    """
    rows = rows_at(table, set=name, channel=channel).filter(
        pl.col("snr_db").is_not_null(), ~pl.col("kind").is_in(CONTROLS)
    )
    kept = [row for row in _kept_rows(folder / name) if row in set(rows["row"])]
    if rows.is_empty() or not kept:
        return f"no pictures were kept in {folder / name}"
    snr_db = min(rows["snr_db"], key=lambda value: (abs(value - _SNR_DB), value))
    rows = rows.filter(pl.col("snr_db") == snr_db, pl.col("row").is_in(kept))
    # The most robust policy there is: at 0 dB rate 1/2 lets nothing through.
    policy = style.in_order(rows["policy"], ("lowest", "table", "fixed"))[0]
    rows = rows_at(rows, policy=policy, seed=rows["seed"].min())
    photos = rows.sort("row").unique("photo", keep="first", maintain_order=True).head(_PHOTOS)
    columns = [label for label in systems if label in set(rows["system"])]
    return _grid(rows, photos, columns, folder, title=_title(name, channel, policy, snr_db))


def _title(name: str, channel: str, policy: str, snr_db: float) -> str:
    air = style.CHANNEL_NAMES.get(channel, channel)
    return f"{name}, {air}, Es/N0 {snr_db:g} dB, {style.POLICY_NAMES.get(policy, policy)}"


def _kept_rows(folder: Path) -> list[int]:
    if not folder.is_dir():
        return []
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())


def _grid(
    rows: pl.DataFrame, photos: pl.DataFrame, systems: list[str], folder: Path, title: str
) -> Figure:
    from matplotlib.figure import Figure

    size = ((len(systems) + 1) * _CELL_IN + 0.1, photos.height * (_CELL_IN + 0.36) + 0.9)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(photos.height, len(systems) + 1, squeeze=False)
    for line, photo in zip(axes, photos.iter_rows(named=True), strict=True):
        source = folder / str(photo["set"]) / str(photo["row"]) / "source.png"
        _draw(line[0], source, str(photo["answer_source"] or ""), style.INK)
        line[0].annotate(
            str(photo["query"]),
            (0, 0),
            (0, -19),
            xycoords="axes fraction",
            textcoords="offset points",
            fontsize=8,
            fontstyle="italic",
            color=style.INK,
            in_layout=False,
        )
        for one, label in zip(line[1:], systems, strict=True):
            found = rows_at(rows, row=photo["row"], system=label)
            if found.is_empty():
                _draw(one, None, "", style.INK)
                continue
            row = found.row(0, named=True)
            kept = received_file(folder, row)
            _draw(one, kept, *_answer(row))
    for one, label in zip(axes[0], ["source", *systems], strict=True):
        one.set_title(style.wrapped(label, 17), fontsize=8, color=style.INK)
    figure.suptitle(title, fontsize=10, color=style.INK)
    return figure


def _answer(row: Mapping[str, object]) -> tuple[str, str]:
    status, answer = row["status"], row["answer"]
    text = str(answer if answer is not None else "n/a")
    note = "" if status in ("ok", "unreachable") else f" ({status})"
    return text + note, style.INK if row["match"] else _WRONG


def _draw(axes: Axes, file: Path | None, text: str, colour: str) -> None:
    from PIL import Image

    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    # The second line is the question's.
    axes.set_xlabel(f"{text}\n ", fontsize=7.5, color=colour, labelpad=2)
    if file is None or not file.is_file():
        axes.set_facecolor(_MISSING)
        axes.set_aspect("equal")
        axes.text(0.5, 0.5, "no picture", ha="center", va="center", fontsize=7.5, color=style.INK)
        return
    with Image.open(file) as picture:
        axes.imshow(np.asarray(picture.convert("RGB")), interpolation="lanczos")
