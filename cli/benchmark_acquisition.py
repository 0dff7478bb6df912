"""``uoisc benchmark acquisition``: how surely bursts are found, and what else is taken for one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from cli import benchmark_common as common
from cli.output import make_console

if TYPE_CHECKING:
    from rich.table import Table


def acquisition(
    snr_db: Annotated[
        str, typer.Option(help="Es/N0 in dB as START:STOP:STEP, or one value.")
    ] = "-2",
    trials: Annotated[int, typer.Option(min=0, help="Bursts per point.")] = 10_000,
    dc_db: Annotated[
        str, typer.Option(help="DC lines in dB over the burst's power, and none for no line.")
    ] = "none,-10,0,10",
    noise_samples: Annotated[
        int, typer.Option(min=0, help="Samples without bursts of every kind, at least.")
    ] = 10_000_000,
    inputs: Annotated[str, typer.Option(help="Kinds of input without bursts, or all.")] = "all",
    seed: common.Seed = 0,
    jobs: common.Jobs = 1,
    json_file: common.JsonFile = None,
) -> None:
    """Measure how often bursts and their headers are missed, and false alarms where there is none."""
    grid, lines, kinds = common.parse_grid(snr_db), parse_dc(dc_db), parse_inputs(inputs)
    common.check_files(json_file)

    started = time.monotonic()
    detection = [_detect(snr, dc, trials, seed, jobs) for snr in grid for dc in lines if trials]
    false_alarms = [_listen(kind, noise_samples, seed, jobs) for kind in kinds if noise_samples]
    if detection:
        common.print_table(_detection_table(detection))
    if false_alarms:
        common.print_table(_false_alarm_table(false_alarms))
    arguments = {
        "snr_db": snr_db,
        "trials": trials,
        "dc_db": dc_db,
        "noise_samples": noise_samples,
        "inputs": kinds,
        "seed": seed,
    }
    common.write_json(
        json_file,
        {
            "command": "uoisc benchmark acquisition",
            "arguments": arguments,
            "seconds": round(time.monotonic() - started),
            "jobs": jobs,
            "detection": detection,
            "false_alarms": false_alarms,
        },
    )


def parse_dc(text: str) -> list[float | None]:
    """``none,-10,0`` as None, -10, 0.

    Raises:
        typer.BadParameter: anything else.
    """
    found: list[float | None] = []
    for part in text.split(","):
        word = part.strip()
        try:
            value = None if word == "none" else float(word)
        except ValueError:
            value = float("nan")
        if value is not None and not -100 <= value <= 60:
            raise typer.BadParameter(
                f"{word!r}: expected none or a number from -100 to 60", param_hint="--dc-db"
            )
        found.append(value)
    return found


def parse_inputs(text: str) -> list[str]:
    """``noise,tones`` or ``all`` as a list.

    Raises:
        typer.BadParameter: no such kind of input.
    """
    from benchmarks.acquisition import INPUTS

    if text == "all":
        return list(INPUTS)
    kinds = [part.strip() for part in text.split(",")]
    for kind in kinds:
        if kind not in INPUTS:
            raise typer.BadParameter(
                f"{kind!r}: expected all or some of {', '.join(INPUTS)}", param_hint="--inputs"
            )
    return kinds


def _detect(
    snr_db: float, dc_db: float | None, trials: int, seed: int, jobs: int
) -> dict[str, Any]:
    from benchmarks.acquisition import DetectionConditions, Detections, run_detections

    conditions = DetectionConditions(snr_db, dc_db, seed)
    total = Detections()
    with _show_progress(f"{snr_db:g} dB, {_dc_text(dc_db)}", trials) as show:
        for counts in run_detections(conditions, trials, jobs):
            total += counts
            show(total.trials, f"{total.missed} missed")
    return {"snr_db": snr_db, "dc_db": dc_db, **total.to_json()}


def _listen(kind: str, samples: int, seed: int, jobs: int) -> dict[str, Any]:
    from benchmarks.acquisition import FalseAlarms, run_false_alarms

    total = FalseAlarms()
    with _show_progress(kind, samples) as show:
        for counts in run_false_alarms(kind, samples, seed, jobs):
            total += counts
            show(total.samples, f"{total.preambles} preambles, {total.headers} headers")
    return {"input": kind, **total.to_json()}


@contextmanager
def _show_progress(name: str, total: int) -> Iterator[Callable[[int, str], None]]:
    """A bar on standard error; gone when done."""
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeRemainingColumn(),
        console=make_console(),
        transient=True,
    ) as progress:
        task = progress.add_task(name, total=total)

        def show(done: int, text: str) -> None:
            progress.update(task, completed=done, description=f"{name}: {text}")

        yield show


def _dc_text(dc_db: float | None) -> str:
    return "no DC" if dc_db is None else f"DC {dc_db:+g} dB"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.2%}"


def _detection_table(rows: list[dict[str, Any]]) -> Table:
    table = common.make_table(
        "Bursts found, and headers of those found",
        *(
            "Es/N0",
            "DC",
            "bursts",
            "missed",
            "found",
            "95 % from",
            "headers failed",
            "rate",
            "95 % to",
        ),
        *("wrong", "elsewhere"),
    )
    for row in rows:
        table.add_row(
            f"{row['snr_db']:g}",
            "none" if row["dc_db"] is None else f"{row['dc_db']:+g}",
            str(row["trials"]),
            str(row["missed"]),
            _share(row["detected"]),
            f"{row['detected_ci95'][0]:.3%}",
            str(row["headers_failed"]),
            "" if row["header_error_rate"] is None else f"{row['header_error_rate']:.1e}",
            f"{row['header_error_rate_ci95'][1]:.1e}",
            str(row["headers_wrong"]),
            str(row["elsewhere"]),
        )
    return table


def _false_alarm_table(rows: list[dict[str, Any]]) -> Table:
    table = common.make_table(
        "False alarms; speed of the receiver in Msym/s of one core, and in the slowest piece",
        *("input", "samples", "preambles confirmed", "headers", "code blocks", "speed", "slowest"),
    )
    for row in rows:
        table.add_row(
            row["input"],
            f"{row['samples']:.3g}",
            str(row["preambles"]),
            str(row["headers"]),
            str(row["code_blocks_ok"]),
            f"{row['msym_per_s']:.1f}",
            f"{row['slowest_msym_per_s']:.1f}",
        )
    return table
