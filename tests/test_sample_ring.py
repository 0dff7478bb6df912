"""The queue of samples: nothing lost, doubled or reordered, gaps where they belong, memory bounded."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from blocks.sample_ring import Gap, SampleRing


def counting(first: int, count: int) -> NDArray[np.complex64]:
    """Samples that carry their own number (exact in float32 up to 2^24)."""
    return np.arange(first, first + count).astype(np.complex64)


def read(ring: SampleRing, most: int) -> NDArray[np.complex64]:
    """The next samples; fails the test where there are none, or a gap."""
    piece = ring.read(most, 0)
    assert isinstance(piece, np.ndarray)
    return piece


def finished(ring: SampleRing) -> bool:
    return ring.finished


def test_in_order_round_the_end_of_the_memory() -> None:
    ring = SampleRing(10)
    assert ring.write(counting(0, 7), 0) == 7
    assert np.array_equal(read(ring, 5), counting(0, 5))
    assert ring.write(counting(7, 20), 0) == 8
    assert np.array_equal(read(ring, 100), counting(5, 10))
    assert ring.read(100, 0) is None


def test_what_is_read_is_a_copy() -> None:
    ring = SampleRing(4)
    ring.write(counting(0, 4), 0)
    piece = read(ring, 4)
    ring.write(counting(50, 4), 0)
    assert np.array_equal(piece, counting(0, 4))


@given(
    st.integers(1, 50),
    st.lists(st.tuples(st.booleans(), st.integers(1, 80)), min_size=1, max_size=60),
)
def test_dropping_writer_against_a_plain_list(capacity: int, turns: list[tuple[bool, int]]) -> None:
    """Every sample is read or counted in a gap, and each gap stands where its samples would be."""
    ring = SampleRing(capacity)
    written = expected = dropped = missing = 0
    for write, count in turns:
        if write:
            dropped += ring.write_or_drop(counting(written, count))
            written += count
            continue
        piece = ring.read(count, 0)
        if isinstance(piece, Gap):
            expected += piece.samples
            missing += piece.samples
        elif piece is not None:
            assert piece.size <= count
            assert np.array_equal(piece, counting(expected, piece.size))
            expected += piece.size
    while (piece := ring.read(7, 0)) is not None:
        if isinstance(piece, Gap):
            expected += piece.samples
            missing += piece.samples
        else:
            assert np.array_equal(piece, counting(expected, piece.size))
            expected += piece.size
    assert expected == written
    assert missing == dropped


def test_neighbouring_drops_are_one_gap() -> None:
    ring = SampleRing(3)
    assert [ring.write_or_drop(counting(0, 5)), ring.write_or_drop(counting(5, 4))] == [2, 4]
    assert np.array_equal(read(ring, 9), counting(0, 3))
    assert ring.read(9, 0) == Gap(6)
    assert ring.read(9, 0) is None


def test_reader_does_not_read_across_a_gap() -> None:
    ring = SampleRing(4)
    ring.write_or_drop(counting(0, 6))
    assert np.array_equal(read(ring, 2), counting(0, 2))
    ring.write_or_drop(counting(6, 2))
    assert np.array_equal(read(ring, 9), counting(2, 2))
    assert ring.read(9, 0) == Gap(2)
    assert np.array_equal(read(ring, 9), counting(6, 2))


def test_end() -> None:
    ring = SampleRing(4)
    ring.write(counting(0, 2), 0)
    ring.end()
    assert not finished(ring)
    ring.read(9, 0)
    assert finished(ring)
    started = time.monotonic()
    assert ring.read(9, timeout_s=30) is None  # nothing follows: no reason to wait
    assert time.monotonic() - started < 5


def test_an_open_gap_is_not_the_end() -> None:
    ring = SampleRing(2)
    ring.write_or_drop(counting(0, 5))
    ring.end()
    ring.read(2, 0)
    assert not finished(ring)
    assert ring.read(2, 0) == Gap(3)
    assert finished(ring)


def test_abandoned_ring_lets_the_writer_go() -> None:
    ring = SampleRing(2)
    ring.write(counting(0, 2), 0)
    done = threading.Event()

    def write() -> None:
        assert ring.write(counting(2, 2), timeout_s=60) == 0
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    assert not done.wait(0.05)
    ring.abandon()
    assert done.wait(10)
    writer.join(timeout=10)


def test_abandoned_ring_counts_what_it_throws_away_and_can_be_opened_again() -> None:
    ring = SampleRing(5)
    assert ring.write_or_drop(counting(0, 7)) == 2
    read(ring, 1)
    assert ring.abandon() == 4
    assert ring.write_or_drop(counting(7, 3)) == 3
    assert ring.read(9, 0) == Gap(3)
    assert ring.read(9, 0) is None
    ring.reopen()
    assert ring.write(counting(10, 9), 0) == 5
    assert np.array_equal(read(ring, 9), counting(10, 5))


def test_writing_goes_on_after_an_end() -> None:
    ring = SampleRing(4)
    ring.write(counting(0, 2), 0)
    ring.end()
    ring.reopen()
    ring.write(counting(2, 1), 0)
    assert np.array_equal(read(ring, 9), counting(0, 3))
    assert not finished(ring)


def test_two_threads_and_a_small_ring_lose_nothing() -> None:
    ring = SampleRing(997)
    total = 300_000
    received: list[NDArray[np.complex64]] = []

    def read() -> None:
        generator = np.random.default_rng(1)
        while not ring.finished:
            piece = ring.read(int(generator.integers(1, 3000)), timeout_s=1)
            assert not isinstance(piece, Gap)
            if piece is not None:
                received.append(piece)

    reader = threading.Thread(target=read)
    reader.start()
    generator = np.random.default_rng(2)
    sent = 0
    while sent < total:
        count = int(generator.integers(1, 4000))
        sent += ring.write(counting(sent, min(count, total - sent)), timeout_s=10)
    ring.end()
    reader.join(timeout=60)
    assert not reader.is_alive()
    assert np.array_equal(np.concatenate(received), counting(0, total))


def test_capacity_of_nothing() -> None:
    with pytest.raises(ValueError, match="capacity"):
        SampleRing(0)


def test_gap_that_came_from_outside_stands_in_its_place() -> None:
    ring = SampleRing(10)
    ring.write(counting(0, 4), 0)
    ring.mark_gap(30)
    ring.write(counting(34, 3), 0)
    assert np.array_equal(read(ring, 100), counting(0, 4))
    assert ring.read(100, 0) == Gap(30)
    assert np.array_equal(read(ring, 100), counting(34, 3))


def test_gap_of_unknown_length_is_a_gap() -> None:
    ring = SampleRing(10)
    ring.mark_gap(0)
    ring.end()
    assert not finished(ring)
    assert ring.read(100, 0) == Gap(0)
    assert finished(ring)


def test_gap_from_outside_and_dropped_samples_are_one() -> None:
    ring = SampleRing(2)
    assert ring.write_or_drop(counting(0, 5)) == 3
    ring.mark_gap(10)
    assert np.array_equal(read(ring, 100), counting(0, 2))
    assert ring.read(100, 0) == Gap(13)
    assert ring.read(100, 0) is None
