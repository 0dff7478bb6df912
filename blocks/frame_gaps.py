"""Which pictures never came, by the gaps in their numbers. No GNU Radio, no sockets."""

from __future__ import annotations

from semantic.index_frame import MAX_FRAME_ID

# A jump further than this, either way, is another run of a sender and no gap.
_LONGEST_GAP = 10_000


class FrameGaps:
    """Counts the numbers that were left out, of every stream by itself.

    Senders number their pictures consecutively (modulo 2**32), from anywhere. What comes late after all is no
    longer missing. What was sent before the first, or after the last that came, nobody here knows of.
    """

    def __init__(self) -> None:
        self._highest: dict[int, int] = {}
        self._missing: dict[int, set[int]] = {}
        self._settled = 0

    @property
    def missing(self) -> int:
        """Pictures so far."""
        return self._settled + sum(map(len, self._missing.values()))

    def note(self, stream: int, frame_id: int) -> None:
        """A picture has been heard of, whole or not."""
        missing = self._missing.setdefault(stream, set())
        highest = self._highest.get(stream)
        ahead = 0 if highest is None else (frame_id - highest) & MAX_FRAME_ID
        if highest is None or _LONGEST_GAP < ahead < MAX_FRAME_ID - _LONGEST_GAP:
            self._settled += len(missing)
            missing.clear()
            self._highest[stream] = frame_id
        elif ahead <= _LONGEST_GAP:
            missing.update((highest + k) & MAX_FRAME_ID for k in range(1, ahead))
            self._highest[stream] = frame_id
        else:
            missing.discard(frame_id)
