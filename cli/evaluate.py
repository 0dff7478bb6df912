"""``uoisc evaluate``: a plan's grid of systems, channels and code rates over the real modem, as one table."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import options
from cli.output import atomic_write, make_console, make_folder, print_json

if TYPE_CHECKING:
    import polars as pl

    from semantic.evaluation.run import Outcome

_CAPTURED_NOTE = (
    "recordings; quality refers to the photo where it is named, else to the picture that the indices "
    "decode to without errors"
)
_WHAT = {"reference": "the judge about the sources", "encode": "pictures coded", "cells": "cells"}


class Backend(StrEnum):
    """Where the work is done."""

    PROCESS = "process"
    RAY = "ray"


def evaluate(
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Folder of the results; an unfinished one goes on."),
    ],
    plan: Annotated[
        Path | None, typer.Argument(metavar="[PLAN.yaml]", help="What is compared, on what.")
    ] = None,
    captures: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Recordings with their sent frames: rows of the same table."
        ),
    ] = None,
    sources: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Photos by frame number (7.png) behind --captures."),
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Codec of the recorded frames; default the embedded one.")
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=FOLDER", help="Where the photos of a set of the plan lie."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="So many rows of each set at most, evenly spread.")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Processes; by default one for each core.")
    ] = None,
    backend: Annotated[Backend, typer.Option(help="Processes of this machine, or Ray.")] = (
        Backend.PROCESS
    ),
    ray_address: Annotated[
        str | None,
        typer.Option(help="A running Ray cluster; without it one is started on this machine."),
    ] = None,
    device: options.Device = "auto",
    as_json: options.Json = False,
) -> None:
    """Run a plan, or what is left of it, and write one table; recordings can be rows of it as well.

    Every cell is kept as soon as it is finished: after Ctrl-C the same command goes on. The table depends on
    neither the number of processes nor where they run.
    """
    if plan is None and captures is None:
        raise typer.BadParameter("give a plan, --captures, or both", param_hint="PLAN.yaml")
    _refuse_without(captures is not None, "--captures", sources=sources, checkpoint=checkpoint)
    _refuse_without(backend is Backend.RAY, "--backend ray", ray_address=ray_address)
    _refuse_without(plan is not None, "a plan", data=data, limit=limit)

    from semantic.evaluation.plan import load_plan
    from semantic.evaluation.run import evaluate as run_plan

    folders = dict(_folder(text) for text in data or ())
    checked = None if plan is None else load_plan(plan, folders, limit)
    make_folder(output)
    # First: a recording that cannot be used shows at once.
    recorded = None if captures is None else _recorded(captures, checkpoint, sources, device)
    outcome = None
    if checked is not None:
        with _progress() as show:
            outcome = run_plan(
                checked,
                output.absolute(),
                jobs=jobs or os.cpu_count() or 1,
                backend=backend.value,
                ray_address=ray_address,
                device=device,
                progress=show,
            )
    table = _write(outcome, recorded, output)
    if as_json:
        print_json(_summary(table, outcome, output))
        return
    cells = ""
    if outcome is not None:
        cells = f" of {outcome.cells} cells, {outcome.cells_run} of them run now ({outcome.seconds:.0f} s)"
    make_console(stderr=False).print(
        f"{table.height} rows{cells}: {output / 'results.parquet'}", markup=False
    )


def _refuse_without(given: bool, needed: str, **options: object) -> None:
    """An option that would do nothing is a mistake of whoever gave it."""
    for name, value in options.items():
        if value and not given:
            raise typer.BadParameter(
                f"only with {needed}", param_hint=f"--{name.replace('_', '-')}"
            )


def _recorded(
    captures: Path, checkpoint: Path | None, sources: Path | None, device: str
) -> pl.DataFrame:
    from cli.evaluate_captures import captured_table
    from semantic.codec.loader import load_codec
    from semantic.judge import load_judge

    # Nothing is encoded: the towers are not needed.
    codec = load_codec(checkpoint, device, towers=False)
    return captured_table(captures, codec, load_judge(), sources=sources)


def _write(outcome: Outcome | None, recorded: pl.DataFrame | None, output: Path) -> pl.DataFrame:
    """One table of the plan's cells and the recordings, and notes where no plan wrote any."""
    import polars as pl

    from semantic.evaluation.run import versions, write_results
    from semantic.evaluation.table import sort_table

    if recorded is None:
        assert outcome is not None
        return outcome.table
    table = sort_table(pl.concat([recorded] if outcome is None else [outcome.table, recorded]))
    write_results(table, output)
    file = output / "notes.json"
    fresh = {"versions": versions()}
    notes = fresh if outcome is None else json.loads(file.read_text(encoding="utf-8"))
    notes |= {"rows": table.height, "channel captured": _CAPTURED_NOTE}
    atomic_write(file, json.dumps(notes, indent=1, ensure_ascii=False).encode())
    return table


def _folder(text: str) -> tuple[str, Path]:
    name, equals, folder = text.partition("=")
    if not (name and equals and folder):
        raise typer.BadParameter(f"{text!r}: expected NAME=FOLDER", param_hint="--data")
    return name, Path(folder)


def _summary(table: pl.DataFrame, outcome: Outcome | None, output: Path) -> dict[str, object]:
    statuses = table["status"].value_counts().sort("status").iter_rows()
    return {
        "output": str(output),
        "cells": None if outcome is None else outcome.cells,
        "cells_run": None if outcome is None else outcome.cells_run,
        "rows": table.height,
        "status": {str(status): count for status, count in statuses},
        "seconds": None if outcome is None else round(outcome.seconds, 1),
    }


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each kind of step, with the time that is left."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    with Progress(
        TextColumn("{task.description:28}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=make_console(),
    ) as progress:
        bars = {
            what: progress.add_task(text, start=False, visible=False)
            for what, text in _WHAT.items()
        }

        def show(what: str, done: int, total: int) -> None:
            if done == 0:
                progress.start_task(bars[what])
            progress.update(bars[what], completed=done, total=total, visible=True)

        yield show


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(evaluate)
