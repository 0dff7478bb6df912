"""The report of an evaluation: Markdown whose numbers all come from the table and the notes beside it.

The sentences stand in ``results_template.md``. The same table gives the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import starmap
from pathlib import Path
from string import Template
from typing import Any

import polars as pl

from semantic.evaluation.claims import (
    CLAIMS,
    COMPARED,
    EQUAL_SYMBOLS,
    Comparison,
    check_claims,
    compare_at_equal_symbols,
)
from semantic.evaluation.figure_style import (
    CHANNEL_NAMES,
    METRIC_NAMES,
    POLICY_NAMES,
    SYSTEM_KINDS,
    in_order,
)
from semantic.evaluation.paper import payload_symbols
from semantic.evaluation.summary import (
    BETTER,
    CONTROLS,
    EXACT_PSNR_DB,
    Monotone,
    monotone,
    rows_at,
)

_TEMPLATE = Path(__file__).with_name("results_template.md")
# Lines of the tables: these Es/N0, or what lies nearest.
_SHOWN_DB = (0.0, 6.0, 12.0, 20.0)
_DIGITS = {
    "match": 3,
    "kappa": 3,
    "intent_loss": 4,
    "psnr_db": 2,
    "ms_ssim": 4,
    "feature_distance": 4,
}
# What separates systems at every Es/N0 is shown of these; of the rest, who was ahead how often.
_SHOWN_DIFFERENCES = ("match", "psnr_db", "feature_distance")
_NOTHING = "-"
_CAPTIONS = {
    "fig3": "Fig. 3 of the paper: what is received, and what the judge says of it",
    "fig4a": "Fig. 4a: answer match rate and kappa against Es/N0",
    "fig4b": "Fig. 4b: user-intent relevance loss against Es/N0",
    "fig5": "Fig. 5: relevance loss and kappa against the segment length d",
    "fig6": "Fig. 6: symbols per picture against the segment length d",
    "quality": "PSNR, MS-SSIM and feature distance against Es/N0",
    "rates": "Kappa against Es/N0 and symbols per picture; dots are what was measured",
}


def make_report(
    table: pl.DataFrame,
    summary: pl.DataFrame,
    notes: Mapping[str, Any],
    figures: Mapping[str, str],
) -> str:
    """The whole page.

    Args:
        table: rows of an evaluation.
        summary: :func:`semantic.evaluation.summary.summarise` of it.
        notes: what the run says about itself (``notes.json``).
        figures: where they lie, relative to the page, by their names in
            :class:`semantic.evaluation.figures.Gallery`.
    """
    comparisons = compare_at_equal_symbols(table, summary)
    return Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        measured=_measured(summary),
        exact_psnr=f"{EXACT_PSNR_DB:.1f}",
        equal_symbols=f"{100 * EQUAL_SYMBOLS:.0f}",
        claims=_claims(check_claims(table, summary)),
        wins=_wins(comparisons),
        differences=_differences(comparisons),
        paper_geometry=_paper_geometry(),
        tables=_tables(summary),
        policy_table=POLICY_NAMES["table"],
        monotone=_monotone(summary),
        figures="\n\n".join(starmap(_figure, figures.items())) or "None drawn.",
        how=_how(table, notes),
    )


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown; the first column on the left, the others on the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _figure(name: str, path: str) -> str:
    kind, _, where = name.partition("-")
    return f"![{name}]({path})\n\n*{_CAPTIONS[kind]} ({where})*"


def _measured(summary: pl.DataFrame) -> str:
    sets = []
    for name in summary["set"].unique(maintain_order=True):
        part = rows_at(summary, set=name)
        questions, photos, seeds = (max(part[one]) for one in ("questions", "photos", "seeds"))
        sets.append(
            f"*{name}* ({questions} questions about {photos} photos, {seeds} seed{'s'[: seeds > 1]})"
        )
    systems = summary["system"].n_unique()
    snr_db = summary["snr_db"].drop_nulls().to_list()
    air = f"Es/N0 {min(snr_db):g} to {max(snr_db):g} dB" if snr_db else "no channel"
    return f"{'; '.join(sets)}; {systems} systems; {air}."


def _claims(found: Sequence[Comparison]) -> str:
    rows = []
    for claim in CLAIMS:
        lines = [one for one in found if one.claim is claim]
        for one in lines:
            name, channel, _, snr_db = one.point
            rows.append(
                [
                    claim.text,
                    claim.paper,
                    f"{name}, {CHANNEL_NAMES[channel]}, {snr_db:g} dB",
                    f"{one.first}: {_claim_mean(one, one.found.first)}",
                    f"{one.second}: {_claim_mean(one, one.found.second)}",
                    _percent(one),
                    f"{one.found.questions} ({one.found.photos})",
                ]
            )
        if not lines:
            rows.append([claim.text, claim.paper, "not in this table", *[_NOTHING] * 4])
    head = ("claim", "paper", "where", "first", "second", "measured", "questions (photos)")
    return markdown_table(head, rows)


def _claim_mean(one: Comparison, mean: float) -> str:
    return f"{mean:,.0f}" if one.metric == "symbols" else f"{100 * mean:.1f} %"


def _percent(one: Comparison) -> str:
    low, high = (f"{100 * end:+.1f}" for end in (one.found.low, one.found.high))
    return f"{100 * one.found.mean:+.1f} % [{low}, {high}]"


def _wins(found: Sequence[Comparison]) -> str:
    """Per set, pair and metric: how often who was ahead, and by how much at most."""
    if not found:
        return "This table has no UO-ISC and picture coder with equal symbols."
    rows = []
    for key, here in _grouped(found, lambda one: (one.point[0], one.first, one.second, one.metric)):
        ours = [one for one in here if one.winner > 0]
        theirs = [one for one in here if one.winner < 0]
        counts = (len(ours), len(theirs), len(here) - len(ours) - len(theirs))
        leads = [_largest(ours), _largest(theirs)]
        rows.append([*key[:3], METRIC_NAMES[key[3]], *map(str, counts), *leads])
    head = ("set", "first", "second", "metric", "first ahead", "second ahead", "undecided")
    return markdown_table((*head, "first's largest lead", "second's largest lead"), rows)


def _differences(found: Sequence[Comparison]) -> str:
    """Per set, channel and policy: what separates every pair at every Es/N0."""
    sections = []
    for (name, channel, policy), here in _grouped(found, lambda one: one.point[:3]):
        every_db = sorted({one.point[3] for one in here})
        rows = []
        shown = [one for one in here if one.metric in _SHOWN_DIFFERENCES]
        for key, line in _grouped(shown, lambda one: (one.metric, one.first, one.second)):
            by_db = {one.point[3]: one for one in line}
            cells = [_signed(by_db[at]) if at in by_db else _NOTHING for at in every_db]
            rows.append([METRIC_NAMES[key[0]], *key[1:], *cells])
        title = f"**{name}, {CHANNEL_NAMES[channel]}, {POLICY_NAMES[policy]}**"
        head = ("metric", "first", "second", *(f"{at:g} dB" for at in every_db))
        sections.append(f"{title}\n\n{markdown_table(head, rows)}")
    return "\n\n".join(sections)


def _signed(one: Comparison) -> str:
    """First minus second: bold where the first is ahead, italic where the second is."""
    mark = {1: "**", 0: "", -1: "*"}[one.winner]
    return f"{mark}{one.found.mean:+.{_DIGITS[one.metric]}f}{mark}"


def _grouped(
    found: Sequence[Comparison], key: Callable[[Comparison], tuple[str, ...]]
) -> Iterator[tuple[tuple[str, ...], list[Comparison]]]:
    """Comparisons of a key, metrics in the order of tables."""
    order = {metric: place for place, metric in enumerate(COMPARED)}
    groups: dict[tuple[str, ...], list[Comparison]] = {}
    for one in sorted(
        found, key=lambda one: (one.point[:3], one.second, one.first, order[one.metric])
    ):
        groups.setdefault(key(one), []).append(one)
    yield from groups.items()


def _largest(found: Sequence[Comparison]) -> str:
    if not found:
        return _NOTHING
    one = max(found, key=lambda one: abs(one.found.mean))
    _, channel, policy, snr_db = one.point
    where = f"{CHANNEL_NAMES[channel]}, {snr_db:g} dB, {POLICY_NAMES[policy]}"
    return f"{_gap(one)} ({one.first}; {where})"


def _gap(one: Comparison) -> str:
    digits = _DIGITS[one.metric]
    low, high = (f"{end:+.{digits}f}" for end in (one.found.low, one.found.high))
    return f"{one.found.mean:+.{digits}f} [{low}, {high}]"


def _paper_geometry() -> str:
    rows = [
        [str(d), f"{size.indices:,}", f"{size.bits:,}", f"{size.symbols:,.0f}"]
        for d, size in payload_symbols().items()
    ]
    return markdown_table(("d", "indices", "bits", "payload symbols"), rows)


def _tables(summary: pl.DataFrame) -> str:
    sections = []
    for name in summary["set"].unique(maintain_order=True):
        of_set = rows_at(summary, set=name)
        sections.append(f"### {name}\n\n{_chance(of_set)}")
        for channel in in_order(of_set["channel"], tuple(CHANNEL_NAMES)):
            part = rows_at(of_set, channel=channel)
            if part["kind"].is_in(CONTROLS).all():
                continue  # they stand in every table
            for policy in in_order(part["policy"], tuple(POLICY_NAMES)):
                title = CHANNEL_NAMES.get(channel, channel)
                if channel != "none":
                    title += f", {POLICY_NAMES.get(policy, policy)}"
                control = pl.col("kind").is_in(CONTROLS) & pl.col("snr_db").is_null()
                sections.append(f"**{title}**")
                sections.append(_table(rows_at(part, policy=policy), of_set.filter(control)))
    return "\n\n".join(sections)


def _chance(part: pl.DataFrame) -> str:
    known = part.filter(pl.col("chance").is_not_null()).sort("rows", descending=True)
    if known.is_empty():
        return "No answers were judged."
    first = known.row(0, named=True)
    other = first["chance_unrelated"]
    return (
        f"Chance: a grey picture {first['chance_blank']:.3f}, another photo "
        f"{_NOTHING if other is None else f'{other:.3f}'} ({first['questions']} questions about "
        f"{first['photos']} photos)."
    )


_COLUMNS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "Es/N0, dB": lambda row: _value(row["snr_db"], ".3g"),
    "system": lambda row: row["system"],
    "d": lambda row: _value(row["segment_length"], "d"),
    "symbols": lambda row: _value(row["symbols"], ",.0f"),
    "payload": lambda row: _value(row["payload_symbols"], ",.0f"),
    "bit/pixel": lambda row: _value(row["bits_per_pixel"], ".3f"),
    "energy": lambda row: _value(row["energy"], ".2e"),
    "complete": lambda row: _value(row["complete"], ".0%"),
    "match": lambda row: _interval(row, "match"),
    "chance": lambda row: _value(row["chance"], ".3f"),
    "kappa": lambda row: _interval(row, "kappa"),
    "relevance loss": lambda row: _interval(row, "intent_loss"),
    "PSNR, dB": lambda row: _interval(row, "psnr_db"),
    "MS-SSIM": lambda row: _interval(row, "ms_ssim"),
    "feature distance": lambda row: _interval(row, "feature_distance"),
    "rows": lambda row: _rows(row),
}


def _table(part: pl.DataFrame, controls: pl.DataFrame) -> str:
    """Lines of every shown Es/N0, and the controls, which need none, at the end."""
    order = {kind: number for number, kind in enumerate(SYSTEM_KINDS)}
    lines = []
    for snr_db in shown_snr_db(part["snr_db"].drop_nulls()):
        lines += rows_at(part, snr_db=snr_db).rows(named=True)
    lines += part.filter(pl.col("snr_db").is_null(), ~pl.col("kind").is_in(CONTROLS)).rows(
        named=True
    )
    lines += controls.rows(named=True)
    lines.sort(
        key=lambda row: (
            math.inf if row["snr_db"] is None else row["snr_db"],
            order[row["kind"]],
            row["system"],
        )
    )
    return markdown_table(
        list(_COLUMNS), [[make(row) for make in _COLUMNS.values()] for row in lines]
    )


def _rows(row: Mapping[str, Any]) -> str:
    """How many; those that the system could not code are named."""
    out = round(row["unreachable"] * row["rows"])
    return f"{row['rows']}, {out} of them n/a" if out else str(row["rows"])


def _value(value: Any, form: str) -> str:
    return _NOTHING if value is None else format(value, form)


def _interval(row: Mapping[str, Any], name: str) -> str:
    if row[name] is None:
        return "n/a"
    digits = _DIGITS[name]
    if row[f"{name}_low"] is None:
        return f"{row[name]:.{digits}f}"
    low, high = (f"{row[f'{name}_{end}']:.{digits}f}" for end in ("low", "high"))
    return f"{row[name]:.{digits}f} [{low}, {high}]"


def shown_snr_db(snr_db: Iterable[float]) -> list[float]:
    """The few Es/N0 that tables show, of those that were measured."""
    every = sorted(set(snr_db))
    return (
        sorted({min(every, key=lambda one: (abs(one - at), one)) for at in _SHOWN_DB})
        if every
        else []
    )


def _monotone(summary: pl.DataFrame) -> str:
    rows, breaks = [], []
    for metric in BETTER:
        curves = monotone(summary, metric)
        if not curves:
            continue
        broken = [curve for curve in curves if not curve.holds]
        steps = [curve for curve in curves if curve.largest is not None]
        worst = max(steps, key=lambda curve: curve.largest.by, default=None)  # type: ignore[union-attr]
        rows.append(
            [
                METRIC_NAMES[metric],
                str(len(curves)),
                str(len(curves) - len(broken)),
                _NOTHING if worst is None else _step(worst, metric),
            ]
        )
        breaks += [f"- {METRIC_NAMES[metric]}: {_breaks(curve, metric)}" for curve in broken]
    if not rows:
        return "No curve has two points."
    head = ("metric", "curves", "never worse, within intervals", "largest step back")
    told = "\n".join(breaks) if breaks else "No point breaks its curve."
    return f"{markdown_table(head, rows)}\n\n{told}"


def _curve_name(curve: Monotone) -> str:
    name, system, channel, policy = curve.curve
    air = CHANNEL_NAMES.get(channel, channel)
    return f"{system} ({name}, {air}, {POLICY_NAMES.get(policy, policy)})"


def _step(curve: Monotone, metric: str) -> str:
    step = curve.largest
    if step is None:
        return _NOTHING
    by = f"{step.by:.{_DIGITS[metric]}f}"
    return f"{by}, {step.better_at_db:g} to {step.worse_at_db:g} dB, {_curve_name(curve)}"


def _breaks(curve: Monotone, metric: str) -> str:
    steps = [
        f"worse by {one.by:.{_DIGITS[metric]}f} at {one.worse_at_db:g} dB than at {one.better_at_db:g} dB"
        for one in curve.breaks
    ]
    return f"{_curve_name(curve)}: {', '.join(steps)}"


def _how(table: pl.DataFrame, notes: Mapping[str, Any]) -> str:
    seeds = ", ".join(str(seed) for seed in sorted(set(table["seed"].drop_nulls())))
    lines = [f"- rows of the table: {table.height:,}", f"- seeds: {seeds}", *_bullets(notes, 0)]
    return "\n".join(lines)


def _bullets(data: Mapping[str, Any], depth: int) -> list[str]:
    """Nested notes as a nested list; what a list holds is one line each."""
    space = "  " * depth
    lines = []
    for key, value in data.items():
        if isinstance(value, Mapping) and value:
            lines += [f"{space}- {key}:", *_bullets(value, depth + 1)]
        elif isinstance(value, list) and value:
            lines += [f"{space}- {key}:", *(f"{space}  - {_plain(item)}" for item in value)]
        else:
            lines.append(f"{space}- {key}: {_plain(value)}")
    return lines


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(one)}" for key, one in value.items())
    if isinstance(value, float):
        return f"{value:.6g}"
    return "none" if value in (None, [], {}) else str(value)
