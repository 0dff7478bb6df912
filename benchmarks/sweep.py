"""Error-rate points on several processes; the counts do not depend on their number."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from joblib import Parallel, delayed

from blocks.modem.error_rates import Conditions, Point, Run, Tally, run_trials, until_errors

# Bursts between two looks at the counts: a constant, for the result must not depend on the machine.
BATCH = 16

Report = Callable[[Point], None]


@contextmanager
def processes(jobs: int) -> Iterator[Run]:
    """A pool of ``jobs`` processes as what :func:`blocks.modem.error_rates.until_errors` runs."""
    if jobs == 1:
        yield run_trials
        return
    with Parallel(n_jobs=jobs) as pool:

        def run(conditions: Conditions, trials: Iterable[int]) -> Tally:
            numbers = list(trials)
            pieces = [numbers[start::jobs] for start in range(jobs)]
            parts = pool(delayed(run_trials)(conditions, piece) for piece in pieces if piece)
            return sum(parts, Tally())

        yield run


def measure(
    conditions: Conditions, errors: int, max_blocks: int, run: Run, report: Report
) -> Point:
    """One point; ``report`` hears of the counts as they grow."""
    point = Point(conditions, Tally())
    for point in until_errors(conditions, errors, max_blocks, BATCH, run):
        report(point)
    return point
