"""PieceSource: everything comes out once, tags where they belong, the end is marked."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pmt
import pytest
from gnuradio import blocks as gr_blocks
from gnuradio import gr
from numpy.typing import NDArray

from blocks.burst_messages import END_MESSAGE, from_pdu
from blocks.burst_modulator import END_TAG
from blocks.burst_receiver import BurstReceiver
from blocks.piece_source import PieceSource, Tag
from flowgraphs.front_end import FrontEnd
from tests.link_parts import Collector
from tests.recordings import burst_samples

SAMPLES = (np.arange(1, 20_001) + 0j).astype(np.complex64)


def run(
    pieces: list[NDArray[np.complex64]], tags: list[Tag] = (), items: int = 100_000
) -> tuple[PieceSource, NDArray[np.complex64], dict[str, list[int]]]:
    """The block's first 50,000 samples, and the offsets of the tags by name."""
    source = PieceSource(pieces, tags)
    sink = gr_blocks.vector_sink_c()
    top = gr.top_block()
    top.connect(source, gr_blocks.head(gr.sizeof_gr_complex, 50_000), sink)
    top.run(items)
    found: dict[str, list[int]] = {}
    for tag in sink.tags():
        found.setdefault(pmt.symbol_to_string(tag.key), []).append(int(tag.offset))
    return source, np.array(sink.data(), np.complex64), found


@pytest.mark.parametrize("items", [1, 100, 100_000])
@pytest.mark.parametrize("cuts", [[], [1, 2, 3], [0, 5000, 5000, 19_999]])
def test_pieces_in_order_then_silence(items: int, cuts: list[int]) -> None:
    tags = [(0, "a", pmt.PMT_T), (4999, "b", pmt.PMT_T), (5000, "a", pmt.PMT_T)]
    pieces = np.split(SAMPLES, cuts)
    source, got, found = run(pieces, tags, items)
    assert np.array_equal(got[:20_000], SAMPLES)
    assert not got[20_000:].any()
    assert found == {"a": [0, 5000], "b": [4999], END_TAG: [20_000]}
    assert source.failure is None


def test_nothing_at_all_ends_at_once() -> None:
    _, got, found = run([])
    assert not got.any()
    assert found == {END_TAG: [0]}


def test_pieces_that_fail_end_the_stream_and_say_why() -> None:
    def pieces() -> Iterator[NDArray[np.complex64]]:
        yield SAMPLES[:100]
        raise OSError("the disk is gone")

    source, got, found = run(pieces())  # type: ignore[arg-type]
    assert np.array_equal(got[:100], SAMPLES[:100])
    assert found == {END_TAG: [100]}
    assert str(source.failure) == "the disk is gone"


@pytest.mark.parametrize("tail", [0, 5, 3000])
def test_every_burst_is_heard_of(tail: int) -> None:
    """The stream ends with the last sample of its last burst, or a little later."""
    samples = burst_samples(5, tail=tail)
    source, front_end = PieceSource([samples]), FrontEnd(4)
    receiver, heard = BurstReceiver(1e6, when_full="block"), Collector()
    top = gr.top_block()
    top.connect(source, front_end, receiver)
    top.msg_connect(receiver, "bursts", heard, "in")
    top.start()
    messages = []
    try:
        while not pmt.equal(message := heard.get(), END_MESSAGE):
            messages.append(from_pdu(message))
    finally:
        top.stop()
        top.wait()
    assert [message.header.frame_id for message in messages] == list(range(5))
    assert all(message.ok.all() for message in messages)
    # What the recording holds, and nothing of the silence behind it.
    assert receiver.statistics.samples == (samples.size + 1) // 2
