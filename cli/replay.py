"""``uoisc replay``: a recording through the receiver, and what became of the pictures in it."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import options
from cli.output import atomic_write, make_console, make_folder, print_json

if TYPE_CHECKING:
    from PIL import Image

    from blocks.frame_assembler import AssembledFrame
    from captures.recording import Recording
    from captures.sent_frames import SentFrame
    from flowgraphs.replayer import ReplayResult
    from sdr_config.schema import Profile
    from semantic.codec.loader import PictureCodec
    from semantic.index_frame import IndexFrame

ANY_PORT = "tcp://127.0.0.1:*"
# Of a photo that lies beside a recording, from wherever that came.
_MAX_PHOTO_PIXELS = 24_000_000


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("replay")(replay)


def replay(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="A .sigmf-meta file, an archive (.sigmf, .sigmf.gz), or a shipped recording.",
        ),
    ],
    profile: Annotated[
        str | None,
        typer.Option(
            "--profile",
            "-p",
            help="Shipped profile or .yaml file to receive with; by default as it was received live.",
        ),
    ] = None,
    symbol_rate: Annotated[
        float | None,
        typer.Option(help="Symbols per second, where the recording does not say."),
    ] = None,
    decode: Annotated[
        bool, typer.Option("--decode/--no-decode", help="Make pictures of what is received.")
    ] = True,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for pictures and report.json.")
    ] = None,
    overrides: options.Overrides = None,
    as_json: options.Json = False,
) -> None:
    """Receive a SigMF recording from start to end, the same way every time."""
    from captures.library import find_recording
    from captures.recording import open_recording
    from captures.sent_frames import known_geometries, load_sent, sent_missing

    recording = open_recording(find_recording(name))
    sent = load_sent(recording)
    settings = replay_profile(recording, profile, symbol_rate, overrides or [])
    if output is not None:
        make_folder(output)

    from flowgraphs.replayer import run_replay

    console = make_console()
    if (missing := sent_missing(recording)) is not None:
        console.print(f"note: {missing}", markup=False)
    with console.status("receiving"):
        result = run_replay(settings, known_geometries(sent), recording)
    outcomes = match_pictures(sent, result.pictures)
    decode_s = None
    if decode and any(one.received is not None for one in outcomes):
        with console.status("decoding"):
            decode_s = _decode_all(settings, outcomes)
    values = report_values(recording, settings, result, outcomes)
    values |= {"decode_s": decode_s, "output": str(output) if output is not None else None}
    if output is not None:
        _write(output, outcomes, values)
    if as_json:
        print_json(values)
    else:
        _print(values)


def expected_values(recording: Recording, sent: Sequence[SentFrame]) -> dict[str, Any]:
    """What a replay reports whenever and wherever it runs: no times, no paths, no pictures decoded."""
    from captures.sent_frames import known_geometries
    from flowgraphs.replayer import run_replay

    settings = replay_profile(recording)
    result = run_replay(settings, known_geometries(sent), recording)
    values = report_values(recording, settings, result, match_pictures(sent, result.pictures))
    records = [record.to_json() for record in result.records]
    left_out = ("air_s", "recording")
    return {**{k: v for k, v in values.items() if k not in left_out}, "records": records}


def replay_profile(
    recording: Recording,
    name: str | None = None,
    symbol_rate_hz: float | None = None,
    overrides: Sequence[str] = (),
) -> Profile:
    """The profile to receive a recording with: its own rates where it says them.

    Args:
        recording: to replay.
        name: of a profile, or its path. None: ``replay``, with the receiver's settings of the recording.
        symbol_rate_hz: instead of the recording's.
        overrides: which have the last word.

    Raises:
        ConfigError: a profile or override that cannot be used, or rates that do not fit.
    """
    from captures.recording import RATE_TOLERANCE
    from sdr_config.load import load_profile

    info = recording.metadata.info
    received = {} if name is not None else info.receiver.model_dump(exclude_none=True)
    name = name or "replay"
    base = load_profile(name, overrides)
    rate_hz = symbol_rate_hz or info.symbol_rate_hz
    if rate_hz is None:
        rate_hz = base.waveform.symbol_rate_hz
    # Without resampling wherever possible.
    ratio = recording.sample_rate_hz / rate_hz
    whole = 2 <= round(ratio) <= 8 and abs(ratio / round(ratio) - 1) <= RATE_TOLERANCE
    settings = [
        f"waveform.symbol_rate_hz={float(rate_hz)!r}",
        *([f"waveform.samples_per_symbol={round(ratio)}"] if whole else []),
        *(f"zmq.{key}={ANY_PORT}" for key in ("frames_in", "pictures_out", "watch_out")),
        *(f"receiver.{key}={value}" for key, value in received.items()),
    ]
    return load_profile(name, [*settings, *overrides])


@dataclass
class Outcome:
    """One picture that was sent, or heard, or both.

    Args:
        sent: what was sent, None where nobody knows.
        heard: what was heard, None where nothing was.
        picture: as decoded.
        source: the picture that quality refers to.
        file: name of the picture in the output folder.
    """

    sent: SentFrame | None
    heard: AssembledFrame | None
    picture: Image.Image | None = field(default=None, repr=False)
    source: Image.Image | None = field(default=None, repr=False)
    file: str | None = None

    @property
    def received(self) -> IndexFrame | None:
        """The frame that was received, as far as it was."""
        return self.heard.frame if self.heard is not None else None


def match_pictures(sent: Sequence[SentFrame], heard: Sequence[AssembledFrame]) -> list[Outcome]:
    """What became of every frame sent, in order; then what was heard and not sent."""
    left = list(heard)
    outcomes = []
    for one in sent:
        fitting = (other for other in left if _same_frame(one, other))
        found = next(fitting, None)
        if found is not None:
            left.remove(found)
        outcomes.append(Outcome(one, found))
    return outcomes + [Outcome(None, other) for other in left]


def _same_frame(sent: SentFrame, heard: AssembledFrame) -> bool:
    if heard.frame_id != sent.frame.frame_id or heard.frame is None:
        return heard.frame_id == sent.frame.frame_id
    # Somebody else's stream may have the same number, codec and length, and be of a picture of another size.
    return heard.frame.geometry == sent.frame.geometry and (
        heard.frame.picture_size in (None, sent.frame.picture_size)
    )


def _decode_all(settings: Profile, outcomes: Sequence[Outcome]) -> float | None:
    """As :func:`decode_outcomes`, with the profile's codec."""
    from cli.encoder_settings import load_codec_of

    return decode_outcomes(load_codec_of(settings, towers=False), outcomes)


def decode_outcomes(codec: PictureCodec, outcomes: Sequence[Outcome]) -> float | None:
    """Make pictures of what was received; seconds that took, None where the codec is another."""
    from semantic.index_frame import IndexFrameError

    spent_s = None
    for outcome in outcomes:
        if outcome.received is None:
            continue
        started = time.monotonic()
        try:
            outcome.picture = codec.decode(outcome.received, soft=True)
        except IndexFrameError as error:
            make_console().print(f"picture {outcome.received.frame_id}: {error}", markup=False)
            continue
        spent_s = (spent_s or 0.0) + time.monotonic() - started
        outcome.source = source_of(codec, outcome)
    return spent_s


def source_of(codec: PictureCodec, outcome: Outcome) -> Image.Image | None:
    """The photo that was sent; where it does not lie beside the recording, what its indices decode to."""
    if outcome.sent is None:
        return None
    if outcome.sent.picture is None:
        return codec.decode(outcome.sent.frame)
    return photo_as_sent(outcome.sent.picture, outcome.sent.frame)


def photo_as_sent(photo: Path, frame: IndexFrame) -> Image.Image:
    """A photo from a file in the shape in which ``frame`` has it."""
    from PIL.Image import Resampling

    from semantic.pictures import fit_square, read_picture

    picture = read_picture(photo, _MAX_PHOTO_PIXELS)
    if frame.geometry.image_size is not None:
        return fit_square(picture, frame.geometry.image_size)
    size = frame.picture_size
    return picture if size is None else picture.resize(size, Resampling.LANCZOS)


def report_values(
    recording: Recording,
    settings: Profile,
    result: ReplayResult,
    outcomes: Sequence[Outcome],
) -> dict[str, Any]:
    """The report: the keys of ``uoisc loopback``, and one entry of ``pictures`` per picture.

    What a recording does not say is None. ``index_error_rate`` is over all pictures of which something was
    received, ``psnr_db`` and ``ms_ssim`` are means over them.
    """
    info = recording.metadata.info
    simulation = info.simulation or {}
    pictures = [_picture_values(one) for one in outcomes]
    queries = [one.sent.frame.query for one in outcomes if one.sent is not None]
    return {
        "status": _overall(pictures),
        **_link_values(recording, result, outcomes),
        "snr_db": simulation.get("snr_db"),
        "seed": simulation.get("seed"),
        "index_error_rate": _share(pictures, "index_errors", "indices"),
        "bit_error_rate": _share(pictures, "bit_errors", "bits"),
        **_geometry_values(outcomes),
        "psnr_db": _mean(pictures, "psnr_db"),
        "ms_ssim": _mean(pictures, "ms_ssim"),
        "air_s": result.air_s,
        "encode_s": None,
        "image": None,
        "query": queries[0] if queries else None,
        "profile": settings.name,
        "recording": str(recording.path),
        "partial": recording.partial,
        "samples": recording.samples,
        "samples_lost": sum(gap.lost for gap in recording.gaps),
        "duration_s": recording.duration_s,
        "pictures": pictures,
    }


def _link_values(
    recording: Recording, result: ReplayResult, outcomes: Sequence[Outcome]
) -> dict[str, Any]:
    from blocks.modem.waveform import BITS_PER_SYMBOL, MCS_CODE_RATES

    sent = recording.metadata.info.transmission
    totals = result.statistics.to_json(sent.bursts if sent is not None else None)
    heard_mcs = {record.mcs for record in result.records if record.mcs is not None}
    mcs = sent.mcs if sent is not None else (heard_mcs.pop() if len(heard_mcs) == 1 else None)
    rate = MCS_CODE_RATES[mcs] if mcs is not None and mcs < len(MCS_CODE_RATES) else None
    frame_bits = sum(one.sent.frame.geometry.payload_bits for one in outcomes if one.sent)
    return {
        "mcs": mcs,
        "code_rate": float(rate) if rate is not None else None,
        "bursts_sent": totals.get("bursts_sent"),
        "bursts_detected": totals["bursts_detected"],
        "undetected": totals.get("undetected"),
        "fates": totals["fates"],
        "code_blocks": sent.code_blocks if sent is not None else totals["code_blocks"],
        "code_blocks_ok": totals["code_blocks_ok"],
        "symbols": sent.symbols if sent is not None else None,
        # The paper's figure: index bits alone, at 3 x rate bits per symbol.
        "payload_symbols": math.ceil(frame_bits / (BITS_PER_SYMBOL * rate))
        if rate is not None and frame_bits
        else None,
        "snr_db_estimated": totals["snr_db_estimated"],
        "cfo_hz_estimated": totals["cfo_hz_estimated"],
    }


def _geometry_values(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    frames = [one.sent.frame if one.sent is not None else one.received for one in outcomes]
    geometries = [frame.geometry for frame in frames if frame is not None]
    sizes = [frame.picture_size for frame in frames if frame is not None]
    pixels = sum(size[0] * size[1] for size in sizes if size is not None)
    bits = sum(geometry.payload_bits for geometry in geometries)
    codecs = {geometry.codec_id for geometry in geometries}
    return {
        "bits": bits if geometries else None,
        "bits_per_pixel": bits / pixels if sizes and None not in sizes else None,
        "codec_id": codecs.pop() if len(codecs) == 1 else None,
    }


def _picture_values(outcome: Outcome) -> dict[str, Any]:
    from cli.link import frame_status, picture_quality
    from semantic.frame_errors import count_errors

    sent, heard, received = outcome.sent, outcome.heard, outcome.received
    errors = None
    if sent is not None and received is not None:
        errors = count_errors(sent.frame, received)
    quality: dict[str, float | None] = {"psnr_db": None, "ms_ssim": None}
    if outcome.source is not None:
        quality = picture_quality(outcome.source, outcome.picture)
    frame_id = sent.frame.frame_id if sent is not None else heard.frame_id if heard else None
    return {
        "frame_id": frame_id,
        "query": sent.frame.query if sent is not None else None,
        "status": frame_status(received),
        "code_blocks": heard.blocks if heard is not None else None,
        "code_blocks_ok": heard.blocks_ok if heard is not None else None,
        "bits": errors.bits if errors else None,
        "bit_errors": errors.bit_errors if errors else None,
        "bit_error_rate": errors.bit_errors / errors.bits if errors else None,
        "indices": errors.indices if errors else None,
        "index_errors": errors.index_errors if errors else None,
        "index_error_rate": errors.index_errors / errors.indices if errors else None,
        **quality,
        "quality_refers_to": _reference(outcome),
        "file": outcome.file,
    }


def _reference(outcome: Outcome) -> str | None:
    if outcome.source is None or outcome.sent is None:
        return None
    return "source" if outcome.sent.picture is not None else "sent_indices"


def _overall(pictures: Sequence[dict[str, Any]]) -> str:
    from cli.link import STATUS_NOT_RECEIVED, STATUS_OK, STATUS_PARTIAL

    states = {picture["status"] for picture in pictures}
    if states <= {STATUS_NOT_RECEIVED}:
        return STATUS_NOT_RECEIVED
    return STATUS_OK if states == {STATUS_OK} else STATUS_PARTIAL


def _share(pictures: Sequence[dict[str, Any]], wrong: str, of: str) -> float | None:
    counted = [picture for picture in pictures if picture[of] is not None]
    total = sum(picture[of] for picture in counted)
    return sum(picture[wrong] for picture in counted) / total if total else None


def _mean(pictures: Sequence[dict[str, Any]], key: str) -> float | None:
    known = [picture[key] for picture in pictures if picture[key] is not None]
    return fmean(known) if known else None


def _write(folder: Path, outcomes: Sequence[Outcome], values: dict[str, Any]) -> None:
    """Write pictures and report, each whole or not at all; the report last."""
    (folder / "report.json").unlink(missing_ok=True)
    save: Callable[..., None]
    for number, (outcome, entry) in enumerate(zip(outcomes, values["pictures"], strict=True)):
        if outcome.picture is None:
            continue
        entry["file"] = f"{number:04}-{entry['frame_id']:010}.png"
        save = partial(outcome.picture.save, format="PNG")
        atomic_write(folder / entry["file"], save)
    text = json.dumps(values, indent=2, allow_nan=False, ensure_ascii=False)
    atomic_write(folder / "report.json", f"{text}\n".encode(errors="backslashreplace"))


def _print(values: dict[str, Any]) -> None:
    from rich.table import Table

    from cli.loopback import report_table

    console = make_console(stderr=False)
    console.print(report_table(values))
    table = Table(title="pictures")
    for title in _PICTURE_COLUMNS.values():
        table.add_column(title, justify="right")
    for picture in values["pictures"]:
        table.add_row(*(_cell(picture[key]) for key in _PICTURE_COLUMNS))
    console.print(table)


_PICTURE_COLUMNS = {
    "frame_id": "frame",
    "status": "status",
    "code_blocks_ok": "blocks ok",
    "code_blocks": "of",
    "bit_errors": "bit errors",
    "index_errors": "index errors",
    "psnr_db": "PSNR dB",
    "ms_ssim": "MS-SSIM",
}


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
