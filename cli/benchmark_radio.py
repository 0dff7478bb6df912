"""``uoisc benchmark radio``: pictures per second that tx and rx keep up, and what that costs."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import benchmark_common as common
from cli import options
from cli.output import make_console

if TYPE_CHECKING:
    from rich.table import Table

    from benchmarks.radio import Bench, SustainedRate


class Driver(StrEnum):
    """Through which of GNU Radio's front ends the virtual radio is driven."""

    UHD = "uhd"
    SOAPY = "soapy"


def radio(
    profile: Annotated[
        str | None,
        typer.Option(
            "--profile",
            "-p",
            help="Shipped profile or .yaml file; by default virtual, which needs no radio.",
        ),
    ] = None,
    virtual_radio: Annotated[
        Driver | None,
        typer.Option(help="The tests' virtual radio at 4 Msps, through gr-uhd or gr-soapy."),
    ] = None,
    rate: Annotated[float, typer.Option(min=0.01, max=1000, help="Pictures per second.")] = 5.0,
    search: Annotated[
        bool, typer.Option("--search", help="Find the highest of a few rates with nothing lost.")
    ] = False,
    duration: Annotated[
        float, typer.Option(min=1.0, max=86_400, help="Seconds for which pictures are sent.")
    ] = 60.0,
    overrides: options.Overrides = None,
    json_file: common.JsonFile = None,
) -> None:
    """Send pictures from uoisc tx to uoisc rx at a steady pace: what arrives, and what it costs."""
    if profile is not None and virtual_radio is not None:
        raise typer.BadParameter("goes with a profile of its own", param_hint="--virtual-radio")
    common.check_files(json_file)
    # However this ends, both processes end with it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)

    from benchmarks import radio as benchmark
    from sdr_config.load import load_profile

    runs: list[SustainedRate] = []
    with (
        _bench(profile, virtual_radio, overrides or []) as bench,
        make_console().status("") as line,
    ):

        def try_rate(pictures_per_s: float) -> SustainedRate:
            def show(text: str) -> None:
                line.update(f"{pictures_per_s:g} pictures per second: {text}")

            runs.append(benchmark.measure(bench, pictures_per_s, duration, show))
            return runs[-1]

        if search:
            highest = benchmark.search(benchmark.SEARCHED, try_rate)
        else:
            highest = rate if try_rate(rate).sustained else None
        settings = load_profile(bench.profile, bench.overrides)
    report = {
        "command": "uoisc benchmark radio",
        "profile": settings.name,
        "radio": settings.radio.kind,
        "virtual_radio": virtual_radio is not None,
        "overrides": overrides or [],
        "sample_rate_hz": settings.waveform.sample_rate_hz,
        "symbol_rate_hz": settings.waveform.symbol_rate_hz,
        "mcs": settings.transmitter.mcs,
        "bits_per_picture": benchmark.largest_geometry().payload_bits,
        "machine": _machine(),
        "runs": [run.to_json() for run in sorted(runs, key=lambda run: run.pictures_per_s)],
        "sustained_pictures_per_s": highest,
    }
    common.print_table(_table(report))
    common.write_json(json_file, report)


@contextmanager
def _bench(profile: str | None, driver: Driver | None, overrides: list[str]) -> Iterator[Bench]:
    """What to measure, as the options say; a virtual radio's air is removed afterwards."""
    from benchmarks.radio import Bench

    if driver is None:
        yield Bench(profile or "virtual", overrides)
        return
    from benchmarks.virtual_radio import virtual_bench

    with virtual_bench(driver.value, overrides) as bench:
        yield bench


def _machine() -> dict[str, Any]:
    from benchmarks.machine import machine

    return machine()


def _table(report: dict[str, Any]) -> Table:
    """A column for every rate that was tried."""
    name = "virtual radio, " if report["virtual_radio"] else ""
    runs = report["runs"]
    table = common.make_table(
        f"{name}{report['radio']}, {report['sample_rate_hz'] / 1e6:g} Msps, mcs {report['mcs']}, "
        f"pictures of {report['bits_per_picture']} bits",
        "pictures per second",
        *(f"{run['pictures_per_s']:g}" for run in runs),
    )
    rows: dict[str, Callable[[dict[str, Any]], str]] = {
        "seconds": lambda run: f"{run['seconds']:.0f}",
        "pictures sent, of": lambda run: f"{run['sent']}, {run['due']}",
        **{f"pictures {key}": _cell(key) for key in ("whole", "damaged", "missing")},
        "bursts sent": _cell("bursts_sent"),
        "bursts decoded, heard": lambda run: f"{run['bursts_decoded']}, {run['bursts_heard']}",
        "overflows": _cell("overflows"),
        "samples lost in them": _cell("samples_lost"),
        "samples dropped": _cell("samples_dropped"),
        "underflows": _cell("underflows"),
        "late bursts": _cell("late"),
        "share of time on the air": _cell("air_share", ".0%"),
        "s to the picture, median": _cell("delay_s", ".2f"),
        "s to the picture, longest": _cell("longest_delay_s", ".2f"),
        "tx, cores": lambda run: f"{run['tx']['cores']:.2f}",
        "rx, cores": lambda run: f"{run['rx']['cores']:.2f}",
        "tx, MiB at most": lambda run: f"{run['tx']['peak_mib']:.0f}",
        "rx, MiB at most": lambda run: f"{run['rx']['peak_mib']:.0f}",
        "sustained": lambda run: "yes" if run["sustained"] else "no",
    }
    for title, cell in rows.items():
        table.add_row(title, *(cell(run) for run in runs))
    return table


def _cell(key: str, form: str = "") -> Callable[[dict[str, Any]], str]:
    return lambda run: "-" if run[key] is None else format(run[key], form)
