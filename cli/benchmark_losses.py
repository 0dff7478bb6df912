"""``uoisc benchmark losses``: quality over the share of lost code blocks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import options
from cli.benchmark_common import make_table, print_table
from cli.output import make_console, print_json

if TYPE_CHECKING:
    from benchmarks.losses import LossReport


def losses(
    data: Annotated[Path, typer.Option(help="A folder of photos, or one with a folder images.")],
    questions: Annotated[
        Path | None, typer.Option(help="JSON lines with image and question; else one for all.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="So many photos at most.")] = 100,
    bits_per_pixel: Annotated[float, typer.Option(min=0.05, max=8, help="Of every picture.")] = 1.0,
    mcs: Annotated[int, typer.Option(min=0, max=9, help="Code rate, 4 is rate 1/2.")] = 4,
    draws: Annotated[int, typer.Option(min=1, help="Draws of lost blocks per photo.")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything random.")] = 0,
    device: options.Device = "auto",
    as_json: options.Json = False,
) -> None:
    """PSNR when code blocks are lost: two layers, the paper's codec and JPEG 2000."""
    from semantic.asked_photos import DEFAULT_QUERY, read_photos

    rows = {row.file: row for row in read_photos(data, questions, DEFAULT_QUERY, None)}
    from semantic.asked_photos import spread_evenly

    chosen = spread_evenly(list(rows.values()), limit or len(rows))

    from benchmarks.losses import SIDE, benchmark_losses
    from semantic.codec.loader import load_codec
    from semantic.pictures import load_picture

    with make_console().status("loading the codecs") as status:
        report = benchmark_losses(
            {name: load_codec(name, device) for name in ("two_layer", "embedded")},
            [(row.file, load_picture(row.file, SIDE), row.question) for row in chosen],
            bits=int(bits_per_pixel * SIDE**2) // 8 * 8,
            mcs=mcs,
            draws=draws,
            seed=seed,
            progress=lambda done, total: status.update(f"photo {done} of {total}"),
        )
    if as_json:
        print_json(report.to_json())
    else:
        print_report(report)


def print_report(report: LossReport) -> None:
    """A row for every system, a column for every share."""
    table = make_table(
        f"PSNR in dB, {report.bits} bits in {report.blocks} code blocks",
        "lost",
        *(f"{share:.0%}" for share in report.shares),
    )
    for name, values in report.psnr_db.items():
        table.add_row(name, *(f"{one.mean:.1f} ± {_half(one.ci95):.1f}" for one in values))
    print_table(table)
    make_console(stderr=False).print(
        f"{report.photos} photos, {report.draws} draws each, the same blocks lost for all; where nothing "
        "decodes a grey picture is shown",
        markup=False,
    )


def _half(interval: tuple[float, float]) -> float:
    return (interval[1] - interval[0]) / 2
