"""Every burst gets a time: a lead ahead of the clock, never inside the burst before it."""

from __future__ import annotations

import numpy as np
import pmt
from gnuradio import blocks as gr_blocks
from gnuradio import gr

from blocks.burst_modulator import LENGTH_TAG
from blocks.burst_timer import TIME_TAG, BurstTimer

RATE_HZ = 1000.0
LENGTHS = [300, 700, 5000]


def run_timer(clock_times: list[float], lead_time_s: float) -> list[tuple[int, float]]:
    """Offsets and times of the tags that come out for bursts of LENGTHS."""
    offsets = np.cumsum([0, *LENGTHS[:-1]])
    tags = [
        gr.tag_utils.python_to_tag(
            {
                "offset": int(offset),
                "key": pmt.intern(LENGTH_TAG),
                "value": pmt.from_long(length),
                "srcid": pmt.PMT_F,
            }
        )
        for offset, length in zip(offsets, LENGTHS, strict=True)
    ]
    samples = np.arange(sum(LENGTHS)).astype(np.complex64)
    clock = iter(clock_times)
    source = gr_blocks.vector_source_c(samples, False, 1, tags)
    timer = BurstTimer(RATE_HZ, lead_time_s, lambda: next(clock))
    sink = gr_blocks.vector_sink_c()
    top = gr.top_block()
    top.connect(source, timer, sink)
    top.run()
    assert np.array_equal(sink.data(), samples)
    times = []
    for tag in sink.tags():
        if pmt.symbol_to_string(tag.key) == TIME_TAG:
            whole = pmt.to_uint64(pmt.tuple_ref(tag.value, 0))
            fraction = pmt.to_double(pmt.tuple_ref(tag.value, 1))
            assert 0 <= fraction < 1
            times.append((tag.offset, whole + fraction))
    lengths = [tag for tag in sink.tags() if pmt.symbol_to_string(tag.key) == LENGTH_TAG]
    assert len(lengths) == len(LENGTHS)
    return times


def test_bursts_that_come_together_follow_each_other() -> None:
    offsets, times = zip(*run_timer([10.0, 10.0, 10.0], lead_time_s=0.25), strict=True)
    assert offsets == (0, 300, 1000)
    assert np.allclose(times, [10.25, 10.55, 11.25])


def test_bursts_that_come_late_get_their_lead() -> None:
    offsets, times = zip(*run_timer([10.0, 20.5, 20.9], lead_time_s=0.25), strict=True)
    assert offsets == (0, 300, 1000)
    assert np.allclose(times, [10.25, 20.75, 21.45])
