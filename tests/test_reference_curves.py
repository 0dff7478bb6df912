"""Stored error-rate curves, measured anew: as AFF3CT does, the same points with fewer errors.

``ideal.json`` and ``full.json`` hold the command that made them. Whoever changes the modem so that a curve
moves makes them anew with that command.
"""

from __future__ import annotations

import json
import math
from functools import cache
from typing import Any

import pytest

from blocks.modem.error_rates import Conditions, Point, run_trials, until_errors
from tests.conftest import REPOSITORY

CURVES = REPOSITORY / "tests/data/reference_curves"
# Another one than that of the stored curves: agreement must come from the modem, not from the dice.
SEED = 1
# Two independent counts of the same rate differ by more than this many standard deviations once in
# 16,000 times.
SIGMAS = 4.0


@cache
def stored(sync: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((CURVES / f"{sync}.json").read_text())
    return document


def points_of(sync: str) -> list[Point]:
    return [
        Point.from_json(values)
        for line in stored(sync)["sensitivity"]
        for values in line[sync]["points"]
    ]


def again(point: Point) -> Conditions:
    """The conditions of a stored point with other random numbers."""
    old = point.conditions
    return Conditions(
        old.mcs, old.snr_db, old.sync, old.info_bits, old.max_burst_symbols, seed=SEED
    )


def assert_same_rate(one: Point, other: Point) -> None:
    """Two-proportion test, blocks of one burst failing together allowed for."""
    tallies = one.tally + other.tally
    pooled = Point(one.conditions, tallies)
    rate = min(max(pooled.per, 1 / tallies.blocks), 1 - 1 / tallies.blocks)
    spread = math.sqrt(rate * (1 - rate) * (1 / one.effective_blocks + 1 / other.effective_blocks))
    where = f"mcs {one.conditions.mcs} {one.conditions.sync} at {one.conditions.snr_db} dB"
    assert abs(one.per - other.per) < SIGMAS * spread, f"{where}: {one.per:.2e}, {other.per:.2e}"


def half_way(sync: str, mcs: int) -> Point:
    """The stored point where about every third block fails: the one that moves most for its cost."""
    mine = [point for point in points_of(sync) if point.conditions.mcs == mcs]
    return min(mine, key=lambda point: abs(point.per - 0.3))


@pytest.mark.parametrize("sync", ["ideal", "full"])
def test_stored_curves_are_whole(sync: str) -> None:
    """Every code rate crosses 1e-2, with 100 errors at every point above it, as the arguments say."""
    document = stored(sync)
    assert document["arguments"]["sync"] == sync
    assert document["arguments"]["errors"] >= 100
    for line in document["sensitivity"]:
        points = [Point.from_json(values) for values in line[sync]["points"]]
        assert [point.to_json() for point in points] == line[sync]["points"]
        assert points[0].per > 0.1
        assert points[-1].per < 1e-2
        assert all(point.tally.block_errors >= 100 for point in points if point.per >= 1e-2)
    assert [line["mcs"] for line in document["sensitivity"]] == list(range(10))


@pytest.mark.parametrize("mcs", range(10))
def test_decoder_is_where_it_was(mcs: int) -> None:
    """Curve B at one point per code rate; 120 blocks notice a shift of 0.15 dB."""
    point = half_way("ideal", mcs)
    conditions = again(point)
    _, blocks = conditions.frame
    fresh = Point(conditions, run_trials(conditions, range(-(-120 // blocks))))
    assert_same_rate(fresh, point)


@pytest.mark.parametrize("mcs", [0, 4, 9])
def test_receiver_is_where_it_was(mcs: int) -> None:
    """Curve A at three code rates."""
    point = half_way("full", mcs)
    conditions = again(point)
    fresh = Point(conditions, run_trials(conditions, range(24)))
    assert_same_rate(fresh, point)


def test_shift_of_a_tenth_of_a_decibel_is_noticed() -> None:
    """The comparison can fail: neighbouring stored points are 0.1 dB apart."""
    point = half_way("ideal", 4)
    beside = [p for p in points_of("ideal") if p.conditions.mcs == 4 and p != point]
    nearest = min(beside, key=lambda p: abs(p.conditions.snr_db - point.conditions.snr_db))
    conditions = again(nearest)
    fresh = Point(conditions, run_trials(conditions, range(80)))
    with pytest.raises(AssertionError, match="mcs 4 ideal"):
        assert_same_rate(fresh, point)


@pytest.mark.slow
@pytest.mark.parametrize("sync", ["ideal", "full"])
@pytest.mark.parametrize("mcs", range(10))
def test_whole_curve_is_where_it_was(sync: str, mcs: int) -> None:
    """Every stored point, 30 errors or 3000 blocks each."""
    for point in points_of(sync):
        if point.conditions.mcs == mcs:
            *_, fresh = until_errors(again(point), errors=30, max_blocks=3000, batch=16)
            assert_same_rate(fresh, point)
