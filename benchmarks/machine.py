"""Where a figure was measured and how far it spread."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Spread:
    """Repeated measurements of one figure: their median with the smallest and the largest.

    ``seconds`` is how long all the runs took.
    """

    median: float
    minimum: float
    maximum: float
    runs: int
    seconds: float


def repeat(work: Callable[[], object], amount: float, seconds: float, runs: int = 3) -> Spread:
    """Amount per second of wall time that ``work`` gets through.

    Args:
        work: what is timed; called once uncounted first, to compile and warm up.
        amount: what one call gets through, in any unit.
        seconds: go on for at least so long.
        runs: and for at least so many calls.
    """
    work()
    times_s: list[float] = []
    end = time.monotonic() + seconds
    while len(times_s) < runs or time.monotonic() < end:
        started = time.perf_counter()
        work()
        times_s.append(time.perf_counter() - started)
    rates = [amount / time_s for time_s in times_s]
    return Spread(statistics.median(rates), min(rates), max(rates), len(rates), sum(times_s))


def machine() -> dict[str, Any]:
    """The processor by name, the cores this process may use, the load, the versions that matter."""
    import numba
    import numpy as np

    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load_average": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "numba": numba.__version__,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if "model name" in line), "unknown")
