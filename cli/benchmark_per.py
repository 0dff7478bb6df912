"""``uoisc benchmark per``: block error rates of the modem, beside perfect synchronisation and theory."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from cli import benchmark_common as common

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rich.table import Table

    from blocks.modem.error_rates import Conditions, Point

_CHANNELS = "awgn, rayleigh, rician:K (linear), two-tap or two-tap:DB,SYMBOLS."


def per(
    mcs: common.McsList,
    snr_db: Annotated[str, typer.Option(help="Es/N0 in dB as START:STOP:STEP, or one value.")],
    sync: common.SyncKind = "both",
    channel: Annotated[str, typer.Option(help=_CHANNELS)] = "awgn",
    errors: common.Errors = 100,
    max_blocks: Annotated[int, typer.Option(min=1, help="Blocks per point at most.")] = 100_000,
    info_bits: common.InfoBits = None,
    max_burst_symbols: common.MaxBurstSymbols = 20_000,
    seed: common.Seed = 0,
    jobs: common.Jobs = 1,
    json_file: common.JsonFile = None,
    plot: common.PlotFile = None,
) -> None:
    """Measure block error rates; missed bursts count as errors.

    Es/N0 is that of the mean received energy, echoes included. Under flat fading every burst has a gain of
    its own and "theory" is the average over the law.
    """
    rates, grid, kinds = common.parse_mcs(mcs), common.parse_grid(snr_db), common.parse_sync(sync)
    way = common.parse_channel(channel)
    common.check_files(json_file, plot)

    from benchmarks.sweep import measure, processes
    from blocks.modem.error_rates import Conditions
    from blocks.modem.fading import ChannelError

    try:
        wanted = [
            Conditions(rate, value, kind, info_bits, max_burst_symbols, seed=seed, channel=way)
            for rate in rates
            for kind in kinds
            for value in grid
        ]
    except ChannelError as error:
        raise typer.BadParameter(str(error), param_hint="--sync") from error
    with processes(jobs) as run, common.show_counts() as show:
        points = [measure(conditions, errors, max_blocks, run, show) for conditions in wanted]
    common.print_table(_table(points))
    common.write_json(json_file, [point.to_json() for point in points])
    common.write_plot(plot, lambda: draw_curves(points))


def theory(conditions: Conditions) -> Callable[[float], float]:
    """Curve C: the normal approximation at an Es/N0 in dB, averaged over the law of flat fading."""
    import numpy as np

    from blocks.modem.fading import FlatFading
    from blocks.modem.ldpc_limits import normal_approximation_per

    plan, _ = conditions.frame

    def awgn(snr_db: float) -> float:
        return normal_approximation_per(plan.info_bits, plan.coded_bits, snr_db)

    law = conditions.channel
    if not isinstance(law, FlatFading):
        return awgn
    grid = np.arange(-7.0, 15.0, 0.1)
    values = np.array([awgn(float(snr_db)) for snr_db in grid])
    return lambda snr_db: law.mean(lambda at: np.interp(at, grid, values), snr_db)


def _table(points: list[Point]) -> Table:
    table = common.make_table(
        f"Block error rates, {points[0].conditions.channel}",
        *("mcs", "Es/N0", "sync", "blocks", "errors", "PER", "95 %", "missed", "theory"),
    )
    for point in points:
        conditions, (low, high) = point.conditions, point.ci95
        table.add_row(
            str(conditions.mcs),
            f"{conditions.snr_db:g}",
            conditions.sync,
            str(point.tally.blocks),
            str(point.tally.block_errors),
            f"{point.per:.1e}",
            f"{low:.0e}..{high:.0e}",
            f"{point.tally.bursts_missed}/{point.tally.bursts}",
            f"{theory(conditions)(conditions.snr_db):.0e}",
        )
    return table


_STYLES = {"full": ("-", "o"), "ideal": ("--", "s")}
_LOWEST = 1e-5


def draw_curves(points: list[Point]) -> Figure:
    """Curves A and B with their intervals, C, and the limits of each code rate."""
    from cli.figures import new_figure

    figure = new_figure(10, 6)
    axes = figure.subplots()
    axes.set_yscale("log")
    first = min(point.conditions.snr_db for point in points) - 1
    last = max(point.conditions.snr_db for point in points) + 0.3
    channel = points[0].conditions.channel
    for mcs, colour in common.mcs_colours(point.conditions.mcs for point in points).items():
        mine = [point for point in points if point.conditions.mcs == mcs]
        for sync in _STYLES:
            _draw_measured(axes, [p for p in mine if p.conditions.sync == sync], colour)
        curve = theory(mine[0].conditions)
        # The same grid for every code rate, small enough for the cache of the integrals behind it.
        grid = [first + (last - first) * step / 240 for step in range(241)]
        axes.plot(grid, [curve(snr_db) for snr_db in grid], color=colour, ls=":", lw=1.2)
        if str(channel) == "awgn":
            _draw_limits(axes, mcs, colour)
    axes.set_xlim(first, last)
    axes.set_ylim(_LOWEST, 1.6)
    mean = "" if str(channel) == "awgn" else "mean "
    axes.set_xlabel(f"{mean}Es/N0, dB")
    axes.set_ylabel("block error rate, missed bursts included")
    axes.set_title(f"8-PSK, {channel}", loc="left")
    axes.grid(alpha=0.25)
    _draw_legends(figure, points)
    return figure


def _draw_measured(axes: Axes, points: list[Point], colour: str) -> None:
    points = [point for point in points if point.tally.block_errors]
    if not points:
        return
    line, marker = _STYLES[points[0].conditions.sync]
    per = [point.per for point in points]
    below = [point.per - point.ci95[0] for point in points]
    above = [point.ci95[1] - point.per for point in points]
    axes.errorbar(
        [point.conditions.snr_db for point in points],
        per,
        [below, above],
        color=colour,
        ls=line,
        lw=1.2,
        marker=marker,
        ms=4,
        mfc=colour if line == "-" else "white",
        capsize=2,
    )


def _draw_limits(axes: Axes, mcs: int, colour: str) -> None:
    from blocks.modem import waveform as wf
    from blocks.modem.error_rates import bicm_limit_snr_db, shannon_limit_snr_db

    rate = float(wf.MCS_CODE_RATES[mcs])
    axes.axvline(bicm_limit_snr_db(rate), color=colour, lw=0.8)
    axes.axvline(shannon_limit_snr_db(rate), color=colour, lw=0.8, ls="-.", alpha=0.6)


def _draw_legends(figure: Figure, points: list[Point]) -> None:
    """Colours are code rates, lines are kinds of curve: one legend for each."""
    from matplotlib.lines import Line2D

    from blocks.modem import waveform as wf

    kinds = {point.conditions.sync for point in points}
    limits = str(points[0].conditions.channel) == "awgn"
    lines = [
        Line2D([], [], color="0.2", ls=ls, marker=marker, ms=4, mfc=fill, label=label)
        for ls, marker, fill, label, shown in (
            ("-", "o", "0.2", "A receiver", "full" in kinds),
            ("--", "s", "white", "B perfect synchronisation", "ideal" in kinds),
            (":", "", "0.2", "C normal approximation", True),
            ("-", "", "0.2", "8-PSK BICM limit", limits),
            ("-.", "", "0.2", "Shannon limit", limits),
        )
        if shown
    ]
    colours = [
        Line2D([], [], color=colour, lw=3, label=f"mcs {mcs}, rate {wf.MCS_CODE_RATES[mcs]}")
        for mcs, colour in common.mcs_colours(point.conditions.mcs for point in points).items()
    ]
    plain = {"frameon": False, "fontsize": 8}
    figure.legend(handles=lines, loc="outside right upper", **plain)
    figure.legend(handles=colours, loc="outside right lower", **plain)
