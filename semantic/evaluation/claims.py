"""The paper's claims beside what a table measured, and UO-ISC against picture coders at equal symbols.

Which system is which: a ``uoisc`` system whose label says "without ... pretrained" was trained from random
weights, one that says "without text" hears no question; both are ablations. A JPEG 2000 system is lossless
where its label says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import polars as pl

from semantic.evaluation.summary import (
    BETTER,
    POINT,
    Difference,
    difference,
    differences,
    rows_at,
)

# Of two systems that spend as much; a picture coder fills its budget to the byte at best.
EQUAL_SYMBOLS = 0.05
# Metrics that exist per picture, in the order of tables.
COMPARED = tuple(name for name in BETTER if name != "kappa")

Rows = Mapping[tuple[object, ...], pl.DataFrame]


@dataclass(frozen=True)
class Claim:
    """One of the paper's figures.

    Args:
        text: what it says.
        paper: the figure as printed there.
        metric: whose difference is meant.
        relative: the difference is a share of the second system's mean.
        first: picks the system that should be better.
        second: picks the other.
    """

    text: str
    paper: str
    metric: str
    relative: bool
    first: Callable[[str, str], bool]
    second: Callable[[str, str], bool]


def is_full(kind: str, label: str) -> bool:
    """UO-ISC itself, whatever its rate or segment length."""
    return kind == "uoisc" and "without" not in label.lower()


def is_without_vlm(kind: str, label: str) -> bool:
    """Its towers were random numbers."""
    return kind == "uoisc" and "without" in label.lower() and "pretrained" in label.lower()


def is_without_text(kind: str, label: str) -> bool:
    """No text alignment, but pretrained towers."""
    return kind == "uoisc" and "without" in label.lower() and "pretrained" not in label.lower()


def is_lossless(kind: str, label: str) -> bool:
    """JPEG 2000 as in the paper."""
    return kind == "jpeg2000" and "lossless" in label.lower()


def is_rival(kind: str, label: str) -> bool:
    """A picture coder with a budget."""
    return kind in ("jpeg2000", "webp", "avif") and not is_lossless(kind, label)


def is_query_aware(kind: str, label: str) -> bool:
    """The paper's [7]."""
    del label
    return kind == "query_aware"


CLAIMS = (
    Claim("pretrained VLM (text alignment and all, against neither)", "+34 %", "match", False,
          is_full, is_without_vlm),
    Claim("pretrained VLM (both without text alignment)", "+34 %", "match", False,
          is_without_text, is_without_vlm),
    Claim("text alignment", "+5 %", "match", False, is_full, is_without_text),
    Claim("against query-aware coding [7]", "+4.8 %", "match", False, is_full, is_query_aware),
    Claim("symbols against lossless JPEG 2000 (paper: d = 32)", "-82 %", "symbols", True,
          is_full, is_lossless),
)  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """Two systems at one point of the grid.

    Args:
        claim: which one it is about; None for a comparison at equal symbols.
        point: set, channel, policy, Es/N0.
        first, second: labels.
        metric: whose difference is taken.
        found: first against second.
    """

    claim: Claim | None
    point: tuple[str, str, str, float]
    first: str
    second: str
    metric: str
    found: Difference

    @property
    def winner(self) -> int:
        """+1 where the first is better, -1 where the second is, 0 where the interval holds zero."""
        return self.found.sign * BETTER.get(self.metric, -1)


def check_claims(table: pl.DataFrame, summary: pl.DataFrame) -> list[Comparison]:
    """Every claim at the highest Es/N0 of every set and channel, at rate 1/2 where the table has it.

    Where several systems fit, the second is set against the first that spends most nearly as many bits;
    with symbols, which are the same over every channel, each UO-ISC system has a line.
    """
    by_point = points_of(table)
    found = []
    for claim in CLAIMS:
        for name, channel, policy, snr_db in _best_points(summary, once=claim.relative):
            here = rows_at(summary, set=name, channel=channel, policy=policy, snr_db=snr_db)
            for first, second in _pairs(here, claim):
                measured = difference(
                    by_point[name, first, channel, policy, snr_db],
                    by_point[name, second, channel, policy, snr_db],
                    claim.metric,
                    relative=claim.relative,
                )
                if measured is not None:
                    point = (name, channel, policy, snr_db)
                    found.append(Comparison(claim, point, first, second, claim.metric, measured))
    return found


def points_of(table: pl.DataFrame) -> Rows:
    """Rows of every point, by its key."""
    return table.partition_by(POINT, as_dict=True)


def _best_points(summary: pl.DataFrame, *, once: bool) -> Iterator[tuple[str, str, str, float]]:
    """Set, channel, policy, Es/N0; ``once``: one channel of a set, where it makes no difference."""
    sent = summary.filter(pl.col("snr_db").is_not_null())
    if once:
        sent = sent.filter(pl.col("channel") == pl.col("channel").min().over("set"))
    for (name, channel), part in sorted(sent.partition_by("set", "channel", as_dict=True).items()):
        policies = sorted(set(part["policy"]))
        policy = "fixed" if "fixed" in policies else policies[0]
        yield name, channel, policy, max(rows_at(part, policy=policy)["snr_db"])


def _pairs(here: pl.DataFrame, claim: Claim) -> Iterator[tuple[str, str]]:
    systems = here.filter(pl.col("bits").is_not_null()).select("kind", "system", "bits").rows()
    firsts = [(label, bits) for kind, label, bits in systems if claim.first(kind, label)]
    for kind, label, bits in systems:
        if not claim.second(kind, label) or not firsts:
            continue
        if claim.relative:
            yield from ((first, label) for first, _ in firsts)
        else:
            yield min(firsts, key=lambda first: (abs(first[1] - bits), first[0]))[0], label


def compare_at_equal_symbols(table: pl.DataFrame, summary: pl.DataFrame) -> list[Comparison]:
    """Every UO-ISC system (no ablations) against every picture coder of as many symbols, everywhere."""
    by_point = points_of(table)
    sent = summary.filter(pl.col("snr_db").is_not_null(), pl.col("symbols").is_not_null())
    where = [name for name in POINT if name not in ("system",)]
    found = []
    for (name, channel, policy, snr_db), here in sorted(
        sent.partition_by(where, as_dict=True).items()
    ):
        systems = here.select("kind", "system", "symbols").sort("system").rows()
        pairs = [
            (first, second)
            for kind, first, symbols in systems
            if is_full(kind, first)
            for other, second, spent in systems
            if is_rival(other, second) and abs(spent / symbols - 1) <= EQUAL_SYMBOLS
        ]
        for first, second in pairs:
            measured = differences(
                by_point[name, first, channel, policy, snr_db],
                by_point[name, second, channel, policy, snr_db],
                COMPARED,
            )
            point = (name, channel, policy, snr_db)
            found += [
                Comparison(None, point, first, second, metric, one)
                for metric, one in measured.items()
            ]
    return found
