"""SampleGuard: no NaN, infinity or absurd level reaches the blocks behind it.

GNU Radio's DC blocker keeps running sums: one bad sample and nothing would be received for the rest of the
stream. The block stands before it; without a DC blocker what filters make of a bad sample is short, and the
burst finder blanks it.
"""

from __future__ import annotations

import numpy as np
from gnuradio import gr
from numpy.typing import NDArray

from blocks.modem.sample_guard import blank_bad_samples
from semantic.link_statistics import LinkStatistics


class SampleGuard(gr.sync_block):
    """Complex samples in and out; bad ones become zero.

    Args:
        statistics: where they are counted, as ``samples_blanked``.
    """

    def __init__(self, statistics: LinkStatistics) -> None:
        gr.sync_block.__init__(
            self, name="SampleGuard", in_sig=[np.complex64], out_sig=[np.complex64]
        )
        self.statistics = statistics

    def work(
        self, inputs: list[NDArray[np.complex64]], outputs: list[NDArray[np.complex64]]
    ) -> int:
        """Copy, and blank what is bad."""
        out = outputs[0]
        out[:] = inputs[0][: out.size]
        self.statistics.count_blanked(blank_bad_samples(out))
        return int(out.size)
