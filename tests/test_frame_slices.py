"""Slices of a coded picture: the header bit by bit, and what is found of a payload with holes in it."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from blocks.modem import waveform as wf
from semantic.frame.slices import (
    MAX_SIDE,
    MAX_SLICES,
    BitReader,
    BitWriter,
    SliceError,
    SliceHeader,
    cells_of,
    find_slices,
    position_order,
    positions_of,
    read_header,
    read_picture_size,
    slice_bounds,
    usual_slices,
    write_header,
)
from semantic.index_frame import MAX_PAYLOAD_BITS, IndexFrameError

ONE = SliceHeader(1, 0, 640, 480, 700, 0xBEEF, False, 0, positions_of(640, 480), 0)
MIDDLE = SliceHeader(5, 2, 321, 33, 2047, 1, True, 100, 28, 3)


def bits_of(header: SliceHeader) -> NDArray[np.uint8]:
    writer = BitWriter()
    write_header(writer, header)
    return writer.bits()


@st.composite
def headers(draw: st.DrawFn) -> SliceHeader:
    width, height = draw(st.integers(1, MAX_SIDE)), draw(st.integers(1, MAX_SIDE))
    total = positions_of(width, height)
    slices = draw(st.integers(1, min(MAX_SLICES, total)))
    number = draw(st.integers(0, slices - 1))
    first = 0 if number == 0 else draw(st.integers(number, total - slices + number))
    most = total - first - (slices - 1 - number)
    count = total - first if number == slices - 1 else draw(st.integers(1, most))
    rows, columns = cells_of(width, height)
    return SliceHeader(
        slices, number, width, height,
        gain=draw(st.integers(0, 2047)),
        check=draw(st.integers(0, 0xFFFF)),
        has_map=draw(st.booleans()),
        first=first,
        count=count,
        copied_cells=0 if slices == 1 else draw(st.integers(0, rows * columns)),
    )  # fmt: skip


def cut(total: int, slices: int, generator: np.random.Generator) -> list[tuple[int, int]]:
    """Runs of positions: first and number of each."""
    ends = np.sort(generator.choice(np.arange(1, total), slices - 1, replace=False)).tolist()
    edges = [0, *ends, total]
    return [(a, b - a) for a, b in pairwise(edges)]


def payload_of(
    slices: int, payload_bits: int, size: tuple[int, int] = (640, 480), seed: int = 0
) -> tuple[bytes, list[SliceHeader]]:
    """A payload whose slices have random bits behind their headers."""
    generator = np.random.default_rng(seed)
    bits = generator.integers(0, 2, payload_bits).astype(np.uint8)
    made = []
    runs = cut(positions_of(*size), slices, generator)
    bounds = slice_bounds(payload_bits, slices)
    for number, ((first, count), (begin, _)) in enumerate(zip(runs, bounds, strict=True)):
        header = SliceHeader(slices, number, *size, 500, number, False, first, count)
        made.append(header)
        written = bits_of(header)
        bits[begin : begin + len(written)] = written
    return np.packbits(bits).tobytes(), made


def lose(payload: bytes, lost_bits: NDArray[np.bool_]) -> tuple[bytes, NDArray[np.bool_]]:
    """As a frame has it: bytes that are lost altogether; of the others only what is known."""
    bits = np.unpackbits(np.frombuffer(payload, np.uint8)) & ~lost_bits
    return np.packbits(bits).tobytes(), lost_bits.reshape(-1, 8).all(axis=1)


# --- bits ----------------------------------------------------------------------------------------


@given(
    st.lists(st.integers(0, 40).flatmap(lambda w: st.tuples(st.integers(0, 2**w - 1), st.just(w))))
)
def test_fields_come_back(fields: list[tuple[int, int]]) -> None:
    writer = BitWriter()
    for value, width in fields:
        writer.write(value, width)
    bits = writer.bits()
    assert bits.dtype == np.uint8
    assert len(bits) == sum(width for _, width in fields)
    reader = BitReader(bits)
    assert [reader.read(width) for _, width in fields] == [value for value, _ in fields]
    with pytest.raises(SliceError, match="ends"):
        reader.read(1)


def test_most_significant_bit_first() -> None:
    writer = BitWriter()
    writer.write(5, 4)
    writer.write_bits(np.array([1, 1, 0], np.uint8))
    assert writer.bits().tolist() == [0, 1, 0, 1, 1, 1, 0]
    reader = BitReader(writer.bits())
    assert (reader.read(4), reader.take(2).tolist(), reader.rest().tolist()) == (5, [1, 1], [0])


@pytest.mark.parametrize(("value", "width"), [(-1, 4), (16, 4), (1, 0)])
def test_a_value_that_does_not_fit(value: int, width: int) -> None:
    with pytest.raises(SliceError, match="does not go into"):
        BitWriter().write(value, width)


def test_an_error_of_slices_is_one_of_frames() -> None:
    """So that the command line says it in one line, and a reader of sockets drops the frame."""
    assert issubclass(SliceError, IndexFrameError)


# --- header --------------------------------------------------------------------------------------


@given(headers(), st.lists(st.integers(0, 1), max_size=20))
def test_header_round_trip(header: SliceHeader, rest: list[int]) -> None:
    bits = bits_of(header)
    reader = BitReader(np.concatenate([bits, np.array(rest, np.uint8)]))
    assert read_header(reader) == header
    assert reader.rest().tolist() == rest
    with pytest.raises(SliceError):
        read_header(BitReader(bits[:-1]))


def test_header_of_one_slice_by_hand() -> None:
    expected = ["1", f"{639:010b}", f"{479:010b}", f"{700:011b}", "0", f"{0xBEEF:016b}"]
    assert "".join(map(str, bits_of(ONE))) == "".join(expected)


def test_header_of_several_slices_by_hand() -> None:
    expected = ["00101", "010", f"{320:010b}", f"{32:010b}", f"{2047:011b}", "1"]
    expected += [f"{100:014b}", f"{27:014b}", "1", f"{3:011b}", f"{1:016b}"]
    assert "".join(map(str, bits_of(MIDDLE))) == "".join(expected)
    expected[8:10] = ["0"]
    assert "".join(map(str, bits_of(replace(MIDDLE, copied_cells=0)))) == "".join(expected)


IMPOSSIBLE = [
    {"slices": 0},
    {"slices": -3},
    {"slices": MAX_SLICES + 1},
    {"number": 5},
    {"number": -1},
    {"first": 0},
    {"first": 324},  # ends with the picture and is not the last
    {"first": 325},
    {"first": -1},
    {"count": 0},
    {"count": -5},
    {"count": 400},
    {"copied_cells": 23},
    {"number": 0},
    {"number": 4},
]


@pytest.mark.parametrize("change", IMPOSSIBLE)
def test_a_header_that_cannot_be_is_not_written(change: dict[str, int]) -> None:
    assert positions_of(321, 33) == 352
    with pytest.raises(SliceError):
        bits_of(replace(MIDDLE, **change))


@pytest.mark.parametrize(
    "change",
    [
        {"width": 0},
        {"width": MAX_SIDE + 1},
        {"height": 0},
        {"height": MAX_SIDE + 1},
        {"gain": 2048},
        {"gain": -1},
        {"check": 1 << 16},
    ],
)
@pytest.mark.parametrize("header", [ONE, MIDDLE])
def test_a_field_out_of_range_is_not_written(header: SliceHeader, change: dict[str, int]) -> None:
    with pytest.raises(SliceError):
        bits_of(replace(header, **change))


def unchecked(**values: int) -> NDArray[np.uint8]:
    """A header of several slices as text, whatever it says."""
    v = {**asdict(MIDDLE), **values}
    extra = v["slices"].bit_length() - 1
    text = "0" * extra + f"{v['slices']:b}" + f"{v['number']:0{(v['slices'] - 1).bit_length()}b}"
    text += f"{v['width'] - 1:010b}{v['height'] - 1:010b}{v['gain']:011b}1"
    text += f"{v['first']:014b}{v['count'] - 1:014b}1{v['copied_cells']:011b}{v['check']:016b}"
    return np.array(list(map(int, text)), np.uint8)


def test_the_unchecked_writer_is_right() -> None:
    assert unchecked().tolist() == bits_of(MIDDLE).tolist()


@pytest.mark.parametrize(
    "values",
    [
        {"slices": 513},
        {"slices": 1 << 20},
        {"number": 5},
        {"number": 7},
        {"number": 0},
        {"number": 4},
        {"first": 325},
        {"first": 0},
        {"first": 324},  # ends with the picture and is not the last
        {"first": 16_383, "count": 16_384},
        {"copied_cells": 23},
        {"copied_cells": 2047},
    ],
)
def test_a_header_that_cannot_be_is_not_read(values: dict[str, int]) -> None:
    with pytest.raises(SliceError):
        read_header(BitReader(unchecked(**values)))


def test_endless_zeros_are_no_header() -> None:
    with pytest.raises(SliceError, match="too many"):
        read_header(BitReader(np.zeros(10_000, np.uint8)))


# --- where slices and positions lie --------------------------------------------------------------


@given(st.integers(0, MAX_PAYLOAD_BITS), st.integers(-2, MAX_SLICES + 2))
def test_bounds_cover_the_payload(payload_bits: int, slices: int) -> None:
    try:
        bounds = slice_bounds(payload_bits, slices)
    except SliceError:
        part = -(-payload_bits // slices) if slices > 0 else 0
        assert (
            not 1 <= slices <= min(MAX_SLICES, payload_bits) or part * (slices - 1) >= payload_bits
        )
        return
    assert len(bounds) == slices
    assert (bounds[0][0], bounds[-1][1]) == (0, payload_bits)
    assert all(a[1] == b[0] for a, b in pairwise(bounds))
    sizes = [end - begin for begin, end in bounds]
    assert sizes[:-1] == [-(-payload_bits // slices)] * (slices - 1)
    assert 1 <= sizes[-1] <= max(sizes)


@pytest.mark.parametrize("bits", [8, 8424, 8432, 25_600, 100_000, MAX_PAYLOAD_BITS - 7])
@pytest.mark.parametrize("mcs", [0, 1, 2, 4, 9])
def test_slices_are_the_code_blocks_of_the_air(bits: int, mcs: int) -> None:
    plan = wf.plan_blocks(bits, mcs)
    room = wf.max_info_bits(mcs) - wf.CODE_BLOCK_CRC_BITS
    assert usual_slices(bits, room) == plan.blocks
    if mcs > 1:
        assert usual_slices(bits) == plan.blocks
    sizes = [end - begin for begin, end in slice_bounds(bits, plan.blocks)]
    assert set(sizes[:-1]) <= {plan.payload_bits}


def test_the_order_of_positions_by_hand() -> None:
    """Two cells side by side: the left one's 16 positions, row by row, then the right one's."""
    expected = [
        *(0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27),
        *(4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31),
    ]
    assert position_order(1, 2).tolist() == expected
    assert position_order(2, 1).tolist() == list(range(32))


@pytest.mark.parametrize(
    ("width", "height"), [(1, 1), (32, 32), (33, 32), (640, 427), (1024, 1024)]
)
def test_every_position_comes_once(width: int, height: int) -> None:
    rows, columns = cells_of(width, height)
    assert 32 * columns >= width > 32 * (columns - 1)
    assert 32 * rows >= height > 32 * (rows - 1)
    order = position_order(rows, columns)
    assert np.array_equal(np.sort(order), np.arange(positions_of(width, height)))


# --- finding slices ------------------------------------------------------------------------------


@pytest.mark.parametrize("slices", [1, 2, 3, 7, 40])
def test_all_of_a_whole_payload(slices: int) -> None:
    payload, sent = payload_of(slices, 8 * 5001)
    found = find_slices(payload, np.zeros(len(payload), np.bool_))
    assert [header for header, _ in found] == sent
    bits = np.unpackbits(np.frombuffer(payload, np.uint8))
    for (header, rest), (_, end) in zip(found, slice_bounds(len(bits), slices), strict=True):
        assert np.array_equal(rest, bits[end - len(rest) : end])
        assert len(rest) == end - slice_bounds(len(bits), slices)[header.number][0] - len(
            bits_of(header)
        )


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_lost_code_blocks_cost_their_slices_and_no_other(data: st.DataObject) -> None:
    """Also where nobody says how many slices there are, and where they end within bytes."""
    slices = data.draw(st.integers(1, 24))
    size = data.draw(st.integers(slices * 12, 6000))
    try:
        bounds = slice_bounds(8 * size, slices)
    except SliceError:
        return
    if bounds[-1][1] - bounds[-1][0] < 80:
        return
    payload, sent = payload_of(slices, 8 * size, seed=data.draw(st.integers(0, 99)))
    arrived = data.draw(st.sets(st.integers(0, slices - 1)))
    lost_bits = np.ones(8 * size, np.bool_)
    for number in arrived:
        lost_bits[slice(*bounds[number])] = False
    likely = data.draw(st.sampled_from([None, slices, slices + 1, 0, -1, 600]))
    found = find_slices(*lose(payload, lost_bits), likely)
    assert [header for header, _ in found] == [sent[number] for number in sorted(arrived)]


@pytest.mark.parametrize("slices", [3, 5, 20])
def test_any_one_slice_is_enough(slices: int) -> None:
    payload, sent = payload_of(slices, 8 * 4000, (77, 1000))
    for number, bounds in enumerate(slice_bounds(8 * 4000, slices)):
        lost_bits = np.ones(8 * 4000, np.bool_)
        lost_bits[slice(*bounds)] = False
        received = lose(payload, lost_bits)
        assert [header for header, _ in find_slices(*received)] == [sent[number]]
        assert read_picture_size(*received) == (77, 1000)


def test_a_chance_match_of_another_number_is_passed_over() -> None:
    """Three slices, the first is lost; the middle of the second reads as the third of four.

    The last quarter arrived as well, and reads as nothing.
    """
    bits = 8 * 1500
    payload, sent = payload_of(3, bits)
    array = np.unpackbits(np.frombuffer(payload, np.uint8))
    trap = bits_of(SliceHeader(4, 2, 640, 480, 0, 0, False, 9, 9))
    array[bits // 2 : bits // 2 + len(trap)] = trap
    lost_bits = np.arange(bits) < bits // 3
    received = lose(np.packbits(array).tobytes(), lost_bits)
    found = find_slices(*received, likely=4)
    assert [header for header, _ in found] == sent[1:]


def test_one_damaged_slice_does_not_take_the_others_along() -> None:
    payload, sent = payload_of(6, 8 * 6000)
    data = bytearray(payload)
    data[2000:2004] = bytes(4)
    found = find_slices(bytes(data), np.zeros(6000, np.bool_))
    assert [header for header, _ in found] == [*sent[:2], *sent[3:]]


def test_the_same_slice_twice_counts_once() -> None:
    """A slice where another one belongs says its own number: it is not taken for that one."""
    payload, sent = payload_of(4, 8 * 4000)
    data = payload[:1000] + payload[:1000] + payload[2000:]
    found = find_slices(data, np.zeros(4000, np.bool_))
    assert [header for header, _ in found] == [sent[0], *sent[2:]]


@pytest.mark.parametrize("change", [{"width": 641}, {"first": 700}])
def test_slices_of_two_pictures_are_not_mixed(change: dict[str, int]) -> None:
    size = 640, 480
    headers = [
        SliceHeader(3, 0, *size, 1, 1, False, 0, 400),
        replace(SliceHeader(3, 1, *size, 1, 1, False, 400, 400), **change),
        SliceHeader(3, 2, *size, 1, 1, False, 800, positions_of(*size) - 800),
    ]
    bits = np.zeros(3 * 400, np.uint8)
    for number, header in enumerate(headers):
        written = bits_of(header)
        bits[400 * number : 400 * number + len(written)] = written
    found = find_slices(np.packbits(bits).tobytes(), np.zeros(150, np.bool_))
    assert [header for header, _ in found] == [headers[0], headers[2]]


def test_nothing_arrived() -> None:
    payload, _ = payload_of(3, 8 * 3000)
    assert find_slices(payload, np.ones(3000, np.bool_)) == []
    assert read_picture_size(payload, np.ones(3000, np.bool_)) is None
    assert find_slices(b"", np.zeros(0, np.bool_)) == []


@pytest.mark.parametrize("count", [0, 2999, 3001])
def test_flags_that_do_not_fit(count: int) -> None:
    payload, _ = payload_of(3, 8 * 3000)
    with pytest.raises(SliceError, match="3000 bytes"):
        find_slices(payload, np.zeros(count, np.bool_))


@pytest.mark.parametrize("seed", range(60))
def test_random_bytes(seed: int) -> None:
    """Whatever comes: something plausible or nothing, and no fault."""
    generator = np.random.default_rng(seed)
    size = int(generator.integers(1, 3000))
    payload = bytearray(generator.bytes(size))
    if seed % 3 == 0:  # a good beginning, so that more is looked at
        start = np.packbits(bits_of(MIDDLE if seed % 2 else ONE)).tobytes()[:size]
        payload[: len(start)] = start
    lost = generator.random(size) < generator.choice([0.0, 0.001, 0.1])
    found = find_slices(bytes(payload), lost, int(generator.integers(-3, 600)))
    for header, rest in found:
        assert 1 <= header.width <= MAX_SIDE
        assert 1 <= header.height <= MAX_SIDE
        assert 0 <= header.first < header.first + header.count
        assert header.first + header.count <= positions_of(header.width, header.height)
        assert len(rest) < 8 * size
    numbers = [header.number for header, _ in found]
    assert numbers == sorted(set(numbers))
    size_found = read_picture_size(bytes(payload), lost)
    assert size_found is None or max(size_found) <= MAX_SIDE


@pytest.mark.parametrize("fill", ["zeros", "ones", "random"])
def test_the_longest_payload_that_is_none_is_given_up_soon(fill: str) -> None:
    size = MAX_PAYLOAD_BITS // 8
    payload = {
        "zeros": bytes(size),
        "ones": b"\xff" * size,
        "random": np.random.default_rng(3).bytes(size),
    }[fill]
    lost = np.zeros(size, np.bool_)
    lost[0] = True
    started = time.process_time()
    found = find_slices(payload, lost)
    assert time.process_time() - started < 3
    assert found == []
