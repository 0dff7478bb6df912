"""``uoisc decode``: an index frame in a file -> a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli import options
from cli.output import OutputError, atomic_write, check_output_file, make_console


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("decode")(decode)


def decode(
    frame: Annotated[Path, typer.Argument(metavar="FRAME", help="A file of `uoisc encode`.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Picture to write, e.g. x.png.")],
    decode_for: options.DecodeFor = "fidelity",
    checkpoint: options.Checkpoint = None,
    device: options.Device = "auto",
) -> None:
    """Turn an index frame back into a picture."""
    from semantic.index_frame import IndexFrame

    indices = IndexFrame.read(frame)
    check_output_file(output)
    picture_format = _picture_format(output)

    from semantic.codec.loader import load_codec

    console = make_console()
    with console.status("decoding"):
        codec = load_codec(checkpoint, device, towers=False, decode_for=decode_for)
        picture = codec.decode(indices)
    atomic_write(output, lambda file: picture.save(file, picture_format))
    missing = "" if indices.complete else f", {100 * indices.erased_fraction:.1f} % of it estimated"
    console.print(f"{output}: {picture.width}x{picture.height} pixels{missing}", markup=False)


def _picture_format(output: Path) -> str:
    from PIL import Image

    extensions = Image.registered_extensions()
    name = extensions.get(output.suffix.lower())
    if name is None or name not in Image.SAVE:
        raise OutputError(f"{output}: expected a name that ends in .png, .jpg, .webp, ...")
    return name
