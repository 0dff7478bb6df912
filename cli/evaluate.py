"""``uoisc evaluate``: a plan's grid of systems, channels and code rates over the real modem, as one table."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import options
from cli.output import make_console, make_folder, print_json

if TYPE_CHECKING:
    from semantic.evaluation.run import Outcome

_WHAT = {"reference": "the judge about the sources", "encode": "pictures coded", "cells": "cells"}


class Backend(StrEnum):
    """Where the work is done."""

    PROCESS = "process"
    RAY = "ray"


def evaluate(
    plan: Annotated[Path, typer.Argument(metavar="PLAN.yaml", help="What is compared, on what.")],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Folder of the results; an unfinished one goes on."),
    ],
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
    """Run a plan, or what is left of it, and write one table.

    Every cell is kept as soon as it is finished: after Ctrl-C the same command goes on. The table depends on
    neither the number of processes nor where they run.
    """
    if ray_address is not None and backend is not Backend.RAY:
        raise typer.BadParameter("only with --backend ray", param_hint="--ray-address")

    from semantic.evaluation.plan import load_plan
    from semantic.evaluation.run import evaluate as run_plan

    checked = load_plan(plan, dict(_folder(text) for text in data or ()), limit)
    make_folder(output)
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
    if as_json:
        print_json(_summary(outcome, output))
        return
    make_console(stderr=False).print(
        f"{outcome.table.height} rows of {outcome.cells} cells, {outcome.cells_run} of them run now "
        f"({outcome.seconds:.0f} s): {output / 'results.parquet'}",
        markup=False,
    )


def _folder(text: str) -> tuple[str, Path]:
    name, equals, folder = text.partition("=")
    if not (name and equals and folder):
        raise typer.BadParameter(f"{text!r}: expected NAME=FOLDER", param_hint="--data")
    return name, Path(folder)


def _summary(outcome: Outcome, output: Path) -> dict[str, object]:
    return {
        "output": str(output),
        "cells": outcome.cells,
        "cells_run": outcome.cells_run,
        "rows": outcome.table.height,
        "status": {
            str(status): count
            for status, count in outcome.table["status"].value_counts().sort("status").iter_rows()
        },
        "seconds": round(outcome.seconds, 1),
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
