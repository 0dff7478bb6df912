"""How the figures of an evaluation look: names, colours that everybody can tell apart, panels, files."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from semantic.evaluation.files import atomic_write
from semantic.evaluation.summary import CONTROLS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#1b1f24"
GREY = "#6b7178"
METRIC_NAMES = {
    "match": "answer match rate",
    "kappa": "kappa (match above chance)",
    "intent_loss": "user-intent relevance loss",
    "psnr_db": "PSNR (dB)",
    "ms_ssim": "MS-SSIM",
    "feature_distance": "feature distance",
}
POLICY_NAMES = {
    "fixed": "code rate 1/2",
    "lowest": "one code rate that holds everywhere",
    "table": "best code rate at each Es/N0",
}
CHANNEL_NAMES = {"awgn": "AWGN", "rayleigh": "flat Rayleigh", "none": "no channel"}
SYSTEM_KINDS = {
    "uoisc": "UO-ISC",
    "query_aware": "query-aware",
    "jpeg2000": "JPEG 2000",
    "webp": "WebP",
    "avif": "AVIF",
    "blank": "blank picture",
    "wrong_picture": "wrong picture",
}
SNR_AXIS = "Es/N0 (dB)"

# Okabe and Ito's colours, the yellow left out (too light for a line on white), two darkened.
_COLOURS = {
    "uoisc": ("#0072B2", "#56B4E9", "#009E73", "#1b3a57"),
    "query_aware": ("#CC79A7", "#7d4566"),
    "jpeg2000": ("#D55E00", "#8a3d00"),
    "webp": ("#E69F00", "#96670a"),
    "avif": ("#000000", "#6b7178"),
}
_MARKERS = "osD^vP<>X"
_DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (3, 1, 1, 1)))
_CONTROLS: dict[str, tuple[str, Any]] = {
    "blank": (GREY, (0, (4, 2))),
    "wrong_picture": ("#3d434a", (0, (1.5, 1.5))),
}
_PANEL_IN = (2.9, 2.15)
_PAGE_DPI = 100
_DPI = 170


@dataclass(frozen=True)
class Look:
    """Colour, dashes and marker of one system, the same in every figure of a table."""

    label: str
    kind: str
    colour: str
    dashes: Any
    marker: str

    def line(self) -> dict[str, Any]:
        """Arguments of ``Axes.plot``."""
        return {
            **{"color": self.colour, "linestyle": self.dashes, "marker": self.marker},
            **{"markersize": 3.6, "linewidth": 1.3, "label": self.label},
        }


def looks(summary: pl.DataFrame) -> dict[str, Look]:
    """The look of every system, in the order of legends: codecs first, controls last."""
    order = list(SYSTEM_KINDS)
    systems = summary.select("kind", "system").unique().sort("system").rows()
    seen = dict.fromkeys(order, 0)
    found = {}
    for kind, label in sorted(systems, key=lambda system: (order.index(system[0]), system[1])):
        number, seen[kind] = seen[kind], seen[kind] + 1
        if kind in CONTROLS:
            found[label] = Look(label, kind, *_CONTROLS[kind], marker="")
            continue
        colours = _COLOURS[kind]
        found[label] = Look(
            label,
            kind,
            colours[number % len(colours)],
            _DASHES[number // len(colours) % len(_DASHES)],
            _MARKERS[(number + order.index(kind)) % len(_MARKERS)],
        )
    return found


def family(label: str) -> str:
    """A label without its segment length: what ``UO-ISC, d = 16`` and ``UO-ISC (d=8)`` have in common."""
    return re.sub(r"[\s,(]*\bd\s*=\s*\d+\)?", "", label).strip()


def panels(
    rows: int, columns: int, extra_in: float = 0.0, share: bool = True
) -> tuple[Figure, Any]:
    """A figure of small panels, and the axes ``[rows, columns]``.

    Args:
        rows: of panels.
        columns: of panels.
        extra_in: height in inches for what stands outside, such as a legend.
        share: the same range for all panels of a row, and for all along x.
    """
    from matplotlib.figure import Figure

    # One panel alone still needs room for its legend.
    width = max(columns * _PANEL_IN[0], 4.6) + 0.5
    figure = Figure(figsize=(width, rows * _PANEL_IN[1] + 0.6 + extra_in), layout="constrained")
    axes = figure.subplots(
        rows, columns, sharex=share, sharey="row" if share else False, squeeze=False
    )
    for one in axes.flat:
        finish(one)
    return figure, axes


def finish(axes: Axes) -> None:
    """Quiet frame and grid, small figures."""
    axes.grid(color="#d8dce0", linewidth=0.5)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", labelsize=8, colors=INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def legend_below(figure: Figure, axes: Iterable[Axes]) -> None:
    """One legend under the panels that names every line once."""
    handles: dict[str, Any] = {}
    for one in axes:
        for handle, label in zip(*one.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    labels = [wrapped(label, 30) for label in handles]
    longest = max((len(line) for label in labels for line in label.split("\n")), default=1)
    columns = int(figure.get_size_inches()[0] / (0.066 * longest + 0.5))
    figure.legend(
        list(handles.values()),
        labels,
        loc="outside lower center",
        ncols=max(1, min(len(handles), columns)),
        fontsize=8,
        frameon=False,
    )


def draw_curve(axes: Axes, points: pl.DataFrame, metric: str, look: dict[str, Any], x: str) -> None:
    """A line over ``x`` with its interval as a band; a single point has whiskers."""
    points = points.filter(pl.col(metric).is_not_null()).sort(x)
    if points.is_empty():
        return
    at = points[x].to_numpy()
    value, low, high = (
        points[name].cast(pl.Float64).fill_null(float("nan")).to_numpy()
        for name in (metric, f"{metric}_low", f"{metric}_high")
    )
    axes.plot(at, value, **look)
    if len(at) > 1:
        axes.fill_between(at, low, high, color=look["color"], alpha=0.16, linewidth=0)
    else:
        around = np.stack([value - low, high - value])
        axes.errorbar(at, value, around, color=look["color"], capsize=2, linewidth=1)


def save_figure(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write ``name.png`` and ``name.svg``; the same figure gives the same bytes.

    Returns:
        Both files.
    """
    from matplotlib import rc_context

    files = [folder / f"{name}.png", folder / f"{name}.svg"]
    atomic_write(
        files[0],
        lambda file: figure.savefig(file, format="png", dpi=_DPI, metadata={"Software": None}),
    )
    with rc_context({"svg.hashsalt": "uoisc"}):
        atomic_write(
            files[1], lambda file: figure.savefig(file, format="svg", metadata={"Date": None})
        )
    return files


def save_for_page(figure: Figure, folder: Path, name: str) -> Path:
    """Write ``name.png`` in a size for a page that is read on a screen, and kept in a repository."""
    file = folder / f"{name}.png"
    atomic_write(
        file,
        lambda out: figure.savefig(out, format="png", dpi=_PAGE_DPI, metadata={"Software": None}),
    )
    return file


def wrapped(text: str, width: int) -> str:
    """Text in lines of at most so many characters."""
    return "\n".join(textwrap.wrap(text, width))


def file_name(*parts: object) -> str:
    """A name of letters, digits and dashes."""
    return "-".join(re.sub(r"[^\w.]+", "-", str(part)).strip("-").lower() for part in parts)


def in_order(found: Iterable[str], order: Sequence[str]) -> list[str]:
    """What was found of ``order``, then whatever it does not know."""
    names = set(found)
    return [name for name in order if name in names] + sorted(names - set(order))
