"""Do posterior LLRs say how sure they are? Bits sorted by what they claim, against how often they are wrong.

A bit with posterior L claims to be wrong with probability 1 / (1 + exp(abs L)). Calibrated LLRs keep that
promise in every bin. One number sums it up: the factor s for which ``s L`` describes the bits best (least
cross-entropy, the slope of logistic regression): 1 is calibrated, less than 1 over-confident. What counts
are the blocks that failed: of them later stages have nothing but LLRs.

The *margin* of a bit is L (1 - 2 b), b the sent bit: positive where the decision is right.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.sweep import Report
from blocks.modem.error_rates import Conditions, Point, Tally, send_burst
from blocks.modem.llr_calibration import claimed_error_rate

# Edges of the bins of abs(L), in nats; the claimed error rates run from 1/2 to 1e-7.
BIN_EDGES = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0, 12.0, 16.0)
_LARGEST_LLR = 80.0
# Blocks that decoded, for the diagram of all blocks, take memory and tell little.
_MAX_BLOCKS_OF_ALL = 300


@dataclass(frozen=True)
class Bin:
    """Bits of similar claims.

    Args:
        bits: how many.
        claimed: mean claimed error probability.
        wrong: share of wrong bits.
        spread: standard error of ``wrong``; bits of one block count as dependent.
    """

    bits: int
    claimed: float
    wrong: float
    spread: float


def diagram(margins: NDArray[np.float32]) -> list[Bin]:
    """Reliability diagram of ``margins`` float32 [blocks, bits]; bins of fewer than 100 bits are left out."""
    found = []
    strength = np.abs(margins)
    for low, high in zip(BIN_EDGES, [*BIN_EDGES[1:], np.inf], strict=True):
        inside = (strength >= low) & (strength < high)
        bits = inside.sum(axis=1)
        total = int(bits.sum())
        if total < 100:
            continue
        errors = (inside & (margins < 0)).sum(axis=1)
        wrong = errors.sum() / total
        spread = np.sqrt(((errors - wrong * bits) ** 2).sum()) / total
        claims = 1 / (1 + np.exp(np.minimum(strength[inside], _LARGEST_LLR)))
        found.append(Bin(total, float(claims.mean()), float(wrong), float(spread)))
    return found


def cross_entropy_bits(margins: NDArray[np.float32], factor: float = 1.0) -> float:
    """Bits per bit that are still unknown to someone who believes ``factor`` times the LLRs."""
    return float(np.logaddexp(0.0, -factor * margins).mean() / np.log(2))


def calibration_error(margins: NDArray[np.float32]) -> float:
    """Expected calibration error: mean over bits of abs(share of wrong bits - claim) of their bin."""
    bins = diagram(margins)
    total = sum(item.bits for item in bins)
    return sum(item.bits * abs(item.wrong - item.claimed) for item in bins) / max(1, total)


def best_weights(
    margins: NDArray[np.float32], features: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Logistic regression without intercept by Newton's method.

    Args:
        margins: ``float32 [blocks, bits]``.
        features: ``float64 [blocks, n]``; the factor of a block is ``features @ weights``.

    Returns:
        ``float64 [n]`` weights of least cross-entropy.
    """

    def unknown(weights: NDArray[np.float64]) -> float:
        return float(np.logaddexp(0.0, -(features @ weights)[:, None] * margins).mean())

    weights = np.linalg.lstsq(features, np.ones(len(features)), rcond=None)[0]
    for _ in range(20):
        factors = features @ weights
        scaled = np.clip(factors[:, None] * margins, -_LARGEST_LLR, _LARGEST_LLR)
        wrong = 1 / (1 + np.exp(scaled))
        slope = (wrong * margins).mean(axis=1)
        curvature = (wrong * (1 - wrong) * margins.astype(np.float64) ** 2).mean(axis=1)
        hessian = features.T @ (features * curvature[:, None])
        step = np.linalg.solve(hessian, features.T @ slope)
        # Far from the minimum a full step may overshoot.
        while unknown(weights + step) > unknown(weights) and np.abs(step).max() > 1e-6:
            step = step / 2
        weights = weights + step
        if np.abs(step).max() < 1e-4:
            break
    return weights


def best_factor(margins: NDArray[np.float32]) -> float:
    """The factor of least cross-entropy: 1 for calibrated LLRs, below 1 for over-confident ones.

    Between 0.1 and 10; bits without a single error have no least cross-entropy, and 10.
    """
    low, high = np.log(0.1), np.log(10.0)
    while high - low > 1e-3:  # the slope of a convex function: bisection
        middle = (low + high) / 2
        wrong = 1 / (1 + np.exp(np.minimum(np.exp(middle) * margins, _LARGEST_LLR)))
        if float((wrong * margins).mean(dtype=np.float64)) > 0:
            low = middle
        else:
            high = middle
    return float(np.exp((low + high) / 2))


@dataclass(frozen=True)
class Summary:
    """One set of blocks in numbers."""

    blocks: int
    wrong: float
    claimed: float
    calibration_error: float
    cross_entropy_bits: float
    best_factor: float
    best_cross_entropy_bits: float
    bins: list[Bin]

    @classmethod
    def of(cls, margins: NDArray[np.float32]) -> Summary:
        """Sum up ``margins`` float32 [blocks, bits], at least one block."""
        factor = best_factor(margins)
        return cls(
            blocks=len(margins),
            wrong=float((margins < 0).mean()),
            claimed=claimed_error_rate(margins),
            calibration_error=calibration_error(margins),
            cross_entropy_bits=cross_entropy_bits(margins),
            best_factor=factor,
            best_cross_entropy_bits=cross_entropy_bits(margins, factor),
            bins=diagram(margins),
        )


@dataclass(frozen=True)
class Reliability:
    """Blocks of one error-rate point.

    Args:
        point: counts; bursts that were missed have no LLRs.
        failed: margins of blocks that failed, as delivered, ``float32 [n, bits]``.
        factors: what the delivered LLRs were multiplied with, ``float64 [n]``.
        everything: margins of the first blocks, failed or not.
    """

    point: Point
    failed: NDArray[np.float32]
    factors: NDArray[np.float64]
    everything: NDArray[np.float32]

    @property
    def raw(self) -> NDArray[np.float32]:
        """Margins of failed blocks as the decoder made them."""
        raw: NDArray[np.float32] = (self.failed / self.factors[:, None]).astype(np.float32)
        return raw

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary."""
        values = self.point.to_json()
        for name, margins in (
            ("failed", self.failed),
            ("failed_uncalibrated", self.raw),
            ("all", self.everything),
        ):
            summary = Summary.of(margins) if len(margins) else None
            values[name] = summary and {
                **{key: value for key, value in vars(summary).items() if key != "bins"},
                "bins": [vars(item) for item in summary.bins],
            }
        return values


def collect(
    conditions: Conditions, failed_blocks: int, max_blocks: int, report: Report
) -> Reliability:
    """Send bursts until enough blocks failed."""
    failed: list[NDArray[np.float32]] = []
    everything: list[NDArray[np.float32]] = []
    factors: list[float] = []
    tally, trial = Tally(), 0
    while len(failed) < failed_blocks and tally.blocks < max_blocks:
        sent = send_burst(conditions, trial)
        tally, trial = tally + sent.tally, trial + 1
        for block in sent.blocks:
            margins = (block.llrs * (1 - 2.0 * sent.payloads[block.number])).astype(np.float32)
            if len(everything) < _MAX_BLOCKS_OF_ALL:
                everything.append(margins)
            if not block.ok:
                failed.append(margins)
                factors.append(block.llr_factor)
        report(Point(conditions, tally))
    bits = conditions.frame[0].payload_bits
    return Reliability(
        Point(conditions, tally),
        np.array(failed, np.float32).reshape(-1, bits),
        np.array(factors, np.float64),
        np.array(everything, np.float32).reshape(-1, bits),
    )


def fit(measured: Iterable[Reliability]) -> tuple[float, float]:
    """Factor at u = 0 and its rise with u (blocks/modem/llr_calibration.py), from blocks that failed."""
    margins = np.concatenate([item.raw for item in measured])
    claims = np.array([claimed_error_rate(block) for block in margins])
    at_zero, rise = best_weights(margins, np.stack((np.ones(len(claims)), claims), axis=1))
    return float(at_zero), float(rise)
