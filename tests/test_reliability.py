"""Reliability diagrams against bits whose truth is known, and the receiver's own LLRs of failed blocks."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.reliability import (
    Reliability,
    best_factor,
    best_weights,
    calibration_error,
    collect,
    cross_entropy_bits,
    diagram,
)
from blocks.modem.error_rates import Conditions
from blocks.modem.ldpc_limits import normal_approximation_snr_db
from blocks.modem.llr_calibration import (
    LEAST_FACTOR,
    claimed_error_rate,
    failed_block_factor,
)


def true_margins(blocks: int, bits: int, seed: int) -> NDArray[np.float32]:
    """Margins of bits sent as +-1 over Gaussian noise: their LLRs are exact by construction."""
    received = 1 + np.random.default_rng(seed).standard_normal((blocks, bits))
    return (2 * received).astype(np.float32)


def test_exact_llrs_lie_on_the_diagonal() -> None:
    margins = true_margins(50, 4000, seed=0)
    for item in diagram(margins):
        assert abs(item.wrong - item.claimed) < 4 * max(item.spread, 1 / item.bits)
    # 200,000 bits tell the factor to 1 in 100.
    assert best_factor(margins) == pytest.approx(1.0, abs=0.02)
    assert calibration_error(margins) < 2e-3
    # Capacity of binary signalling at 0 dB of real SNR is 0.486 bit (tabulated).
    assert 1 - cross_entropy_bits(margins) == pytest.approx(0.486, abs=0.005)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_wrong_scale_is_found(factor: float) -> None:
    margins = true_margins(50, 4000, seed=1)
    scaled = (margins / factor).astype(np.float32)
    assert best_factor(scaled) == pytest.approx(factor, rel=0.03)
    assert calibration_error(scaled) > 0.02
    assert cross_entropy_bits(scaled, factor) == pytest.approx(cross_entropy_bits(margins))
    assert cross_entropy_bits(scaled) > cross_entropy_bits(margins) + 0.01


def test_blocks_of_different_scale_are_told_apart() -> None:
    """Factor 0.5 + 2 x, x a feature of the block: regression finds both numbers."""
    margins = true_margins(60, 4000, seed=2)
    x = np.linspace(0, 0.25, 60)
    scaled = (margins / (0.5 + 2 * x)[:, None]).astype(np.float32)
    weights = best_weights(scaled, np.stack((np.ones(60), x), axis=1))
    assert weights == pytest.approx([0.5, 2.0], rel=0.05)


def test_factor_stays_within_what_was_fitted() -> None:
    for mcs in range(10):
        nothing, everything = np.zeros(100, np.float32), np.full(100, 30.0, np.float32)
        assert failed_block_factor(nothing, mcs) == 1.0
        assert LEAST_FACTOR <= failed_block_factor(everything, mcs) < 0.9
    assert claimed_error_rate(np.zeros(5, np.float32)) == 0.5
    assert claimed_error_rate(np.full(5, -1e9, np.float32)) < 1e-30


def failed(
    mcs: int,
    above_theory_db: float,
    blocks: int,
    sync: str = "ideal",
    info_bits: int | None = None,
) -> Reliability:
    plan, _ = Conditions(mcs, 0.0, info_bits=info_bits).frame
    snr_db = normal_approximation_snr_db(plan.info_bits, plan.coded_bits) + above_theory_db
    conditions = Conditions(mcs, round(snr_db, 2), sync, info_bits, seed=77)  # type: ignore[arg-type]
    return collect(conditions, blocks, 10_000, lambda point: None)


def check(measured: Reliability) -> None:
    """Delivered LLRs of failed blocks: 10 % off at most as a whole, a factor of 2 in every bin."""
    assert best_factor(measured.failed) == pytest.approx(1.0, abs=0.1)
    wrong = float((measured.failed < 0).mean())
    assert claimed_error_rate(measured.failed) == pytest.approx(wrong, rel=0.1)
    for item in diagram(measured.failed):
        if item.claimed > 1e-3:  # beyond, these blocks do not hold enough wrong bits to tell
            least, most = item.claimed / 2, 2 * item.claimed
            assert least - 3 * item.spread < item.wrong < most + 3 * item.spread


@pytest.mark.parametrize("mcs", [0, 4, 9])
def test_llrs_of_failed_blocks_are_calibrated(mcs: int) -> None:
    """Where one block in ten fails; other random numbers than those of the fit."""
    measured = failed(mcs, 0.3, 30)
    own, delivered = best_factor(measured.raw), best_factor(measured.failed)
    assert own < 0.93
    assert abs(delivered - 1) < abs(own - 1)
    assert calibration_error(measured.failed) < calibration_error(measured.raw)
    check(measured)


@pytest.mark.parametrize("mcs", [0, 4, 9])
@pytest.mark.parametrize("info_bits", [600, 1000, 2500])
def test_llrs_of_short_blocks_are_nearer_to_the_truth(mcs: int, info_bits: int) -> None:
    """Between and below the fitted sizes the decoder's own LLRs are up to a third off, ours 15 %."""
    measured = failed(mcs, 0.3, 60, info_bits=info_bits)
    own, delivered = best_factor(measured.raw), best_factor(measured.failed)
    assert own < 0.9
    assert delivered == pytest.approx(1.0, abs=0.15)


@pytest.mark.slow
@pytest.mark.parametrize("mcs", range(10))
@pytest.mark.parametrize("above_theory_db", [0.0, 0.1, 0.2, 0.3])
@pytest.mark.parametrize("sync", ["ideal", "full"])
def test_llrs_are_calibrated_wherever_blocks_fail(
    mcs: int, above_theory_db: float, sync: str
) -> None:
    check(failed(mcs, above_theory_db, 100, sync))
