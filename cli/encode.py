"""``uoisc encode``: a photo and a question -> an index frame in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli import options
from cli.output import atomic_write, check_output_file, make_console


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("encode")(encode)


def encode(
    image: options.Image,
    query: options.Query,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="File to write, e.g. frame.uoisc.")
    ],
    frame_id: Annotated[int, typer.Option(help="Number of the picture, 0 to 4294967295.")] = 0,
    bits_per_pixel: options.BitsPerPixel = None,
    focus: options.Focus = None,
    search_steps: options.SearchSteps = 0,
    search_likeness: options.SearchLikeness = None,
    checkpoint: options.Checkpoint = None,
    device: options.Device = "auto",
) -> None:
    """Turn a photo and a question into an index frame."""
    from semantic.index_frame import check_query

    check_query(query)
    check_output_file(output)

    from semantic.codec import load_codec
    from semantic.pictures import load_picture

    console = make_console()
    with console.status("encoding"):
        codec = load_codec(checkpoint, device)
        frame = codec.encode(
            load_picture(image, codec.image_size),
            query,
            frame_id,
            rate=codec.rate(bits_per_pixel),
            focus=focus,
            search_steps=search_steps,
            search_likeness=search_likeness,
        )
    atomic_write(output, frame.to_bytes())
    geometry = frame.geometry
    console.print(
        f"{output}: {geometry.indices} indices of {geometry.bits_per_index} bits, "
        f"{geometry.bits_per_pixel:.2f} bit/pixel, codec {geometry.codec_id}",
        markup=False,
    )
