"""BurstTimer: says when each burst leaves the antenna.

A radio that starts to send as soon as the first samples arrive runs dry when the computer is late with
the next ones, and the burst is torn. With a time a little ahead the device collects samples first. The
times also keep bursts apart that arrive together.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pmt
from gnuradio import gr
from numpy.typing import NDArray

from blocks.burst_modulator import LENGTH_TAG

# The tag that gr-uhd's sink takes: (whole seconds, fraction).
TIME_TAG = "tx_time"


class BurstTimer(gr.sync_block):
    """Stream in, the same stream out with a ``tx_time`` tag beside every length tag.

    Args:
        sample_rate_hz: of the stream.
        lead_time_s: a burst starts this long after it got here, or when the one before it has ended.
        clock: the device's present time in seconds.
    """

    def __init__(
        self, sample_rate_hz: float, lead_time_s: float, clock: Callable[[], float]
    ) -> None:
        gr.sync_block.__init__(
            self, name="BurstTimer", in_sig=[np.complex64], out_sig=[np.complex64]
        )
        self._sample_rate_hz = sample_rate_hz
        self._lead_time_s = lead_time_s
        self._clock = clock
        self._free_from_s = -math.inf
        self._length_key = pmt.intern(LENGTH_TAG)
        self._time_key = pmt.intern(TIME_TAG)

    def work(
        self, inputs: list[NDArray[np.complex64]], outputs: list[NDArray[np.complex64]]
    ) -> int:
        """Copy, and tag the bursts that begin here."""
        samples = inputs[0]
        outputs[0][:] = samples
        first = self.nitems_read(0)
        for tag in self.get_tags_in_range(0, first, first + samples.size, self._length_key):
            start_s = max(self._clock() + self._lead_time_s, self._free_from_s)
            self._free_from_s = start_s + pmt.to_long(tag.value) / self._sample_rate_hz
            whole = math.floor(start_s)
            when = pmt.make_tuple(pmt.from_uint64(whole), pmt.from_double(start_s - whole))
            self.add_item_tag(0, tag.offset, self._time_key, when)
        return int(samples.size)
