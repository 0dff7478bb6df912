"""``uoisc keys``: keys for sockets that other machines may reach."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.output import make_console, print_text


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(help="Keys for sockets that other machines may reach.")
    # A group of one command is taken for the command itself, unless it has a callback.
    group.callback()(lambda: None)
    group.command("new")(new)
    app.add_typer(group, name="keys", help="Keys for sockets that other machines may reach.")


def new(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for both files.")] = Path(
        "keys"
    ),
    name: Annotated[
        str, typer.Option(help="Of the files, for instance the machine's name.")
    ] = "uoisc",
) -> None:
    """Make a key pair; print its public key, which the other machines need."""
    if not name or "/" in name or name.startswith("."):
        raise typer.BadParameter("expected a plain name", param_hint="--name")
    from blocks.zmq_security import write_key_pair

    public_file, secret_file, public = write_key_pair(output, name)
    console = make_console()
    console.print(f"secret key, stays on this machine (zmq.keys.own): {secret_file}", markup=False)
    console.print(f"public key, also in {public_file}:", markup=False)
    print_text(public)
