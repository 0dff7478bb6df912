"""``uoisc benchmark per``: block error rates of the modem, beside perfect synchronisation and theory."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from cli import benchmark_common as common

if TYPE_CHECKING:
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
    info_bits: Annotated[
        int | None, typer.Option(min=25, max=8448, help="Code block with its CRC; default largest.")
    ] = None,
    max_burst_symbols: Annotated[
        int, typer.Option(min=1000, max=20_000, help="Length of a burst at most.")
    ] = 20_000,
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
    grid = np.arange(-8.0, 16.0, 0.05)
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


def draw_curves(points: list[Point]) -> Figure:
    """Curves A and B with their intervals, C (normal approximation) and the 8-PSK limit of each rate."""
    from blocks.modem.error_rates import bicm_limit_snr_db
    from blocks.modem.ldpc_limits import normal_approximation_per
    from cli.figures import new_figure

    figure = new_figure(9, 6)
    axes = figure.subplots()
    axes.set_yscale("log")
    rates = sorted({point.conditions.mcs for point in points})
    for number, mcs in enumerate(rates):
        colour = f"C{number % 10}"
        mine = [point for point in points if point.conditions.mcs == mcs]
        for sync, (line, marker) in _STYLES.items():
            curve = [p for p in mine if p.conditions.sync == sync and p.tally.block_errors]
            if not curve:
                continue
            x = [p.conditions.snr_db for p in curve]
            y = [p.per for p in curve]
            spread = [
                [p.per - p.ci95[0] for p in curve],
                [p.ci95[1] - p.per for p in curve],
            ]
            label = f"mcs {mcs} {'A receiver' if sync == 'full' else 'B ideal sync'}"
            axes.errorbar(x, y, spread, color=colour, ls=line, marker=marker, ms=4, label=label)
        values = mine[0].to_json()
        low = min(p.conditions.snr_db for p in mine) - 0.5
        high = max(p.conditions.snr_db for p in mine)
        x = [low + (high - low) * step / 60 for step in range(61)]
        sizes = values["info_bits"], values["coded_bits"]
        y = [normal_approximation_per(*sizes, value) for value in x]
        axes.plot(x, y, color=colour, ls=":", label=f"mcs {mcs} C normal approximation")
        axes.axvline(bicm_limit_snr_db(values["rate"]), color=colour, lw=0.6, alpha=0.6)
    axes.set_ylim(1e-5, 1.2)
    axes.set_xlabel("Es/N0, dB (thin line: 8-PSK limit of the rate)")
    axes.set_ylabel("block error rate")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
    return figure
