"""``uoisc demo``: a photo, two questions, three channels and rates, and JPEG 2000 over the same symbols."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from cli import options
from cli.output import atomic_write, make_console, make_folder, print_json

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure
    from numpy.typing import NDArray
    from PIL import Image

    from cli.link import LinkReport
    from semantic.codec.loader import PictureCodec
    from semantic.index_frame import IndexFrame


@dataclass(frozen=True)
class Point:
    """One channel: Es/N0, the code rate used on it, the codec's rate, and what it shows."""

    snr_db: float
    mcs: int
    bits_per_pixel: float
    label: str


# From a good channel to one where noise is as strong as the signal, with ever fewer bits, so that a picture
# takes one or two code blocks and the difference can be seen. JPEG 2000 gets the same bits and code rate,
# hence the same symbols, on each. What lost blocks do is another matter: uoisc benchmark losses.
POINTS = (
    Point(12.0, 7, 0.45, "good channel, rate 3/4"),
    Point(5.0, 4, 0.2, "rate 1/2, 1 dB to spare"),
    Point(0.0, 1, 0.1, "noise as strong as signal, rate 1/4"),
)

SIDE = 160

UO_ISC = "UO-ISC"
JPEG_2000 = "JPEG 2000"


@dataclass(frozen=True)
class Run:
    """One picture sent in the demo."""

    point: Point
    system: str
    question: str | None
    report: LinkReport
    bits_per_pixel: float
    depth: NDArray[np.float64] | None = None  # where its bits went

    @property
    def values(self) -> dict[str, Any]:
        """The link's report with what was sent."""
        return {
            "system": self.system,
            "question": self.question,
            "channel": self.point.label,
            "bits_per_pixel": self.bits_per_pixel,
            **self.report.values,
        }


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("demo")(demo)


def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for overview.png and demo.json.")
    ] = Path("output/demo"),
    photo: Annotated[
        str, typer.Option(help="One of the seven photos, or the path of one of yours.")
    ] = "astronaut",
    question: Annotated[
        list[str] | None,
        typer.Option("--question", "-q", help="Exactly two; with a photo of your own."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the noise.")] = 0,
    as_json: options.Json = False,
) -> None:
    """Send a photo with two questions over three channels at three rates, beside JPEG 2000."""
    from semantic.index_frame import check_query

    questions = tuple(check_query(text) for text in question) if question else ()
    if questions and len(questions) != 2:
        raise typer.BadParameter("expected exactly two", param_hint="--question")
    make_folder(output)

    from semantic.codec.loader import load_codec
    from semantic.demo_photos import describe_photo, photo_names, photo_path
    from semantic.pictures import load_picture

    known = photo in photo_names()
    if not known and not questions:
        raise typer.BadParameter(
            f"{photo!r} is none of {', '.join(photo_names())}; a photo of your own needs two --question",
            param_hint="--photo",
        )
    first, second = questions or describe_photo(photo).questions
    codec = load_codec()
    # A square: the rival's search for its best size takes squares.
    source = codec.prepare(load_picture(photo_path(photo) if known else Path(photo), SIDE))
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        console=make_console(),
        transient=True,
    ) as progress:
        task = progress.add_task("pictures over the air", total=3 * len(POINTS))
        runs = []
        for run in _runs(codec, source, (first, second), seed):
            runs.append(run)
            progress.advance(task)
    _write(output, source, runs, photo, seed)
    if as_json:
        print_json(_summary(runs, photo, seed))
        return
    console = make_console(stderr=False)
    console.print(_table(runs))
    console.print(f"overview: {output / 'overview.png'}", markup=False)


def _runs(
    codec: PictureCodec, source: Image.Image, questions: tuple[str, str], seed: int
) -> Iterator[Run]:
    from cli.encoder_settings import settings_of
    from cli.link import decoder_of, send_frame
    from sdr_config.load import load_profile

    decode = decoder_of(codec)
    for point in POINTS:
        profile = load_profile(
            "loopback",
            [
                f"transmitter.mcs={point.mcs}",
                f"channel.snr_db={point.snr_db}",
                f"channel.seed={seed}",
                f"codec.bits_per_pixel={point.bits_per_pixel}",
            ],
        )
        settings = settings_of(profile)
        for number, text in enumerate(questions):
            frame = codec.encode(source, text, settings, number)
            report = send_frame(profile, frame, source, decode)
            yield Run(point, UO_ISC, text, report, point.bits_per_pixel, codec.depth(frame))
        frame, decode_rival = _rival(source, frame.geometry.payload_bits // 8, len(questions))
        report = send_frame(profile, frame, source, decode_rival)
        yield Run(point, JPEG_2000, None, report, point.bits_per_pixel)


def _rival(
    source: Image.Image, size: int, frame_id: int
) -> tuple[IndexFrame, Callable[[IndexFrame], Image.Image | None]]:
    """JPEG 2000 in at most so many bytes, without what its receiver knows, and what decodes it."""
    from semantic.systems import byte_frames
    from semantic.systems.picture_coders import PICTURE_CODERS

    coder = PICTURE_CODERS["jpeg2000"]
    coded = coder.code_within(source, size, container=False)
    if coded is None:
        raise RuntimeError(f"JPEG 2000 does not fit into {size} bytes")
    payload = coder.strip(coded.data, coded.side)
    geometry = byte_frames.byte_geometry("jpeg2000", size, source.width)

    def decode(frame: IndexFrame) -> Image.Image | None:
        received = byte_frames.frame_to_bytes(frame)[: len(payload)]
        return coder.receive(received, coded.side, source.width)

    return byte_frames.bytes_to_frame(payload, geometry, frame_id), decode


def _summary(runs: list[Run], photo: str, seed: int) -> dict[str, Any]:
    return {"photo": photo, "seed": seed, "runs": [run.values for run in runs]}


def _write(folder: Path, source: Image.Image, runs: list[Run], photo: str, seed: int) -> None:
    from cli.figures import write_figure

    write_figure(folder / "overview.png", lambda: _overview(source, runs))
    for number, run in enumerate(runs):
        path = folder / f"received_{number}.png"
        picture = run.report.received
        path.unlink(missing_ok=True)
        if picture is not None:
            atomic_write(path, lambda file, picture=picture: picture.save(file, "PNG"))  # type: ignore[misc]
    text = json.dumps(_summary(runs, photo, seed), indent=2, allow_nan=False, ensure_ascii=False)
    atomic_write(folder / "demo.json", f"{text}\n".encode(errors="backslashreplace"))


def _overview(source: Image.Image, runs: list[Run]) -> Figure:
    """One row per channel: source, both answers, JPEG 2000, constellation.

    In the corner of an answer is where its bits went.
    """
    from cli.figures import caption, draw_bits, draw_constellation, draw_picture, new_figure

    figure = new_figure(14.5, 3.35 * len(POINTS))
    grid = figure.subplots(len(POINTS), 5)
    for row, point in enumerate(POINTS):
        here = [run for run in runs if run.point is point]
        draw_picture(grid[row][0], source)
        grid[row][0].set_ylabel(
            f"Es/N0 {point.snr_db:g} dB\n{point.label}\n{here[0].bits_per_pixel:.2g} bit per pixel",
            fontsize=11,
        )
        for column, run in enumerate(here, start=1):
            axes = grid[row][column]
            missing = "not received" if run.values["status"] == "not_received" else "no picture"
            draw_picture(axes, run.report.received, missing)
            if run.depth is not None and run.report.received is not None:
                draw_bits(axes, run.depth)
            axes.set_xlabel(caption(run.values), fontsize=9)
            if row == 0:
                axes.set_title(f"{run.system}\n{run.question or 'no question'}", fontsize=11)
        last = here[0].report
        draw_constellation(grid[row][4], last.constellation, last.values["snr_db_estimated"])
    grid[0][0].set_title("source\n", fontsize=11)
    return figure


def _table(runs: list[Run]) -> Table:
    """The figures, narrow enough for a pipe's 80 columns: the questions are numbered in the title."""
    questions = list(dict.fromkeys(run.question for run in runs if run.question))
    numbers = {text: f"Q{number}" for number, text in enumerate(questions, start=1)}
    legend = "\n".join(f"{number}: {text}" for text, number in numbers.items())
    table = Table(
        title=f"One photo, two questions, three channels\n{legend}",
        box=box.HORIZONTALS,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    for name in ("Es/N0", "rate", "bpp", "symbols", "sent"):
        table.add_column(name, no_wrap=True)
    for name in ("blocks", "errors", "dB", "MS-SSIM"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("status", no_wrap=True)
    for run in runs:
        values = run.values
        table.add_row(
            f"{values['snr_db']:g}",
            f"{values['code_rate']:.2f}",
            f"{values['bits_per_pixel']:.2f}",
            str(values["symbols"]),
            f"{run.system} {numbers[run.question]}" if run.question else run.system,
            f"{values['code_blocks_ok']}/{values['code_blocks']}",
            _number(values["index_error_rate"], "{:.3f}"),
            _number(values["psnr_db"], "{:.1f}"),
            _number(values["ms_ssim"], "{:.3f}"),
            values["status"],
            end_section=run.system == JPEG_2000,
        )
    return table


def _number(value: float | None, pattern: str) -> str:
    return "-" if value is None else pattern.format(value)
