"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

# Paths are opened by the code that reads them, whose errors name the file: typer checks nothing here.
Image = Annotated[Path, typer.Argument(metavar="IMAGE", help="A photo: PNG, JPEG, WebP, TIFF, ...")]
Query = Annotated[str, typer.Option("--query", "-q", help="What the receiver wants to know.")]
Profile = Annotated[
    str, typer.Option("--profile", "-p", help="Name of a shipped profile or path of a .yaml file.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one value, e.g. transmitter.mcs=2."),
]
Checkpoint = Annotated[
    Path | None,
    typer.Option(help="Trained codec: two_layer (the default), embedded, or a .safetensors file."),
]
DecodeFor = Annotated[
    Literal["fidelity", "recognition"],
    typer.Option(
        "--for", help="What the picture is for: near in every pixel, or showing what is there."
    ),
]
Device = Annotated[str, typer.Option(help="Where torch computes: auto, cpu, cuda, mps.")]
BitsPerPixel = Annotated[
    float | None,
    typer.Option(help="Bits of a picture per pixel; by default one."),
]
Symbols = Annotated[
    int | None,
    typer.Option(help="Budget in symbols on the air instead, everything around the bits included."),
]
AirTimeMs = Annotated[
    float | None, typer.Option(help="Budget in milliseconds on the air instead, gaps included.")
]
MaxSide = Annotated[
    int | None,
    typer.Option(help="Scale larger photos down to this many pixels at the longest side."),
]
Boxes = Annotated[
    list[str] | None,
    typer.Option(
        "--box",
        metavar="X,Y,W,H",
        help="Send this rectangle best, in pixels of the picture that is sent, wherever the question "
        "points; may be given several times.",
    ),
]
Focus = Annotated[
    float | None,
    typer.Option(
        min=0, max=1, help="How far bits follow the question; by default as measured best."
    ),
]
SearchSteps = Annotated[
    int,
    typer.Option(
        min=0, max=1000, help="Steps of a search for better indices; each takes time, not bits."
    ),
]
SearchLikeness = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=1000,
        help="How much the search minds how a picture looks to the image tower, beside its squared error; "
        "by default as measured best.",
    ),
]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on standard output, nothing else.")
]
