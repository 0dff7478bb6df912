"""What the error-rate commands share: options, their parsing, progress, results in files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer
from rich import box
from rich.progress import Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from cli.output import atomic_write, check_output_file, make_console

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from blocks.modem.error_rates import Point, Sync
    from blocks.modem.fading import Channel

_MAX_POINTS = 200

McsList = Annotated[str, typer.Option("--mcs", help="Code rates, e.g. 4 or 0,1,4 or 0-9.")]
SyncKind = Annotated[
    str, typer.Option("--sync", help="full (the receiver), ideal (told everything), or both.")
]
InfoBits = Annotated[
    int | None, typer.Option(min=25, max=8448, help="Code block with its CRC; default largest.")
]
Errors = Annotated[int, typer.Option(min=1, help="Block errors to count per point.")]
MaxBurstSymbols = Annotated[
    int, typer.Option(min=1000, max=20_000, help="Length of a burst at most.")
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of everything random.")]
Jobs = Annotated[int, typer.Option(min=1, help="Processes; the counts do not depend on it.")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Write the figures here.")]
PlotFile = Annotated[Path | None, typer.Option("--plot", help="Draw the figures here (PNG).")]


def parse_mcs(text: str) -> list[int]:
    """``4``, ``0,1,4`` or ``0-9`` as a list.

    Raises:
        typer.BadParameter: anything else.
    """
    found: list[int] = []
    for part in text.split(","):
        low, dash, high = part.strip().partition("-")
        if not (low.isdigit() and (not dash or high.isdigit())):
            raise typer.BadParameter(f"{part!r}: expected 4 or 0,1,4 or 0-9", param_hint="--mcs")
        found += range(int(low), int(high if dash else low) + 1)
    if not found or max(found) > 9:
        raise typer.BadParameter(f"{text!r}: expected numbers 0 to 9", param_hint="--mcs")
    return sorted(set(found))


def parse_grid(text: str, hint: str = "--snr-db") -> list[float]:
    """``3:5:0.5`` as 3, 3.5, 4, 4.5, 5; one number as itself.

    Raises:
        typer.BadParameter: not of that form, or too many points.
    """
    try:
        parts = [float(part) for part in text.split(":")]
    except ValueError:
        raise typer.BadParameter(f"{text!r}: expected START:STOP:STEP", param_hint=hint) from None
    if not all(-40 <= part <= 100 for part in parts):
        raise typer.BadParameter(f"{text!r}: expected values from -40 to 100", param_hint=hint)
    if len(parts) == 1:
        return parts
    if len(parts) != 3 or parts[2] <= 0 or parts[1] < parts[0]:
        raise typer.BadParameter(f"{text!r}: expected START:STOP:STEP, rising", param_hint=hint)
    start, stop, step = parts
    count = int((stop - start) / step + 1e-6) + 1
    if count > _MAX_POINTS:
        raise typer.BadParameter(f"{count} points, at most {_MAX_POINTS}", param_hint=hint)
    return [round(start + step * number, 6) for number in range(count)]


def parse_sync(text: str) -> list[Sync]:
    """``full``, ``ideal`` or ``both`` as a list.

    Raises:
        typer.BadParameter: anything else.
    """
    from blocks.modem.error_rates import Sync

    kinds: list[Sync] = [kind for kind in get_args(Sync) if text in (kind, "both")]
    if not kinds:
        raise typer.BadParameter(f"{text!r}: expected full, ideal or both", param_hint="--sync")
    return kinds


def parse_channel(text: str, hint: str = "--channel") -> Channel:
    """As :func:`blocks.modem.fading.parse_channel`.

    Raises:
        typer.BadParameter: not a channel.
    """
    from blocks.modem import fading

    try:
        return fading.parse_channel(text)
    except fading.ChannelError as error:
        raise typer.BadParameter(str(error), param_hint=hint) from error


def check_files(*files: Path | None) -> None:
    """Refuse files that cannot be written before any work is done for them."""
    for file in files:
        if file is not None:
            check_output_file(file)


def write_json(file: Path | None, data: Any) -> None:
    """Write ``data`` where a file was asked for."""
    if file is not None:
        atomic_write(file, f"{json.dumps(data, indent=1, allow_nan=False)}\n".encode())


def write_plot(file: Path | None, draw: Callable[[], Figure]) -> None:
    """Draw and write where a file was asked for."""
    if file is not None:
        from cli.figures import write_figure

        write_figure(file, draw)


def mcs_colours(rates: Iterable[int]) -> dict[int, str]:
    """One colour per code rate, the same in every figure: dark violet for the lowest to orange."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    scale = colormaps["plasma"]
    return {mcs: to_hex(scale(0.05 + 0.085 * mcs)) for mcs in sorted(set(rates))}


def make_table(title: str, *columns: str) -> Table:
    """A table of figures."""
    table = Table(title=title, box=box.HORIZONTALS, padding=(0, 1, 0, 0), pad_edge=False)
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def print_table(table: Table) -> None:
    """Print on standard output; in a file no column is cut."""
    console = make_console(stderr=False)
    if not console.is_terminal:
        console.width = 150
    console.print(table)


@contextmanager
def show_counts() -> Iterator[Callable[[Point], None]]:
    """A line on standard error with the point at work; gone when done."""
    with Progress(
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        console=make_console(),
        transient=True,
    ) as progress:
        task = progress.add_task("starting", total=None)

        def show(point: Point) -> None:
            conditions, tally = point.conditions, point.tally
            progress.update(
                task,
                description=f"mcs {conditions.mcs} {conditions.sync} {conditions.channel} "
                f"{conditions.snr_db:g} dB: {tally.block_errors} errors in {tally.blocks} blocks",
            )

        yield show
