"""The error-rate harness: counts that add up, results that do not depend on how the work is cut."""

from __future__ import annotations

import math

import pytest

from blocks.modem import waveform as wf
from blocks.modem.error_rates import (
    Conditions,
    Point,
    Tally,
    bicm_limit_snr_db,
    run_trials,
    shannon_limit_snr_db,
    snr_at_per,
    until_errors,
    wilson_ci95,
)
from blocks.modem.fading import ChannelError, FlatFading, TwoTaps
from blocks.modem.ldpc_limits import normal_approximation_snr_db


def test_limits_of_each_code_rate() -> None:
    # Es/N0 of Gray bit-interleaved 8-PSK, from an independent integration; for rate 1/5 from four
    # million random symbols, which say 0.2014 at -2.34 dB.
    known = (-2.37, -1.18, 0.47, 1.64, 3.23, 4.79, 5.83, 7.21, 8.74, 9.90)
    for rate, limit in zip(wf.MCS_CODE_RATES, known, strict=True):
        assert bicm_limit_snr_db(float(rate)) == pytest.approx(limit, abs=0.02)


@pytest.mark.parametrize("sync", ["full", "ideal"])
def test_good_channel_has_no_errors_and_bad_channel_has_nothing_else(sync: str) -> None:
    good = run_trials(Conditions(4, 12.0, sync), range(2))  # type: ignore[arg-type]
    assert good.bursts == 2
    assert good.blocks == 6
    assert good.block_errors == good.bursts_missed == good.undetected_errors == 0
    bad = run_trials(Conditions(4, 0.0, sync), range(2))  # type: ignore[arg-type]
    assert bad.block_errors == bad.blocks == 6
    assert bad.undetected_errors == 0


def test_missed_bursts_count_as_errors() -> None:
    tally = run_trials(Conditions(4, -15.0, "full"), range(2))
    assert tally.bursts_missed == tally.bursts == 2
    assert tally.block_errors == tally.blocks == 6


def test_result_does_not_depend_on_how_trials_are_cut() -> None:
    conditions = Conditions(2, 1.2, "full", info_bits=1000, max_burst_symbols=4000, seed=5)
    whole = run_trials(conditions, range(8))
    pieces = run_trials(conditions, [5, 1, 7]) + run_trials(conditions, [0, 2, 3, 4, 6])
    assert whole == pieces
    assert whole.block_errors > 0


def test_another_seed_is_another_experiment() -> None:
    one, other = (Conditions(2, 1.2, "ideal", info_bits=1000, seed=seed) for seed in (0, 1))
    assert run_trials(one, range(6)) != run_trials(other, range(6))


def test_stops_when_the_errors_are_there() -> None:
    conditions = Conditions(4, 0.0, "ideal", info_bits=600)
    points = list(until_errors(conditions, errors=10, max_blocks=10_000, batch=1))
    assert points[-1].tally.block_errors >= 10
    assert all(point.tally.block_errors < 10 for point in points[:-1])


def test_stops_at_the_limit_without_errors() -> None:
    conditions = Conditions(4, 15.0, "ideal", info_bits=600)
    points = list(until_errors(conditions, errors=10, max_blocks=20, batch=1))
    assert points[-1].tally.blocks >= 20
    assert points[-1].per == 0
    low, high = points[-1].ci95
    assert low == 0
    assert 0 < high < 0.25


def test_interval_holds_the_truth_as_often_as_it_says() -> None:
    # Wilson's interval on 20 of 100 is 0.133..0.289 (tabulated).
    point = Point(Conditions(4, 4.0), Tally(blocks=100, block_errors=20))
    assert point.ci95 == pytest.approx((0.1334, 0.2888), abs=2e-4)


def test_crossing_is_on_the_line_between_points() -> None:
    points = [
        Point(Conditions(4, snr_db), Tally(blocks=10_000, block_errors=errors))
        for snr_db, errors in ((4.0, 1000), (4.2, 10))
    ]
    assert snr_at_per(points, 1e-2) == pytest.approx(4.1)
    assert snr_at_per(points[:1], 1e-2) is None


def test_decoder_stays_within_a_decibel_of_the_best_code() -> None:
    """Curve B against curve C at the coarsest resolution: 1 dB above the normal approximation works.

    24 blocks without an error bound the PER below 0.12 (95 %); below the approximation all must fail.
    """
    for mcs in (0, 4, 9):
        conditions = Conditions(mcs, 0.0, "ideal")
        plan, _ = conditions.frame
        theory = normal_approximation_snr_db(plan.info_bits, plan.coded_bits)
        above = run_trials(Conditions(mcs, theory + 1.0, "ideal"), range(8))
        below = run_trials(Conditions(mcs, theory - 0.3, "ideal"), range(3))
        assert above.block_errors == 0, mcs
        assert below.block_errors == below.blocks, mcs


def test_json_gives_the_point_back() -> None:
    conditions = Conditions(
        3, 1.5, "full", 1000, max_burst_symbols=4000, seed=9, channel=TwoTaps(-6.0, 1.5)
    )
    tally = Tally(90, 20, 35, 30, 2, 1, 0, 1234)
    values = Point(conditions, tally).to_json()
    assert {"mcs", "rate", "snr_db", "sync", "blocks", "block_errors", "per"} <= set(values)
    assert {"bursts", "bursts_missed", "channel"} <= set(values)
    assert Point.from_json(values) == Point(conditions, tally)


def test_blocks_that_fail_together_count_as_one() -> None:
    # Of 100 bursts with 4 blocks, 20 fail whole: as much as 20 of 100 blocks tell.
    whole = Point(Conditions(4, 4.0), Tally(400, 80, squared_errors=20 * 16, bursts=100))
    assert whole.effective_blocks == pytest.approx(100)
    # 80 bursts with one failed block each are better than independent: never more than the blocks.
    spread = Point(Conditions(4, 4.0), Tally(400, 80, squared_errors=80, bursts=100))
    assert spread.effective_blocks == 400


def test_one_gain_for_a_whole_burst() -> None:
    """Rayleigh far above threshold: bursts fail whole or not at all, as often as the law says."""
    conditions = Conditions(
        4, 13.5, "ideal", info_bits=600, max_burst_symbols=3000, channel=FlatFading()
    )
    _, blocks = conditions.frame
    tally = run_trials(conditions, range(300))
    # The code needs about 4.5 dB, 9 dB below the mean: 1 - exp(-10^-0.9) = 0.118 of all bursts.
    assert tally.block_errors / tally.blocks == pytest.approx(0.118, abs=0.02)
    assert tally.squared_errors > 0.8 * blocks * tally.block_errors


def test_receiver_sees_the_gain() -> None:
    conditions = Conditions(4, 8.0, "full", 600, max_burst_symbols=3000, channel=FlatFading())
    per = {}
    for trial in range(20):
        gain_db = 20 * math.log10(conditions.channel.path(0, trial).gain)
        per[8.0 + gain_db] = run_trials(conditions, [trial]).block_errors
    assert sum(errors for snr_db, errors in per.items() if snr_db > 5.5) == 0
    assert all(errors for snr_db, errors in per.items() if snr_db < 3.0)


def test_echo_costs_something_and_has_no_ideal_receiver() -> None:
    echo = TwoTaps(-6.0, 1.0)
    flat = run_trials(Conditions(4, 6.0, "full"), range(4))
    bent = run_trials(Conditions(4, 6.0, "full", channel=TwoTaps(0.0, 1.0)), range(4))
    assert flat.block_errors == 0
    assert bent.block_errors > 0
    with pytest.raises(ChannelError, match="perfect synchronisation"):
        Conditions(4, 6.0, "ideal", channel=echo)


def test_shannon_is_below_bit_interleaved_8psk() -> None:
    assert shannon_limit_snr_db(1 / 3) == pytest.approx(0.0)  # log2(1 + 1) = 1 bit
    for rate in wf.MCS_CODE_RATES:
        assert shannon_limit_snr_db(float(rate)) < bicm_limit_snr_db(float(rate))


@pytest.mark.slow
@pytest.mark.parametrize("mcs", range(10))
def test_price_of_synchronisation_and_code(mcs: int) -> None:
    """A - B <= 0.3 dB and B - C <= 0.8 dB at PER 1e-2, at least 40 errors at the points around it."""
    plan, _ = Conditions(mcs, 0.0).frame
    theory = normal_approximation_snr_db(plan.info_bits, plan.coded_bits)
    found = {}
    for sync in ("full", "ideal"):
        points = []
        snr_db = round(theory + 0.2, 1)
        while not points or points[-1].per > 5e-3:
            conditions = Conditions(mcs, snr_db, sync)  # type: ignore[arg-type]
            *_, point = until_errors(conditions, errors=40, max_blocks=4000, batch=16)
            points.append(point)
            snr_db = round(snr_db + 0.1, 1)
        crossing = snr_at_per(points, 1e-2)
        assert crossing is not None
        found[sync] = crossing
    assert not math.isnan(found["full"])
    assert found["full"] - found["ideal"] <= 0.3
    assert found["ideal"] - theory <= 0.8


@pytest.mark.parametrize(
    ("events", "trials", "low", "high"),
    [(0, 0, 0, 1), (0, 10_000, 0, 3.84e-4), (10, 10_000, 5.43e-4, 1.84e-3), (5, 5, 0.566, 1)],
)
def test_wilson_interval(events: int, trials: int, low: float, high: float) -> None:
    """Values of the formula in E. B. Wilson, JASA 22 (1927), to three digits."""
    assert wilson_ci95(events / max(1, trials), trials) == pytest.approx((low, high), rel=2e-3)
