"""What the table of an evaluation says: means with intervals, paired differences, monotone curves.

All intervals are 95 % bootstrap intervals over photos: the questions and seeds of one photo stand and fall
together. Every point of a set is resampled with the same draws.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from semantic.judges.agreement import kappa, kappa_interval, photo_draws

CURVE = ("set", "system", "channel", "policy")
POINT = (*CURVE, "snr_db")
CONTROLS = ("blank", "wrong_picture")

# An exact copy has no PSNR; in means it counts as if only rounding to 8 bits had hurt it.
EXACT_PSNR_DB = 10 * math.log10(12 * 255**2)

# +1: more is better. What a better channel must not make worse.
BETTER = {
    "match": 1,
    "kappa": 1,
    "intent_loss": -1,
    "psnr_db": 1,
    "ms_ssim": 1,
    "feature_distance": -1,
}
# Plain means over rows; "match_without_query" is null where the judge needs a question.
MEANS = (
    *("match", "match_without_query", "intent_loss", "psnr_db", "ms_ssim", "feature_distance"),
    *("symbols", "payload_symbols", "bits", "bits_per_pixel", "energy"),
)
_CHANCE = ("blank_match", "unrelated_match")
_BROKEN_ROWS = ("lost", "undecodable")


def summarise(table: pl.DataFrame, seed: int = 0) -> pl.DataFrame:
    """One line per set, system, channel, policy and Es/N0, over rows and seeds.

    Args:
        table: rows as in :mod:`semantic.evaluation.table`.
        seed: of the bootstrap.

    Returns:
        The columns of :data:`POINT`; ``kind``, ``codec_id``, ``segment_length`` and ``mcs``; ``rows``,
        ``questions`` (rows without their repetitions by seed), ``photos`` and ``seeds`` behind it; shares
        ``unreachable`` (of all rows), ``complete`` and ``broken`` (lost or undecodable; both of those that
        could be coded); for each of :data:`MEANS` and ``kappa`` the value and the ends of its interval in
        ``<name>_low``, ``<name>_high``; ``chance_blank``, ``chance_unrelated`` and ``chance``, the larger.
        Null where nothing is known. Sorted by :data:`POINT`.
    """
    ordered = prepared(table).sort(*POINT, "photo", "row", "seed", nulls_last=True)
    about = ordered.group_by(POINT, maintain_order=True).agg(*_about())
    sums, counts, points = _per_photo(ordered, (*MEANS, *_CHANCE), POINT)
    first = np.flatnonzero(np.r_[True, points[1:] != points[:-1]])
    pieces = zip(np.split(sums, first[1:]), np.split(counts, first[1:]), strict=True)
    estimates = [_means(*piece, seed) | _kappa(*piece, seed) for piece in pieces]
    schema = dict.fromkeys(estimates[0] if estimates else (), pl.Float64())
    return pl.concat([about, pl.DataFrame(estimates, schema=schema)], how="horizontal")


def prepared(table: pl.DataFrame) -> pl.DataFrame:
    """Ready for means: exact copies have a finite PSNR, chance counts where there is an answer."""
    return table.with_columns(
        pl.when(pl.col("psnr_db").is_infinite())
        .then(EXACT_PSNR_DB)
        .otherwise("psnr_db")
        .alias("psnr_db"),
        *(pl.when(pl.col("match").is_not_null()).then(name).alias(name) for name in _CHANCE),
    )


def _about() -> list[pl.Expr]:
    """What is counted of a point."""
    coded = pl.col("status") != "unreachable"
    status = pl.col("status").filter(coded)
    return [
        *(pl.col(name).first() for name in ("kind", "codec_id", "segment_length", "mcs")),
        pl.len().alias("rows"),
        pl.col("row").n_unique().alias("questions"),
        pl.col("photo").n_unique().alias("photos"),
        pl.col("seed").n_unique().alias("seeds"),
        (~coded).mean().alias("unreachable"),
        (status == "ok").mean().alias("complete"),
        status.is_in(_BROKEN_ROWS).mean().alias("broken"),
    ]


def _per_photo(
    ordered: pl.DataFrame, names: Sequence[str], keys: Sequence[str]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.uint32]]:
    """Sums and numbers of what is known of each photo of each point.

    Args:
        ordered: rows, those of a photo of a point together.
        names: columns to add up.
        keys: columns that tell points apart.

    Returns:
        Both ``[photos of points, names]``, and the number of the point ``[photos of points]``.
    """
    # In NumPy and in this order: the same table gives the same last digit.
    values = ordered.select(pl.col(names).cast(pl.Float64)).to_numpy()
    known = ~np.isnan(values)
    ids = ordered.select(
        pl.struct(*keys, "photo").rle_id().alias("photo"),
        (pl.struct(*keys).rle_id() if keys else pl.lit(0, pl.UInt32)).alias("point"),
    ).to_dict()
    photo = ids["photo"].to_numpy()
    starts = np.flatnonzero(np.r_[True, photo[1:] != photo[:-1]])[: len(photo)]
    return (
        np.add.reduceat(np.where(known, values, 0), starts, axis=0),
        np.add.reduceat(known.astype(np.float64), starts, axis=0),
        ids["point"].to_numpy()[starts],
    )


def _means(
    sums: NDArray[np.float64], counts: NDArray[np.float64], seed: int
) -> dict[str, float | None]:
    """Of one point: both ``[photos, names]``."""
    draws = photo_draws(len(sums), seed)
    resampled = _ratios(draws @ sums, draws @ counts)
    found: dict[str, float | None] = {}
    for number, name in enumerate(MEANS):
        mean = _ratios(sums[:, number].sum(), counts[:, number].sum())
        low, high = _ends(resampled[:, number])
        found |= {name: _number(float(mean)), f"{name}_low": low, f"{name}_high": high}
    return found


def _kappa(
    sums: NDArray[np.float64], counts: NDArray[np.float64], seed: int
) -> dict[str, float | None]:
    """Likewise; photos without an answer are left out."""
    names = ("chance_blank", "chance_unrelated", "chance", "kappa", "kappa_low", "kappa_high")
    found: dict[str, float | None] = dict.fromkeys(names)
    match, blank, unrelated = 0, len(MEANS), len(MEANS) + 1
    answered = counts[:, match] > 0
    if not answered.any():
        return found
    sums, counts = sums[answered], counts[answered]
    floors = {
        column: _number(float(_ratios(sums[:, column].sum(), counts[:, column].sum())))
        for column in (blank, unrelated)
    }
    floor = max(floors, key=lambda column: floors[column] or 0.0)
    chance = floors[floor] or 0.0
    per_photo = np.column_stack([counts[:, match], sums[:, match], sums[:, floor]])
    value = kappa(float(sums[:, match].sum() / counts[:, match].sum()), chance)
    interval = (
        kappa_interval(per_photo, photo_draws(len(sums), seed)) if value is not None else None
    )
    low, high = interval or (None, None)
    return dict(zip(names, (*floors.values(), chance, value, low, high), strict=True))


def _ratios(sums: Any, counts: Any) -> NDArray[np.float64]:
    """NaN where nothing is known."""
    return np.divide(
        sums, counts, out=np.full(np.shape(sums), np.nan), where=np.asarray(counts) != 0
    )


def _ends(resampled: NDArray[np.float64]) -> tuple[float | None, float | None]:
    """95 % interval; resamples that know nothing do not count."""
    known = resampled[~np.isnan(resampled)]
    if not len(known):
        return None, None
    low, high = np.percentile(known, [2.5, 97.5])
    return float(low), float(high)


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


@dataclass(frozen=True)
class Difference:
    """How two systems differ over the same pictures and questions, and the same seeds.

    Args:
        mean: first minus second, or that divided by the second where relative.
        low, high: its 95 % interval.
        first, second: means of both over these rows.
        questions: how many pictures with a question.
        photos: how many photos these are about.
    """

    mean: float
    low: float
    high: float
    first: float
    second: float
    questions: int
    photos: int

    @property
    def sign(self) -> int:
        """+1 or -1 where the interval excludes zero, else 0."""
        return int(self.low > 0) - int(self.high < 0)


def rows_at(table: pl.DataFrame, **where: object) -> pl.DataFrame:
    """Rows whose columns have these values; None is null."""
    return table.filter(*(pl.col(name).eq_missing(pl.lit(value)) for name, value in where.items()))


def difference(
    first: pl.DataFrame,
    second: pl.DataFrame,
    metric: str,
    *,
    relative: bool = False,
    seed: int = 0,
) -> Difference | None:
    """One of :func:`differences`; None where the two share no row."""
    return differences(first, second, [metric], relative=relative, seed=seed).get(metric)


def differences(
    first: pl.DataFrame,
    second: pl.DataFrame,
    metrics: Sequence[str],
    *,
    relative: bool = False,
    seed: int = 0,
) -> dict[str, Difference]:
    """Differences of two systems at one point, paired picture by picture.

    Args:
        first: rows of one system (:func:`rows_at`) of one set; those that only one has do not count.
        second: rows of the other.
        metrics: columns of numbers or truth values.
        relative: ``mean(first) / mean(second) - 1`` in place of ``mean(first) - mean(second)``.
        seed: of the bootstrap.

    Returns:
        By metric; those that are known of no row of both are missing.
    """
    keys = ("photo", "row", "seed")
    both = (
        prepared(first)
        .select(*keys, *metrics)
        .join(prepared(second).select(*keys, *metrics), on=keys, suffix="_second")
        .sort(keys)
    )
    found = {}
    for metric in metrics:
        pair = (metric, f"{metric}_second")
        known = both.drop_nulls(pair)
        if not known.is_empty():
            one = _difference(known, pair, relative, seed)
            if one is not None:
                found[metric] = one
    return found


def _difference(
    rows: pl.DataFrame, pair: tuple[str, str], relative: bool, seed: int
) -> Difference | None:
    sums, counts, _ = _per_photo(rows, pair, ())
    mean_a, mean_b = sums.sum(0) / counts.sum(0)
    if relative and mean_b == 0:
        return None
    draws = photo_draws(len(sums), seed)
    a, b = (draws @ sums).T / (draws @ counts).T
    # Resamples in which the second is nothing but zeros have no ratio.
    values = _ratios(a, b) - 1 if relative else a - b
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return Difference(
        float(mean_a / mean_b - 1 if relative else mean_a - mean_b),
        float(low),
        float(high),
        float(mean_a),
        float(mean_b),
        rows["row"].n_unique(),
        len(sums),
    )


@dataclass(frozen=True)
class StepBack:
    """A point that is worse than one at a lower Es/N0."""

    better_at_db: float
    worse_at_db: float
    by: float


@dataclass(frozen=True)
class Monotone:
    """Whether one curve only gets better as Es/N0 rises.

    Args:
        curve: set, system, channel, policy.
        breaks: points that are worse than an earlier one by more than both intervals allow.
        largest: the largest step back, within the intervals or not; None where there is none.
        points: how many points the curve has.
    """

    curve: tuple[str, ...]
    breaks: tuple[StepBack, ...]
    largest: StepBack | None
    points: int

    @property
    def holds(self) -> bool:
        """No point breaks it."""
        return not self.breaks


def monotone(summary: pl.DataFrame, metric: str) -> list[Monotone]:
    """Check every curve of two or more points: does a better channel never make the metric worse?

    Each point is held against the best of those at lower Es/N0; it breaks the curve where the two
    intervals do not meet.

    Args:
        summary: as :func:`summarise` makes it.
        metric: a key of :data:`BETTER`.
    """
    sign = BETTER[metric]
    ends = ("low", "high") if sign > 0 else ("high", "low")
    known = summary.filter(
        pl.col("snr_db").is_not_null(), pl.col(f"{metric}_low").is_not_null()
    ).sort("snr_db")
    found = []
    for curve, points in sorted(known.partition_by(CURVE, as_dict=True).items()):
        if points.height < 2:
            continue
        snr_db = points["snr_db"].to_list()
        mean = [sign * value for value in points[metric]]
        worst, best = ([sign * v for v in points[f"{metric}_{end}"]] for end in ends)
        breaks, largest = [], None
        for later in range(1, len(mean)):
            top = max(range(later), key=mean.__getitem__)
            step = StepBack(snr_db[top], snr_db[later], mean[top] - mean[later])
            if step.by > 0 and (largest is None or step.by > largest.by):
                largest = step
            firm = max(range(later), key=worst.__getitem__)
            if best[later] < worst[firm]:
                breaks.append(StepBack(snr_db[firm], snr_db[later], mean[firm] - mean[later]))
        found.append(Monotone(curve, tuple(breaks), largest, len(mean)))
    return found
