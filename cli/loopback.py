"""``uoisc loopback``: one picture across the simulated air, with a report."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from cli import options
from cli.output import atomic_write, make_console, make_folder, print_json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    from cli.link import LinkReport
    from semantic.relevance import Found

_PICTURES = ("source.png", "received.png", "side_by_side.png", "constellation.png")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("loopback")(loopback)


def loopback(
    image: options.Image,
    query: options.Query,
    profile: options.Profile = "loopback",
    mcs: Annotated[
        int | None, typer.Option(help="Code rate, 0 (1/5) to 9 (8/9); 4 is rate 1/2.")
    ] = None,
    snr_db: Annotated[float | None, typer.Option(help="Es/N0 in dB.")] = None,
    fading: Annotated[
        str | None, typer.Option(help="Gain per burst: none, rayleigh or rician.")
    ] = None,
    rician_k_db: Annotated[float | None, typer.Option(help="Rician K factor in dB.")] = None,
    taps: Annotated[
        str | None,
        typer.Option(help="Multipath taps, one per air sample, e.g. 1,0,0,0,0.2+0.1j."),
    ] = None,
    cfo_hz: Annotated[float | None, typer.Option(help="Carrier frequency offset in Hz.")] = None,
    sro_ppm: Annotated[float | None, typer.Option(help="Sample rate offset in ppm.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of noise and fading.")] = None,
    bits_per_pixel: options.BitsPerPixel = None,
    symbols: options.Symbols = None,
    air_time_ms: options.AirTimeMs = None,
    focus: options.Focus = None,
    boxes: options.Boxes = None,
    max_side: options.MaxSide = None,
    search_steps: Annotated[
        int | None,
        typer.Option(help="Steps of a search for better indices; each takes time, not bits."),
    ] = None,
    search_likeness: options.SearchLikeness = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for pictures and report.json.")
    ] = None,
    overrides: options.Overrides = None,
    as_json: options.Json = False,
) -> None:
    """Send a photo through the simulated link and show what arrives."""
    from cli.encoder_settings import as_overrides, find_asked, load_codec_of, settings_of
    from sdr_config.load import ConfigError, load_profile
    from semantic.index_frame import check_query

    query = check_query(query)
    settings = load_profile(
        profile,
        [
            *(overrides or []),
            *as_overrides(
                {
                    "transmitter.mcs": mcs,
                    "channel.snr_db": snr_db,
                    "channel.fading": fading,
                    "channel.rician_k_db": rician_k_db,
                    "channel.taps": None if taps is None else parse_taps(taps),
                    "channel.cfo_hz": cfo_hz,
                    "channel.sro_ppm": sro_ppm,
                    "channel.seed": seed,
                    "codec.bits_per_pixel": bits_per_pixel,
                    "codec.symbols": symbols,
                    "codec.air_time_ms": air_time_ms,
                    "codec.focus": focus,
                    "codec.max_side": max_side,
                    "codec.search_steps": search_steps,
                    "codec.search_likeness": search_likeness,
                }
            ),
        ],
    )
    if settings.channel is None:
        raise ConfigError(
            f"profile {settings.name}",
            "radio.kind",
            f"is {settings.radio.kind}, expected channel: loopback sends nothing over a radio",
        )
    encoder = settings_of(settings, boxes)
    if output is not None:
        make_folder(output)

    from cli.link import decoder_of, send_frame
    from semantic.pictures import read_picture
    from semantic.question import LANGUAGE_NOTE

    console = make_console()
    with console.status("loading the codec"):
        codec = load_codec_of(settings)
    source = codec.prepare(read_picture(image), settings.codec.max_side)
    with console.status("encoding, sending, decoding"):
        started = time.monotonic()
        frame = codec.encode(source, query, encoder)
        encode_s = time.monotonic() - started
        found = find_asked(codec, source, query, encoder)
        report = send_frame(settings, frame, source, decoder_of(codec))
    values = {
        **report.values,
        "encode_s": encode_s,
        "image": str(image),
        "query": query,
        "profile": settings.name,
        "codec_id": frame.geometry.codec_id,
        "output": str(output) if output is not None else None,
        "relevance_confidence": None if found is None else float(found.confidence[0]),
        "language_known": None if found is None else found.language_known[0],
    }
    if values["language_known"] is False:
        console.print(LANGUAGE_NOTE, markup=False)
    if output is not None:
        depth = codec.depth(frame)
        write_results(output, source, report, values, found, depth)
    if as_json:
        print_json(values)
    else:
        make_console(stderr=False).print(report_table(values))


def parse_taps(text: str) -> list[list[float]]:
    """``1,0,0.2+0.1j`` as ``[real, imaginary]`` pairs.

    Raises:
        typer.BadParameter: something between the commas is not a complex number.
    """
    pairs = []
    for part in text.split(","):
        try:
            value = complex(part.strip().replace(" ", ""))
        except ValueError:
            raise typer.BadParameter(
                f"{part.strip()!r} is not a complex number such as 0.2 or 0.2+0.1j",
                param_hint="--taps",
            ) from None
        pairs.append([value.real, value.imag])
    return pairs


def write_results(
    folder: Path,
    source: Image.Image,
    report: LinkReport,
    values: dict[str, Any],
    found: Found | None = None,
    depth: NDArray[np.float64] | None = None,
) -> None:
    """Write pictures and report, each file whole or not at all; the report last.

    What an earlier run left under the same names and this run has not got (a received picture) goes
    away first: nothing in the folder may be taken for a result of this run that is not one.
    """
    from cli.figures import constellation_figure, side_by_side_figure, write_figure

    for name in ("report.json", *_PICTURES):
        (folder / name).unlink(missing_ok=True)
    atomic_write(folder / "source.png", lambda file: source.save(file, "PNG"))
    received = report.received
    if received is not None:
        atomic_write(folder / "received.png", lambda file: received.save(file, "PNG"))
    relevance = None if found is None else found.maps[0].cpu().numpy()
    write_figure(
        folder / "side_by_side.png",
        lambda: side_by_side_figure(source, received, values["query"], values, relevance, depth),
    )
    symbols = report.constellation
    if symbols is not None:
        write_figure(
            folder / "constellation.png",
            lambda: constellation_figure(symbols, values["snr_db_estimated"]),
        )
    text = json.dumps(values, indent=2, allow_nan=False, ensure_ascii=False)
    atomic_write(folder / "report.json", f"{text}\n".encode(errors="backslashreplace"))


_ROWS: tuple[tuple[str, str], ...] = (
    ("status", "{}"),
    ("mcs", "{}"),
    ("snr_db", "{:.2f}"),
    ("snr_db_estimated", "{:.2f}"),
    ("cfo_hz_estimated", "{:.1f}"),
    ("bursts_sent", "{}"),
    ("bursts_detected", "{}"),
    ("code_blocks", "{}"),
    ("code_blocks_ok", "{}"),
    ("index_error_rate", "{:.4f}"),
    ("symbols", "{}"),
    ("payload_symbols", "{}"),
    ("bits", "{}"),
    ("bits_per_pixel", "{:.3f}"),
    ("psnr_db", "{:.2f}"),
    ("ms_ssim", "{:.4f}"),
    ("relevance_confidence", "{:.2f}"),
    ("encode_s", "{:.3f}"),
    ("air_s", "{:.3f}"),
    ("decode_s", "{:.3f}"),
    ("output", "{}"),
)


def report_table(values: dict[str, Any]) -> Table:
    """The report for people."""
    table = Table(title=values["query"], show_header=False)
    table.add_column("figure", style="bold")
    table.add_column("value", justify="right")
    for key, pattern in _ROWS:
        value = values.get(key)
        table.add_row(key, "-" if value is None else pattern.format(value))
    fates = {name: count for name, count in values["fates"].items() if count}
    table.add_row("fates", ", ".join(f"{n} {name}" for name, n in fates.items()) or "-")
    return table
