"""Which code rate a policy takes, and that the thresholds are those of this modem."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from blocks.modem import waveform as wf
from blocks.modem.error_rates import Conditions, Point, run_trials, snr_at_per
from semantic.evaluation.rates import HOLDS_FROM_DB, ChannelName, choose_mcs, highest_holding_mcs

CURVES = Path(__file__).parent / "data" / "reference_curves" / "full.json"


def test_thresholds_are_those_of_the_measured_curves() -> None:
    points = [
        Point.from_json(values)
        for line in json.loads(CURVES.read_text())["sensitivity"]
        for values in line["full"]["points"]
    ]
    assert len(HOLDS_FROM_DB) == len(wf.MCS_CODE_RATES)
    for mcs, threshold_db in enumerate(HOLDS_FROM_DB):
        ours = [point for point in points if point.conditions.mcs == mcs]
        assert threshold_db == pytest.approx(snr_at_per(ours, 1e-2), abs=0.006)


@pytest.mark.slow
@pytest.mark.parametrize("mcs", [1, 4])
def test_a_rate_holds_from_its_threshold_on(mcs: int) -> None:
    """Anew and with another seed: below 1e-2 a quarter of a decibel above it, far above 1e-2 below."""
    per = {}
    for offset_db in (-0.25, 0.25):
        conditions = Conditions(mcs, HOLDS_FROM_DB[mcs] + offset_db, seed=77)
        per[offset_db] = Point(conditions, run_trials(conditions, range(300))).per
    assert per[-0.25] > 2e-2
    assert per[0.25] < 5e-3


@pytest.mark.parametrize(
    ("snr_db", "mcs"), [(-5, 0), (-1.61, 0), (-0.41, 0), (-0.4, 1), (3.97, 3), (3.98, 4), (30, 9)]
)
def test_the_highest_rate_that_holds(snr_db: float, mcs: int) -> None:
    assert highest_holding_mcs(snr_db) == mcs


def rates(policy: str, channel: ChannelName = "awgn", margin_db: float = 10.0) -> list[int]:
    return [
        choose_mcs(
            policy,  # type: ignore[arg-type]
            snr_db,
            channel=channel,
            lowest_snr_db=0.0,
            fading_margin_db=margin_db,
        )
        for snr_db in (0.0, 4.0, 12.0, 20.0)
    ]


def test_policies() -> None:
    assert rates("fixed") == rates("fixed", "rayleigh") == [4, 4, 4, 4]
    assert rates("lowest") == rates("lowest", "rayleigh") == [1, 1, 1, 1]
    assert rates("table") == [1, 4, 9, 9]
    assert rates("table", "rayleigh") == [0, 0, 2, 8]
    assert rates("table", "rayleigh", margin_db=0.0) == rates("table")
