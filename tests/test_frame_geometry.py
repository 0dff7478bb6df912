"""Rungs of the rate ladder: what is sent, in which order, and what remains when code blocks are lost."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from semantic.frame_geometry import (
    MAP_PERIOD_BITS,
    FrameGeometry,
    IndexFrameError,
    LayerGeometry,
    Rung,
)
from semantic.index_frame import IndexFrame

FULL = FrameGeometry("00c0ffee", 160, 8, (LayerGeometry(16, 3), LayerGeometry(4, 2)))
# 2x2 cells: four tokens of the first layer each, one of the second.
LEVELS = ((0, 1), (1, 2), (3, 2))
MAPPED = replace(FULL, rung=Rung(2, LEVELS, 8 + 4 * 8 + 20 * 8 + 3))
UNIFORM = replace(FULL, rung=Rung(2, LEVELS[1:2]))


def pictures(seed: int) -> tuple[NDArray[np.uint16], ...]:
    generator = np.random.default_rng(seed)
    return tuple(
        generator.integers(1, 256, (la.tokens, la.segments)).astype(np.uint16) for la in FULL.layers
    )


def framed(geometry: FrameGeometry, levels: list[int] | None, seed: int = 0) -> IndexFrame:
    chosen = None if levels is None else np.array(levels, np.uint8)
    return IndexFrame.of_rate(7, geometry, pictures(seed), "what?", chosen)


def test_a_uniform_rung_sends_the_first_segments_of_every_token() -> None:
    assert UNIFORM.indices == 16 * 1 + 4 * 2
    assert UNIFORM.payload_bits == 8 * UNIFORM.indices
    assert not UNIFORM.has_map
    frame = framed(UNIFORM, None)
    whole = pictures(0)
    np.testing.assert_array_equal(frame.indices[0][:, 0], whole[0][:, 0])
    assert not frame.indices[0][:, 1:].any()
    np.testing.assert_array_equal(frame.indices[1], whole[1])
    # Layer, segment, token: by hand.
    expected = np.concatenate([whole[0][:, 0], whole[1][:, 0], whole[1][:, 1]])
    np.testing.assert_array_equal(np.packbits(frame.to_bits()), expected)


def test_the_order_with_a_map_by_hand() -> None:
    frame = framed(MAPPED, [0, 2, 0, 1])
    one, two = pictures(0)
    # Tokens of the 4x4 grid in cell 1 (right, top): 2, 3, 6, 7; in cell 3 (right, bottom): 10, 11, 14, 15.
    added = [
        one[[2, 3, 6, 7, 10, 11, 14, 15], 0],  # first segment of levels 1 and 2
        one[[2, 3, 6, 7], 1],
        one[[2, 3, 6, 7], 2],
        two[[1, 3], 1],
    ]
    expected = np.concatenate([two[:, 0], *added])
    bits = frame.to_bits()
    assert bits.shape == (MAPPED.payload_bits,)
    assert bits[:8].tolist() == [0, 0, 1, 0, 0, 0, 0, 1]  # two bits per cell
    np.testing.assert_array_equal(np.packbits(bits[8 : 8 + 8 * len(expected)]), expected)
    assert not bits[8 + 8 * len(expected) :].any()


@st.composite
def any_rung(draw: st.DrawFn) -> IndexFrame:
    cells = draw(st.sampled_from([1, 2, 4]))
    layers = (LayerGeometry((2 * cells) ** 2, 4), LayerGeometry(cells**2, 3), LayerGeometry(1, 2))
    chain = [(0, 0, 2), (0, 1, 2), (1, 1, 2), (1, 3, 2), (3, 3, 2), (4, 3, 2)]
    chosen = sorted(draw(st.sets(st.sampled_from(range(6)), min_size=1, max_size=6)))
    levels = tuple(chain[number] for number in chosen)
    bits = draw(st.integers(1, 9))
    most = replace(FrameGeometry("01234567", 160, bits, layers), rung=None)
    room = 0
    if len(levels) > 1:
        room = (
            (len(levels) - 1).bit_length() * cells**2 * 4
            + most.payload_bits
            + draw(st.integers(0, 3 * MAP_PERIOD_BITS // 2))
        )
    geometry = replace(most, rung=Rung(cells, levels, room))
    generator = np.random.default_rng(draw(st.integers(0, 99)))
    one_map = generator.integers(0, len(levels), cells**2).astype(np.uint8)
    return IndexFrame.of_rate(
        3,
        geometry,
        tuple(
            generator.integers(0, 1 << bits, (la.tokens, la.segments)).astype(np.uint16)
            for la in layers
        ),
        None,
        one_map if geometry.has_map else None,
    )


def assert_same(one: IndexFrame, other: IndexFrame) -> None:
    for a, b in zip(one.indices, other.indices, strict=True):
        np.testing.assert_array_equal(a, b)
    assert one.geometry == other.geometry
    assert (one.levels is None) == (other.levels is None)
    if one.levels is not None and other.levels is not None:
        np.testing.assert_array_equal(one.levels, other.levels)


@given(any_rung())
@settings(max_examples=80, deadline=None)
def test_bits_messages_and_files_round_trip(frame: IndexFrame) -> None:
    assert_same(IndexFrame.from_bits(frame.geometry, frame.to_bits(), frame_id=3), frame)
    assert_same(IndexFrame.from_message(*frame.to_message()), frame)
    assert_same(IndexFrame.from_bytes(frame.to_bytes()), frame)
    assert frame.complete
    assert frame.erased_fraction == 0


@given(any_rung(), st.integers(0, 1 << 16))
@settings(max_examples=80, deadline=None)
def test_what_is_not_marked_lost_is_right(frame: IndexFrame, seed: int) -> None:
    generator = np.random.default_rng(seed)
    bits = frame.to_bits()
    lost = np.zeros(len(bits), np.bool_)
    start = int(generator.integers(len(bits)))
    lost[start : start + int(generator.integers(1, len(bits) + 1))] = True
    noise = np.where(lost, generator.integers(0, 2, len(bits)), bits).astype(np.uint8)
    back = IndexFrame.from_bits(frame.geometry, noise, frame_id=3, erased_bits=lost)
    missing = back.unknown
    assert missing is not None
    for number, mask in enumerate(missing):
        known = ~mask
        assert frame.sent[number][known].all()  # nothing is invented
        np.testing.assert_array_equal(back.indices[number][known], frame.indices[number][known])
    assert 0 <= back.erased_fraction <= 1
    assert_same(IndexFrame.from_message(*back.to_message()), back)


def big() -> IndexFrame:
    """Like the embedded codec's rung of 1 bit per pixel: four copies of the map."""
    layers = (LayerGeometry(400, 10), LayerGeometry(100, 5), LayerGeometry(25, 5))
    levels = ((0, 1, 5), (2, 5, 5), (6, 5, 5), (10, 5, 5))
    geometry = FrameGeometry("00c0ffee", 160, 8, layers, Rung(10, levels, 25_600))
    generator = np.random.default_rng(1)
    indices = tuple(
        generator.integers(0, 256, (la.tokens, la.segments)).astype(np.uint16) for la in layers
    )
    return IndexFrame.of_rate(
        0, geometry, indices, None, generator.integers(1, 4, 100).astype(np.uint8)
    )


def test_any_quarter_of_the_bits_has_the_map() -> None:
    frame = big()
    bits = frame.to_bits()
    for quarter in range(4):
        lost = np.ones(len(bits), np.bool_)
        lost[6400 * quarter : 6400 * (quarter + 1)] = False
        back = IndexFrame.from_bits(frame.geometry, bits, frame_id=0, erased_bits=lost)
        assert not back.map_lost
        # Padding at the end counts for nobody, so the last quarter holds a little less.
        assert back.erased_fraction == pytest.approx(0.75, abs=0.13)


def test_without_any_map_the_poorest_level_is_left() -> None:
    frame = big()
    bits = frame.to_bits()
    lost = np.zeros(len(bits), np.bool_)
    lost[frame.geometry.map_places.reshape(-1)] = True
    back = IndexFrame.from_bits(frame.geometry, bits, frame_id=0, erased_bits=lost)
    assert back.map_lost
    assert not back.complete
    np.testing.assert_array_equal(back.indices[2], frame.indices[2])
    np.testing.assert_array_equal(back.indices[1][:, 0], frame.indices[1][:, 0])
    assert not back.indices[0].any()
    assert back.erased_fraction > 0.9
    with pytest.raises(IndexFrameError, match="map of levels was lost"):
        back.to_bits()


def test_a_map_that_asks_for_more_than_there_is_counts_as_lost() -> None:
    geometry = MAPPED
    bits = framed(geometry, [0, 2, 0, 1]).to_bits()
    bits[:8] = [1, 0, 1, 0, 1, 0, 1, 0]  # richest level everywhere: 48 indices more, room for 20
    assert IndexFrame.from_bits(geometry, bits, frame_id=0).map_lost
    bits[:8] = 1  # a level that does not exist
    assert IndexFrame.from_bits(geometry, bits, frame_id=0).map_lost


def test_llrs_find_their_indices() -> None:
    frame = framed(MAPPED, [0, 2, 0, 1])
    bits = frame.to_bits()
    llrs = np.where(bits == 1, -8, 8).astype(np.int8)
    back = IndexFrame.from_bits(MAPPED, bits, frame_id=0, bit_llrs=llrs)
    found = back.index_llrs()
    assert found is not None
    weights = 1 << np.arange(7, -1, -1)
    for array, sent, indices in zip(found, frame.sent, frame.indices, strict=True):
        assert not array[~sent].any()
        np.testing.assert_array_equal(((array < 0) @ weights)[sent], indices[sent])
        assert set(np.abs(array[sent]).ravel()) == {2.0}


@pytest.mark.parametrize(
    ("rung", "expected"),
    [
        (Rung(2, LEVELS, 30), "do not hold"),
        (Rung(2, LEVELS, 0), "payload_bits"),
        (Rung(2, LEVELS, 1 << 20), "payload_bits"),
        (Rung(2, LEVELS[::-1], 200), "does not add"),
        (Rung(2, ((0, 1), (4, 1)), 200), "0..3"),
        (Rung(2, ((0, 1, 0), (1, 1, 0)), 200), "2 numbers"),
        (Rung(3, LEVELS, 200), "no cells"),
        (Rung(0, LEVELS, 200), "rung.grid"),
        (Rung(2, (), 200), "rung.levels"),
        (Rung(2, ((0, 0),)), "nothing is sent"),
        (Rung(2, ((0, 1),), 100), "payload_bits"),
    ],
)
def test_rungs_that_do_not_fit(rung: Rung, expected: str) -> None:
    with pytest.raises(IndexFrameError, match=expected):
        replace(FULL, rung=rung)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("grid", "2"),
        ("levels", 3),
        ("levels", [[0, 1], [1]]),
        ("levels", [[0, 1], [1, 2.5]]),
        ("payload_bits", None),
    ],
)
def test_malformed_json(key: str, value: object) -> None:
    data = MAPPED.to_json()
    assert FrameGeometry.from_json(data) == MAPPED
    data["rung"][key] = value
    with pytest.raises(IndexFrameError, match="rung"):
        FrameGeometry.from_json(data)


def test_frames_that_do_not_fit_their_rung() -> None:
    frame = framed(MAPPED, [0, 2, 0, 1])
    full = pictures(0)
    with pytest.raises(IndexFrameError, match="not 0 where nothing was sent"):
        replace(frame, indices=full)
    with pytest.raises(IndexFrameError, match="room for"):
        framed(MAPPED, [2, 2, 2, 2])
    with pytest.raises(IndexFrameError, match="no map"):
        framed(UNIFORM, [0, 0, 0, 0])
    with pytest.raises(IndexFrameError, match=r"uint8 \[4\]"):
        framed(MAPPED, [0, 2])
    header, payload = frame.to_message()
    with pytest.raises(IndexFrameError, match="format version"):
        IndexFrame.from_message(header.replace(b'"format":2', b'"format":1'), payload)
