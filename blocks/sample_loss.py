"""SampleLoss: a stretch of samples gone, as in a radio's overflow. Simulation only.

As with gr-uhd nothing is put in their place: the first sample of the stream and the first one behind the
loss carry their time.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pmt
from gnuradio import gr
from numpy.typing import NDArray

from blocks.rx_time import RX_TIME_TAG
from blocks.time_tags import time_to_pmt


class SampleLoss(gr.basic_block):
    """Stream in, stream out, with some samples missing.

    Args:
        rate_hz: samples per second.
        first: number of the first sample that is lost, from 0.
        count: samples lost.
    """

    def __init__(self, rate_hz: float, first: int, count: int) -> None:
        gr.basic_block.__init__(
            self, name="SampleLoss", in_sig=[np.complex64], out_sig=[np.complex64]
        )
        # Offsets of tags change on the way.
        self.set_tag_propagation_policy(gr.TPP_DONT)
        self._rate_hz = Fraction(rate_hz)
        self._first, self._count = first, count
        self._timed: set[int] = set()

    def general_work(
        self, inputs: list[NDArray[np.complex64]], outputs: list[NDArray[np.complex64]]
    ) -> int:
        """Copy up to where the loss begins, drop, copy on."""
        samples, out = inputs[0], outputs[0]
        position = self.nitems_read(0)
        end = self._first + self._count
        if self._first <= position < end:
            self.consume(0, min(samples.size, end - position))
            return 0
        lost = self._count if position >= end else 0
        room = min(samples.size, out.size)
        if position < self._first:
            room = min(room, self._first - position)
        if room and position in (0, end) and position not in self._timed:
            self._timed.add(position)
            value = time_to_pmt(position / self._rate_hz)
            self.add_item_tag(0, position - lost, pmt.intern(RX_TIME_TAG), value)
        for tag in self.get_tags_in_range(0, position, position + room):
            self.add_item_tag(0, tag.offset - lost, tag.key, tag.value)
        out[:room] = samples[:room]
        self.consume(0, room)
        return int(room)
