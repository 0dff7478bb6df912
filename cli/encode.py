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
    bits: Annotated[int | None, typer.Option(help="Bits of the picture instead.")] = None,
    symbols: options.Symbols = None,
    air_time_ms: options.AirTimeMs = None,
    mcs: Annotated[
        int | None, typer.Option(help="Code rate that will protect it, 0 (1/5) to 9 (8/9).")
    ] = None,
    focus: options.Focus = None,
    boxes: options.Boxes = None,
    max_side: options.MaxSide = None,
    search_steps: options.SearchSteps = 0,
    search_likeness: options.SearchLikeness = None,
    checkpoint: options.Checkpoint = None,
    device: options.Device = "auto",
    profile: options.Profile = "loopback",
) -> None:
    """Turn a photo and a question into an index frame.

    Symbols and time on the air are those of the profile's waveform and code rate.
    """
    from dataclasses import replace

    from cli.encoder_settings import as_overrides, settings_of
    from sdr_config.load import load_profile
    from semantic.index_frame import check_query

    check_query(query)
    check_output_file(output)
    values = {
        "transmitter.mcs": mcs,
        "codec.bits_per_pixel": bits_per_pixel,
        "codec.symbols": symbols,
        "codec.air_time_ms": air_time_ms,
        "codec.focus": focus,
        "codec.max_side": max_side,
        "codec.search_steps": search_steps or None,
        "codec.search_likeness": search_likeness,
    }
    settings = settings_of(load_profile(profile, as_overrides(values)), boxes)
    if bits is not None:
        if not bits_per_pixel is symbols is air_time_ms is None:
            raise typer.BadParameter("expected one budget", param_hint="--bits")
        settings = replace(settings, bits=bits)

    from semantic.codec.loader import load_codec
    from semantic.pictures import read_picture
    from semantic.question import LANGUAGE_NOTE

    console = make_console()
    with console.status("encoding"):
        codec = load_codec(checkpoint, device)
        frame = codec.encode(read_picture(image), query, settings, frame_id)
    if not codec.language_known(query):
        console.print(LANGUAGE_NOTE, markup=False)
    atomic_write(output, frame.to_bytes())
    width, height = frame.picture_size or (0, 0)
    console.print(
        f"{output}: {width}x{height} pixels in {frame.geometry.payload_bits} bits, "
        f"{frame.bits_per_pixel:.3g} bit/pixel, codec {frame.geometry.codec_id}",
        markup=False,
    )
