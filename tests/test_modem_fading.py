"""Fading laws against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest

from blocks.modem.fading import (
    Awgn,
    ChannelError,
    FlatFading,
    TwoTaps,
    parse_channel,
)


def below(limit_db: float):  # type: ignore[no-untyped-def]
    return lambda snr_db: (snr_db < limit_db).astype(float)


def poisson_sum(k: float, x: float) -> float:
    """P(g <= x) of a Rician power: Poisson(K)-weighted Erlang distributions."""
    t = (1 + k) * x
    total, weight, tail = 0.0, math.exp(-k), math.exp(-t)
    erlang = 1 - tail
    for n in range(200):
        total += weight * erlang
        weight *= k / (n + 1)
        tail *= t / (n + 1)
        erlang -= tail
    return total


@pytest.mark.parametrize("snr_db", [-20.0, -3.0, 0.0, 4.0])
def test_rayleigh_outage_is_exponential(snr_db: float) -> None:
    outage = FlatFading().mean(below(snr_db), 0.0)
    assert outage == pytest.approx(1 - math.exp(-(10 ** (snr_db / 10))), rel=2e-3)


@pytest.mark.parametrize("k", [0.5, 3.0, 30.0])
def test_rician_outage_is_marcum(k: float) -> None:
    for snr_db in (-10.0, -3.0, 0.0, 2.0):
        outage = FlatFading(k).mean(below(snr_db), 0.0)
        assert outage == pytest.approx(poisson_sum(k, 10 ** (snr_db / 10)), rel=5e-3, abs=1e-9)


def test_average_moves_with_the_mean() -> None:
    law = FlatFading(3.0)
    shifted = law.mean(below(13.0), 10.0)
    assert shifted == pytest.approx(law.mean(below(3.0), 0.0))


@pytest.mark.parametrize("k", [0.0, 3.0, 100.0])
def test_drawn_gains_follow_the_law(k: float) -> None:
    law = FlatFading(k)
    count = 1000
    powers = np.array([law.path(seed=5, trial=trial).gain ** 2 for trial in range(count)])
    assert powers.mean() == pytest.approx(1.0, abs=0.01)
    # Var g = (1 + 2K) / (1 + K)^2.
    assert powers.var() == pytest.approx((1 + 2 * k) / (1 + k) ** 2, rel=0.05)
    # Evenly: the empirical distribution is within a few counts of the law.
    ranks = np.array([poisson_sum(k, power) for power in np.sort(powers)])
    assert np.abs(ranks - (np.arange(count) + 0.5) / count).max() < 5 / count


def test_gains_depend_on_seed_and_trial_alone() -> None:
    law = FlatFading()
    assert law.path(1, 7) == law.path(1, 7)
    assert law.path(1, 7) != law.path(2, 7)
    assert law.path(1, 7) != law.path(1, 8)


def test_two_taps_carry_unit_energy() -> None:
    channel = TwoTaps(-10.0, 1.5)
    phases = []
    for trial in range(50):
        path = channel.path(0, trial)
        ((delay, echo),) = path.echoes
        assert delay == 1.5
        assert abs(echo) ** 2 == pytest.approx(0.1)
        assert path.gain**2 * (1 + abs(echo) ** 2) == pytest.approx(1.0)
        phases.append(np.angle(echo))
    assert np.diff(np.sort(phases)).max() < 4 * 2 * np.pi / 50  # all directions


def test_names() -> None:
    assert parse_channel("awgn") == Awgn()
    assert parse_channel("rayleigh") == FlatFading(0.0)
    assert parse_channel("rician:3") == FlatFading(3.0)
    assert parse_channel("two-tap") == TwoTaps(-10.0, 1.0)
    assert parse_channel("two-tap:-6,2.5") == TwoTaps(-6.0, 2.5)
    for text in ("awgn", "rayleigh", "rician:3", "rician:0.5", "two-tap:-6,2.5"):
        assert str(parse_channel(text)) == text


@pytest.mark.parametrize(
    "text",
    ["", "rician", "rician:", "rician:0", "rician:-1", "rician:nan", "rician:1e9", "awgn:1"]
    + ["two-tap:1", "two-tap:3,1", "two-tap:-10,-1", "two-tap:-10,inf", "two-tap:a,b"],
)
def test_names_of_no_channel(text: str) -> None:
    with pytest.raises(ChannelError):
        parse_channel(text)
