"""``uoisc benchmark reliability``: do the LLRs of failed code blocks say how sure they are?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cli import benchmark_common as common

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rich.table import Table

    from benchmarks.reliability import Bin, Reliability

_MARGINS = (
    "Es/N0 above the normal approximation at PER 1e-2, as START:STOP:STEP, instead of --snr-db."
)


def reliability(
    mcs: common.McsList = "0-9",
    snr_db: Annotated[
        str | None, typer.Option(help="Es/N0 in dB as START:STOP:STEP, or one value.")
    ] = None,
    above_theory_db: Annotated[str, typer.Option(help=_MARGINS)] = "0.1:0.4:0.1",
    sync: common.SyncKind = "ideal",
    failed_blocks: Annotated[int, typer.Option(min=1, help="Failed blocks per point.")] = 40,
    max_blocks: Annotated[int, typer.Option(min=1, help="Blocks per point at most.")] = 1000,
    info_bits: common.InfoBits = None,
    seed: common.Seed = 0,
    fit: Annotated[
        bool, typer.Option("--fit", help="Print the constants of blocks/modem/llr_calibration.py.")
    ] = False,
    json_file: common.JsonFile = None,
    plot: common.PlotFile = None,
) -> None:
    """Posterior LLRs of code blocks: claimed against measured bit error rates.

    "factor" is what LLRs would have to be multiplied with: 1 is calibrated, below 1 over-confident. It is
    given for blocks that failed, as the decoder made them and as delivered, and for all blocks.
    """
    rates, kinds = common.parse_mcs(mcs), common.parse_sync(sync)
    grid = None if snr_db is None else common.parse_grid(snr_db)
    margins = common.parse_grid(above_theory_db, "--above-theory-db")
    common.check_files(json_file, plot)

    from benchmarks.reliability import collect
    from blocks.modem.error_rates import Conditions
    from blocks.modem.ldpc_limits import normal_approximation_snr_db

    measured = []
    with common.show_counts() as show:
        for kind in kinds:
            for rate in rates:
                plan, _ = Conditions(rate, 0.0, info_bits=info_bits).frame
                theory = normal_approximation_snr_db(plan.info_bits, plan.coded_bits)
                for value in grid or [round(theory + margin, 2) for margin in margins]:
                    conditions = Conditions(rate, value, kind, info_bits, seed=seed)
                    measured.append(collect(conditions, failed_blocks, max_blocks, show))
    common.print_table(_table(measured))
    if fit:
        common.print_table(_fitted(measured))
    arguments = {
        "mcs": mcs,
        "snr_db": snr_db,
        "above_theory_db": above_theory_db,
        "sync": sync,
        "failed_blocks": failed_blocks,
        "max_blocks": max_blocks,
        "info_bits": info_bits,
        "seed": seed,
    }
    common.write_json(
        json_file,
        {
            "command": "uoisc benchmark reliability",
            "arguments": arguments,
            "points": [item.to_json() for item in measured],
        },
    )
    common.write_plot(plot, lambda: draw_reliability(measured))


def _table(measured: list[Reliability]) -> Table:
    from benchmarks.reliability import Summary

    table = common.make_table(
        "Posterior LLRs of code blocks that failed: the decoder's own > as delivered",
        *("mcs", "sync", "Es/N0", "PER", "failed", "wrong", "claimed"),
        *("factor", "of all", "calibration error", "bits unknown", "at best"),
    )
    for item in measured:
        conditions = item.point.conditions
        cells = [
            str(conditions.mcs),
            conditions.sync,
            f"{conditions.snr_db:g}",
            f"{item.point.per:.3f}",
            str(len(item.failed)),
        ]
        if len(item.failed):
            raw, ours = Summary.of(item.raw), Summary.of(item.failed)
            cells += [
                f"{ours.wrong:.4f}",
                f"{raw.claimed:.4f} > {ours.claimed:.4f}",
                f"{raw.best_factor:.2f} > {ours.best_factor:.2f}",
                f"{Summary.of(item.everything).best_factor:.2f}",
                f"{raw.calibration_error:.4f} > {ours.calibration_error:.4f}",
                f"{raw.cross_entropy_bits:.4f} > {ours.cross_entropy_bits:.4f}",
                f"{ours.best_cross_entropy_bits:.4f}",
            ]
        table.add_row(*cells)
    return table


def _fitted(measured: list[Reliability]) -> Table:
    from benchmarks.reliability import fit

    table = common.make_table("Fitted factors", "mcs", "failed blocks", "at u = 0", "rise with u")
    for mcs in sorted({item.point.conditions.mcs for item in measured}):
        mine = [item for item in measured if item.point.conditions.mcs == mcs]
        at_zero, rise = fit(mine)
        count = sum(len(item.failed) for item in mine)
        table.add_row(str(mcs), str(count), f"{at_zero:.3f}", f"{rise:.2f}")
    return table


def draw_reliability(measured: list[Reliability]) -> Figure:
    """One field per code rate: failed blocks as the decoder made them, as delivered, and all blocks."""
    import numpy as np

    from benchmarks.reliability import diagram
    from blocks.modem import waveform as wf
    from cli.figures import new_figure

    rates = sorted({item.point.conditions.mcs for item in measured})
    columns = min(5, len(rates))
    rows = -(-len(rates) // columns)
    figure = new_figure(2.6 * columns + 1, 2.6 * rows + 0.8)
    fields = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for axes in fields[len(rates) :]:
        axes.set_visible(False)
    for axes, mcs in zip(fields, rates, strict=False):
        mine = [item for item in measured if item.point.conditions.mcs == mcs]
        axes.plot([1e-7, 0.5], [1e-7, 0.5], color="0.6", lw=0.8)
        for name, colour, marker, blocks in (
            ("all blocks", "0.55", "^", [item.everything for item in mine]),
            ("failed, decoder's own", "#c0392b", "s", [item.raw for item in mine]),
            ("failed, delivered", "#2f6fb3", "o", [item.failed for item in mine]),
        ):
            _draw_bins(axes, diagram(np.concatenate(blocks)), colour, marker, name)
        axes.set_title(f"mcs {mcs}, rate {wf.MCS_CODE_RATES[mcs]}", fontsize=9)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlim(1e-5, 0.6)
        axes.set_ylim(1e-5, 0.6)
        axes.grid(alpha=0.25)
    figure.supxlabel("bit error probability that the LLR claims", fontsize=10)
    figure.supylabel("share of wrong bits", fontsize=10)
    handles, labels = fields[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False, fontsize=9)
    return figure


def _draw_bins(axes: Axes, bins: list[Bin], colour: str, marker: str, label: str) -> None:
    bins = [item for item in bins if item.wrong > 0]
    axes.errorbar(
        [item.claimed for item in bins],
        [item.wrong for item in bins],
        [
            [min(1.96 * item.spread, 0.99 * item.wrong) for item in bins],
            [1.96 * item.spread for item in bins],
        ],
        color=colour,
        ls="-",
        lw=0.8,
        marker=marker,
        ms=3,
        capsize=1.5,
        label=label,
    )
