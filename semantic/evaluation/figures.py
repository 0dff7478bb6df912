"""The paper's figures from a table, and those beside it: everything drawn is named, nothing is drawn empty.

Fig. 3 stands in :mod:`semantic.evaluation.figure_pictures`. matplotlib's figures without pyplot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from semantic.evaluation import figure_style as style
from semantic.evaluation.figure_pictures import draw_pictures
from semantic.evaluation.paper import payload_symbols
from semantic.evaluation.summary import CONTROLS, rows_at

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LEVELS_DB = 5  # curves of Fig. 5 at most
_LOSSY_DB = 45.0
_KAPPA_COLOURS = "cividis"


@dataclass
class Gallery:
    """Figures by file name (without ending), and a line for each that the table does not allow."""

    figures: dict[str, Figure] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    def add(self, name: str, draw: Callable[[], Figure | str]) -> None:
        """Draw one; a text in its place says why it is left out."""
        drawn = draw()
        if isinstance(drawn, str):
            self.left_out.append(f"{name}: {drawn}")
        else:
            self.figures[name] = drawn


def draw_figures(table: pl.DataFrame, summary: pl.DataFrame, pictures: Path) -> Gallery:
    """All figures that a table allows.

    Args:
        table: rows of an evaluation.
        summary: :func:`semantic.evaluation.summary.summarise` of it.
        pictures: the folder of received pictures; need not exist.
    """
    gallery = Gallery()
    looks = style.looks(summary)
    for name, channel, part in parts(summary):
        where = style.file_name(name, channel)
        shown = [label for label in looks if label in set(without_other_lengths(part)["system"])]
        title = f"{name}, {style.CHANNEL_NAMES.get(channel, channel)}"
        gallery.add(
            f"fig3-{where}",
            lambda: draw_pictures(table, pictures, shown, name, channel),  # noqa: B023
        )
        for file, metrics in (
            ("fig4a", ("match", "kappa")),
            ("fig4b", ("intent_loss",)),
            ("quality", ("psnr_db", "ms_ssim", "feature_distance")),
        ):
            gallery.add(
                f"{file}-{where}",
                lambda: draw_metrics(part, looks, metrics, title),  # noqa: B023
            )
        gallery.add(f"fig5-{where}", lambda: draw_segment_lengths(part, title))  # noqa: B023
        gallery.add(f"rates-{where}", lambda: draw_rates(part, title))  # noqa: B023
    for (name,), part in summary.partition_by("set", as_dict=True, maintain_order=True).items():
        gallery.add(
            f"fig6-{style.file_name(name)}",
            lambda: draw_symbols(part, looks, str(name)),  # noqa: B023
        )
    return gallery


def parts(summary: pl.DataFrame) -> Iterator[tuple[str, str, pl.DataFrame]]:
    """Set, channel, and what belongs in its figures: its points, and controls without a channel."""
    for name in summary["set"].unique(maintain_order=True):
        of_set = rows_at(summary, set=name)
        for channel in style.in_order(of_set["channel"], ("awgn", "rayleigh")):
            here = (pl.col("channel") == channel) & pl.col("snr_db").is_not_null()
            control = pl.col("kind").is_in(CONTROLS) & pl.col("snr_db").is_null()
            if not of_set.filter(here).is_empty():
                yield name, channel, of_set.filter(here | control)


def draw_metrics(
    part: pl.DataFrame, looks: Mapping[str, style.Look], metrics: Sequence[str], title: str
) -> Figure | str:
    """Metrics over Es/N0: a row of panels per metric, a column per policy."""
    known = [name for name in metrics if part[name].is_not_null().any()]
    policies = policies_of(part)
    if not known or not policies:
        return f"the table has no {' and no '.join(metrics)}"
    shown = without_other_lengths(part)
    figure, axes = style.panels(len(known), len(policies), 0.12 * len(looks))
    for row, metric in zip(axes, known, strict=True):
        for one, policy in zip(row, policies, strict=True):
            _draw_floor(one, part, metric)
            for label, look in looks.items():
                _draw_system(one, rows_at(shown, system=label), metric, policy, look)
        row[0].set_ylabel(style.METRIC_NAMES[metric], fontsize=9)
        if metric == "psnr_db":
            _keep_range(row[0], shown)
    _name_columns(figure, axes, policies, title)
    style.legend_below(figure, axes.flat)
    return figure


def _keep_range(axes: Axes, part: pl.DataFrame) -> None:
    """Exact copies leave the panel at the top, or nobody could read the rest."""
    values = part["psnr_db"].drop_nulls().to_list()
    lossy = [value for value in values if value < _LOSSY_DB]
    if lossy and len(lossy) < len(values):
        axes.set_ylim(top=max(lossy) + 4)
        axes.set_ylabel("PSNR (dB)\nexact copies lie above", fontsize=9)


def _draw_floor(axes: Axes, part: pl.DataFrame, metric: str) -> None:
    floor = part.filter(pl.col("chance").is_not_null()).sort("rows", descending=True)
    if metric not in ("match", "kappa") or floor.is_empty():
        return
    height = floor["chance"][0] if metric == "match" else 0.0
    axes.axhline(height, color=style.INK, linewidth=0.9, linestyle=(0, (1, 1)), label="chance")


def _draw_system(
    axes: Axes, points: pl.DataFrame, metric: str, policy: str, look: style.Look
) -> None:
    everywhere = points.filter(pl.col("snr_db").is_null(), pl.col(metric).is_not_null())
    if look.kind in CONTROLS and not everywhere.is_empty():
        line = {key: value for key, value in look.line().items() if key != "marker"}
        axes.axhline(everywhere[metric][0], **line)
        return
    style.draw_curve(axes, rows_at(points, policy=policy), metric, look.line(), "snr_db")


def _name_columns(figure: Figure, axes: Any, policies: Sequence[str], title: str) -> None:
    figure.suptitle(title, fontsize=10, color=style.INK)
    for one, policy in zip(axes[0], policies, strict=True):
        one.set_title(style.POLICY_NAMES.get(policy, policy), fontsize=9, color=style.INK)
    for one in axes[-1]:
        one.set_xlabel(style.SNR_AXIS, fontsize=9)


def policies_of(part: pl.DataFrame) -> list[str]:
    """Policies of what was sent over the air."""
    sent = part.filter(pl.col("snr_db").is_not_null())
    return style.in_order(sent["policy"], tuple(style.POLICY_NAMES))


def without_other_lengths(part: pl.DataFrame) -> pl.DataFrame:
    """Without ``UO-ISC, d = 16`` and the like where ``UO-ISC`` is there: Fig. 5 is about those."""
    labels = set(part["system"])
    extra = [
        label for label in labels if style.family(label) != label and style.family(label) in labels
    ]
    return part.filter(~pl.col("system").is_in(extra))


def segment_families(part: pl.DataFrame) -> dict[str, list[str]]:
    """Systems that differ by nothing but d, by their common name: labels in the order of d."""
    lengths = (
        part.filter(pl.col("segment_length").is_not_null())
        .select("system", "segment_length")
        .unique()
        .sort("segment_length", "system")
    )
    found: dict[str, list[str]] = {}
    for label in lengths["system"]:
        found.setdefault(style.family(label), []).append(label)
    return {name: labels for name, labels in found.items() if len(labels) > 1}


def draw_segment_lengths(part: pl.DataFrame, title: str) -> Figure | str:
    """Fig. 5: relevance loss (and kappa) over the segment length d, a curve per Es/N0."""
    families = segment_families(part)
    if not families:
        return "the table has no two systems that differ in segment length alone"
    labels = next(iter(families.values()))
    of_family = part.filter(pl.col("system").is_in(labels), pl.col("snr_db").is_not_null())
    metrics = [name for name in ("intent_loss", "kappa") if of_family[name].is_not_null().any()]
    policies = policies_of(of_family)
    if not metrics or not policies:
        return "the systems that differ in segment length have neither relevance loss nor kappa"
    figure, axes = style.panels(len(metrics), len(policies), 0.2)
    for row, metric in zip(axes, metrics, strict=True):
        for one, policy in zip(row, policies, strict=True):
            _draw_levels(one, rows_at(of_family, policy=policy), metric)
        row[0].set_ylabel(style.METRIC_NAMES[metric], fontsize=9)
    _name_columns(figure, axes, policies, title)
    lengths = sorted(set(of_family["segment_length"]))
    for one in axes[-1]:
        one.set_xscale("log", base=2)
        one.set_xticks(lengths, [str(length) for length in lengths])
        one.set_xlabel("segment length d", fontsize=9)
    style.legend_below(figure, axes.flat)
    return figure


def _draw_levels(axes: Axes, points: pl.DataFrame, metric: str) -> None:
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    every = sorted(set(points["snr_db"]))
    chosen = np.unique(np.linspace(0, len(every) - 1, _LEVELS_DB).round().astype(int))
    for number, level in enumerate(chosen):
        look = {
            "color": to_hex(colormaps["viridis"](0.9 * number / max(1, len(chosen) - 1))),
            **{"marker": "osD^v"[number], "markersize": 3.6, "linewidth": 1.3},
            "label": f"{every[level]:g} dB",
        }
        at_level = points.filter(pl.col("snr_db") == every[level])
        style.draw_curve(axes, at_level, metric, look, "segment_length")


def draw_symbols(part: pl.DataFrame, looks: Mapping[str, style.Look], title: str) -> Figure:
    """Fig. 6: symbols per picture over d at rate 1/2, beside the paper's own geometry."""
    sent = part.filter(pl.col("policy") == "fixed", pl.col("symbols") > 0)
    families = segment_families(sent)
    figure, axes = style.panels(1, 2 if families else 1, 0.7, share=False)
    if families:
        name, labels = next(iter(families.items()))
        # The same at every Es/N0 and over every channel.
        once = sent.unique("system", keep="first", maintain_order=True)
        family = once.filter(pl.col("system").is_in(labels)).sort("segment_length")
        look = looks[labels[0]]
        lengths = family["segment_length"].to_list()
        _lengths_line(
            axes[0, 0], lengths, family["symbols"].to_list(), look, f"{name}, all symbols"
        )
        _lengths_line(
            axes[0, 0], lengths, family["payload_symbols"].to_list(), look, f"{name}, payload"
        )
        _draw_rivals(axes[0, 0], once, looks)
        axes[0, 0].set_title(f"{title}, measured", fontsize=9, color=style.INK)
    paper = payload_symbols()
    _lengths_line(
        axes[0, -1],
        list(paper),
        [size.symbols for size in paper.values()],
        style.Look("", "", "#1b3a57", ":", "s"),
        "payload with the paper's ViT-B/16, computed",
    )
    axes[0, -1].set_title("the paper's geometry", fontsize=9, color=style.INK)
    axes[0, 0].set_ylabel("symbols per picture", fontsize=9)
    figure.suptitle("8-PSK, code rate 1/2", fontsize=10, color=style.INK)
    style.legend_below(figure, axes.flat)
    return figure


def _draw_rivals(axes: Axes, systems: pl.DataFrame, looks: Mapping[str, style.Look]) -> None:
    """What has no segment length is a line across; several may cost the same, hence the dashes."""
    rivals = systems.filter(~pl.col("kind").is_in(("uoisc", *CONTROLS)))
    for number, (label, look) in enumerate(looks.items()):
        for symbols in rows_at(rivals, system=label)["symbols"]:
            dashes = (number % 4 * 3, (6, 6)) if len(rivals) > 1 else "-"
            axes.axhline(symbols, color=look.colour, linestyle=dashes, linewidth=1.3, label=label)


def _lengths_line(
    axes: Axes, lengths: Sequence[int], symbols: Sequence[float], look: style.Look, label: str
) -> None:
    """Symbols over d, the numbers beside the points."""
    whole = "payload" not in label
    axes.plot(
        lengths,
        symbols,
        color=look.colour,
        linestyle="-" if whole else (0, (3, 1.5)),
        marker=look.marker,
        markerfacecolor=look.colour if whole else "white",
        markersize=4.5,
        linewidth=1.3,
        label=label,
    )
    for x, y in zip(lengths, symbols, strict=True):
        axes.annotate(
            f"{y:,.0f}",
            (x, y),
            (3, 4) if whole else (-3, -9),
            textcoords="offset points",
            ha="left" if whole else "right",
            fontsize=7,
            color=style.INK,
        )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.margins(x=0.28, y=0.2)
    axes.set_xticks(lengths, [str(length) for length in lengths])
    axes.set_xlabel("segment length d", fontsize=9)


def draw_rates(part: pl.DataFrame, title: str) -> Figure | str:
    """Kappa over Es/N0 and symbols per picture: the best that a kind of system reaches for no more."""
    sent = part.filter(
        pl.col("snr_db").is_not_null(), pl.col("kappa").is_not_null(), pl.col("symbols") > 0
    )
    if sent.is_empty():
        return "the table has no kappa of anything that was sent"
    kinds = style.in_order(sent["kind"], tuple(style.SYSTEM_KINDS))
    policies = policies_of(sent)
    figure, axes = style.panels(len(kinds), len(policies))
    x_edges = _edges(sorted(set(sent["snr_db"])))
    levels = sorted(set(sent["symbols"].round(0)))
    y_edges = np.array([*levels, levels[-1] * 1.3])
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    scale = ScalarMappable(Normalize(0, 1), _KAPPA_COLOURS)
    for row, kind in zip(axes, kinds, strict=True):
        for one, policy in zip(row, policies, strict=True):
            points = rows_at(sent, kind=kind, policy=policy)
            best = best_within(points, sorted(set(sent["snr_db"])), levels)
            one.pcolormesh(x_edges, y_edges, best, cmap=scale.cmap, norm=scale.norm, shading="flat")
            one.plot(
                points["snr_db"], points["symbols"], "o", ms=2.6, mfc="w", mec=style.INK, mew=0.6
            )
            one.set_yscale("log")
            one.set_ylim(levels[0] / 1.2, y_edges[-1])
            one.grid(visible=False)
        row[0].set_ylabel(f"{style.SYSTEM_KINDS[kind]}\nsymbols per picture", fontsize=9)
    _name_columns(figure, axes, policies, title)
    bar = figure.colorbar(scale, ax=list(axes.flat), aspect=30, fraction=0.04)
    bar.set_label("kappa, best for at most so many symbols", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    return figure


def best_within(
    points: pl.DataFrame, snr_db: Sequence[float], symbols: Sequence[float]
) -> np.ma.MaskedArray[Any, Any]:
    """Largest kappa at each Es/N0 of what costs no more: ``[symbols, snr_db]``, masked where nothing."""
    best = np.full((len(symbols), len(snr_db)), np.nan)
    for column, at in enumerate(snr_db):
        here = points.filter(pl.col("snr_db") == at)
        for row, budget in enumerate(symbols):
            affordable = here.filter(pl.col("symbols").round(0) <= budget)["kappa"]
            if len(affordable):
                best[row, column] = affordable.max()
    return np.ma.masked_invalid(best)


def _edges(centres: Sequence[float]) -> np.ndarray[Any, Any]:
    """Borders half way between points on an axis."""
    if len(centres) == 1:
        return np.array([centres[0] - 1, centres[0] + 1])
    middle = [(a + b) / 2 for a, b in pairwise(centres)]
    return np.array([2 * centres[0] - middle[0], *middle, 2 * centres[-1] - middle[-1]])
