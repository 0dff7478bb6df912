"""``uoisc benchmark relevance``: do relevance maps lie on what was asked about?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import options
from cli.benchmark_common import make_table, print_table
from cli.output import make_console, print_json

if TYPE_CHECKING:
    from benchmarks.bootstrap import PhotoMean
    from benchmarks.relevance import RelevanceReport

_ROWS = (
    ("peak in box", "peak_in_box"),
    ("map's mass in box", "mass_in_box"),
    ("box in top 30 % of tokens", "box_covered"),
    ("more mass in box when asked", "asked_wins"),
    ("coverage gained by asking", "asked_coverage_gain"),
)


def relevance(
    data: Annotated[Path, typer.Option(help="A folder with images and objects.jsonl.")],
    side: Annotated[
        int, typer.Option(min=32, help="Pixels at which the map is made, a multiple of 32.")
    ] = 320,
    grid: Annotated[int, typer.Option(min=2, max=80, help="Tokens per side.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the bootstrap.")] = 0,
    as_json: options.Json = False,
) -> None:
    """Peak, mass and coverage of the asked object's boxes, against chance and other questions."""
    if side % 32:
        raise typer.BadParameter(f"{side}: expected a multiple of 32", param_hint="--side")
    from benchmarks.relevance import benchmark_relevance
    from semantic.codec_config import PackagedTowers, read_recipe
    from semantic.relevance import load_relevance

    towers = read_recipe(Path("embedded")).codec.backbone
    assert isinstance(towers, PackagedTowers)
    with make_console().status("loading the towers") as status:
        report = benchmark_relevance(
            load_relevance(towers, side=side),
            data,
            grid=grid,
            seed=seed,
            progress=lambda done, total: status.update(f"photo {done} of {total}"),
        )
    if as_json:
        print_json(report.to_json())
    else:
        print_report(report)


def print_report(report: RelevanceReport) -> None:
    """The figures as a table, and a line about how they came about."""
    table = make_table(f"Relevance on {report.grid}x{report.grid} tokens", "", *report.sets)
    sets = report.sets.values()
    for label, key in _ROWS:
        table.add_row(label, *(_text(getattr(found, key)) for found in sets))
    table.add_row(
        "box's share of the photo",
        *("n/a" if found.chance is None else f"{found.chance:.2f}" for found in sets),
    )
    for label, key in (("objects", "peak_in_box"), ("pairs", "asked_wins")):
        found_sets = (getattr(found, key) for found in sets)
        table.add_row(label, *("0" if one is None else str(one.cases) for one in found_sets))
    print_table(table)
    values = report.to_json()
    make_console(stderr=False).print(
        f"{report.photos} photos; choices were made on those of even number. One map takes "
        f"{values['map_median_ms']:.0f} ms, p95 {values['map_p95_ms']:.0f} ms, "
        f"{values['machine']['torch_threads']} threads, load {values['machine']['load_average']}",
        markup=False,
    )


def _text(share: PhotoMean | None) -> str:
    if share is None:
        return "n/a"
    return f"{share.mean:.2f} ({share.ci95[0]:.2f} to {share.ci95[1]:.2f})"
