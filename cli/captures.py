"""``uoisc captures``: which recordings there are, what is in them, and whether they are sound."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from cli import options
from cli.output import make_console, print_json

if TYPE_CHECKING:
    from captures.recording import Recording

_BURSTS_SHOWN = 40

Name = Annotated[str, typer.Argument(metavar="NAME", help="A .sigmf-meta file, or a shipped name.")]


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(help="List, show and check recordings.")
    group.command("list")(list_)
    group.command("show")(show)
    group.command("verify")(verify)
    app.add_typer(group, name="captures")


def list_(
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="[DIR]", help="Folder of recordings; without it those that come with uoisc."
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """List the recordings in a folder."""
    from captures.errors import CaptureError
    from captures.library import SHIPPED_FOLDER, recordings_in
    from captures.recording import load_recording

    rows: list[dict[str, Any]] = []
    for path in recordings_in(folder or SHIPPED_FOLDER):
        try:
            rows.append(recording_values(load_recording(path)))
        except CaptureError as error:
            rows.append({"name": path.name, "problems": [str(error)]})
    if as_json:
        print_json({"folder": str(folder or SHIPPED_FOLDER), "recordings": rows})
        return
    table = Table()
    for column in ("name", "seconds", "samples/s", "type", "bursts", "gaps", "pictures", "state"):
        table.add_column(column)
    for row in rows:
        table.add_row(*_list_row(row))
    make_console(stderr=False).print(table)


def _list_row(row: dict[str, Any]) -> list[str]:
    if "samples" not in row:
        return [row["name"], "-", "-", "-", "-", "-", "-", row["problems"][0]]
    return [
        row["name"],
        f"{row['duration_s']:.3f}",
        f"{row['sample_rate_hz']:g}",
        row["datatype"],
        str(row["bursts"]),
        str(len(row["gaps"])),
        str(row["sent_frames"]),
        "; ".join(row["problems"]) or row["state"],
    ]


def show(name: Name, as_json: options.Json = False) -> None:
    """Show what a recording holds, also one that was cut off or is damaged."""
    from captures.library import find_recording
    from captures.recording import load_recording

    recording = load_recording(find_recording(name))
    values = recording_values(recording)
    bursts = [record.to_json() for record in recording.records]
    for burst, annotation in zip(bursts, recording.bursts, strict=True):
        burst["sample_start"] = annotation.sample_start
        burst["sample_count"] = annotation.sample_count
    if as_json:
        print_json({**values, "burst_list": bursts})
        return
    console = make_console(stderr=False)
    console.print(recording_table(values))
    if bursts:
        console.print(_burst_table(bursts))


def verify(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Recordings to check.")],
    as_json: options.Json = False,
) -> None:
    """Check recordings against SigMF, their checksums and their own account; exit code 1 if any is bad."""
    from captures.library import find_recording
    from captures.verify import verify_recording

    found = [(name, verify_recording(find_recording(name))) for name in names]
    if as_json:
        rows = [
            {"recording": name, "ok": not problems, "problems": problems}
            for name, problems in found
        ]
        print_json({"recordings": rows, "all_ok": not any(problems for _, problems in found)})
    else:
        console = make_console(stderr=False)
        for name, problems in found:
            console.print(f"{name}: {'; '.join(problems) or 'ok'}", markup=False)
    if any(problems for _, problems in found):
        raise typer.Exit(1)


def recording_values(recording: Recording) -> dict[str, Any]:
    """What there is to say about a recording, one plain value per key."""
    info = recording.metadata.info
    first = recording.segments[0]
    return {
        "name": recording.name,
        "recording": str(recording.path),
        "state": info.state or "complete",
        "datatype": recording.sample_type.name,
        "sample_rate_hz": recording.sample_rate_hz,
        "symbol_rate_hz": info.symbol_rate_hz,
        "frequency_hz": first.frequency_hz,
        "datetime": first.datetime,
        "hardware": info.hardware,
        "author": info.author,
        "recorder": info.recorder,
        "description": info.description,
        "profile": info.profile,
        "samples": recording.samples,
        "duration_s": recording.duration_s,
        "gaps": [
            {"sample_start": gap.sample_start, "samples_lost": gap.lost} for gap in recording.gaps
        ],
        "bursts": len(recording.bursts),
        "statistics": info.statistics,
        "simulation": info.simulation,
        "sent_frames": len(info.sent_frames),
        "sha512": info.sha512,
        "problems": list(recording.problems),
    }


_ROWS = (
    *("recording", "description", "state", "datatype", "sample_rate_hz", "symbol_rate_hz"),
    *("frequency_hz", "datetime", "hardware", "author", "recorder", "profile", "samples"),
    *("duration_s", "bursts", "sent_frames"),
)


def recording_table(values: dict[str, Any]) -> Table:
    """A recording for people."""
    table = Table(title=values["name"], show_header=False)
    table.add_column("key", style="bold")
    table.add_column("value", justify="right", overflow="fold")
    for key in _ROWS:
        value = values[key]
        text = "-" if value is None else f"{value:.9g}" if isinstance(value, float) else str(value)
        table.add_row(key, text)
    gaps = values["gaps"]
    lost = sum(gap["samples_lost"] for gap in gaps)
    table.add_row("gaps", f"{len(gaps)} ({lost} samples lost)" if gaps else "0")
    for problem in values["problems"]:
        table.add_row("problem", problem, style="red")
    return table


def _burst_table(bursts: list[dict[str, Any]]) -> Table:
    shown = bursts[:_BURSTS_SHOWN]
    more = f", the first {_BURSTS_SHOWN} of {len(bursts)}" if len(bursts) > len(shown) else ""
    table = Table(title=f"bursts{more}")
    for column in ("sample", "frame/burst", "mcs", "Es/N0 dB", "CFO Hz", "blocks", "fate"):
        table.add_column(column, justify="right")
    for burst in shown:
        known = burst["frame_id"] is not None
        table.add_row(
            str(burst["sample_start"]),
            f"{burst['frame_id']}/{burst['burst_number']}" if known else "-",
            str(burst["mcs"]) if known else "-",
            f"{burst['snr_db']:.2f}",
            f"{burst['cfo_hz']:.1f}",
            f"{burst['code_blocks_ok']}/{burst['code_blocks']}" if known else "-",
            burst["fate"],
        )
    return table
