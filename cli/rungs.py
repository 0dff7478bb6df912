"""``uoisc rungs``: other rates for trained weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.output import check_output_file, make_console


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("rungs")(rungs)


def rungs(
    checkpoint: Annotated[Path, typer.Argument(help="Trained codec (.safetensors).")],
    recipe: Annotated[
        Path, typer.Argument(help="Recipe (a name or .yaml) whose codec.ladder.rungs are wanted.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write (.safetensors).")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change one value of the recipe."),
    ] = None,
) -> None:
    """Choose at which rates a trained codec sends; nothing is trained anew."""
    check_output_file(output)

    from semantic.checkpoint import change_rungs
    from semantic.recipes import load_recipe

    wanted = load_recipe(recipe, overrides or ())
    geometry = change_rungs(checkpoint, wanted, output)
    rates = ", ".join(
        f"{one.bits_per_pixel:.3f}" for one in wanted.codec.geometries(geometry.codec_id)
    )
    make_console().print(
        f"{output}: codec {geometry.codec_id}, {rates} bit per pixel", markup=False
    )
