"""``uoisc tx`` and ``uoisc rx``: the flowgraphs on a radio, until Ctrl-C."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Protocol

import typer

from cli import options
from cli.output import make_console

if TYPE_CHECKING:
    from flowgraphs.radio_settings import SettingsReadBack
    from sdr_config.schema import Profile
    from semantic.link_statistics import BurstRecord

_STATUS_PERIOD_S = 1.0


class _Flowgraph(Protocol):
    def start(self) -> None: ...
    def stop(self) -> None: ...
    def wait(self) -> None: ...
    def close(self) -> None: ...


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("tx")(tx)
    app.command("rx")(rx)


Duration = Annotated[
    float | None, typer.Option(min=0.0, help="Seconds to run; without it until Ctrl-C.")
]


def tx(
    profile: options.Profile,
    duration: Duration = None,
    overrides: options.Overrides = None,
) -> None:
    """Send the index frames that arrive at zmq.frames_in over a radio."""
    settings = _load(profile, overrides)
    from flowgraphs.transmitter import Transmitter, level_report

    top = Transmitter(settings)
    _print_settings(top.settings)
    make_console().print(
        f"sending what arrives at {top.index_source.address}; {level_report(settings)}",
        markup=False,
    )

    def status() -> str:
        modulator = top.modulator
        text = f"{modulator.frames_sent} frames, {modulator.bursts_sent} bursts sent"
        if top.statistics is None:
            return text
        told = top.statistics
        return f"{text}, {told.acknowledged} acknowledged, {told.underflows} underflows, {told.late} late"

    _run(top, duration, status, lambda: None)


def rx(
    profile: options.Profile,
    duration: Duration = None,
    overrides: options.Overrides = None,
) -> None:
    """Receive from a radio and hand index frames on at zmq.pictures_out."""
    settings = _load(profile, overrides)
    from flowgraphs.receiver import Receiver
    from semantic.geometries import shipped_geometries

    top = Receiver(settings, shipped_geometries())
    _print_settings(top.settings)
    sink = top.index_sink
    make_console().print(
        f"pictures at {sink.pictures_address}, watch at {sink.watch_address}", markup=False
    )

    def status() -> str:
        statistics = top.receiver.statistics
        text = (
            f"{statistics.detected} bursts, {statistics.code_blocks_ok}/{statistics.code_blocks} code "
            f"blocks, {statistics.samples_dropped} samples dropped, {statistics.overflows} overflows"
        )
        last = next(reversed(top.receiver.records), None)
        return text if last is None else f"{text}; last burst: {_measured(last)}"

    _run(top, duration, status, top.fault)


def _load(profile: str, overrides: list[str] | None) -> Profile:
    from sdr_config.load import load_profile

    return load_profile(profile, overrides or [])


def _print_settings(settings: SettingsReadBack | None) -> None:
    if settings is not None:
        make_console().print(f"the radio says: {settings.text()}", markup=False)


def _measured(burst: BurstRecord) -> str:
    level_dbfs = 20 * math.log10(max(burst.level, 1e-6))
    return (
        f"level {level_dbfs:.1f} dBFS, Es/N0 {burst.snr_db:.1f} dB, carrier {burst.cfo_hz:+.0f} Hz"
    )


def _run(
    top: _Flowgraph,
    duration_s: float | None,
    status: Callable[[], str],
    failure: Callable[[], BaseException | None],
) -> None:
    """Start, show a status line every second, stop on Ctrl-C, a termination signal, time or a fault."""
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    console = make_console()
    left_s = duration_s if duration_s is not None else float("inf")
    try:
        top.start()
        with console.status("running") as line:
            while left_s > 0 and not ended.wait(min(_STATUS_PERIOD_S, left_s)):
                left_s -= _STATUS_PERIOD_S
                line.update(status())
                if (fault := failure()) is not None:
                    raise fault
    finally:
        top.stop()
        top.wait()
        top.close()
    console.print(status(), markup=False)
