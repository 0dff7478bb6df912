"""Es/N0 at block error rate 1e-2 for every code rate: receiver, perfect synchronisation, theory.

A  the whole receiver under carrier offset, clock offset, delay and phase noise (blocks/modem/error_rates.py)
B  the same decoder told time, phase and noise
C  normal approximation: what the best code of that length could do

``uoisc benchmark sensitivity`` prints the table. Largest code blocks; points every 0.1 dB, up from where
nearly every block fails until fewer than one in a hundred does; a straight line in log PER between them. The
energy of pilots, the same for A and B, is not counted: Es/N0 is that of a symbol on the air.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.sweep import Report, measure
from blocks.modem import waveform as wf
from blocks.modem.error_rates import Conditions, Point, Run, Sync, crossing_segment, snr_at_per
from blocks.modem.ldpc_limits import normal_approximation_snr_db

PER = 1e-2
STEP_DB = 0.1
# No decoder here is closer to the normal approximation.
_FIRST_ABOVE_THEORY_DB = 0.2


@dataclass(frozen=True)
class Crossing:
    """A measured curve and where it crosses PER 1e-2.

    Args:
        snr_db: Es/N0 of the crossing.
        error_db: its standard error, from the counts at the points on either side.
        errors: block errors counted at those two points.
        points: the curve.
    """

    snr_db: float
    error_db: float
    errors: int
    points: list[Point]

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary."""
        return {
            "snr_db": self.snr_db,
            "standard_error_db": self.error_db,
            "errors": self.errors,
            "points": [point.to_json() for point in self.points],
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Crossing:
        """What :meth:`to_json` wrote."""
        points = [Point.from_json(point) for point in values["points"]]
        return cls(values["snr_db"], values["standard_error_db"], values["errors"], points)


@dataclass(frozen=True)
class Sensitivity:
    """One line of the table; None where a curve was not asked for."""

    mcs: int
    theory_db: float
    ideal: Crossing | None
    full: Crossing | None

    @property
    def sync_loss_db(self) -> float | None:
        """A - B."""
        return self.full.snr_db - self.ideal.snr_db if self.full and self.ideal else None

    @property
    def code_loss_db(self) -> float | None:
        """B - C."""
        return self.ideal.snr_db - self.theory_db if self.ideal else None

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary, every measured point included."""
        values: dict[str, Any] = {
            "mcs": self.mcs,
            "rate": float(wf.MCS_CODE_RATES[self.mcs]),
            "per": PER,
            "normal_approximation_snr_db": self.theory_db,
            "sync_loss_db": self.sync_loss_db,
            "code_loss_db": self.code_loss_db,
        }
        for name, crossing in (("ideal", self.ideal), ("full", self.full)):
            values[name] = crossing and crossing.to_json()
        return values


def merge(documents: Iterable[Mapping[str, Any]]) -> list[Sensitivity]:
    """Lines that the command wrote to files, one file with curve A and another with curve B for instance.

    Raises:
        ValueError: a curve that two files hold.
    """
    found: dict[tuple[int, str], Crossing] = {}
    theory: dict[int, float] = {}
    for values in (line for document in documents for line in document["sensitivity"]):
        mcs = values["mcs"]
        theory[mcs] = values["normal_approximation_snr_db"]
        for sync in ("ideal", "full"):
            if values[sync] and (mcs, sync) in found:
                raise ValueError(f"mcs {mcs} {sync} is there twice")
            if values[sync]:
                found[mcs, sync] = Crossing.from_json(values[sync])
    return [
        Sensitivity(mcs, theory[mcs], found.get((mcs, "ideal")), found.get((mcs, "full")))
        for mcs in sorted(theory)
    ]


def measure_sensitivity(
    mcs: int, syncs: Sequence[Sync], errors: int, seed: int, run: Run, report: Report
) -> Sensitivity:
    """Measure one line.

    Args:
        mcs: index of the code rate.
        syncs: which curves.
        errors: block errors per point; a point ends without them after ``errors / PER`` blocks.
        seed: of everything random.
        run: what counts trials.
        report: hears of every point as it grows.
    """
    plan, _ = Conditions(mcs, 0.0).frame
    theory = normal_approximation_snr_db(plan.info_bits, plan.coded_bits, PER)
    found = {
        sync: find_crossing(mcs, sync, theory + _FIRST_ABOVE_THEORY_DB, errors, seed, run, report)
        for sync in syncs
    }
    return Sensitivity(mcs, theory, found.get("ideal"), found.get("full"))


def find_crossing(
    mcs: int, sync: Sync, first_db: float, errors: int, seed: int, run: Run, report: Report
) -> Crossing:
    """Go up in steps until the curve is below PER.

    Raises:
        ValueError: it is below PER at the first point already.
    """
    points: list[Point] = []
    snr_db = round(first_db, 1)
    while not points or points[-1].per >= PER:
        conditions = Conditions(mcs, snr_db, sync, seed=seed)
        points.append(measure(conditions, errors, round(errors / PER), run, report))
        snr_db = round(snr_db + STEP_DB, 1)
    found, segment = snr_at_per(points, PER), crossing_segment(points, PER)
    if found is None or segment is None:
        raise ValueError(f"mcs {mcs} {sync}: already below {PER:g} at {first_db:.1f} dB")
    left, right = segment
    return Crossing(found, _standard_error_db(left, right, found), _errors(left, right), points)


def _errors(left: Point, right: Point) -> int:
    return left.tally.block_errors + right.tally.block_errors


def _standard_error_db(left: Point, right: Point, snr_db: float) -> float:
    """The logarithm of PER is known to 1 / sqrt(errors) at either end; the slope turns it into dB."""
    step = right.conditions.snr_db - left.conditions.snr_db
    share = (snr_db - left.conditions.snr_db) / step
    slope = math.log(left.per / right.per) / step if right.per else math.inf
    variance = (1 - share) ** 2 / left.tally.block_errors
    variance += share**2 / max(1, right.tally.block_errors)
    return math.sqrt(variance) / slope
