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
    box: Annotated[
        bool,
        typer.Option("--box", help="Give the encoder the asked boxes, as if a user drew them."),
    ] = False,
    rivals: Annotated[
        str,
        typer.Option(help="Coders in the same boxes at the same bytes, by comma; none for none."),
    ] = "none",
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
    from semantic.systems.picture_coders import PICTURE_CODERS

    names = [] if rivals == "none" else rivals.split(",")
    for name in names:
        if name not in PICTURE_CODERS:
            raise typer.BadParameter(
                f"{name!r} is none of {', '.join(PICTURE_CODERS)}, none", param_hint="--rivals"
            )
    regions = read_named_regions(data)
    if limit is not None:
        regions = [region for region in regions if region.photo < limit]

    from benchmarks.intent import benchmark_intent
    from semantic.codec.loader import EncoderSettings, load_codec

    with make_console().status("loading the codec") as status:
        codec = load_codec(checkpoint, device)
        report = benchmark_intent(
            codec,
            regions,
            settings=EncoderSettings(
                bits_per_pixel=bits_per_pixel,
                focus=focus,
                search_steps=search_steps,
                search_likeness=search_likeness,
            ),
            box=box,
            rivals=names,
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
    for name, found in report.rivals.items():
        table.add_section()
        ordered = [found[key] for key in report.sets]
        table.add_row(f"ahead of {name}, dB", *(_text(one.gain) for one in ordered))
        table.add_row("whole pictures, dB", *(_text(one.whole_gain) for one in ordered))
        table.add_row("objects", *(str(one.gain.cases if one.gain else 0) for one in ordered))
    print_table(table)
    make_console(stderr=False).print(
        f"{report.photos} photos, asked for things other than persons unless said so; choices were made on "
        f"photos of even number. Whole pictures {report.psnr_db.mean:.2f} dB, at the same rate with nobody "
        f"asking {report.psnr_without_query_db.mean:.2f} dB; {values['symbols']} symbols at mcs "
        f"{report.mcs}, {'boxes given' if report.box else f'focus {report.focus:g}'}, "
        f"{describe_search(report.search_steps, report.search_likeness)}",
        markup=False,
    )


def _text(found: PhotoMean | None) -> str:
    if found is None:
        return "n/a"
    return f"{found.mean:.2f} ({found.ci95[0]:.2f} to {found.ci95[1]:.2f})"
