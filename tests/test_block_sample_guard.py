"""SampleGuard: bad samples become silence and are counted, all others pass to the last bit."""

from __future__ import annotations

import numpy as np
from gnuradio import blocks as gr_blocks
from gnuradio import gr

from blocks.modem.sample_guard import HIGHEST_LEVEL, blank_bad_samples
from blocks.sample_guard import SampleGuard
from semantic.link_statistics import LinkStatistics

BAD = (np.nan, complex(0, np.nan), np.inf, complex(1, -np.inf), 1e30, complex(0, -1e30))


def test_bad_samples_become_silence_and_are_counted() -> None:
    generator = np.random.default_rng(1)
    samples = (generator.normal(size=10_000) * 1e3 + 1j * HIGHEST_LEVEL).astype(np.complex64)
    places = generator.choice(samples.size, len(BAD), replace=False)
    expected = samples.copy()
    expected[places] = 0
    samples[places] = BAD
    statistics = LinkStatistics()
    guard, sink = SampleGuard(statistics), gr_blocks.vector_sink_c()
    top = gr.top_block()
    top.connect(gr_blocks.vector_source_c(samples.tolist()), guard, sink)
    top.run()
    np.testing.assert_array_equal(np.array(sink.data(), np.complex64), expected)
    assert statistics.samples_blanked == statistics.to_json()["samples_blanked"] == len(BAD)


def test_nothing_bad_changes_nothing() -> None:
    samples = np.full(100, complex(-HIGHEST_LEVEL, HIGHEST_LEVEL), np.complex64)
    before = samples.copy()
    assert blank_bad_samples(samples) == 0
    np.testing.assert_array_equal(samples, before)
