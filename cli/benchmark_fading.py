"""``uoisc benchmark fading``: the receiver under flat fading against the average of its AWGN curve."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Annotated

import typer

from cli import benchmark_common as common

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rich.table import Table

    from benchmarks.fading import FadingPoint
    from blocks.modem.fading import FlatFading


def fading(
    mcs: common.McsList = "0,2,4,6,8",
    channels: Annotated[str, typer.Option(help="Laws: rayleigh, rician:K (linear).")] = (
        "rayleigh,rician:3"
    ),
    snr_db: Annotated[str, typer.Option(help="Mean Es/N0 as START:STOP:STEP, or one value.")] = (
        "10"
    ),
    sync: common.SyncKind = "full",
    bursts: Annotated[int, typer.Option(min=64, help="Bursts per point.")] = 2048,
    info_bits: common.InfoBits = None,
    max_burst_symbols: common.MaxBurstSymbols = 8000,
    seed: common.Seed = 0,
    jobs: common.Jobs = 1,
    json_file: common.JsonFile = None,
    plot: common.PlotFile = None,
) -> None:
    """Error rates under block-flat fading and what they lose to the exact average over the law.

    Every burst has one gain, of mean power 1. The loss is the shift of mean Es/N0 that makes the average of
    the AWGN curve equal to what was measured, missed bursts included.
    """
    rates, grid, kinds = common.parse_mcs(mcs), common.parse_grid(snr_db), common.parse_sync(sync)
    laws = _parse_laws(channels)
    common.check_files(json_file, plot)

    from benchmarks.fading import measure_awgn_curve, measure_fading
    from benchmarks.sweep import processes
    from blocks.modem.error_rates import Conditions

    points = []
    with processes(jobs) as run, common.show_counts() as show:
        for kind, rate in product(kinds, rates):
            first = Conditions(rate, grid[0], kind, info_bits, max_burst_symbols, seed=seed)
            curve = measure_awgn_curve(first, run, show)
            for law, mean_db in product(laws, grid):
                here = replace(first, snr_db=mean_db)
                points.append(measure_fading(here, law, curve, bursts, run, show))
    common.print_table(_table(points))
    arguments = {
        "mcs": mcs,
        "channels": channels,
        "snr_db": snr_db,
        "sync": sync,
        "bursts": bursts,
        "info_bits": info_bits,
        "max_burst_symbols": max_burst_symbols,
        "seed": seed,
    }
    common.write_json(
        json_file,
        {
            "command": "uoisc benchmark fading",
            "arguments": arguments,
            "points": [point.to_json() for point in points],
        },
    )
    common.write_plot(plot, lambda: draw_fading(points))


def _parse_laws(text: str) -> list[FlatFading]:
    from blocks.modem.fading import FlatFading

    laws = [common.parse_channel(part, "--channels") for part in text.split(",")]
    flat = [law for law in laws if isinstance(law, FlatFading)]
    if len(flat) < len(laws):
        raise typer.BadParameter(
            f"{text!r}: expected rayleigh or rician:K", param_hint="--channels"
        )
    return flat


def _table(points: list[FadingPoint]) -> Table:
    table = common.make_table(
        "Block-flat fading against the exact average over the law",
        *("mcs", "channel", "Es/N0", "sync", "blocks", "errors", "missed"),
        *("PER", "95 %", "average", "loss dB", "95 %"),
    )
    for point in points:
        values = point.to_json()
        (low, high), (least, most) = values["per_ci95"], values["loss_ci95_db"]
        table.add_row(
            str(values["mcs"]),
            values["channel"],
            f"{values['snr_db']:g}",
            values["sync"],
            str(values["blocks"]),
            str(values["block_errors"]),
            f"{values['bursts_missed']}/{values['bursts']}",
            f"{values['per']:.4f}",
            f"{low:.4f}..{high:.4f}",
            f"{values['expected_per']:.4f}",
            f"{values['loss_db']:.2f}",
            f"{least:.2f}..{most:.2f}",
        )
    return table


def draw_fading(points: list[FadingPoint]) -> Figure:
    """Measured points on the lines of the exact averages, one field per law."""
    from cli.figures import new_figure

    laws = list(dict.fromkeys(str(point.law) for point in points))
    figure = new_figure(5 * len(laws), 4.5)
    for axes, law in zip(figure.subplots(1, len(laws), squeeze=False)[0], laws, strict=True):
        _draw_law(axes, [point for point in points if str(point.law) == law])
        axes.set_title(law)
    figure.suptitle("Block-flat fading: points measured, lines the exact average of the AWGN curve")
    return figure


def _draw_law(axes: Axes, points: list[FadingPoint]) -> None:
    colours = common.mcs_colours(point.conditions.mcs for point in points)
    lowest = min(point.conditions.snr_db for point in points) - 5
    highest = max(point.conditions.snr_db for point in points) + 5
    grid = [lowest + (highest - lowest) * step / 60 for step in range(61)]
    for mcs, colour in colours.items():
        mine = [point for point in points if point.conditions.mcs == mcs]
        average = [mine[0].law.mean(mine[0].curve.per, snr_db) for snr_db in grid]
        axes.plot(grid, average, color=colour, lw=1)
        axes.errorbar(
            [point.conditions.snr_db for point in mine],
            [point.per for point in mine],
            [
                [point.per - point.ci95[0] for point in mine],
                [point.ci95[1] - point.per for point in mine],
            ],
            fmt="o",
            ms=4,
            capsize=2,
            color=colour,
            label=f"mcs {mcs}",
        )
    axes.set_yscale("log")
    axes.set_ylim(1e-3, 1.1)
    axes.set_xlabel("mean Es/N0, dB")
    axes.set_ylabel("block error rate")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
