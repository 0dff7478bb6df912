"""``uoisc benchmark relevance``: do relevance maps lie on what was asked about?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import options
from cli.benchmark_common import make_table, print_table
from cli.output import make_console, print_json

if TYPE_CHECKING:
    from rich.table import Table

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
        list[int] | None,
        typer.Option(
            min=32,
            help="Pixels at which the map is made, a multiple of 32; several are joined. Default: 320, 448.",
        ),
    ] = None,
    grid: Annotated[int, typer.Option(min=2, max=80, help="Tokens per side.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the bootstrap.")] = 0,
    as_json: options.Json = False,
) -> None:
    """Peak, mass and coverage of the asked object's boxes, against chance, other questions and confidence."""
    for one in side or []:
        if one % 32:
            raise typer.BadParameter(f"{one}: expected a multiple of 32", param_hint="--side")
    from benchmarks.relevance import benchmark_relevance
    from semantic.codec_config import PackagedTowers, read_recipe
    from semantic.relevance import SIDES, load_relevance

    towers = read_recipe(Path("embedded")).codec.backbone
    assert isinstance(towers, PackagedTowers)
    with make_console().status("loading the towers") as status:
        report = benchmark_relevance(
            load_relevance(towers, sides=sorted(side) if side else SIDES),
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
    print_table(_reliability_table(report))
    values = report.to_json()
    make_console(stderr=False).print(
        f"{report.photos} photos; choices were made on those of even number. One map takes "
        f"{values['map_median_ms']:.0f} ms, p95 {values['map_p95_ms']:.0f} ms, "
        f"{values['machine']['torch_threads']} threads, load {values['machine']['load_average']}",
        markup=False,
    )


def _reliability_table(report: RelevanceReport) -> Table:
    """Confidence beside what was hit, per third of the objects."""
    table = make_table("Peak in box by confidence", "", *report.sets)
    for number, label in enumerate(("lowest third", "middle third", "highest third")):
        table.add_row(
            label,
            *(
                f"{bins[number].confidence:.2f}: {_text(bins[number].peak_in_box)}"
                if number < len(bins)
                else "n/a"
                for bins in report.reliability.values()
            ),
        )
    absent = [report.absent_confidence.get(name) for name in report.sets]
    table.add_row("confidence, not there", *("n/a" if c is None else f"{c:.2f}" for c in absent))
    return table


def _text(share: PhotoMean | None) -> str:
    if share is None:
        return "n/a"
    return f"{share.mean:.2f} ({share.ci95[0]:.2f} to {share.ci95[1]:.2f})"
