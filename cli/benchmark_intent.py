"""``uoisc benchmark intent``: does what was asked about arrive better than what was not?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import options
from cli.benchmark_common import make_table, print_table
from cli.output import make_console, print_json

if TYPE_CHECKING:
    from benchmarks.bootstrap import PhotoMean
    from benchmarks.intent import IntentReport

_ROWS = (
    ("gain by asking, dB", "asked_gain_db"),
    ("against nobody asking, dB", "against_query_free_db"),
)


def intent(
    data: Annotated[Path, typer.Option(help="A folder with images and objects.jsonl.")],
    bits_per_pixel: options.BitsPerPixel = 0.45,
    focus: options.Focus = None,
    search_steps: options.SearchSteps = 0,
    search_likeness: options.SearchLikeness = None,
    mcs: Annotated[
        int, typer.Option(min=0, max=9, help="Code rate for which symbols are counted.")
    ] = 4,
    limit: Annotated[int | None, typer.Option(min=1, help="So many photos at most.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the bootstrap.")] = 0,
    checkpoint: options.Checkpoint = None,
    device: options.Device = "auto",
    as_json: options.Json = False,
) -> None:
    """PSNR inside the asked object's boxes, against asking for another object of the photo."""
    from benchmarks.named_objects import read_named_regions

    regions = read_named_regions(data)
    if limit is not None:
        regions = [region for region in regions if region.photo < limit]

    from benchmarks.intent import benchmark_intent
    from semantic.codec import load_codec

    with make_console().status("loading the codec") as status:
        codec = load_codec(checkpoint, device)
        report = benchmark_intent(
            codec,
            regions,
            rate=codec.rate(bits_per_pixel),
            focus=codec.usual_focus if focus is None else focus,
            search_steps=search_steps,
            search_likeness=search_likeness,
            mcs=mcs,
            seed=seed,
            progress=lambda done, total: status.update(f"picture {done} of {total}"),
        )
    if as_json:
        print_json(report.to_json())
    else:
        print_report(report)


def print_report(report: IntentReport) -> None:
    """The figures as a table, and a line about how they came about."""
    from semantic.index_search import describe_search

    values = report.to_json()
    table = make_table(
        f"Codec {report.codec_id}, {values['bits_per_pixel']:.3f} bit per pixel", "", *report.sets
    )
    sets = report.sets.values()
    for label, key in _ROWS:
        table.add_row(label, *(_text(getattr(found, key)) for found in sets))
    gains = [found.asked_gain_db for found in sets]
    table.add_row("pairs", *("0" if gain is None else str(gain.cases) for gain in gains))
    print_table(table)
    make_console(stderr=False).print(
        f"{report.photos} photos, asked for things other than persons unless said so; choices were made on "
        f"photos of even number. Whole pictures {report.psnr_db.mean:.2f} dB, at the same rate with nobody "
        f"asking {report.psnr_without_query_db.mean:.2f} dB; {values['symbols']} symbols at mcs "
        f"{report.mcs}, focus {report.focus:g}, "
        f"{describe_search(report.search_steps, report.search_likeness)}",
        markup=False,
    )


def _text(found: PhotoMean | None) -> str:
    if found is None:
        return "n/a"
    return f"{found.mean:.2f} ({found.ci95[0]:.2f} to {found.ci95[1]:.2f})"
