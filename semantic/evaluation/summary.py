"""What the table of an evaluation says: means with intervals, paired differences, monotone curves.

All intervals are 95 % bootstrap intervals over photos: the questions and seeds of one photo stand and fall
together. Every point of a set is resampled with the same draws.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

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
    groups = prepared(table).partition_by(POINT, maintain_order=True, as_dict=True)
    lines = [
        dict(zip(POINT, key, strict=True)) | _about(rows) | _estimates(rows, seed)
        for key, rows in groups.items()
    ]
    floats = [name for name in lines[0] if name.endswith(("_low", "_high"))] if lines else []
    summary = pl.DataFrame(lines, infer_schema_length=None)
    return summary.with_columns(pl.col(floats).cast(pl.Float64)).sort(POINT, nulls_last=True)


def prepared(table: pl.DataFrame) -> pl.DataFrame:
    """Rows in a fixed order, exact copies with a finite PSNR."""
    return table.with_columns(
        pl.when(pl.col("psnr_db").is_infinite())
        .then(EXACT_PSNR_DB)
        .otherwise(pl.col("psnr_db"))
        .alias("psnr_db")
    ).sort(*POINT, "row", "seed", nulls_last=True)


def _about(rows: pl.DataFrame) -> dict[str, object]:
    coded = rows.filter(pl.col("status") != "unreachable")
    return {
        **{name: rows[name][0] for name in ("kind", "codec_id", "segment_length", "mcs")},
        "rows": rows.height,
        "questions": rows["row"].n_unique(),
        "photos": rows["photo"].n_unique(),
        "seeds": rows["seed"].n_unique(),
        "unreachable": 1 - coded.height / rows.height,
        "complete": _share(coded["status"] == "ok"),
        "broken": _share(coded["status"].is_in(_BROKEN_ROWS)),
    }


def _share(found: pl.Series) -> float | None:
    return float(found.sum()) / len(found) if len(found) else None


def _estimates(rows: pl.DataFrame, seed: int) -> dict[str, float | None]:
    sums, counts = _per_photo(rows, MEANS)
    draws = photo_draws(len(sums), seed)
    found: dict[str, float | None] = {}
    for name, mean, (low, high) in zip(
        MEANS, _ratios(sums.sum(0), counts.sum(0)), _intervals(sums, counts, draws), strict=True
    ):
        found |= {name: _number(mean), f"{name}_low": low, f"{name}_high": high}
    return found | _kappa(rows.filter(pl.col("match").is_not_null()), seed)


def _kappa(rows: pl.DataFrame, seed: int) -> dict[str, float | None]:
    """Only of rows with an answer, chance likewise."""
    names = ("chance_blank", "chance_unrelated", "chance", "kappa", "kappa_low", "kappa_high")
    found: dict[str, float | None] = dict.fromkeys(names)
    if rows.is_empty():
        return found
    blank, unrelated = (_share(rows[name].drop_nulls()) for name in _CHANCE)
    floor = _CHANCE[1] if (unrelated or 0) > (blank or 0) else _CHANCE[0]
    chance = max(blank or 0, unrelated or 0)
    sums, counts = _per_photo(rows, ("match", floor))
    per_photo = np.column_stack([counts[:, 0], sums])
    value = kappa(float(sums[:, 0].sum() / counts[:, 0].sum()), chance)
    interval = (
        kappa_interval(per_photo, photo_draws(len(sums), seed)) if value is not None else None
    )
    low, high = interval or (None, None)
    return dict(zip(names, (blank, unrelated, chance, value, low, high), strict=True))


def _per_photo(
    rows: pl.DataFrame, names: Sequence[str]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sums and numbers of what is known of each photo, both ``[photos, names]``."""
    photos = rows.group_by("photo").agg(
        pl.col(names).cast(pl.Float64).sum().name.suffix("_sum"),
        pl.col(names).count().name.suffix("_count"),
    )
    photos = photos.sort("photo")  # the draws are by position
    return (
        photos.select(f"{name}_sum" for name in names).to_numpy().astype(np.float64),
        photos.select(f"{name}_count" for name in names).to_numpy().astype(np.float64),
    )


def _ratios(sums: NDArray[np.float64], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts != 0)


def _intervals(
    sums: NDArray[np.float64], counts: NDArray[np.float64], draws: NDArray[np.float64]
) -> Iterator[tuple[float | None, float | None]]:
    """95 % interval of every column's ``sum / count``; resamples that know nothing do not count."""
    for column in _ratios(draws @ sums, draws @ counts).T:
        known = column[~np.isnan(column)]
        low, high = np.percentile(known, [2.5, 97.5]) if len(known) else (np.nan, np.nan)
        yield _number(low), _number(high)


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


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
    """Difference of two systems at one point, paired picture by picture.

    Args:
        first: rows of one system (:func:`rows_at`) of one set; those that only one has do not count.
        second: rows of the other.
        metric: a column of numbers or truth values.
        relative: ``mean(first) / mean(second) - 1`` in place of ``mean(first) - mean(second)``.
        seed: of the bootstrap.

    Returns:
        None where they share no row.
    """
    keys = ("set", "row", "photo", "seed")
    both = (
        prepared(first)
        .select(*keys, pl.col(metric).cast(pl.Float64).alias("first"))
        .join(
            prepared(second).select(*keys, pl.col(metric).cast(pl.Float64).alias("second")),
            on=keys,
            how="inner",
        )
        .drop_nulls(("first", "second"))
    )
    if both.is_empty():
        return None
    sums, counts = _per_photo(both, ("first", "second"))
    drawn = photo_draws(len(sums), seed)
    a, b = (drawn @ sums).T / (drawn @ counts).T
    mean_a, mean_b = sums.sum(0) / counts.sum(0)
    if relative and mean_b == 0:
        return None
    # Resamples in which the second is nothing but zeros have no ratio.
    usable = b != 0 if relative else np.ones(len(b), np.bool_)
    values = (a[usable] / b[usable] - 1) if relative else a - b
    low, high = np.percentile(values, [2.5, 97.5])
    return Difference(
        float(mean_a / mean_b - 1 if relative else mean_a - mean_b),
        float(low),
        float(high),
        float(mean_a),
        float(mean_b),
        both["row"].n_unique(),
        both["photo"].n_unique(),
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
