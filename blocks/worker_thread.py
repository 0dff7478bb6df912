"""A thread that a block's ``start`` begins and its ``stop`` ends. No GNU Radio."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

_LOG = logging.getLogger(__name__)


class WorkerThread:
    """Runs a function in a thread of its own, as often as it is started.

    Args:
        name: of the thread, for debuggers.
        run: returns soon after :attr:`stopping` is set.

    Attributes:
        failure: what ended the function, where that was an error: whoever owns the thread has to ask, and
            to end what cannot go on without it.
    """

    def __init__(self, name: str, run: Callable[[], None]) -> None:
        self.stopping = threading.Event()
        self.failure: BaseException | None = None
        self._name = name
        self._run = run
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin; the thread must not be running."""
        self.stopping.clear()
        self._thread = threading.Thread(target=self._guarded, name=self._name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ask the function to return and wait until it has; nothing happens where none is running."""
        self.stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _guarded(self) -> None:
        try:
            self._run()
        except BaseException as error:  # noqa: BLE001 (kept, and asked for)
            self.failure = error
            # Whoever asks for the failure has its traceback.
            _LOG.error("thread %s ended: %r", self._name, error)
