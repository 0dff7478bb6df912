"""``uoisc record``: what a radio (or the simulated channel) gives, as a SigMF recording."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import options
from cli.output import make_console, print_json

if TYPE_CHECKING:
    from captures.sent_frames import SentFrame
    from captures.writer import RecordingWriter
    from flowgraphs.recorder import RadioRecorder
    from sdr_config.schema import Profile

_RADIO_DATATYPE, _SIMULATION_DATATYPE = "ci16_le", "cf32_le"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("record")(record)


def record(
    profile: options.Profile,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="NAME", help="Recording to write.")
    ],
    duration: Annotated[
        float | None, typer.Option(min=1e-3, help="Seconds to record; without it until Ctrl-C.")
    ] = None,
    sent: Annotated[
        list[Path] | None,
        typer.Option(
            help="Index frames (.uoisc files, or a folder of them) that are sent meanwhile: kept beside the "
            "recording to count errors against. A simulated channel sends them itself."
        ),
    ] = None,
    datatype: Annotated[
        str | None,
        typer.Option(help="ci16_le (radios) or cf32_le (simulated channel)."),
    ] = None,
    author: Annotated[str | None, typer.Option(help="Who records.")] = None,
    description: Annotated[str, typer.Option(help="One sentence about it.")] = "",
    loss: Annotated[
        str | None,
        typer.Option(
            metavar="FIRST,COUNT", help="Simulated channel: lose samples, as in an overflow."
        ),
    ] = None,
    overrides: options.Overrides = None,
    as_json: options.Json = False,
) -> None:
    """Record to NAME.sigmf-meta and NAME.sigmf-data, with an annotation for every burst heard."""
    from sdr_config.load import load_profile

    settings = load_profile(profile, overrides or [])
    simulated = settings.radio.kind == "channel"
    lost = None if loss is None else parse_loss(loss)
    _check_options(simulated, duration, sent, lost)

    from captures.sent_frames import gather_sent
    from captures.writer import RecordingWriter
    from flowgraphs.recorder import check_space, recording_header

    frames = gather_sent(sent) if sent else []
    kind = datatype or (_SIMULATION_DATATYPE if simulated else _RADIO_DATATYPE)
    header = recording_header(settings, kind, author=author, description=description)
    samples = None if duration is None else round(duration * header.sample_rate_hz)
    if samples is not None:
        check_space(output, kind, samples)
    writer = RecordingWriter(output, header, frames)
    if simulated:
        _record_simulation(settings, writer, frames, lost)
    else:
        _record_radio(settings, writer, frames, samples)
    values = _report(writer.path)
    if as_json:
        print_json(values)
    else:
        print_summary(values)


def parse_loss(text: str) -> tuple[int, int]:
    """``FIRST,COUNT`` as two numbers of samples.

    Raises:
        typer.BadParameter: something else.
    """
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 2 or not all(part.isdecimal() for part in parts) or int(parts[1]) == 0:
        raise typer.BadParameter(
            f"{text!r} is not FIRST,COUNT, two numbers of samples", param_hint="--loss"
        )
    return int(parts[0]), int(parts[1])


def _check_options(
    simulated: bool, duration: float | None, sent: list[Path] | None, lost: tuple[int, int] | None
) -> None:
    if simulated and not sent:
        raise typer.BadParameter(
            "a simulated channel needs index frames to send (uoisc encode makes them)",
            param_hint="--sent",
        )
    if simulated and duration is not None:
        raise typer.BadParameter(
            "a simulated channel is recorded until everything is sent", param_hint="--duration"
        )
    if not simulated and lost is not None:
        raise typer.BadParameter("only a simulated channel loses on request", param_hint="--loss")


def _record_simulation(
    settings: Profile,
    writer: RecordingWriter,
    frames: list[SentFrame],
    lost: tuple[int, int] | None,
) -> None:
    from captures.sent_frames import known_geometries
    from flowgraphs.recorder import record_loopback

    try:
        with make_console().status("sending and recording"):
            record_loopback(settings, known_geometries(frames), frames, writer, lost)
    except BaseException:
        writer.discard()
        raise


def _record_radio(
    settings: Profile, writer: RecordingWriter, frames: list[SentFrame], samples: int | None
) -> None:
    from captures.sent_frames import known_geometries
    from flowgraphs.recorder import RadioRecorder, record_radio

    try:
        top = RadioRecorder(
            settings, known_geometries(frames), writer.data_path, writer.header.datatype
        )
    except BaseException:
        # No radio, no recording; what has been recorded before a failure stays.
        writer.discard()
        raise
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    with make_console().status("recording") as line:
        record_radio(top, writer, samples, ended, lambda top: line.update(_status(top)))


def _status(top: RadioRecorder) -> str:
    statistics = top.receiver.statistics
    snr_db = statistics.snr_db_mean
    return (
        f"{top.tape.position} samples, {statistics.detected} bursts, "
        f"{statistics.code_blocks_ok}/{statistics.code_blocks} code blocks, "
        f"Es/N0 {'-' if snr_db is None else f'{snr_db:.1f} dB'}, "
        f"{statistics.samples_dropped} samples dropped by the receiver"
    )


def _report(path: Path) -> dict[str, Any]:
    from captures.recording import load_recording
    from cli.captures import recording_values

    return recording_values(load_recording(path))


def print_summary(values: dict[str, Any]) -> None:
    """The finished recording for people."""
    from cli.captures import recording_table

    make_console(stderr=False).print(recording_table(values))
