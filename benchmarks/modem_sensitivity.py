"""Es/N0 at block error rate 1e-2 for every code rate: receiver, perfect synchronisation, theory.

A  the whole receiver under carrier offset, clock offset, delay and phase noise (blocks/modem/error_rates.py)
B  the same decoder told time, phase and noise
C  normal approximation: what the best code of that length could do

    python benchmarks/modem_sensitivity.py [--mcs 0,4,9] [--errors 30] [--seed 0]

Pilots, preamble and header cost energy too, the same for A and B: Es/N0 is that of a symbol on the air.
"""

from __future__ import annotations

import argparse
import time

from blocks.modem import waveform as wf
from blocks.modem.error_rates import Conditions, Point, snr_at_per, until_errors
from blocks.modem.ldpc_limits import normal_approximation_snr_db

PER = 1e-2
STEP_DB = 0.1
BATCH = 16


def crossing(mcs: int, sync: str, first_db: float, errors: int, seed: int) -> tuple[float, int]:
    """Es/N0 at which the curve crosses PER, and the errors counted at the two points beside it."""
    points: list[Point] = []
    snr_db = round(first_db, 1)
    while not points or points[-1].per > PER / 2:
        conditions = Conditions(mcs, snr_db, sync, seed=seed)  # type: ignore[arg-type]
        *_, point = until_errors(conditions, errors, round(errors / PER), BATCH)
        points.append(point)
        snr_db = round(snr_db + STEP_DB, 1)
    found = snr_at_per(points, PER)
    if found is None:
        raise SystemExit(f"mcs {mcs} {sync}: already below {PER} at {first_db} dB")
    beside = [p for p in points if abs(p.conditions.snr_db - found) <= STEP_DB + 1e-9]
    return found, sum(p.tally.block_errors for p in beside)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--mcs", default="1,4,8", help="code rates, e.g. 0,4,9")
    parser.add_argument("--errors", type=int, default=30, help="block errors per point")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(f"Es/N0 in dB at PER {PER:g}, largest code blocks, seed {arguments.seed}")
    print("mcs  rate      C       B       A     A-B   B-C  errors B, A  seconds")
    for mcs in map(int, arguments.mcs.split(",")):
        plan, _ = Conditions(mcs, 0.0).frame
        theory = normal_approximation_snr_db(plan.info_bits, plan.coded_bits)
        started = time.monotonic()
        ideal, errors_ideal = crossing(
            mcs, "ideal", theory + 0.25, arguments.errors, arguments.seed
        )
        full, errors_full = crossing(mcs, "full", ideal - 0.05, arguments.errors, arguments.seed)
        print(
            f"{mcs:3}  {wf.MCS_CODE_RATES[mcs]!s:5} {theory:6.2f}  {ideal:6.2f}  {full:6.2f}  "
            f"{full - ideal:5.2f} {ideal - theory:5.2f}  {errors_ideal:4}, {errors_full:4}   "
            f"{time.monotonic() - started:5.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
