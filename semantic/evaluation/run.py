"""Running a plan: what is there is kept, what is missing is done, and all of it becomes one table.

A folder of results holds ``plan.yaml``, ``cells/<digest>.parquet`` for each finished cell, ``cache/``
(encoded frames and what the judge says of the sources), ``results.parquet`` and ``results.csv``,
``notes.json``, and ``pictures/``. Every file is whole or not there: a run may be broken off at any time, and
the next one goes on.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from pathlib import Path
from typing import Any

import polars as pl

from semantic.evaluation.assignment import Assignment, assign
from semantic.evaluation.backends import BackendName, workers
from semantic.evaluation.cell_run import run_cell
from semantic.evaluation.cells import enumerate_cells
from semantic.evaluation.files import atomic_write
from semantic.evaluation.plan import Plan, PlanError, dump_plan, first_difference, load_plan
from semantic.evaluation.preparation import encode, refer
from semantic.evaluation.quality import feature_tower
from semantic.evaluation.table import read_table, sort_table, write_csv, write_parquet

# What is done ("reference", "encode", "cells"), steps done, out of how many.
Progress = Callable[[str, int, int], None]

_VERSIONS = ("uoisc-air", "torch", "numpy", "polars", "pillow", "joblib")


@dataclass(frozen=True)
class Outcome:
    """What a run left.

    Args:
        table: every row, sorted.
        cells: of the plan.
        cells_run: of which were done now; the others were there.
        seconds: this run took.
    """

    table: pl.DataFrame
    cells: int
    cells_run: int
    seconds: float


def evaluate(
    plan: Plan,
    output: Path,
    *,
    jobs: int = 1,
    backend: BackendName = "process",
    ray_address: str | None = None,
    device: str = "auto",
    progress: Progress = lambda what, done, total: None,
) -> Outcome:
    """Run a plan, or what is left of it; the table depends on neither backend nor jobs.

    Args:
        plan: as :func:`semantic.evaluation.plan.load_plan` gives it.
        output: folder of the results; made where it is not there.
        jobs: processes.
        backend: see :func:`semantic.evaluation.backends.workers`.
        ray_address: likewise.
        device: where networks compute.
        progress: called after every step.

    Raises:
        PlanError: the folder holds results of another plan.
        BackendError: Ray is not installed or not reached.
        Others: see :func:`semantic.evaluation.assignment.assign`.
    """
    started = time.monotonic()
    _claim(plan, output)
    assignment = assign(plan, output, device)
    cells = enumerate_cells(plan)
    todo = [cell for cell in cells if not assignment.cell_file(cell).exists()]
    sets = [one.label for one in plan.sets]
    with workers(backend, jobs, ray_address) as pool:

        def do(what: str, step: Callable[..., None], arguments: Sequence[tuple[Any, ...]]) -> None:
            def report(done: int) -> None:
                progress(what, done, len(arguments))

            report(0)
            pool.run(step, [(assignment, *one) for one in arguments], report)

        do("reference", refer, [(one,) for one in sets])
        coded = [system.label for system in plan.coded]
        do("encode", encode, list(product(sets, coded)))
        do("cells", run_cell, [(cell,) for cell in todo])
    table = sort_table(pl.concat([read_table(assignment.cell_file(cell)) for cell in cells]))
    write_results(table, output)
    outcome = Outcome(table, len(cells), len(todo), time.monotonic() - started)
    _write_notes(assignment, outcome, jobs, backend)
    return outcome


def write_results(table: pl.DataFrame, output: Path) -> None:
    """Write a whole table into a folder of results, for programs and for people."""
    write_parquet(table, output / "results.parquet")
    write_csv(table, output / "results.csv")


def _claim(plan: Plan, output: Path) -> None:
    """Make the folder of this plan, or see that it is."""
    file = output / "plan.yaml"
    if file.exists():
        difference = first_difference(load_plan(file), plan)
        if difference is not None:
            raise PlanError(
                f"{output}: holds results of another plan: {difference}; take another folder"
            )
    for folder in (output / "cells", output / "cache"):
        folder.mkdir(parents=True, exist_ok=True)
    atomic_write(file, dump_plan(plan).encode())


def _write_notes(assignment: Assignment, outcome: Outcome, jobs: int, backend: str) -> None:
    """What a report must say, and what is not in the table because it differs from run to run."""
    plan = assignment.plan
    file = assignment.output / "notes.json"
    run = {
        "cells_run": outcome.cells_run,
        "seconds": round(outcome.seconds, 1),
        "jobs": jobs,
        "backend": backend,
        "device": assignment.device,
    }
    notes = {
        "systems": {label: list(facts.notes) for label, facts in assignment.systems.items()},
        "judge": {"name": plan.judge, "identity": assignment.judge_identity},
        "feature_distance": feature_tower(),
        "intent_loss": "eq. (11), the codec's own frozen tower (semantic.intent_judge)",
        "sets": {
            one.label: {"photos_and_questions": assignment.set_digests[one.label]}
            for one in plan.sets
        },
        "image_size": assignment.image_size,
        "cells": outcome.cells,
        "rows": outcome.table.height,
        "versions": versions(),
        "finished runs": [*_earlier_runs(file), *([run] if outcome.cells_run else [])],
    }
    atomic_write(file, json.dumps(notes, indent=1, ensure_ascii=False).encode())


def _earlier_runs(file: Path) -> list[dict[str, Any]]:
    runs = json.loads(file.read_text("utf-8"))["finished runs"] if file.exists() else []
    return list(runs)


def versions() -> dict[str, str]:
    """Of Python and the packages that results depend on."""
    found = {"python": platform.python_version()}
    for name in _VERSIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # run from a checkout that is not installed
            found[name] = "unknown"
    return found
