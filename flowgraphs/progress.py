"""Waiting for a flowgraph that works as fast as it can, and noticing where it has stopped working."""

from __future__ import annotations

import time
from collections.abc import Callable

_POLL_S = 0.01
# A run that makes no progress for this long has lost one of its threads.
STALL_S = 30.0


class LinkError(RuntimeError):
    """A flowgraph stopped working (a fault in the program, not on the channel)."""


def wait_for(
    done: Callable[[], bool], progress: Callable[[], object], check: Callable[[], None]
) -> None:
    """Wait until something is done.

    Args:
        done: True when it is.
        progress: changes its value as long as there is progress.
        check: raises where something has failed.

    Raises:
        LinkError: no progress for :data:`STALL_S`.
    """
    last, since = progress(), time.monotonic()
    while not done():
        check()
        now = progress()
        if now != last:
            last, since = now, time.monotonic()
        elif time.monotonic() - since > STALL_S:
            raise LinkError(f"the flowgraph stands still since {STALL_S:.0f} s")
        time.sleep(_POLL_S)
