"""Frames of stream codecs: byte strings of any length, as geometry, message, file and code blocks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from blocks.frame_assembler import AssembledFrame, FrameAssembler
from blocks.modem import waveform as wf
from blocks.modem.budget import air_symbols
from blocks.modem.burst import build_bursts
from blocks.modem.header import BurstHeader
from blocks.zmq_messages import (
    MAX_MESSAGE_BYTES,
    TOPIC_PICTURE,
    MessageError,
    MessageWriter,
    unpack_frame,
)
from captures.sent_frames import SentFrame, known_geometries
from cli.replay import match_pictures
from semantic.frame.slices import (
    BitWriter,
    SliceHeader,
    find_slices,
    positions_of,
    slice_bounds,
    write_header,
)
from semantic.frame_errors import count_errors
from semantic.frame_geometry import LayerGeometry, Rung
from semantic.geometries import (
    CHECKPOINT_FOLDER,
    GeometryTable,
    geometries_to_json,
    read_geometries,
    shipped_geometries,
)
from semantic.index_frame import MAX_PAYLOAD_BITS, FrameGeometry, IndexFrame, IndexFrameError
from semantic.systems import link

CODEC = "5eedf00d"
LARGEST = MAX_PAYLOAD_BITS // 8
FIXED = FrameGeometry("0123abcd", 96, 6, (LayerGeometry(144, 8), LayerGeometry(9, 8)))


def frame_of(data: bytes, frame_id: int = 1, codec_id: str = CODEC) -> IndexFrame:
    geometry = FrameGeometry.of_stream(codec_id, len(data))
    values = np.frombuffer(data, np.uint8).astype(np.uint16)
    return IndexFrame(frame_id, geometry, (values[:, None],), "is there a cat?")


def random_stream(size: int, frame_id: int = 1) -> IndexFrame:
    return frame_of(np.random.default_rng(size).bytes(size), frame_id)


def sliced(size: int, slices: int, picture: tuple[int, int] = (160, 96)) -> IndexFrame:
    """A frame with the headers of slices at their places and random bits behind them."""
    bits = np.unpackbits(np.frombuffer(np.random.default_rng(size).bytes(size), np.uint8))
    total = positions_of(*picture)
    for number, (begin, _) in enumerate(slice_bounds(8 * size, slices)):
        first, end = number * total // slices, (number + 1) * total // slices
        writer = BitWriter()
        header = SliceHeader(slices, number, *picture, 9, 9, False, first, end - first)
        write_header(writer, header)
        bits[begin : begin + len(writer.bits())] = writer.bits()
    return frame_of(np.packbits(bits).tobytes())


def same(one: IndexFrame, other: IndexFrame) -> bool:
    def equal(a: object, b: object) -> bool:
        return np.array_equal(a, b) if a is not None and b is not None else a is b  # type: ignore[arg-type]

    keys = ("frame_id", "geometry", "query")
    return (
        all(getattr(one, key) == getattr(other, key) for key in keys)
        and equal(one.indices, other.indices)
        and equal(one.erased, other.erased)
        and equal(one.bit_llrs, other.bit_llrs)
    )


# --- geometry ------------------------------------------------------------------------------------


def test_numbers_of_a_stream() -> None:
    geometry = FrameGeometry.of_stream(CODEC, 1000)
    assert geometry.is_stream
    assert not FIXED.is_stream
    assert (geometry.payload_bits, geometry.indices, geometry.codec_tag) == (8000, 1000, 0x5EED)
    assert not geometry.has_map
    assert FrameGeometry.from_json(json.loads(json.dumps(geometry.to_json()))) == geometry
    with pytest.raises(IndexFrameError, match="bits per pixel"):
        _ = geometry.bits_per_pixel


def test_shortest_and_longest() -> None:
    assert FrameGeometry.of_stream(CODEC, 1).payload_bits == 8
    assert FrameGeometry.of_stream(CODEC, LARGEST).payload_bits == MAX_PAYLOAD_BITS - 7
    for size in (0, -1, LARGEST + 1, 1 << 40):
        with pytest.raises(IndexFrameError):
            FrameGeometry.of_stream(CODEC, size)
    for wrong in (True, 3.0, "3", None):
        with pytest.raises(IndexFrameError):
            FrameGeometry.of_stream(CODEC, wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bits_per_index": 7}, "stream"),
        ({"bits_per_index": 16}, "stream"),
        ({"layers": [[10, 2]]}, "stream"),
        ({"layers": [[10, 1], [10, 1]]}, "stream"),
        ({"layers": []}, "layers"),
        ({"layers": [[0, 1]]}, "tokens"),
        ({"layers": [[-1, 1]]}, "tokens"),
        ({"layers": [[1 << 62, 1]]}, "tokens"),
        ({"layers": [[LARGEST + 1, 1]]}, "longer than"),
        ({"layers": [[10.0, 1]]}, r"layers\[0\]"),
        ({"image_size": 0}, "image_size"),
        ({"image_size": False}, "image_size"),
        ({"image_size": "null"}, "image_size"),
        ({"codec_id": None}, "codec_id"),
        ({"rung": {"grid": 1, "levels": [[1]], "payload_bits": 0}}, "stream"),
    ],
)
def test_malformed_geometry(change: dict[str, object], message: str) -> None:
    data = FrameGeometry.of_stream(CODEC, 10).to_json()
    with pytest.raises(IndexFrameError, match=message):
        FrameGeometry.from_json({**data, **change})


def test_a_stream_has_no_rung() -> None:
    with pytest.raises(IndexFrameError, match="no rung"):
        replace(FrameGeometry.of_stream(CODEC, 10), rung=Rung(1, ((1,),)))


# --- frames, messages, files ---------------------------------------------------------------------


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_message_and_file_round_trip(data: st.DataObject) -> None:
    frame = random_stream(data.draw(st.integers(1, 300)), data.draw(st.integers(0, 2**32 - 1)))
    generator = np.random.default_rng(data.draw(st.integers(0, 99)))
    if data.draw(st.booleans()):
        frame = replace(frame, erased=(generator.random(frame.indices[0].shape) < 0.3,))
    if data.draw(st.booleans()):
        llrs = generator.integers(-127, 128, frame.geometry.payload_bits).astype(np.int8)
        frame = replace(frame, bit_llrs=llrs)
    header, payload = frame.to_message()
    assert json.loads(header)["format"] == 3
    assert json.loads(header)["geometry"]["image_size"] is None
    assert same(IndexFrame.from_message(header, payload), frame)
    assert same(IndexFrame.from_bytes(frame.to_bytes()), frame)


def test_the_payload_is_the_bytes_themselves() -> None:
    frame = frame_of(b"UOISC Air")
    assert frame.to_message()[1] == b"UOISC Air"
    assert np.packbits(frame.to_bits()).tobytes() == b"UOISC Air"
    assert frame.to_bytes()[8:10] == b"\x03\x00"
    lost = np.arange(9)[:, None] == 8
    parts = replace(frame, erased=(lost,)).to_message()[1]
    assert parts == b"UOISC Air" + bytes([0, 0b1000_0000])


def test_the_longest_frame_goes_through_a_socket() -> None:
    frame = random_stream(LARGEST)
    llrs = np.zeros(frame.geometry.payload_bits, np.int8)
    erased = (np.zeros((LARGEST, 1), np.bool_),)
    parts = MessageWriter().pack_frame(TOPIC_PICTURE, replace(frame, erased=erased, bit_llrs=llrs))
    assert sum(map(len, parts)) < MAX_MESSAGE_BYTES
    assert unpack_frame(parts, TOPIC_PICTURE).geometry == frame.geometry


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "frame.uoisc"
    path.write_bytes(random_stream(LARGEST).to_bytes())
    assert same(IndexFrame.read(path), random_stream(LARGEST))
    data = random_stream(20).to_bytes()
    for position in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[position // 8] ^= 1 << position % 8
        with pytest.raises(IndexFrameError):
            IndexFrame.from_bytes(bytes(damaged))
    for size in range(len(data)):
        with pytest.raises(IndexFrameError):
            IndexFrame.from_bytes(data[:size])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 1}, "format version 1"),
        ({"format": 2}, "format version 2"),
        ({"format": 4}, "format version 4"),
        ({"format": True}, "format version"),
        ({"format": 3.0}, "format"),
        ({"levels": True}, "levels"),
        ({"erased": True}, "payload"),
        ({"bit_llrs": True}, "payload"),
        ({"geometry": FIXED.to_json()}, "format version 3"),
    ],
)
def test_hostile_message_header(change: dict[str, object], message: str) -> None:
    header, payload = random_stream(20).to_message()
    with pytest.raises(IndexFrameError, match=message):
        IndexFrame.from_message(json.dumps({**json.loads(header), **change}).encode(), payload)


@pytest.mark.parametrize("tokens", [0, -1, 19, 21, 40, LARGEST, LARGEST + 1, 1 << 60])
def test_a_length_that_is_not_there(tokens: int) -> None:
    """Refused before anything of that size is made."""
    header, payload = random_stream(20).to_message()
    values = json.loads(header)
    values["geometry"]["layers"] = [[tokens, 1]]
    parts = [TOPIC_PICTURE, json.dumps(values).encode(), payload]
    with pytest.raises(MessageError):
        unpack_frame(parts, TOPIC_PICTURE)


def test_fixed_geometries_keep_their_versions() -> None:
    array = np.zeros((4, 1), np.uint16)
    frame = IndexFrame(1, FrameGeometry(CODEC, 32, 8, (LayerGeometry(4, 1),)), (array,))
    header, payload = frame.to_message()
    assert (json.loads(header)["format"], len(payload)) == (1, 8)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_a_damaged_message_is_a_frame_or_one_error(data: st.DataObject) -> None:
    header, payload = sliced(60, 2).to_message()
    damaged = bytearray(header)
    for _ in range(data.draw(st.integers(0, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        frame = IndexFrame.from_message(
            bytes(damaged), data.draw(st.binary(max_size=70)) or payload
        )
    except IndexFrameError:
        return
    assert same(IndexFrame.from_bytes(frame.to_bytes()), frame)
    assert frame.picture_size is None or max(frame.picture_size) <= 1024


# --- size of the picture -------------------------------------------------------------------------


def test_the_size_stands_in_the_bytes() -> None:
    frame = sliced(2000, 3, (640, 427))
    assert frame.picture_size == (640, 427)
    assert frame.bits_per_pixel == 16_000 / (640 * 427)
    lost = np.zeros((2000, 1), np.bool_)
    lost[:700] = True
    assert replace(frame, erased=(lost,)).picture_size == (640, 427)
    everything = replace(frame, erased=(np.ones((2000, 1), np.bool_),))
    assert everything.picture_size is None
    assert everything.bits_per_pixel is None


def test_of_a_fixed_geometry_nobody_has_to_look() -> None:
    arrays = tuple(np.zeros((la.tokens, la.segments), np.uint16) for la in FIXED.layers)
    frame = IndexFrame(1, FIXED, arrays, erased=tuple(np.ones(a.shape, np.bool_) for a in arrays))
    assert frame.picture_size == (96, 96)
    assert frame.bits_per_pixel == FIXED.bits_per_pixel


def test_a_picture_of_another_size_is_not_the_one_that_was_sent() -> None:
    """Its quality could not be measured against the photo that was."""
    sent, other = sliced(2000, 3, (640, 427)), sliced(2000, 3, (427, 640))
    assert sent.geometry == other.geometry
    nothing = replace(sent, erased=(np.ones((2000, 1), np.bool_),))
    for frame, is_it in [(sent, True), (other, False), (nothing, True), (None, True)]:
        heard = AssembledFrame(frame, sent.frame_id, 3, 3, {})
        assert (match_pictures([SentFrame(sent)], [heard])[0].heard is heard) == is_it


# --- tables of geometries ------------------------------------------------------------------------


def test_a_stream_in_a_table_stands_for_every_whole_number_of_bytes() -> None:
    table = GeometryTable([FrameGeometry.of_stream(CODEC, 77), FIXED])
    assert table.geometries == (FrameGeometry.of_stream(CODEC, 1), FIXED)
    for size in (1, 77, 5000, LARGEST):
        assert table.find(0x5EED, 8 * size) == FrameGeometry.of_stream(CODEC, size)
    for bits in (-8, 0, 1, 7, 9, MAX_PAYLOAD_BITS, MAX_PAYLOAD_BITS + 1, 1 << 40):
        assert table.find(0x5EED, bits) is None
    assert table.find(0x0123, FIXED.payload_bits) == FIXED
    assert table.find(0x0123, 8) is None
    assert table.find(0xFFFF, 8) is None


def test_the_same_one_may_come_again() -> None:
    table = GeometryTable([FrameGeometry.of_stream(CODEC, 5), FIXED])
    before = table.geometries
    table.add(FrameGeometry.of_stream(CODEC, 6))
    table.add(FIXED)
    assert table.geometries == before


def test_what_a_header_cannot_tell_apart() -> None:
    stream = FrameGeometry.of_stream(CODEC, 5)
    fixed = replace(FIXED, codec_id="5eed0000")
    other_stream = FrameGeometry.of_stream("5eed0001", 5)
    twin = replace(FIXED, codec_id="01230000")
    for one, other in [(stream, fixed), (fixed, stream), (stream, other_stream), (FIXED, twin)]:
        table = GeometryTable([one])
        with pytest.raises(IndexFrameError, match="cannot be told apart"):
            table.add(other)
        assert table.geometries == GeometryTable([one]).geometries
        with pytest.raises(IndexFrameError, match=f"{one.codec_id} and {other.codec_id}"):
            FrameAssembler([one, other])


def test_rates_of_one_codec_are_told_apart_by_their_length() -> None:
    lower = replace(FIXED, rung=Rung(1, ((1, 1),)))
    table = GeometryTable([lower, FIXED])
    assert table.geometries == (lower, FIXED)
    assert table.find(0x0123, lower.payload_bits) == lower


def test_shipped_geometries() -> None:
    shipped = shipped_geometries()
    assert GeometryTable(shipped).geometries == shipped
    streams = [one for one in shipped if one.is_stream]
    assert streams
    for one in streams:
        assert one.payload_bits == 8
    ids = {json.loads(file.read_text())["codec_id"] for file in CHECKPOINT_FOLDER.glob("*.json")}
    assert {one.codec_id for one in shipped} == ids


def test_geometry_file(tmp_path: Path) -> None:
    file = tmp_path / "codec.json"
    file.write_text(json.dumps(geometries_to_json([FrameGeometry.of_stream(CODEC, 99)])))
    assert json.loads(file.read_text()) == {"codec_id": CODEC, "stream": True}
    assert read_geometries(file) == (FrameGeometry.of_stream(CODEC, 1),)


@pytest.mark.parametrize(
    "data",
    [
        {"stream": True},
        {"codec_id": CODEC, "stream": False},
        {"codec_id": CODEC, "stream": 1},
        {"codec_id": CODEC, "stream": True, "image_size": 160},
        {"codec_id": "5EEDF00D", "stream": True},
        {"codec_id": 7, "stream": True},
        {"codec_id": [CODEC], "stream": True},
        ["stream"],
        "stream",
    ],
)
def test_malformed_geometry_file(tmp_path: Path, data: object) -> None:
    file = tmp_path / "codec.json"
    file.write_text(json.dumps(data))
    with pytest.raises(IndexFrameError, match=r"codec\.json"):
        read_geometries(file)


def test_a_recordings_own_frames_come_before_shipped_codecs() -> None:
    shipped = next(one for one in shipped_geometries() if one.is_stream)
    twin = frame_of(b"abc", codec_id=f"{shipped.codec_id[:4]}0000")
    known = known_geometries([SentFrame(random_stream(30)), SentFrame(random_stream(40))])
    assert known[0] == FrameGeometry.of_stream(CODEC, 1)
    assert shipped in known
    assert shipped not in known_geometries([SentFrame(twin)])
    assert len(known_geometries([SentFrame(twin)])) == len(shipped_geometries())
    fixed = replace(FIXED, codec_id="5eed0000")
    arrays = tuple(np.zeros((la.tokens, la.segments), np.uint16) for la in fixed.layers)
    with pytest.raises(IndexFrameError, match="told apart"):
        known_geometries([SentFrame(random_stream(30)), SentFrame(IndexFrame(1, fixed, arrays))])


# --- on the air ----------------------------------------------------------------------------------


def send(
    assembler: FrameAssembler, frame: IndexFrame, mcs: int, lost: set[int]
) -> list[AssembledFrame]:
    """All code blocks in bursts of the transmitter's making; lost ones fail, with half their bits wrong."""
    bits = frame.to_bits()
    tag = frame.geometry.codec_tag
    bursts = build_bursts(bits, frame_id=frame.frame_id, codec_tag=tag, mcs=mcs)
    done: list[AssembledFrame] = []
    for burst in bursts:
        header = BurstHeader.from_bits(burst.header.to_bits())
        assert header is not None
        assert assembler.knows(header)
        numbers = range(header.first_block, header.first_block + header.blocks)
        ok = np.array([number not in lost for number in numbers])
        rows = blocks_of(bits, header)[numbers.start : numbers.stop]
        rows[~ok, ::2] ^= 1
        llrs = (40 - 80 * rows.astype(np.int8)).astype(np.int8)
        done += assembler.add(header, ok, rows, llrs, "decoded")
    return done


def blocks_of(bits: NDArray[np.uint8], header: BurstHeader) -> NDArray[np.uint8]:
    plan = header.plan
    padded = np.zeros(plan.blocks * plan.payload_bits, np.uint8)
    padded[: bits.size] = bits
    return padded.reshape(plan.blocks, -1)


def test_one_geometry_receives_every_length() -> None:
    assembler = FrameAssembler([FrameGeometry.of_stream(CODEC, 1), FIXED])
    for number, size in enumerate((1, 2, 477, 478, 1053, 1054, 3200, 9001)):
        frame = random_stream(size, frame_id=number)
        (picture,) = send(assembler, frame, 1, set())
        assert picture.complete
        assert picture.frame is not None
        assert same(replace(picture.frame, query=frame.query), frame)


@pytest.mark.parametrize(
    ("size", "mcs", "lost"),
    [(3200, 4, {1}), (3200, 4, {0, 3}), (3203, 4, {1}), (3203, 4, {0}), (3203, 4, {3}),
     (3203, 4, {0, 1, 3}), (2999, 1, {2, 3, 5}), (2999, 1, {6})],
)  # fmt: skip
def test_lost_code_blocks_are_erased_bytes(size: int, mcs: int, lost: set[int]) -> None:
    plan = wf.plan_blocks(8 * size, mcs)
    frame = sliced(size, plan.blocks)
    assembler = FrameAssembler([frame.geometry])
    assert send(assembler, frame, mcs, lost) == []
    (picture,) = assembler.finish()
    received = picture.frame
    assert received is not None
    assert received.geometry == frame.geometry
    assert not received.complete
    unknown = np.repeat([number in lost for number in range(plan.blocks)], plan.payload_bits)
    unknown = unknown[: 8 * size].reshape(-1, 8)
    assert received.erased is not None
    assert np.array_equal(received.erased[0][:, 0], unknown.all(axis=1))
    # Whatever is known is right, everything else reads 0.
    known_bits = (frame.to_bits().reshape(-1, 8) * ~unknown).astype(np.uint8)
    assert np.array_equal(received.to_bits(), known_bits.reshape(-1))
    # Bytes on the border of a lost block are wrong, and counted so.
    touched = int(unknown.any(axis=1).sum())
    assert count_errors(frame, received).index_errors <= touched
    assert count_errors(frame, received).index_errors >= int(unknown.all(axis=1).sum())
    # The slices beside a lost one are whole.
    data = received.indices[0].astype(np.uint8).tobytes()
    found = find_slices(data, received.erased[0][:, 0])
    assert [header.number for header, _ in found] == sorted(set(range(plan.blocks)) - lost)
    assert received.picture_size == (160, 96)


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_no_loss_goes_unnoticed(data: st.DataObject) -> None:
    """Also of blocks much shorter than a byte, which only a hostile header has."""
    size = data.draw(st.integers(1, 12))
    lost = np.array(data.draw(st.lists(st.booleans(), min_size=8 * size, max_size=8 * size)))
    frame = random_stream(size)
    back = IndexFrame.from_bits(frame.geometry, frame.to_bits(), frame_id=1, erased_bits=lost)
    assert back.complete == (not lost.any())
    assert np.array_equal(back.to_bits()[lost], np.zeros(lost.sum()))
    assert back.erased is not None
    kept = ~np.repeat(back.erased[0][:, 0], 8) & ~lost
    assert np.array_equal(back.to_bits()[kept], frame.to_bits()[kept])
    assert not back.indices[0][back.erased[0]].any()


def test_a_lost_part_of_a_byte_alone_erases_it() -> None:
    frame = frame_of(b"\xff\xff\xff\xff\xff")
    lost = np.zeros(40, np.bool_)
    lost[[3, 20]] = True
    lost[30:33] = True  # no whole byte between the ends
    back = IndexFrame.from_bits(frame.geometry, frame.to_bits(), frame_id=1, erased_bits=lost)
    assert back.indices[0][:, 0].tolist() == [0, 255, 0, 0, 0]
    lost[:] = False
    lost[4:28] = True
    back = IndexFrame.from_bits(frame.geometry, frame.to_bits(), frame_id=1, erased_bits=lost)
    assert back.erased is not None
    assert back.erased[0][:, 0].tolist() == [False, True, True, False, False]
    assert back.indices[0][:, 0].tolist() == [0xF0, 0, 0, 0x0F, 255]


@pytest.mark.parametrize("bits", [7, 9, 8001, MAX_PAYLOAD_BITS])
def test_a_burst_that_no_stream_has(bits: int) -> None:
    assembler = FrameAssembler([FrameGeometry.of_stream(CODEC, 1)])
    blocks = wf.plan_blocks(bits, 4).blocks
    header = BurstHeader(
        mcs=4, frame_id=1, burst_number=0, frame_bits=bits, first_block=0, frame_blocks=blocks,
        blocks=1, codec_tag=0x5EED,
    )  # fmt: skip
    assert not assembler.knows(header)
    size = header.plan.payload_bits
    with pytest.raises(ValueError, match="no codec with tag 5eed"):
        assembler.add(
            header, np.ones(1, np.bool_), np.zeros((1, size), np.uint8),
            np.zeros((1, size), np.int8), "decoded",
        )  # fmt: skip
    assert not assembler.waiting


def test_another_length_is_another_frame() -> None:
    """The same number and codec, another length (a restarted sender): nothing is mixed."""
    assembler = FrameAssembler([FrameGeometry.of_stream(CODEC, 1)])
    first, second = sliced(3200, 4), random_stream(2000)
    assert send(assembler, first, 4, {1}) == []
    done = send(assembler, second, 4, set())
    assert [(one.blocks, one.blocks_ok) for one in done] == [(4, 3), (2, 2)]
    frames = [one.frame for one in done]
    assert [frame.geometry for frame in frames if frame] == [first.geometry, second.geometry]
    assert frames[1] is not None
    assert same(replace(frames[1], query=second.query), second)


def test_through_the_modem() -> None:
    """Three blocks whose borders lie within bytes, at an Es/N0 at which all arrive."""
    frame = sliced(2999, 3)
    result = link.send(frame, mcs=4, snr_db=12.0, channel="awgn", seed=[1])
    assert (result.code_blocks, result.code_blocks_ok) == (3, 3)
    assert result.symbols == air_symbols(8 * 2999, 4)
    assert result.received.complete
    assert result.received.frame is not None
    assert same(replace(result.received.frame, query=frame.query), frame)
