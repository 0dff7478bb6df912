"""BurstReceiver and samples that a radio lost: told by time tags, as gr-uhd does."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pmt
import pytest
from gnuradio import gr
from numpy.typing import NDArray

from blocks.burst_messages import END_MESSAGE, from_pdu
from blocks.burst_receiver import BurstReceiver
from blocks.piece_source import PieceSource, Tag
from blocks.rx_time import RX_TIME_TAG
from blocks.time_tags import time_to_pmt
from semantic.link_statistics import BurstRecord, Fate
from tests.link_parts import Collector
from tests.test_block_burst_receiver import SYMBOL_RATE_HZ, block_mode, stream

RATE_HZ = Fraction(2 * SYMBOL_RATE_HZ)


def time_tag(offset: int, index: int) -> Tag:
    """Sample ``offset`` of the stream is number ``index`` of the radio."""
    return offset, RX_TIME_TAG, time_to_pmt(index / RATE_HZ + 100)


def receive(
    samples: NDArray[np.complex64], tags: list[Tag], most: int = 8192
) -> tuple[BurstReceiver, list[BurstRecord]]:
    """Samples up to their end, handed over ``most`` at a time."""
    receiver, ears, top = block_mode(), Collector(), gr.top_block()
    source = PieceSource([samples], tags)
    top.connect(source, receiver)
    top.msg_connect(receiver, "bursts", ears, "in")
    top.start(most)
    try:
        while not pmt.equal(message := ears.get(), END_MESSAGE):
            from_pdu(message)
    finally:
        top.stop()
        top.wait()
    return receiver, list(receiver.records)


@pytest.mark.parametrize("most", [1, 777, 8192])
def test_a_loss_within_a_burst(most: int) -> None:
    samples, _, begins = stream()
    whole, before = receive(samples, [time_tag(0, 0)])
    assert [record.fate for record in before] == [Fate.DECODED] * 4
    first = int(begins[1]) + 1600
    kept = np.concatenate([samples[:first], samples[first + 500 :]])
    tags = [time_tag(0, 0), time_tag(first, first + 500)]
    receiver, records = receive(kept, tags, most)
    fates = [record.fate for record in records]
    assert fates == [Fate.DECODED, Fate.OVERFLOW, Fate.DECODED, Fate.DECODED]
    # Positions count what was lost; the other bursts are where they were.
    assert [one.start_sample for one in records] == [one.start_sample for one in before]
    assert receiver.statistics.samples_lost == 500
    assert receiver.statistics.samples == kept.size
    assert receiver.statistics.samples_dropped == 0
    assert whole.statistics.samples_lost == 0


def test_a_long_loss_between_bursts() -> None:
    samples, _, begins = stream()
    first = int(begins[1]) - 1000
    tags = [time_tag(0, 7), time_tag(first, 7 + first + 10**9)]
    receiver, records = receive(samples, tags)
    assert [record.fate for record in records] == [Fate.DECODED] * 4
    assert receiver.statistics.samples_lost == 10**9
    assert records[1].start_sample == round(begins[1]) + 10**9


def test_time_that_goes_on_as_it_should_is_no_loss() -> None:
    samples, *_ = stream()
    tags = [time_tag(offset, offset) for offset in range(0, samples.size, 3000)]
    receiver, records = receive(samples, tags)
    assert [record.fate for record in records] == [Fate.DECODED] * 4
    assert receiver.statistics.samples_lost == 0


def test_finish_from_outside_works_off_what_is_there() -> None:
    """A recorder's end: what comes later is not heard, and everything before is reported."""
    samples, *_ = stream()
    receiver, ears, top = block_mode(), Collector(), gr.top_block()
    source = PieceSource([np.tile(samples, 20)])
    top.connect(source, receiver)
    top.msg_connect(receiver, "bursts", ears, "in")
    top.start()
    first = ears.get()
    receiver.finish()
    messages = [first]
    while not pmt.equal(message := ears.get(), END_MESSAGE):
        messages.append(message)
    top.stop()
    top.wait()
    # The end may cut a burst off before its header, of which there is nothing to hand on.
    placed = [record for record in receiver.records if record.frame_id is not None]
    assert len(messages) == len(placed) <= 80
