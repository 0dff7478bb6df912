"""SampleLoss: a stretch is gone, tags move up, and the two times say how much."""

from __future__ import annotations

import numpy as np
import pmt
import pytest
from gnuradio import blocks as gr_blocks
from gnuradio import gr

from blocks.rx_time import RxClock
from blocks.sample_loss import SampleLoss
from blocks.time_tags import pmt_to_time

SAMPLES = (np.arange(20_000) + 0j).astype(np.complex64)


def run(first: int, count: int, items: int) -> tuple[np.ndarray, list[gr.tag_t]]:
    tags = []
    for offset in (0, 4999, 5000, 6999, 7000, 19_999):
        tag = gr.tag_t()
        tag.offset, tag.key, tag.value = offset, pmt.intern("place"), pmt.from_long(offset)
        tags.append(tag)
    source = gr_blocks.vector_source_c(SAMPLES.tolist(), False, 1, tags)
    loss, sink = SampleLoss(1e6, first, count), gr_blocks.vector_sink_c()
    top = gr.top_block()
    top.connect(source, loss, sink)
    top.run(items)
    return np.array(sink.data()), list(sink.tags())


@pytest.mark.parametrize("items", [7, 1000, 100_000])
@pytest.mark.parametrize(("first", "count"), [(5000, 2000), (0, 100), (19_000, 10**6), (10**9, 1)])
def test_loss(first: int, count: int, items: int) -> None:
    got, tags = run(first, count, items)
    kept = np.concatenate([SAMPLES[:first], SAMPLES[first + count :]])
    assert np.array_equal(got, kept)
    places = {int(tag.offset): pmt.to_long(tag.value) for tag in tags if str(tag.key) == "place"}
    wanted = [0, 4999, 5000, 6999, 7000, 19_999]
    assert list(places.values()) == [place for place in wanted if place in kept]
    assert all(kept[offset] == place for offset, place in places.items())
    times = [
        (int(tag.offset), *pmt_to_time(tag.value)) for tag in tags if str(tag.key) == "rx_time"
    ]
    clock = RxClock(1e6)
    losses = [clock.gap(*time) for time in times]
    behind = 0 < first < SAMPLES.size and first + count < SAMPLES.size
    assert losses == ([None, count] if behind else [None])
