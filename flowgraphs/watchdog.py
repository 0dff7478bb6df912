"""Watchdog: a radio that falls silent is an error, not a quiet evening."""

from __future__ import annotations

import time
from collections.abc import Callable

from flowgraphs.radio_settings import RadioError


class Watchdog:
    """Watches a count of samples that has to grow.

    Args:
        limit_s: how long it may stand still.
        clock: in seconds.
    """

    def __init__(self, limit_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit_s = limit_s
        self._clock = clock
        self._count = -1
        self._since_s = clock()

    def silent_s(self, count: int) -> float:
        """Tell it the count; returns for how long that has been the same.

        Its own gaps do not count: who asks rarely learns less, but is never told of a silence that may
        not have been one.
        """
        now_s = self._clock()
        if count != self._count:
            self._count, self._since_s = count, now_s
        return now_s - self._since_s

    def check(self, count: int) -> RadioError | None:
        """The error to stop with, once the count has stood still for too long."""
        silent_s = self.silent_s(count)
        if silent_s < self._limit_s:
            return None
        if count == 0:
            what = "no samples came from the radio"
        else:
            what = f"the radio went silent after {count} samples"
        return RadioError(
            f"{what}: waited {silent_s:.1f} s (radio.silence_s). Check power and cable; of a USRP also "
            "that the clock_source asked for is connected and that nobody else uses it"
        )
