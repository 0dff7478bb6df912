"""``uoisc plot``: figures, tables and the report of a finished evaluation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import options
from cli.benchmark_common import make_table, print_table
from cli.output import (
    atomic_write,
    check_output_file,
    make_console,
    make_folder,
    print_json,
    print_text,
)

if TYPE_CHECKING:
    import polars as pl
    from rich.table import Table

TABLE_FILE = "results.parquet"
NOTES_FILE = "notes.json"


class ResultsError(ValueError):
    """A folder that holds no results of an evaluation, or damaged ones."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("plot")(plot)


def plot(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="What uoisc evaluate wrote with --output.")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for figures; default DIR/figures.")
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(help="Write tables and findings here (Markdown), figures beside it."),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Draw what the table of an evaluation allows, and print its summary."""
    table, notes = read_results(folder)
    if report is not None:
        check_output_file(report)
    target = make_folder(output if output is not None else folder / "figures")

    import matplotlib

    from semantic.evaluation.figure_style import save_figure, save_for_page
    from semantic.evaluation.figures import draw_figures
    from semantic.evaluation.report import make_report
    from semantic.evaluation.summary import summarise

    matplotlib.rcdefaults()  # whatever a matplotlibrc says
    with make_console().status("computing intervals") as status:
        summary = summarise(table)
        gallery = draw_figures(table, summary, folder / "pictures")
        files = []
        for name, figure in gallery.figures.items():
            status.update(f"drawing {name}")
            files += save_figure(figure, target, name)
        if report is not None:
            status.update("writing the report")
            # Photos of a data set are not ours to put beside a page.
            shown = {n: one for n, one in gallery.figures.items() if not n.startswith("fig3")}
            pages = make_folder(report.parent / "images" / report.stem)
            made = [save_for_page(figure, pages, name) for name, figure in shown.items()]
            links = {one.stem: one.relative_to(report.parent).as_posix() for one in made}
            atomic_write(report, make_report(table, summary, notes, links).encode())
            files += [*made, report]
    if as_json:
        written = {"files": [str(file) for file in files], "left_out": gallery.left_out}
        print_json(written | {"summary": summary.to_dicts()})
        return
    for printed in _tables(summary):
        print_table(printed)
    for line in (*map(str, files), *(f"left out: {line}" for line in gallery.left_out)):
        print_text(line)


def read_results(folder: Path) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Table and notes of an evaluation.

    Raises:
        ResultsError: no such folder, no table in it, an empty one, or notes that are no JSON object.
        TableError: a damaged table, or one of another version.
    """
    from semantic.evaluation.table import read_table

    if not folder.is_dir():
        raise ResultsError(f"{folder}: no such folder")
    if not (folder / TABLE_FILE).is_file():
        raise ResultsError(
            f"{folder}: holds no {TABLE_FILE}; uoisc evaluate PLAN.yaml --output {folder} writes it"
        )
    table = read_table(folder / TABLE_FILE)
    if table.is_empty():
        raise ResultsError(f"{folder / TABLE_FILE}: a table without rows")
    return table, _read_notes(folder / NOTES_FILE)


def _read_notes(file: Path) -> dict[str, Any]:
    try:
        notes = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ResultsError(f"{file}: is missing") from None
    except (OSError, ValueError) as error:
        raise ResultsError(f"{file}: cannot be read as JSON ({error})") from None
    if not isinstance(notes, dict):
        raise ResultsError(f"{file}: expected a JSON object, found {type(notes).__name__}")
    return notes


def _tables(summary: pl.DataFrame) -> list[Table]:
    """Per set, channel and policy: every system at a few Es/N0, intervals in brackets."""
    from semantic.evaluation.report import shown_snr_db

    made = []
    parts = summary.partition_by("set", "channel", "policy", maintain_order=True, as_dict=True)
    for (name, channel, policy), part in parts.items():
        table = make_table(
            f"{name}, {channel}" + (f", {policy}" if channel != "none" else ""),
            *("Es/N0", "system", "symbols", "bpp", "match", "kappa", "relevance loss"),
            *("PSNR", "MS-SSIM", "complete", "rows"),
        )
        table.columns[1].justify, table.columns[1].no_wrap = "left", False
        for snr_db in [*shown_snr_db(part["snr_db"].drop_nulls()), None]:
            for row in part.rows(named=True):
                if row["snr_db"] == snr_db:
                    table.add_row(*_cells(row))
        made.append(table)
    return made


def _cells(row: dict[str, Any]) -> list[str]:
    def text(name: str, form: str, *, interval: bool = False) -> str:
        if row[name] is None:
            return "n/a"
        low, high = (row.get(f"{name}_{end}") for end in ("low", "high"))
        ends = f" ({low:{form}}..{high:{form}})" if interval and low is not None else ""
        return f"{row[name]:{form}}{ends}"

    return [
        "" if row["snr_db"] is None else f"{row['snr_db']:.3g}",
        row["system"],
        text("symbols", ".0f"),
        text("bits_per_pixel", ".2f"),
        text("match", ".2f"),
        text("kappa", ".2f", interval=True),
        text("intent_loss", ".3f", interval=True),
        text("psnr_db", ".1f"),
        text("ms_ssim", ".3f"),
        text("complete", ".0%"),
        str(row["rows"]),
    ]
