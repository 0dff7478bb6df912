"""The receiver under block-flat fading against the exact average of its own curve in white noise.

If a gain that changes from burst to burst cost nothing but energy, the error rate would be the AWGN curve
averaged over the law of the gain. What the receiver loses beyond that (its level, bursts missed that white
noise of the same strength lets through) is given as the shift of mean Es/N0 that explains the measured rate.

The AWGN curve is measured with the same receiver, blocks and bursts. Gains are drawn evenly
(blocks/modem/fading.py) in SEQUENCES independent sequences, whose scatter gives the interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.sweep import Report, measure
from blocks.modem import waveform as wf
from blocks.modem.error_rates import Conditions, Point, Run, Tally
from blocks.modem.fading import FlatFading
from blocks.modem.ldpc_limits import normal_approximation_snr_db

SEQUENCES = 8
# Two-sided 95 % quantile of Student's t with SEQUENCES - 1 degrees of freedom (tables).
_STUDENT_95 = 2.365

_CURVE_STEP_DB = 0.2
_CURVE_BLOCKS = 300
# Where the curve ends: above, it counts as 1, below as 0.
_CURVE_FULL, _CURVE_EMPTY = 0.99, 0.005


@dataclass(frozen=True)
class AwgnCurve:
    """A measured error-rate curve without fading, from where all fails to where nothing does."""

    points: list[Point]

    def per(self, snr_db: NDArray[np.float64]) -> NDArray[np.float64]:
        """Straight lines between the points, 1 below the first and 0 above the last."""
        at = [point.conditions.snr_db for point in self.points]
        values = [point.per for point in self.points]
        return np.interp(snr_db, at, values, left=1.0, right=0.0)


@dataclass(frozen=True)
class FadingPoint:
    """One code rate under one law at one mean Es/N0.

    Args:
        conditions: of the first sequence; the others differ in the seed alone.
        tallies: counts of every sequence.
        curve: the AWGN curve.
    """

    conditions: Conditions
    law: FlatFading
    tallies: list[Tally]
    curve: AwgnCurve

    @property
    def per(self) -> float:
        """Measured block error rate, missed bursts included."""
        return float(np.mean(self._rates))

    @property
    def ci95(self) -> tuple[float, float]:
        """95 % interval of the block error rate, from the scatter of the sequences."""
        half = _STUDENT_95 * float(np.std(self._rates, ddof=1)) / math.sqrt(len(self.tallies))
        return max(0.0, self.per - half), min(1.0, self.per + half)

    @property
    def _rates(self) -> list[float]:
        return [tally.block_errors / tally.blocks for tally in self.tallies]

    @property
    def expected_per(self) -> float:
        """Exact average of the AWGN curve over the law."""
        return self.law.mean(self.curve.per, self.conditions.snr_db)

    @property
    def loss_db(self) -> float:
        """Mean Es/N0 that the receiver loses to the exact average."""
        return self._shift(self.per)

    @property
    def loss_ci95_db(self) -> tuple[float, float]:
        """95 % interval of :attr:`loss_db`."""
        low, high = self.ci95
        return self._shift(low), self._shift(high)

    def _shift(self, per: float) -> float:
        """How much less mean Es/N0 gives the average ``per``, within +-10 dB."""
        low, high = -10.0, 10.0
        while high - low > 1e-3:
            middle = (low + high) / 2
            if self.law.mean(self.curve.per, self.conditions.snr_db - middle) < per:
                low = middle
            else:
                high = middle
        return (low + high) / 2

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary."""
        total = sum(self.tallies, Tally())
        return {
            "mcs": self.conditions.mcs,
            "rate": float(wf.MCS_CODE_RATES[self.conditions.mcs]),
            "channel": str(self.law),
            "snr_db": self.conditions.snr_db,
            "sync": self.conditions.sync,
            "blocks": total.blocks,
            "block_errors": total.block_errors,
            "per": self.per,
            "per_ci95": list(self.ci95),
            "bursts": total.bursts,
            "bursts_missed": total.bursts_missed,
            "expected_per": self.expected_per,
            "loss_db": self.loss_db,
            "loss_ci95_db": list(self.loss_ci95_db),
            "awgn": [point.to_json() for point in self.curve.points],
        }


def measure_awgn_curve(conditions: Conditions, run: Run, report: Report) -> AwgnCurve:
    """The waterfall of ``conditions`` in white noise, every 0.2 dB."""
    plan, _ = conditions.frame
    theory = normal_approximation_snr_db(plan.info_bits, plan.coded_bits, 0.5)
    first = round(theory, 1)

    def at(snr_db: float) -> Point:
        here = replace(conditions, snr_db=round(snr_db, 1))
        return measure(here, _CURVE_BLOCKS, _CURVE_BLOCKS, run, report)

    points = [at(first)]
    while points[0].per < _CURVE_FULL:
        points.insert(0, at(points[0].conditions.snr_db - _CURVE_STEP_DB))
    while points[-1].per > _CURVE_EMPTY:
        points.append(at(points[-1].conditions.snr_db + _CURVE_STEP_DB))
    return AwgnCurve(points)


def measure_fading(
    conditions: Conditions,
    law: FlatFading,
    curve: AwgnCurve,
    bursts: int,
    run: Run,
    report: Callable[[Point], None],
) -> FadingPoint:
    """One point.

    Args:
        conditions: of the point; the channel is replaced by ``law``.
        law: of the gain.
        curve: of the same conditions in white noise.
        bursts: in all; every sequence gets an equal share.
        run: what counts trials.
        report: hears of every sequence's counts.
    """
    tallies = []
    for sequence in range(SEQUENCES):
        here = replace(conditions, channel=law, seed=conditions.seed * SEQUENCES + sequence)
        tallies.append(run(here, range(bursts // SEQUENCES)))
        report(Point(here, sum(tallies, Tally())))
    return FadingPoint(conditions, law, tallies, curve)
