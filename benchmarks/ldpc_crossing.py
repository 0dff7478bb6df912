"""The Es/N0 at which each LDPC decoder loses one block in a hundred, and the gaps between decoders.

Every decoder gets the same limit of iterations and, at equal Es/N0, the same blocks and noise. A search with
few errors comes near the crossing; then a point is measured to the wanted number of errors, and what it is
off by is put right with the slope of the normal approximation there (the PER is then within a factor of 1.6
of the target, so a slope wrong by a tenth shifts the result by 0.003 dB at most).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.ldpc import BELIEF, MIN_SUM, PROJECT, Point, Tally, tallies
from blocks.modem.ldpc_code import LdpcError
from blocks.modem.ldpc_limits import normal_approximation_snr_db

TARGET_PER = 1e-2
# The limits that the project's decoder is measured with beside the common one: what a limit costs.
OTHER_LIMITS = (20, 100)

_SEARCH_ERRORS = 15
_NEAR = 1.6
_LARGEST_STEP_DB = 0.2
_MOST_POINTS = 12
# A point without errors in so many blocks is far below the target.
_SEARCH_BLOCKS = 3000


@dataclass(frozen=True)
class Crossing:
    """Where one decoder crosses TARGET_PER: ``at`` is the last point measured, ``snr_db`` the result."""

    decoder: str
    at: Point
    max_iterations: int
    seed: int
    tally: Tally
    snr_db: float
    standard_error_db: float

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary."""
        identity = self.at.to_json()
        measured_at = identity.pop("snr_db")
        return {
            "decoder": self.decoder,
            **identity,
            "max_iterations": self.max_iterations,
            "seed": self.seed,
            "snr_db": self.snr_db,
            "standard_error_db": self.standard_error_db,
            "measured_at_snr_db": measured_at,
            "blocks": self.tally.blocks,
            "block_errors": self.tally.errors,
            "per": self.tally.per,
            "mean_iterations": self.tally.iterations / self.tally.blocks,
        }


def decades_per_db(point: Point) -> float:
    """How fast the block error rate of the best code falls around TARGET_PER."""
    code = point.code()
    left, right = (
        normal_approximation_snr_db(code.info_bits, code.coded_bits, TARGET_PER * factor)
        for factor in (_NEAR, 1 / _NEAR)
    )
    return 2 * math.log10(_NEAR) / (right - left)


def _measure(
    decoder: str, point: Point, errors: int, max_blocks: int, seed: int, max_iterations: int
) -> Tally:
    total = Tally()
    for tally in tallies(decoder, point, seed, max_iterations):
        total += tally
        if total.errors >= errors or total.blocks >= max_blocks:
            break
    return total


def find_crossing(
    decoder: str,
    start: Point,
    *,
    errors: int,
    max_blocks: int,
    seed: int,
    max_iterations: int,
    show: Callable[[str, Point, Tally], None] = lambda decoder, point, tally: None,
) -> Crossing:
    """Search from ``start`` on.

    Raises:
        LdpcError: not found in _MOST_POINTS points.
    """
    slope, point = decades_per_db(start), start
    for _ in range(_MOST_POINTS):
        for wanted, limit in ((_SEARCH_ERRORS, _SEARCH_BLOCKS), (errors, max_blocks)):
            tally = _measure(decoder, point, wanted, limit, seed, max_iterations)
            show(decoder, point, tally)
            # Half an error where there was none: a bound to search on, never a result.
            off = math.log10(max(tally.errors, 0.5) / tally.blocks / TARGET_PER)
            if abs(off) > math.log10(_NEAR):
                break
        else:
            spread = 1 / (math.sqrt(tally.errors) * math.log(10) * slope)
            found = point.snr_db + off / slope
            return Crossing(decoder, point, max_iterations, seed, tally, found, spread)
        step = min(max(off / slope, -_LARGEST_STEP_DB), _LARGEST_STEP_DB)
        point = replace(point, snr_db=round(point.snr_db + step, 3))
    raise LdpcError(
        f"{decoder}: no block error rate of {TARGET_PER} found from {start.snr_db} to {point.snr_db} dB; "
        "start nearer to it"
    )


def run(
    points: tuple[Point, ...],
    *,
    errors: int,
    max_blocks: int,
    seed: int,
    max_iterations: int,
    show: Callable[[str, Point, Tally], None] = lambda decoder, point, tally: None,
) -> list[Crossing]:
    """All decoders at all points; the project's one with other limits of iterations as well.

    Args:
        points: codes, each with the Es/N0 where the search starts.
        errors: block errors beside every crossing.
        max_blocks: end of a point, whatever the errors.
        seed: of all bits and noise.
        max_iterations: the limit common to all decoders.
        show: progress, after every point.
    """
    found = []
    for point in points:
        start = point
        jobs = [(PROJECT, max_iterations)]
        jobs += [(PROJECT, limit) for limit in OTHER_LIMITS if limit != max_iterations]
        jobs += [(decoder, max_iterations) for decoder in (MIN_SUM, BELIEF)]
        for decoder, limit in jobs:
            crossing = find_crossing(
                decoder, start, errors=errors, max_blocks=max_blocks, seed=seed,
                max_iterations=limit, show=show,
            )  # fmt: skip
            found.append(crossing)
            if (decoder, limit) == jobs[0]:
                start = replace(point, snr_db=round(crossing.snr_db, 3))
    return found


def gaps(found: list[Crossing], max_iterations: int) -> list[dict[str, Any]]:
    """How many dB more (positive) or less than the project's decoder each other one needs."""
    ours = {
        crossing.at.code(): crossing.snr_db
        for crossing in found
        if crossing.decoder == PROJECT and crossing.max_iterations == max_iterations
    }
    return [
        {
            "decoder": crossing.decoder,
            "max_iterations": crossing.max_iterations,
            "rate": str(crossing.at.rate),
            "info_bits": crossing.at.info_bits,
            "gap_db": crossing.snr_db - ours[crossing.at.code()],
        }
        for crossing in found
        if (crossing.decoder, crossing.max_iterations) != (PROJECT, max_iterations)
    ]
