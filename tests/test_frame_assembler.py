"""Code blocks in any order, doubled, late or missing: what comes out is right or erased."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from blocks.frame_assembler import MOST_OPEN, AssembledFrame, FrameAssembler
from blocks.modem import waveform as wf
from blocks.modem.header import BurstHeader
from semantic.index_frame import IndexFrame
from tests.link_parts import GEOMETRY, random_frame, same_indices

FRAME = random_frame(5)
# 9072 bits at rate 1/5: three blocks of 3024 bits
PLAN = wf.plan_blocks(GEOMETRY.payload_bits, 0)


def header(first: int, blocks: int = 1, frame_id: int = 5, stream: int = 0) -> BurstHeader:
    return BurstHeader(
        mcs=0,
        frame_id=frame_id,
        burst_number=first,
        frame_bits=GEOMETRY.payload_bits,
        first_block=first,
        frame_blocks=PLAN.blocks,
        blocks=blocks,
        codec_tag=GEOMETRY.codec_tag,
        stream=stream,
    )


def rows(frame: IndexFrame, first: int, blocks: int) -> NDArray[np.uint8]:
    padded = np.zeros(PLAN.blocks * PLAN.payload_bits, np.uint8)
    padded[: GEOMETRY.payload_bits] = frame.to_bits()
    return padded.reshape(PLAN.blocks, -1)[first : first + blocks]


def add(
    assembler: FrameAssembler,
    frame: IndexFrame,
    first: int,
    ok: list[bool],
    stream: int = 0,
    now_s: float = 0.0,
) -> list[AssembledFrame]:
    """A burst of ``frame``; blocks that are not ok carry the complement of the right bits."""
    bits = rows(frame, first, len(ok)) ^ ~np.array(ok)[:, None]
    llrs = (40 - 80 * bits.astype(np.int8)).astype(np.int8)
    return assembler.add(
        header(first, len(ok), frame.frame_id, stream), np.array(ok), bits, llrs,
        "decoded" if all(ok) else "blocks_failed", now_s,
    )  # fmt: skip


def new() -> FrameAssembler:
    return FrameAssembler([GEOMETRY])


def test_there_are_three_blocks() -> None:
    assert (PLAN.blocks, PLAN.payload_bits) == (3, 3024)


@given(st.permutations([0, 1, 2]), st.lists(st.integers(0, 2), max_size=4))
def test_blocks_in_any_order_and_doubled(order: list[int], again: list[int]) -> None:
    assembler = new()
    done: list[AssembledFrame] = []
    for number in [order[0], *(n for n in again if n != order[2]), *order[1:]]:
        done += add(assembler, FRAME, number, [True])
    (picture,) = done
    assert picture.complete
    assert picture.frame is not None
    assert picture.frame.erased is None
    assert same_indices(picture.frame, FRAME)
    assert not assembler.waiting


def test_a_lost_block_erases_its_indices_and_no_other() -> None:
    for lost in range(3):
        assembler = new()
        for number in {0, 1, 2} - {lost}:
            assert add(assembler, FRAME, number, [True]) == []
        assert assembler.waiting
        (picture,) = assembler.finish()
        assert (picture.blocks, picture.blocks_ok, picture.complete) == (3, 2, False)
        frame = picture.frame
        assert frame is not None
        assert frame.erased is not None
        # Bits lost * 3024 .. and the indices of 6 bits that they touch, by the order on the air.
        number = np.concatenate([array.T.reshape(-1) for array in frame.erased])
        expected = np.zeros(GEOMETRY.indices, np.bool_)
        expected[lost * 504 : (lost + 1) * 504] = True
        assert np.array_equal(number, expected)
        for got, mask, sent in zip(frame.indices, frame.erased, FRAME.indices, strict=True):
            assert np.array_equal(got[~mask], sent[~mask])
            assert not got[mask].any()


def test_a_failed_block_is_erased_but_its_llrs_are_kept() -> None:
    assembler = new()
    add(assembler, FRAME, 0, [True, False, True])
    (picture,) = assembler.finish()
    assert picture.frame is not None
    assert picture.frame.bit_llrs is not None
    assert picture.frame.erased_fraction == pytest.approx(1 / 3)
    assert np.all(np.abs(picture.frame.bit_llrs) == 40)
    assert picture.bursts == {"blocks_failed": 1}


def test_a_block_without_a_burst_has_no_llrs() -> None:
    assembler = new()
    add(assembler, FRAME, 0, [True])
    (picture,) = assembler.finish()
    assert picture.frame is not None
    assert picture.frame.bit_llrs is not None
    assert not picture.frame.bit_llrs[3024:].any()


def test_a_good_copy_replaces_a_failed_one_and_never_the_other_way() -> None:
    assembler = new()
    add(assembler, FRAME, 0, [False, True])
    add(assembler, FRAME, 0, [True, False])
    (picture,) = add(assembler, FRAME, 2, [True])
    assert picture.complete
    assert picture.frame is not None
    assert same_indices(picture.frame, FRAME)


def test_nothing_but_failures_is_no_frame() -> None:
    assembler = new()
    add(assembler, FRAME, 0, [False, False, False])
    (picture,) = assembler.finish()
    assert picture.frame is None
    assert picture.blocks_ok == 0
    assert assembler.finish() == []


def test_a_sender_that_has_moved_on_closes_the_last() -> None:
    """As soon as a picture that began after it is complete, not before: bursts may alternate."""
    assembler = new()
    other = random_frame(6)
    assert add(assembler, FRAME, 0, [True]) == []
    assert add(assembler, other, 0, [True]) == []
    done = add(assembler, other, 1, [True, True])
    assert [(one.frame_id, one.blocks_ok, one.complete) for one in done] == [
        (5, 1, False),
        (6, 3, True),
    ]
    assert not assembler.waiting


def test_one_burst_can_close_two_frames() -> None:
    assembler = new()
    add(assembler, FRAME, 0, [True])
    done = add(assembler, random_frame(6), 0, [True, True, True])
    assert [(one.frame_id, one.complete) for one in done] == [(5, False), (6, True)]


def test_two_senders_taking_turns_lose_nothing() -> None:
    assembler = new()
    other = random_frame(5, seed=9)
    done = []
    for first in range(3):
        done += add(assembler, FRAME, first, [True], stream=1)
        done += add(assembler, other, first, [True], stream=2)
    assert [(one.stream, one.complete) for one in done] == [(1, True), (2, True)]
    for one, sent in zip(done, (FRAME, other), strict=True):
        assert one.frame is not None
        assert same_indices(one.frame, sent)


def test_alternating_pictures_of_one_sender_stay_open() -> None:
    assembler = new()
    other = random_frame(6)
    done = []
    for first in range(3):
        done += add(assembler, FRAME, first, [True])
        done += add(assembler, other, first, [True])
    assert [(one.frame_id, one.complete) for one in done] == [(5, True), (6, True)]


def test_no_more_than_so_many_are_open() -> None:
    assembler = new()
    done = []
    for number in range(MOST_OPEN + 2):
        done += add(assembler, random_frame(100 + number), 0, [True])
    assert [one.frame_id for one in done] == [100, 101]
    assert [one.frame_id for one in assembler.finish()] == list(range(102, 100 + MOST_OPEN + 2))


def test_overdue_frames_are_closed_by_their_own_last_burst() -> None:
    assembler = new()
    add(assembler, FRAME, 0, [True], now_s=10.0)
    add(assembler, random_frame(6), 0, [True], now_s=11.0)
    add(assembler, FRAME, 1, [True], now_s=12.0)
    assert [one.frame_id for one in assembler.overdue(11.5)] == [6]
    assert [one.frame_id for one in assembler.overdue(12.5)] == [5]


def test_blocks_that_come_too_late_or_twice_are_counted_and_open_nothing() -> None:
    assembler = new()
    add(assembler, FRAME, 0, [True, True, True])
    assert add(assembler, FRAME, 1, [True, True]) == []
    add(assembler, random_frame(6), 0, [True])
    assembler.finish()
    assert add(assembler, random_frame(6), 2, [True]) == []
    assert (assembler.blocks_repeated, assembler.blocks_late) == (2, 1)
    assert not assembler.waiting


def test_streams_are_told_apart() -> None:
    assembler = new()
    add(assembler, FRAME, 0, [True], stream=1)
    add(assembler, FRAME, 1, [True], stream=2)
    assert [(one.stream, one.blocks_ok) for one in assembler.finish()] == [(1, 1), (2, 1)]


def test_another_cut_of_the_same_frame_is_another_frame() -> None:
    """The same id with other parameters (a restarted sender): its blocks must not be mixed in."""
    assembler = new()
    add(assembler, FRAME, 0, [True])
    other = BurstHeader(
        mcs=4, frame_id=5, burst_number=0, frame_bits=GEOMETRY.payload_bits, first_block=0,
        frame_blocks=2, blocks=1, codec_tag=GEOMETRY.codec_tag,
    )  # fmt: skip
    size = other.plan.payload_bits
    assembler.add(
        other, np.ones(1, np.bool_), np.zeros((1, size), np.uint8),
        np.zeros((1, size), np.int8), "decoded",
    )  # fmt: skip
    assert [(one.blocks, one.blocks_ok) for one in assembler.finish()] == [(3, 1), (2, 1)]


@pytest.mark.parametrize("change", [{"codec_tag": 0x0124}, {"frame_bits": 9071}])
def test_unknown_codec(change: dict[str, int]) -> None:
    assembler = new()
    strange = replace(header(0), **change)
    assert assembler.knows(header(0))
    assert not assembler.knows(strange)
    size = strange.plan.payload_bits
    with pytest.raises(ValueError, match="no codec with tag"):
        assembler.add(
            strange, np.ones(1, np.bool_), np.zeros((1, size), np.uint8),
            np.zeros((1, size), np.int8), "decoded",
        )  # fmt: skip


@given(
    st.lists(
        st.tuples(
            st.integers(0, 3), st.integers(0, 2), st.lists(st.booleans(), min_size=1, max_size=3)
        ),
        max_size=30,
    )
)
@settings(max_examples=60)
def test_whatever_comes_no_wrong_index_is_passed_off_as_right(
    bursts: list[tuple[int, int, list[bool]]],
) -> None:
    frames = [random_frame(number) for number in range(4)]
    assembler = new()
    done: list[AssembledFrame] = []
    for number, first, ok in bursts:
        done += add(assembler, frames[number], first, ok[: 3 - first])
    done += assembler.finish()
    for picture in done:
        if picture.frame is None:
            continue
        sent = frames[picture.frame_id]
        erased = picture.frame.erased or tuple(np.zeros(a.shape, np.bool_) for a in sent.indices)
        for got, mask, right in zip(picture.frame.indices, erased, sent.indices, strict=True):
            assert np.array_equal(got[~mask], right[~mask])
        assert picture.complete == picture.frame.complete
