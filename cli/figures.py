"""Pictures for people: constellation, side by side, the demo's overview. matplotlib without a screen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cli.output import OutputError, atomic_write, make_console

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INK = "#1b1f24"
_MISSING = "#e4e7ea"


def new_figure(width_in: float, height_in: float) -> Figure:
    """A figure on the Agg canvas, in matplotlib's own style whatever a matplotlibrc says."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    matplotlib.rcdefaults()  # text.usetex of a matplotlibrc would need a LaTeX
    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, file: IO[bytes], dpi: int = 110) -> None:
    """Write a figure as PNG."""
    figure.savefig(file, format="png", dpi=dpi)


def write_figure(path: Path, draw: Callable[[], Figure]) -> None:
    """Draw a figure and write it; one that cannot be drawn costs a note, never the results beside it.

    Raises:
        OutputError: the file cannot be written.
    """
    from cli.errors import describe, one_line

    try:
        figure = draw()
        atomic_write(path, lambda file: save_figure(figure, file))
    except OutputError:
        raise
    except Exception as error:  # noqa: BLE001 - fonts, styles and backends fail in many ways
        make_console().print(f"note: {path} not drawn: {one_line(describe(error))}", markup=False)


def draw_picture(axes: Axes, picture: Image.Image | None, missing: str = "not received") -> None:
    """A picture without ticks, or a grey field with the reason why there is none."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    if picture is None:
        axes.set_facecolor(_MISSING)
        axes.set_aspect("equal")
        axes.text(0.5, 0.5, missing, ha="center", va="center", color=_INK, fontsize=10)
        return
    axes.imshow(np.asarray(picture), interpolation="lanczos")


def draw_bits(axes: Axes, depth: NDArray[np.float64]) -> None:
    """Where the bits of a picture went, small in its lower left corner: bright cells got more."""
    inset = axes.inset_axes((0.0, 0.0, 0.27, 0.27))
    inset.imshow(depth, cmap="magma", interpolation="nearest")
    inset.set_xticks([])
    inset.set_yticks([])


def draw_constellation(
    axes: Axes, symbols: NDArray[np.complex64] | None, snr_db: float | None
) -> None:
    """Equalised payload symbols and the eight ideal points."""
    from blocks.modem.psk import CONSTELLATION_8PSK

    axes.set_aspect("equal")
    axes.set_xlim(-2, 2)
    axes.set_ylim(-2, 2)
    axes.set_xticks([])
    axes.set_yticks([])
    if symbols is None:
        axes.text(0, 0, "no burst demodulated", ha="center", va="center", color=_INK)
        return
    axes.plot(symbols.real, symbols.imag, ".", markersize=2, alpha=0.35, color="#2f6fb3")
    axes.plot(CONSTELLATION_8PSK.real, CONSTELLATION_8PSK.imag, "+", color="#c0392b", markersize=9)
    if snr_db is not None:
        axes.set_title(f"measured Es/N0 {snr_db:.1f} dB", fontsize=9, color=_INK)


def constellation_figure(symbols: NDArray[np.complex64], snr_db: float | None) -> Figure:
    """The constellation alone."""
    figure = new_figure(4.2, 4.4)
    draw_constellation(figure.subplots(), symbols, snr_db)
    return figure


def side_by_side_figure(
    source: Image.Image,
    received: Image.Image | None,
    query: str,
    values: dict[str, Any],
    relevance: NDArray[np.float32] | None = None,
    depth: NDArray[np.float64] | None = None,
) -> Figure:
    """Source and received picture, the question above and the figures below.

    In the corners: where the question was found in the source, and where the received bits went.
    """
    figure = new_figure(7.2, 4.7)
    left, right = figure.subplots(1, 2)
    draw_picture(left, source)
    label = "source"
    if relevance is not None:
        draw_bits(left, relevance.astype(np.float64))
        label = f"source; found with confidence {values['relevance_confidence']:.2f}"
        if not values["language_known"]:
            label = "source; the question's language is not known"
    left.set_xlabel(label, fontsize=10, color=_INK)
    draw_picture(right, received)
    if depth is not None and received is not None:
        draw_bits(right, depth)
    right.set_xlabel(caption(values), fontsize=10, color=_INK)
    figure.suptitle(query, fontsize=12, color=_INK, wrap=True)
    return figure


def caption(values: dict[str, Any]) -> str:
    """One or two lines under a received picture."""
    if values["status"] == "not_received":
        return f"not received\n{values['symbols']} symbols"
    quality = "no picture from what was received"
    if values["psnr_db"] is not None:
        quality = f"{values['psnr_db']:.1f} dB"
        if values["ms_ssim"] is not None:
            quality += f", MS-SSIM {values['ms_ssim']:.3f}"
    blocks = f"{values['code_blocks_ok']}/{values['code_blocks']} code blocks"
    return f"{quality}\n{values['symbols']} symbols, {blocks}"
