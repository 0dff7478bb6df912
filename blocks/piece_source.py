"""PieceSource: arrays of samples as a stream that knows how to end.

For recordings. A source that just ends takes the blocks behind message ports down with it, before they
have got what the receiver still holds. This one puts an end mark behind its last sample and goes on with
silence; with the mark the receiver says when it has worked off everything (``END_MESSAGE``), and the
flowgraph can be stopped.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pmt
from gnuradio import gr
from numpy.typing import NDArray

from blocks.burst_modulator import END_TAG

# Silence that filters need to let the mark through; what follows it need not hurry.
_QUICK_SILENCE_SAMPLES = 131_072
_SLOW_SILENCE_SAMPLES = 4096
_IDLE_SLEEP_S = 0.01

Tag = tuple[int, str, pmt.pmt_base]


class PieceSource(gr.sync_block):
    """Stream source.

    Args:
        pieces: ``complex64 [n]`` each, taken one by one as the stream goes on.
        tags: ``(offset, key, value)`` of each tag, offsets rising.

    ``failure`` holds what ``pieces`` raised; the stream then ends there as it would have at its end.
    """

    def __init__(self, pieces: Iterable[NDArray[np.complex64]], tags: Sequence[Tag] = ()) -> None:
        gr.sync_block.__init__(self, name="PieceSource", in_sig=None, out_sig=[np.complex64])
        self.failure: Exception | None = None
        self._pieces: Iterator[NDArray[np.complex64]] = iter(pieces)
        self._piece: NDArray[np.complex64] = np.empty(0, np.complex64)
        self._tags = deque(tags)
        self._silence = 0
        self._ended = False

    def work(self, _inputs: list[object], outputs: list[NDArray[np.complex64]]) -> int:
        """Copy what is there, or give silence."""
        out = outputs[0]
        done = 0
        while done < out.size and not self._ended:
            if self._piece.size == 0 and not self._next_piece():
                self._ended = True
                self.add_item_tag(0, self.nitems_written(0) + done, pmt.intern(END_TAG), pmt.PMT_T)
                break
            count = min(out.size - done, self._piece.size)
            out[done : done + count] = self._piece[:count]
            self._piece = self._piece[count:]
            done += count
        self._add_tags(self.nitems_written(0) + done)
        return done if done else self._be_silent(out)

    def _next_piece(self) -> bool:
        while self._piece.size == 0:
            try:
                piece = next(self._pieces, None)
            except (OSError, ValueError) as error:
                self.failure = error
                return False
            if piece is None:
                return False
            self._piece = piece
        return True

    def _add_tags(self, end: int) -> None:
        while self._tags and self._tags[0][0] < end:
            offset, key, value = self._tags.popleft()
            self.add_item_tag(0, offset, pmt.intern(key), value)

    def _be_silent(self, out: NDArray[np.complex64]) -> int:
        count = int(out.size)
        if self._silence >= _QUICK_SILENCE_SAMPLES:
            time.sleep(_IDLE_SLEEP_S)
            count = min(count, _SLOW_SILENCE_SAMPLES)
        out[:count] = 0
        self._silence += count
        return count
