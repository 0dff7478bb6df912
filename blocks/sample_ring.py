"""A bounded queue of samples between the scheduler's thread and a worker's. No GNU Radio."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Gap:
    """Samples that are missing at this place of the stream; 0 where nobody knows how many."""

    samples: int


class SampleRing:
    """One writer, one reader, a fixed block of memory.

    Args:
        capacity: samples held at most.
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"capacity: expected at least 1 sample, got {capacity}")
        self._data = np.empty(capacity, np.complex64)
        self._read = 0
        self._written = 0
        # (position, length) of each gap, by count of samples written before it
        self._gaps: deque[tuple[int, int]] = deque()
        self._ended = False
        self._abandoned = False
        self._changed = threading.Condition()

    @property
    def finished(self) -> bool:
        """True once nothing follows and everything has been read."""
        with self._changed:
            return self._ended and self._read == self._written and not self._gaps

    def write(self, samples: NDArray[np.complex64], timeout_s: float) -> int:
        """Write what fits, waiting up to ``timeout_s`` for some room; returns the count written."""
        with self._changed:
            self._changed.wait_for(self._has_room, timeout_s)
            return self._store(samples[: self._room()])

    def write_or_drop(self, samples: NDArray[np.complex64]) -> int:
        """Write what fits and drop the rest; returns the count dropped, which the reader sees as a gap."""
        with self._changed:
            dropped = samples.size - self._store(samples[: self._room()])
            if dropped:
                self._add_gap(dropped)
            return dropped

    def mark_gap(self, samples: int) -> None:
        """Samples were lost before they got here; 0 where nobody knows how many."""
        with self._changed:
            self._add_gap(samples)

    def end(self) -> None:
        """Nothing follows."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def abandon(self) -> int:
        """The reader is gone: what waits is thrown away, writers find no room and need not wait for it.

        Returns the count of samples thrown away.
        """
        with self._changed:
            waiting = self._written - self._read
            self._read = self._written
            self._gaps.clear()
            self._abandoned = True
            self._changed.notify_all()
            return waiting

    def reopen(self) -> None:
        """There is a reader again, and the writer goes on after an end; what waits stays."""
        with self._changed:
            self._ended = False
            self._abandoned = False

    def read(self, most: int, timeout_s: float) -> NDArray[np.complex64] | Gap | None:
        """Next samples (a copy, up to ``most``) or the gap that comes first; None after ``timeout_s``."""
        with self._changed:
            self._changed.wait_for(self._has_news, timeout_s)
            if self._gaps and self._gaps[0][0] == self._read:
                return Gap(self._gaps.popleft()[1])
            end = self._gaps[0][0] if self._gaps else self._written
            count = min(most, end - self._read)
            if count == 0:
                return None
            start = self._read % self._data.size
            first = self._data[start : start + count]
            piece = np.concatenate([first, self._data[: count - first.size]])
            self._read += count
            self._changed.notify_all()
            return piece

    def _add_gap(self, samples: int) -> None:
        if self._gaps and self._gaps[-1][0] == self._written:
            samples += self._gaps.pop()[1]
        self._gaps.append((self._written, samples))
        self._changed.notify_all()

    def _has_room(self) -> bool:
        return self._room() > 0 or self._abandoned

    def _has_news(self) -> bool:
        return self._written > self._read or bool(self._gaps) or self._ended

    def _room(self) -> int:
        if self._abandoned:
            return 0
        return self._data.size - (self._written - self._read)

    def _store(self, samples: NDArray[np.complex64]) -> int:
        start = self._written % self._data.size
        head = min(samples.size, self._data.size - start)
        self._data[start : start + head] = samples[:head]
        self._data[: samples.size - head] = samples[head:]
        self._written += samples.size
        if samples.size:
            self._changed.notify_all()
        return int(samples.size)
