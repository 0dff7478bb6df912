"""``uoisc benchmark ldpc``: the LDPC code against test vectors, its decoder against its peers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import benchmark_common as common
from cli import options
from cli.output import make_console, print_json

if TYPE_CHECKING:
    from benchmarks.ldpc import Point
    from blocks.modem.ldpc_vectors import VectorReport


def ldpc(
    vectors: Annotated[
        Path | None,
        typer.Option(help="Only check these test vectors (.npz), see docs/waveform.md."),
    ] = None,
    point: Annotated[
        list[str] | None,
        typer.Option(metavar="K,RATE,SNR_DB", help="Where to measure, e.g. 8448,1/2,3.9."),
    ] = None,
    crossing: Annotated[
        bool, typer.Option(help="Search the Es/N0 of PER 1e-2 of every decoder instead.")
    ] = False,
    errors: Annotated[int, typer.Option(min=1, help="Block errors to count.")] = 100,
    max_blocks: Annotated[int, typer.Option(min=1, help="Blocks at most.")] = 30_000,
    max_iterations: Annotated[int, typer.Option(min=1, help="Limit of every decoder.")] = 50,
    reference_blocks: Annotated[
        int, typer.Option(min=0, help="Blocks for the floating-point decoders.")
    ] = 300,
    peer_blocks: Annotated[
        int, typer.Option(min=0, help="Blocks for gr-fec (short codes only).")
    ] = 100,
    latency_blocks: Annotated[int, typer.Option(min=0, help="Blocks decoded one by one.")] = 500,
    seed: common.Seed = 1,
    json: options.Json = False,
) -> None:
    """Measure speed and block error rate of the LDPC decoder and its peers, or check test vectors."""
    if vectors is not None:
        _check(vectors, json)
        return
    from benchmarks import ldpc, ldpc_crossing
    from benchmarks.machine import machine

    points = tuple(ldpc.Point.parse(text) for text in point or ()) or ldpc.DEFAULT_POINTS
    limits: dict[str, Any] = {
        "errors": errors,
        "max_blocks": max_blocks,
        "seed": seed,
        "max_iterations": max_iterations,
    }
    with _progress() as show:
        if crossing:
            found = ldpc_crossing.run(
                points, **limits, show=lambda decoder, point, tally: show(decoder, point)
            )
            figures: dict[str, Any] = {
                "target_per": ldpc_crossing.TARGET_PER,
                "crossings": [each.to_json() for each in found],
                "gaps": ldpc_crossing.gaps(found, max_iterations),
            }
        else:
            figures = ldpc.run(
                points,
                **limits,
                reference_blocks=reference_blocks,
                peer_blocks=peer_blocks,
                latency_blocks=latency_blocks,
                show=lambda result: show(result.decoder, result.point),
            ).to_json()
    if json:
        print_json({"machine": machine(), **figures})
    elif crossing:
        _print_crossings(figures)
    else:
        _print_results(figures)


@contextmanager
def _progress() -> Iterator[Callable[[str, Point], None]]:
    """What was measured last, on standard error."""
    with make_console().status("drawing blocks") as status:

        def show(decoder: str, point: Point) -> None:
            status.update(f"K={point.info_bits} R={point.rate} {point.snr_db:g} dB: {decoder} done")

        yield show


def _code(row: dict[str, Any]) -> tuple[str, str]:
    return str(row["info_bits"]), row["rate"]


def _print_results(figures: dict[str, Any]) -> None:
    table = common.make_table(
        "LDPC decoders, one core", "K", "rate", "Es/N0", "decoder", "iterations", "blocks", "errors",
        "PER", "Mb/s cpu", "Mb/s wall",
    )  # fmt: skip
    for row in figures["results"]:
        mean = row["mean_iterations"]
        table.add_row(
            *_code(row),
            f"{row['snr_db']:g}",
            row["decoder"],
            f"{'-' if mean is None else f'{mean:.1f}'} of {row['max_iterations']}",
            str(row["blocks"]),
            str(row["block_errors"]),
            f"{row['per']:.1e}",
            f"{row['mbps_cpu']:.2f}",
            f"{row['mbps_wall']:.2f}",
        )
    common.print_table(table)
    if figures["ratios"]:
        table = common.make_table("Times as fast as the peer", "K", "rate", "peer", "cpu", "wall")
        for row in figures["ratios"]:
            table.add_row(*_code(row), row["peer"], f"{row['cpu']:.1f}", f"{row['wall']:.1f}")
        common.print_table(table)
    if figures["latency"]:
        table = common.make_table("One block by itself", "K", "rate", "Es/N0", "p50 ms", "p95 ms")
        for row in figures["latency"]:
            table.add_row(
                *_code(row), f"{row['snr_db']:g}", f"{row['p50_ms']:.3f}", f"{row['p95_ms']:.3f}"
            )
        common.print_table(table)


def _print_crossings(figures: dict[str, Any]) -> None:
    table = common.make_table(
        f"Es/N0 at PER {figures['target_per']:g}", "K", "rate", "decoder", "limit", "mean",
        "dB", "+-", "blocks", "errors",
    )  # fmt: skip
    for row in figures["crossings"]:
        table.add_row(
            *_code(row),
            row["decoder"],
            str(row["max_iterations"]),
            f"{row['mean_iterations']:.1f}",
            f"{row['snr_db']:.3f}",
            f"{row['standard_error_db']:.3f}",
            str(row["blocks"]),
            str(row["block_errors"]),
        )
    common.print_table(table)
    table = common.make_table(
        "What the others need more than this project's decoder",
        "K",
        "rate",
        "decoder",
        "limit",
        "dB",
    )
    for row in figures["gaps"]:
        table.add_row(
            *_code(row), row["decoder"], str(row["max_iterations"]), f"{row['gap_db']:+.3f}"
        )
    common.print_table(table)


def _check(vectors: Path, json: bool) -> None:
    from blocks.modem.ldpc_vectors import check_vector_file

    with make_console().status("encoding and decoding"):
        report = check_vector_file(vectors)
    if json:
        print_json(report.to_json())
    else:
        _print_vectors(report)
    if not report.all_ok:
        raise typer.Exit(1)


def _print_vectors(report: VectorReport) -> None:
    table = common.make_table(
        "LDPC test vectors", "case", "base graph", "lifting size", "encoder", "decoder"
    )
    for case in report.cases:
        table.add_row(
            case.name,
            str(case.base_graph),
            str(case.lifting_size),
            "ok" if case.encode_ok else "FAILED",
            "ok" if case.decode_ok else "FAILED",
        )
    common.print_table(table)
