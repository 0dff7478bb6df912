"""``uoisc benchmark per``: block error rates of the modem, beside perfect synchronisation and theory."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.progress import Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from cli.output import atomic_write, check_output_file, make_console

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from blocks.modem.error_rates import Conditions, Point, Tally

# Trials between two looks at the counts. A constant: the result must not depend on --jobs.
_BATCH = 16
_MAX_POINTS = 200


def per(
    mcs: Annotated[str, typer.Option(help="Code rates, e.g. 4 or 0,1,4 or 0-9.")],
    snr_db: Annotated[str, typer.Option(help="Es/N0 in dB as START:STOP:STEP, or one value.")],
    sync: Annotated[
        str, typer.Option(help="full (the receiver), ideal (told everything), or both.")
    ] = "both",
    errors: Annotated[int, typer.Option(min=1, help="Block errors to count per point.")] = 100,
    max_blocks: Annotated[int, typer.Option(min=1, help="Blocks per point at most.")] = 100_000,
    info_bits: Annotated[
        int | None, typer.Option(min=25, max=8448, help="Code block with its CRC; default largest.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything random.")] = 0,
    jobs: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the points here.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the curves here (PNG).")] = None,
) -> None:
    """Measure block error rates; missed bursts count as errors."""
    rates = parse_mcs(mcs)
    grid = parse_grid(snr_db)
    if sync not in ("full", "ideal", "both"):
        raise typer.BadParameter("expected full, ideal or both", param_hint="--sync")
    for file in (json_file, plot):
        if file is not None:
            check_output_file(file)

    from blocks.modem.error_rates import Conditions

    kinds: tuple[Any, ...] = ("full", "ideal") if sync == "both" else (sync,)
    wanted = [
        Conditions(rate, value, kind, info_bits, seed=seed)
        for rate in rates
        for kind in kinds
        for value in grid
    ]
    points = _measure(wanted, errors, max_blocks, jobs)
    make_console(stderr=False).print(_table(points))
    if json_file is not None:
        text = json.dumps([point.to_json() for point in points], indent=1)
        atomic_write(json_file, f"{text}\n".encode())
    if plot is not None:
        from cli.figures import save_figure

        figure = draw_curves(points)
        atomic_write(plot, lambda file: save_figure(figure, file))


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


def parse_grid(text: str) -> list[float]:
    """``3:5:0.5`` as 3, 3.5, 4, 4.5, 5; one number as itself.

    Raises:
        typer.BadParameter: not of that form, or too many points.
    """
    hint = "--snr-db"
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


def _measure(wanted: list[Conditions], errors: int, max_blocks: int, jobs: int) -> list[Point]:
    from joblib import Parallel, delayed

    from blocks.modem.error_rates import Tally, run_trials, until_errors

    points = []
    with (
        Parallel(n_jobs=jobs) as pool,
        Progress(
            TextColumn("{task.description}"), TimeElapsedColumn(), console=make_console()
        ) as progress,
    ):

        def run(conditions: Conditions, trials: Iterable[int]) -> Tally:
            numbers = list(trials)
            pieces = [numbers[start::jobs] for start in range(jobs)]
            parts = pool(delayed(run_trials)(conditions, piece) for piece in pieces if piece)
            return sum(parts, Tally())

        for conditions in wanted:
            name = f"mcs {conditions.mcs} {conditions.sync} {conditions.snr_db:g} dB"
            task = progress.add_task(name, total=None)
            for point in until_errors(conditions, errors, max_blocks, _BATCH, run):
                text = f"{name}: {point.tally.block_errors} errors in {point.tally.blocks} blocks"
                progress.update(task, description=text)
            points.append(point)
            progress.remove_task(task)
    return points


def _table(points: list[Point]) -> Table:
    from blocks.modem.ldpc_limits import normal_approximation_per

    table = Table(
        title="Block error rates", box=box.HORIZONTALS, padding=(0, 1, 0, 0), pad_edge=False
    )
    for name in ("mcs", "Es/N0", "sync", "blocks", "errors", "PER", "95 %", "missed", "theory"):
        table.add_column(name, justify="right", no_wrap=True)
    for point in points:
        values, (low, high) = point.to_json(), point.ci95
        theory = normal_approximation_per(
            values["info_bits"], values["coded_bits"], values["snr_db"]
        )
        table.add_row(
            str(values["mcs"]),
            f"{values['snr_db']:g}",
            values["sync"],
            str(values["blocks"]),
            str(values["block_errors"]),
            f"{values['per']:.1e}",
            f"{low:.0e}..{high:.0e}",
            str(values["bursts_missed"]),
            f"{theory:.0e}",
        )
    return table


_STYLES = {"full": ("-", "o"), "ideal": ("--", "s")}


def draw_curves(points: list[Point]) -> Figure:
    """Curves A and B with their intervals, C (normal approximation) and the 8-PSK limit of each rate."""
    from blocks.modem.error_rates import bicm_limit_snr_db
    from blocks.modem.ldpc_limits import normal_approximation_per
    from cli.figures import new_figure

    figure = new_figure(9, 6)
    axes = figure.subplots()
    axes.set_yscale("log")
    rates = sorted({point.conditions.mcs for point in points})
    for number, mcs in enumerate(rates):
        colour = f"C{number % 10}"
        mine = [point for point in points if point.conditions.mcs == mcs]
        for sync, (line, marker) in _STYLES.items():
            curve = [p for p in mine if p.conditions.sync == sync and p.tally.block_errors]
            if not curve:
                continue
            x = [p.conditions.snr_db for p in curve]
            y = [p.per for p in curve]
            spread = [
                [p.per - p.ci95[0] for p in curve],
                [p.ci95[1] - p.per for p in curve],
            ]
            label = f"mcs {mcs} {'A receiver' if sync == 'full' else 'B ideal sync'}"
            axes.errorbar(x, y, spread, color=colour, ls=line, marker=marker, ms=4, label=label)
        values = mine[0].to_json()
        low = min(p.conditions.snr_db for p in mine) - 0.5
        high = max(p.conditions.snr_db for p in mine)
        x = [low + (high - low) * step / 60 for step in range(61)]
        sizes = values["info_bits"], values["coded_bits"]
        y = [normal_approximation_per(*sizes, value) for value in x]
        axes.plot(x, y, color=colour, ls=":", label=f"mcs {mcs} C normal approximation")
        axes.axvline(bicm_limit_snr_db(values["rate"]), color=colour, lw=0.6, alpha=0.6)
    axes.set_ylim(1e-5, 1.2)
    axes.set_xlabel("Es/N0, dB (thin line: 8-PSK limit of the rate)")
    axes.set_ylabel("block error rate")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
    return figure
