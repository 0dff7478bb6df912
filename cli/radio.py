"""``uoisc tx`` and ``uoisc rx``: the flowgraphs on a radio, until Ctrl-C."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from cli import options
from cli.output import make_console

if TYPE_CHECKING:
    from cli.radio_status import StatisticsFile
    from flowgraphs.radio_settings import SettingsReadBack
    from sdr_config.schema import Profile

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
JsonStats = Annotated[
    Path | None,
    typer.Option(
        "--json-stats", metavar="FILE", help="Totals as JSON, renewed while running and at the end."
    ),
]


def tx(
    profile: options.Profile,
    duration: Duration = None,
    json_stats: JsonStats = None,
    overrides: options.Overrides = None,
) -> None:
    """Send the index frames that arrive at zmq.frames_in over a radio."""
    from cli.radio_status import StatisticsFile, tx_line, tx_record

    settings = _load(profile, overrides)

    def record() -> dict[str, Any]:
        return tx_record(top)

    file = StatisticsFile(json_stats, "tx", settings.name, record)
    from flowgraphs.transmitter import Transmitter, level_report

    top = Transmitter(settings)
    _print_settings(top.settings)
    make_console().print(
        f"sending what arrives at {top.index_source.address}; {level_report(settings)}",
        markup=False,
    )
    _run(top, duration, lambda: tx_line(record()), file, top.fault)


def rx(
    profile: options.Profile,
    duration: Duration = None,
    json_stats: JsonStats = None,
    overrides: options.Overrides = None,
) -> None:
    """Receive from a radio and hand index frames on at zmq.pictures_out."""
    from cli.radio_status import StatisticsFile, rx_line, rx_record

    settings = _load(profile, overrides)

    def record() -> Mapping[str, Any]:
        return rx_record(top)

    file = StatisticsFile(json_stats, "rx", settings.name, record)
    from flowgraphs.receiver import Receiver
    from semantic.geometries import shipped_geometries

    top = Receiver(settings, shipped_geometries())
    _print_settings(top.settings)
    sink = top.index_sink
    make_console().print(
        f"pictures at {sink.pictures_address}, watch at {sink.watch_address}", markup=False
    )
    _run(top, duration, lambda: rx_line(record()), file, top.fault)


def _load(profile: str, overrides: list[str] | None) -> Profile:
    from sdr_config.load import load_profile

    return load_profile(profile, overrides or [])


def _print_settings(settings: SettingsReadBack | None) -> None:
    if settings is not None:
        make_console().print(f"the radio says: {settings.text()}", markup=False)


def _run(
    top: _Flowgraph,
    duration_s: float | None,
    status: Callable[[], str],
    file: StatisticsFile,
    failure: Callable[[], BaseException | None],
) -> None:
    """Start, show a status line every second, stop on Ctrl-C, a termination signal, time or a fault."""
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    console = make_console()
    end_s = time.monotonic() + (duration_s if duration_s is not None else float("inf"))
    try:
        top.start()
        with console.status("running") as line:
            while (left_s := end_s - time.monotonic()) > 0:
                if ended.wait(min(_STATUS_PERIOD_S, left_s)):
                    break
                line.update(status())
                file.renew()
                if (fault := failure()) is not None:
                    raise fault
    finally:
        top.stop()
        top.wait()
        console.print(status(), markup=False)
        try:
            file.close()
        finally:
            top.close()
