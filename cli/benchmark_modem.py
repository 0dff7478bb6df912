"""``uoisc benchmark modem``: speed and latency of transmitter, receiver and the GNU Radio flowgraph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import benchmark_common as common
from cli import options
from cli.output import make_console, print_json

if TYPE_CHECKING:
    from rich.table import Table


def modem(
    seconds: Annotated[float, typer.Option(min=0.0, max=3600, help="Per figure, about.")] = 5.0,
    bursts: Annotated[int, typer.Option(min=1, max=500, help="Bursts in the recordings.")] = 60,
    seed: common.Seed = 0,
    json: options.Json = False,
) -> None:
    """Measure how many symbols a second the modem gets through, and how late a burst comes out."""
    from benchmarks.modem import run
    from blocks.modem.ldpc_decoder import DEFAULT_MAX_ITERATIONS
    from flowgraphs.receiver import warm_up

    with make_console().status("compiling") as status:
        warm_up(DEFAULT_MAX_ITERATIONS)
        report = run(seconds, seed, bursts, status.update)
    if json:
        print_json(report)
        return
    common.print_table(_speed_table(report))
    common.print_table(_latency_table(report))


def _speed_table(report: dict[str, Any]) -> Table:
    table = common.make_table(
        f"Speed, MCS {report['mcs']}, code blocks of {report['code_block_bits']} bits",
        *("", "cores", "Es/N0", "iterations", "errors", "Msym/s", "from", "to", "runs"),
        "of stock",
    )
    for row in report["speed"]:
        spread = row["msym_per_s"]
        errors, blocks = row["code_block_errors"], row["code_blocks"]
        table.add_row(
            row["name"],
            str(row["cores"]),
            "" if row["snr_db"] is None else f"{row['snr_db']:g}",
            "" if row["iterations"] is None else f"{row['iterations']:.1f}",
            "" if errors is None else f"{errors}/{blocks}",
            f"{spread['median']:.2f}",
            f"{spread['minimum']:.2f}",
            f"{spread['maximum']:.2f}",
            str(spread["runs"]),
            f"{row['over_stock_chain']:.2f}",
        )
    return table


def _latency_table(report: dict[str, Any]) -> Table:
    table = common.make_table(
        f"Last sample to code blocks, {report['latency_symbol_rate_hz'] / 1e6:g} Msym/s",
        *("burst, symbols", "blocks", "Es/N0", "bursts", "errors", "p50, ms", "p95, ms"),
        "of it search, ms at most",
    )
    for row in report["latency"]:
        table.add_row(
            str(row["burst_symbols"]),
            str(row["code_blocks"]),
            f"{row['snr_db']:g}",
            str(row["bursts"]),
            str(row["code_block_errors"]),
            f"{row['p50_ms']:.2f}",
            f"{row['p95_ms']:.2f}",
            f"{row['search_ms']:.2f}",
        )
    return table
