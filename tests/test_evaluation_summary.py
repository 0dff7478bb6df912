"""Aggregates of an evaluation against plain NumPy arithmetic."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
import pytest

from semantic.evaluation.summary import (
    EXACT_PSNR_DB,
    MEANS,
    POINT,
    difference,
    monotone,
    rows_at,
    summarise,
)
from semantic.judges.agreement import Reference
from semantic.judges.answers import Answer
from tests.evaluation_table import LAWS, PHOTOS, QUESTIONS, SEEDS, made_table

CLEAR = {"channel": "awgn", "policy": "fixed", "snr_db": 20.0}


@pytest.fixture(scope="module")
def table() -> pl.DataFrame:
    return made_table()


@pytest.fixture(scope="module")
def summary(table: pl.DataFrame) -> pl.DataFrame:
    return summarise(table)


def line(summary: pl.DataFrame, **where: object) -> dict[str, object]:
    (found,) = rows_at(summary, **where).rows(named=True)
    return found


def test_every_point_has_one_line_with_plain_means(
    table: pl.DataFrame, summary: pl.DataFrame
) -> None:
    groups: dict[tuple[object, ...], list[dict[str, Any]]] = {}
    for row in table.iter_rows(named=True):
        groups.setdefault(tuple(row[name] for name in POINT), []).append(row)
    assert summary.height == len(groups)
    for row in summary.iter_rows(named=True):
        mine = groups.pop(tuple(row[name] for name in POINT))
        assert row["rows"] == len(mine)
        assert row["photos"] == len({one["photo"] for one in mine})
        for name in set(MEANS) - {"psnr_db"}:
            known = [float(one[name]) for one in mine if one[name] is not None]
            assert row[name] == (pytest.approx(np.mean(known)) if known else None)
        psnr_db = [min(one["psnr_db"], EXACT_PSNR_DB) for one in mine]
        assert row["psnr_db"] == pytest.approx(np.mean(psnr_db))
        assert row["complete"] == np.mean([one["status"] == "ok" for one in mine])
        assert row["broken"] == np.mean([one["status"] == "lost" for one in mine])


def test_laws_are_found_again(summary: pl.DataFrame) -> None:
    """Nearly all intervals hold the truth: 95 % of them should."""
    inside = []
    for law in LAWS:
        for row in rows_at(summary, system=law.label).filter(pl.col("snr_db") >= 12).to_dicts():
            inside.append(row["match_low"] <= law.match <= row["match_high"])
            inside.append(row["intent_loss_low"] <= law.loss <= row["intent_loss_high"])
    assert np.mean(inside) > 0.85
    assert np.mean(inside) < 1


def test_interval_is_that_of_means_over_photos(table: pl.DataFrame, summary: pl.DataFrame) -> None:
    """Every photo has as many rows, so the interval is the usual one of a mean over photos."""
    rows = rows_at(table, system="UO-ISC", **CLEAR)
    means = [np.mean(part["psnr_db"].to_numpy()) for part in rows.partition_by("photo")]
    half = 1.96 * np.std(means) / math.sqrt(len(means))
    found = line(summary, system="UO-ISC", **CLEAR)
    assert found["psnr_db_low"] == pytest.approx(np.mean(means) - half, abs=0.2 * half)
    assert found["psnr_db_high"] == pytest.approx(np.mean(means) + half, abs=0.2 * half)


def test_more_seeds_of_the_same_answers_tell_nothing_new(table: pl.DataFrame) -> None:
    rows = rows_at(table, system="UO-ISC", **CLEAR)
    again = rows.with_columns(seed=pl.col("seed") + 7)
    once, twice = summarise(rows).to_dicts()[0], summarise(pl.concat([rows, again])).to_dicts()[0]
    for name in ("match_low", "match_high", "kappa_low", "kappa_high", "psnr_db_low"):
        assert once[name] == pytest.approx(twice[name])
    assert twice["rows"] == 2 * once["rows"]
    assert twice["questions"] == once["questions"] == PHOTOS * QUESTIONS
    assert (once["seeds"], twice["seeds"]) == (SEEDS, 2 * SEEDS)


def test_order_of_rows_does_not_matter(table: pl.DataFrame) -> None:
    rows = table.filter(pl.col("system").is_in(["UO-ISC", "JPEG 2000", "blank picture"]))
    shuffled = rows.sample(fraction=1, shuffle=True, seed=3)
    a, b = summarise(rows), summarise(shuffled)
    assert a.columns == b.columns
    assert a.select(POINT).equals(b.select(POINT))
    for name in ("match", "kappa", "kappa_low", "psnr_db_high"):
        np.testing.assert_allclose(a[name].to_numpy(), b[name].to_numpy(), rtol=1e-12)


def test_kappa_and_its_interval_are_those_of_the_judges(
    table: pl.DataFrame, summary: pl.DataFrame
) -> None:
    rows = rows_at(table, system="UO-ISC", **CLEAR).sort("photo")
    _, photo = np.unique(rows["photo"].to_numpy(), return_inverse=True)
    reference = Reference(
        [Answer("yes", 1.0)] * rows.height,
        photo,
        rows["blank_match"].to_numpy(),
        rows["unrelated_match"].to_numpy(),
        seed=0,
    )
    agreement = reference.agreement([Answer(text, 1.0) for text in rows["answer"]])
    found = line(summary, system="UO-ISC", **CLEAR)
    assert found["kappa"] == pytest.approx(agreement.kappa)
    assert (found["kappa_low"], found["kappa_high"]) == pytest.approx(agreement.ci95)
    blank, unrelated = rows["blank_match"].mean(), rows["unrelated_match"].mean()
    assert (found["chance_blank"], found["chance_unrelated"]) == (blank, unrelated)
    assert found["chance"] == max(blank, unrelated)  # type: ignore[type-var]
    assert found["kappa"] == pytest.approx(
        (found["match"] - found["chance"]) / (1 - found["chance"])
    )  # type: ignore[operator]


def test_controls_are_at_chance(summary: pl.DataFrame) -> None:
    blank, wrong = (line(summary, system=f"{name} picture") for name in ("blank", "wrong"))
    assert blank["match"] == blank["chance_blank"]
    assert wrong["match"] == wrong["chance_unrelated"]
    assert blank["kappa"] == 0  # the larger floor here
    assert (blank["snr_db"], blank["energy"], blank["symbols"]) == (None, None, 0)


def test_what_cannot_be_coded_is_left_out_of_means_and_counted(table: pl.DataFrame) -> None:
    quality = ("psnr_db", "ms_ssim", "feature_distance", "intent_loss", "match", "symbols", "bits")
    photo = pl.col("photo") < "006.jpg"
    rows = rows_at(table, system="UO-ISC", **CLEAR).with_columns(
        pl.when(photo).then(pl.lit("unreachable")).otherwise(pl.col("status")).alias("status"),
        *(pl.when(photo).then(None).otherwise(pl.col(name)).alias(name) for name in quality),
    )
    found, rest = summarise(rows).to_dicts()[0], rows.filter(pl.col("match").is_not_null())
    assert found["unreachable"] == 6 / PHOTOS
    assert found["complete"] == 1
    assert found["match"] == pytest.approx(rest["match"].mean())
    assert found["chance"] == max(rest["blank_match"].mean(), rest["unrelated_match"].mean())  # type: ignore[type-var]
    nothing = summarise(
        rows.with_columns(pl.lit(None, pl.Boolean).alias("match"), status=pl.lit("unreachable"))
    ).to_dicts()[0]
    assert (nothing["match"], nothing["kappa"], nothing["complete"]) == (None, None, None)
    assert nothing["unreachable"] == 1


def test_where_chance_always_matches_there_is_no_kappa(table: pl.DataFrame) -> None:
    rows = rows_at(table, system="UO-ISC", **CLEAR).with_columns(
        blank_match=pl.lit(True), unrelated_match=pl.lit(None, pl.Boolean)
    )
    found = summarise(rows).to_dicts()[0]
    assert (found["chance"], found["chance_unrelated"]) == (1, None)
    assert (found["kappa"], found["kappa_low"], found["kappa_high"]) == (None, None, None)


def test_paired_difference_by_hand(table: pl.DataFrame) -> None:
    first = rows_at(table, system="UO-ISC", **CLEAR)
    second = rows_at(table, system="UO-ISC without text alignment", **CLEAR)
    found = difference(first, second, "match")
    assert found is not None
    a = {(r["row"], r["seed"]): r for r in first.to_dicts()}
    b = {(r["row"], r["seed"]): r for r in second.to_dicts()}
    gaps = {key: int(a[key]["match"]) - int(b[key]["match"]) for key in a}
    assert found.mean == pytest.approx(np.mean(list(gaps.values())))
    photos: dict[str, list[int]] = {}
    for key, gap in gaps.items():
        photos.setdefault(a[key]["photo"], []).append(gap)
    half = 1.96 * np.std([np.mean(v) for v in photos.values()]) / math.sqrt(len(photos))
    assert found.low == pytest.approx(found.mean - half, abs=0.25 * half)
    assert found.high == pytest.approx(found.mean + half, abs=0.25 * half)
    assert (found.questions, found.photos) == (PHOTOS * QUESTIONS, PHOTOS)


def test_pairing_takes_shared_rows_and_a_common_part_cancels(table: pl.DataFrame) -> None:
    """A constant gap over pictures that differ wildly has an interval without width."""
    rows = rows_at(table, system="UO-ISC", **CLEAR).with_columns(
        psnr_db=pl.col("row").cast(pl.Float64)
    )
    better = rows.with_columns(psnr_db=pl.col("psnr_db") + 1.5).filter(pl.col("photo") < "010.jpg")
    found = difference(better, rows, "psnr_db")
    assert found is not None
    assert (found.low, found.mean, found.high) == pytest.approx((1.5, 1.5, 1.5))
    assert (found.photos, found.sign) == (10, 1)
    assert difference(rows, better.filter(pl.col("row") < 0), "psnr_db") is None


def test_relative_difference_is_of_the_means(table: pl.DataFrame) -> None:
    first = rows_at(table, system="UO-ISC, d = 32", **CLEAR)
    second = rows_at(table, system="JPEG 2000 lossless", **CLEAR)
    found = difference(first, second, "symbols", relative=True)
    assert found is not None
    assert found.mean == pytest.approx(1400 / 40400 - 1)
    assert (found.low, found.high, found.sign) == pytest.approx((found.mean, found.mean, -1))


def curve(metric: str, *means: float, half: float = 0.05) -> pl.DataFrame:
    return pl.DataFrame(
        {
            **{"set": "s", "system": "x", "channel": "awgn", "policy": "fixed"},
            "snr_db": [4.0 * number for number in range(len(means))],
            metric: list(means),
            f"{metric}_low": [value - half for value in means],
            f"{metric}_high": [value + half for value in means],
        }
    )


@pytest.mark.parametrize(
    ("metric", "means", "breaks", "largest"),
    [
        ("kappa", (0.0, 0.3, 0.6, 0.6), [], None),
        ("kappa", (0.0, 0.6, 0.55, 0.7), [], (4, 8, 0.05)),
        # Not to be seen from neighbours alone: each step is small, their sum is not.
        ("kappa", (0.6, 0.55, 0.5, 0.45), [(0, 12, 0.15)], (0, 12, 0.15)),
        ("intent_loss", (0.5, 0.3, 0.1), [], None),
        ("intent_loss", (0.5, 0.1, 0.4, 0.1), [(4, 8, 0.3)], (4, 8, 0.3)),
    ],
)
def test_curves_that_get_worse_are_named(
    metric: str,
    means: tuple[float, ...],
    breaks: list[tuple[float, float, float]],
    largest: tuple[float, float, float] | None,
) -> None:
    # In any order: a table need not be sorted by Es/N0.
    (found,) = monotone(curve(metric, *means).reverse(), metric)
    steps = [(one.better_at_db, one.worse_at_db, one.by) for one in found.breaks]
    assert steps == [(a, b, pytest.approx(by)) for a, b, by in breaks]
    assert found.holds == (not breaks)
    step = found.largest
    assert (step is None) == (largest is None)
    if step is not None and largest is not None:
        assert (step.better_at_db, step.worse_at_db, step.by) == pytest.approx(largest)


def test_a_single_point_and_a_control_are_no_curves(summary: pl.DataFrame) -> None:
    assert monotone(curve("kappa", 0.5), "kappa") == []
    curves = monotone(summary, "kappa")
    assert {one.curve[1] for one in curves} == {law.label for law in LAWS}
    assert all(one.holds for one in curves)
