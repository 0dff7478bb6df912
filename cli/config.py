"""``uoisc config``: what a profile comes to, and what one may say."""

from __future__ import annotations

from typing import Annotated

import typer

from cli import options
from cli.output import print_json, print_text


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(help="Show and explain profiles.")
    group.command("show")(show)
    group.command("reference")(reference)
    app.add_typer(group, name="config")


def show(
    profile: Annotated[
        str, typer.Argument(help="Name of a shipped profile or path of a .yaml file.")
    ],
    overrides: options.Overrides = None,
    json: options.Json = False,
) -> None:
    """Check a profile and print it with all its defaults."""
    from sdr_config.load import load_profile

    data = load_profile(profile, overrides or []).model_dump()
    if json:
        print_json(data)
        return
    import yaml

    print_text(yaml.safe_dump(data, sort_keys=False, allow_unicode=True))


def reference() -> None:
    """Print the reference of all keys as Markdown."""
    from sdr_config.reference import reference_markdown

    print_text(reference_markdown())
