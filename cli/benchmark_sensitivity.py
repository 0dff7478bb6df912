"""``uoisc benchmark sensitivity``: Es/N0 at block error rate 1e-2, receiver and theory side by side."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import benchmark_common as common
from cli.benchmark_per import draw_curves

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

    from benchmarks.sensitivity import Crossing, Sensitivity
    from blocks.modem.error_rates import Point


def sensitivity(
    mcs: common.McsList = "0-9",
    sync: common.SyncKind = "both",
    errors: common.Errors = 100,
    seed: common.Seed = 0,
    jobs: common.Jobs = 1,
    stored: Annotated[
        list[Path] | None,
        typer.Option(
            "--from", help="Show what --json wrote instead of measuring; may be repeated."
        ),
    ] = None,
    json_file: common.JsonFile = None,
    plot: common.PlotFile = None,
    curves: Annotated[
        Path | None, typer.Option(help="Draw all measured points over Es/N0 here (PNG).")
    ] = None,
) -> None:
    """Es/N0 at block error rate 1e-2: A the receiver, B perfect synchronisation, C theory."""
    rates, syncs = common.parse_mcs(mcs), common.parse_sync(sync)
    common.check_files(json_file, plot, curves)

    from benchmarks.sensitivity import measure_sensitivity, merge
    from benchmarks.sweep import processes

    started = time.monotonic()
    if stored:
        lines = merge(json.loads(file.read_text("utf-8")) for file in stored)
    else:
        with processes(jobs) as run, common.show_counts() as show:
            lines = [measure_sensitivity(rate, syncs, errors, seed, run, show) for rate in rates]
    common.print_table(_table(lines))
    arguments = {"mcs": mcs, "sync": sync, "errors": errors, "seed": seed}
    common.write_json(
        json_file,
        {
            "command": "uoisc benchmark sensitivity",
            "arguments": {"from": [str(file) for file in stored]} if stored else arguments,
            "seconds": round(time.monotonic() - started),
            "jobs": jobs,
            "sensitivity": [line.to_json() for line in lines],
        },
    )
    common.write_plot(plot, lambda: draw_sensitivity(lines))
    common.write_plot(curves, lambda: draw_curves(_points(lines)))


def _points(lines: list[Sensitivity]) -> list[Point]:
    crossings = [crossing for line in lines for crossing in (line.full, line.ideal) if crossing]
    return [point for crossing in crossings for point in crossing.points]


def _table(lines: list[Sensitivity]) -> Table:
    from blocks.modem import waveform as wf

    table = common.make_table(
        "Es/N0 in dB at block error rate 1e-2",
        *("mcs", "rate", "C theory", "B ideal", "±", "errors", "A receiver", "±", "errors"),
        *("A-B", "B-C"),
    )

    def cells(crossing: Crossing | None) -> list[str]:
        if crossing is None:
            return ["", "", ""]
        return [f"{crossing.snr_db:.2f}", f"{1.96 * crossing.error_db:.2f}", str(crossing.errors)]

    for line in lines:
        losses = [
            "" if loss is None else f"{loss:.2f}" for loss in (line.sync_loss_db, line.code_loss_db)
        ]
        table.add_row(
            str(line.mcs),
            str(wf.MCS_CODE_RATES[line.mcs]),
            f"{line.theory_db:.2f}",
            *cells(line.ideal),
            *cells(line.full),
            *losses,
        )
    return table


def draw_sensitivity(lines: list[Sensitivity]) -> Figure:
    """Code rate over Es/N0: the limits as lines, what was measured as points."""
    from blocks.modem.psk import BITS_PER_SYMBOL, bicm_capacity_8psk
    from cli.figures import new_figure

    figure = new_figure(8, 5)
    axes = figure.subplots()
    grid = [-5 + 0.25 * step for step in range(68)]
    shannon = [math.log2(1 + 10 ** (snr_db / 10)) / BITS_PER_SYMBOL for snr_db in grid]
    interleaved = [bicm_capacity_8psk(snr_db) / BITS_PER_SYMBOL for snr_db in grid]
    axes.plot(grid, shannon, color="0.6", ls="-.", label="Shannon limit")
    axes.plot(grid, interleaved, color="0.3", label="8-PSK BICM limit")
    axes.set_ylim(0.1, 1)
    values = [line.to_json() for line in lines]
    rate = [value["rate"] for value in values]
    theory = [line.theory_db for line in lines]
    axes.plot(theory, rate, "|", ms=12, color="0.2", label="C normal approximation")
    for name, marker, colour, label in (
        ("ideal", "s", "#2f6fb3", "B ideal synchronisation"),
        ("full", "o", "#c0392b", "A receiver"),
    ):
        found = [(value[name]["snr_db"], value["rate"]) for value in values if value[name]]
        if found:
            axes.plot(
                *zip(*found, strict=True), marker, ms=5, mfc="none", color=colour, label=label
            )
    axes.set_xlabel("Es/N0, dB, at block error rate 1e-2")
    axes.set_ylabel("code rate of 8-PSK")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return figure
