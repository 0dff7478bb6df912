"""Index frames: every way out and back, and that nothing malformed comes in."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semantic.index_frame import (
    MAX_FRAME_ID,
    MAX_HEADER_BYTES,
    MAX_PAYLOAD_BITS,
    FrameGeometry,
    IndexFrame,
    IndexFrameError,
    LayerGeometry,
    check_query,
)

SMALL = FrameGeometry("00c0ffee", 32, 3, (LayerGeometry(4, 2), LayerGeometry(1, 3)))


@st.composite
def geometries(draw: st.DrawFn) -> FrameGeometry:
    layers = draw(
        st.lists(
            st.builds(LayerGeometry, st.integers(1, 40), st.integers(1, 6)), min_size=1, max_size=5
        )
    )
    codec_id = draw(st.text("0123456789abcdef", min_size=8, max_size=8))
    return FrameGeometry(
        codec_id, draw(st.integers(1, 4096)), draw(st.integers(1, 16)), tuple(layers)
    )


@st.composite
def frames(draw: st.DrawFn) -> IndexFrame:
    geometry = draw(geometries())
    generator = np.random.default_rng(draw(st.integers(0, 1000)))
    layers = geometry.layers
    erased = None
    if draw(st.booleans()):
        erased = tuple(generator.random((la.tokens, la.segments)) < 0.3 for la in layers)
    llrs = None
    if draw(st.booleans()):
        llrs = generator.integers(-127, 128, geometry.payload_bits).astype(np.int8)
    return IndexFrame(
        frame_id=draw(st.integers(0, MAX_FRAME_ID)),
        geometry=geometry,
        indices=tuple(
            generator.integers(0, 1 << geometry.bits_per_index, (la.tokens, la.segments)).astype(
                np.uint16
            )
            for la in layers
        ),
        query=draw(
            st.none() | st.sampled_from(["is there a cat?", "wo ist die Kätzin 🐈", "x" * 1000])
        ),
        erased=erased,
        bit_llrs=llrs,
    )


def small_frame(seed: int = 1) -> IndexFrame:
    generator = np.random.default_rng(seed)
    return IndexFrame(
        frame_id=5,
        geometry=SMALL,
        indices=tuple(
            generator.integers(0, 8, (la.tokens, la.segments)).astype(np.uint16)
            for la in SMALL.layers
        ),
        query="what is it?",
    )


def same(one: IndexFrame, other: IndexFrame) -> bool:
    def equal(a: object, b: object) -> bool:
        if a is None or b is None:
            return a is b
        assert isinstance(a, tuple)
        assert isinstance(b, tuple)
        return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))

    llrs = (one.bit_llrs is None and other.bit_llrs is None) or (
        one.bit_llrs is not None
        and other.bit_llrs is not None
        and np.array_equal(one.bit_llrs, other.bit_llrs)
    )
    return (
        (one.frame_id, one.geometry, one.query) == (other.frame_id, other.geometry, other.query)
        and equal(one.indices, other.indices)
        and equal(one.erased, other.erased)
        and llrs
    )


@given(frames())
@settings(max_examples=60)
def test_message_and_file_round_trip(frame: IndexFrame) -> None:
    assert same(IndexFrame.from_message(*frame.to_message()), frame)
    assert same(IndexFrame.from_bytes(frame.to_bytes()), frame)


@given(frames())
@settings(max_examples=60)
def test_bits_round_trip(frame: IndexFrame) -> None:
    bits = frame.to_bits()
    assert bits.shape == (frame.geometry.payload_bits,)
    back = IndexFrame.from_bits(frame.geometry, bits, frame_id=frame.frame_id, query=frame.query)
    assert same(back, replace(frame, erased=None, bit_llrs=None))


def test_order_of_the_bits_on_the_air() -> None:
    """Layer, then segment, then token, most significant bit first: written out by hand."""
    first = np.array([[1, 5], [2, 6], [3, 7], [4, 0]], np.uint16)
    second = np.array([[7, 0, 2]], np.uint16)
    frame = IndexFrame(0, SMALL, (first, second))
    expected = "001 010 011 100  101 110 111 000  111 000 010"
    assert "".join(map(str, frame.to_bits())) == expected.replace(" ", "")


def test_lost_bits_erase_exactly_the_indices_they_touch() -> None:
    frame = small_frame()
    lost = np.zeros(SMALL.payload_bits, np.bool_)
    lost[[3, 10, 11, 24]] = (
        True  # token 1 and token 3 of segment 0, then layer 1, token 0, segment 0
    )
    back = IndexFrame.from_bits(SMALL, frame.to_bits(), frame_id=5, erased_bits=lost)
    assert back.erased is not None
    assert [tuple(p) for p in np.argwhere(back.erased[0])] == [(1, 0), (3, 0)]
    assert [tuple(p) for p in np.argwhere(back.erased[1])] == [(0, 0)]
    assert not back.complete
    assert back.erased_fraction == pytest.approx(3 / 11)
    for layer in range(2):
        mask = back.erased[layer]
        assert not back.indices[layer][mask].any()
        assert np.array_equal(back.indices[layer][~mask], frame.indices[layer][~mask])


def test_complete_without_a_mask_and_with_an_empty_one() -> None:
    frame = small_frame()
    empty = tuple(np.zeros_like(array, np.bool_) for array in frame.indices)
    assert frame.complete
    assert replace(frame, erased=empty).complete
    assert replace(frame, erased=empty).erased_fraction == 0


def test_numbers_of_a_geometry() -> None:
    assert (SMALL.indices, SMALL.payload_bits, SMALL.codec_tag) == (11, 33, 0x00C0)
    assert SMALL.bits_per_pixel == 33 / 32**2
    assert FrameGeometry.from_json(SMALL.to_json()) == SMALL


def test_largest_geometry() -> None:
    FrameGeometry("01234567", 512, 1, (LayerGeometry(MAX_PAYLOAD_BITS, 1),))
    with pytest.raises(IndexFrameError, match="longer than"):
        FrameGeometry("01234567", 512, 1, (LayerGeometry(1 << 20, 1),))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"codec_id": "0123456"}, "codec_id"),
        ({"codec_id": "0123456G"}, "codec_id"),
        ({"codec_id": 12345678}, "codec_id"),
        ({"image_size": 0}, "image_size"),
        ({"image_size": 3.0}, "image_size"),
        ({"image_size": True}, "image_size"),
        ({"bits_per_index": 17}, "bits_per_index"),
        ({"layers": []}, "layers"),
        ({"layers": [[4, 2]] * 65}, "layers"),
        ({"layers": [[4]]}, r"layers\[0\]"),
        ({"layers": [[4, 0]]}, "segments"),
        ({"layers": [[4, 2.0]]}, r"layers\[0\]"),
        ({"layers": {"a": 1}}, "layers"),
        ({"layers": None}, "layers"),
    ],
)
def test_malformed_geometry(change: dict[str, object], message: str) -> None:
    with pytest.raises(IndexFrameError, match=message):
        FrameGeometry.from_json({**SMALL.to_json(), **change})


def test_geometry_that_lacks_a_key() -> None:
    for key in SMALL.to_json():
        data = SMALL.to_json()
        del data[key]
        with pytest.raises(IndexFrameError, match=key):
            FrameGeometry.from_json(data)


def test_frame_that_does_not_fit_its_geometry() -> None:
    frame = small_frame()
    with pytest.raises(IndexFrameError, match="frame_id"):
        replace(frame, frame_id=MAX_FRAME_ID + 1)
    with pytest.raises(IndexFrameError, match="not below 8"):
        replace(frame, indices=(frame.indices[0] + np.uint16(8), frame.indices[1]))
    with pytest.raises(IndexFrameError, match="2 layers"):
        replace(frame, indices=frame.indices[:1])
    with pytest.raises(IndexFrameError, match="uint16"):
        replace(frame, indices=tuple(array.astype(np.int64) for array in frame.indices))
    with pytest.raises(IndexFrameError, match="erased"):
        replace(frame, erased=frame.indices)  # type: ignore[arg-type]
    with pytest.raises(IndexFrameError, match="bit_llrs"):
        replace(frame, bit_llrs=np.zeros(32, np.int8))
    with pytest.raises(IndexFrameError, match="33 bits"):
        IndexFrame.from_bits(SMALL, np.zeros(32, np.uint8), frame_id=0)
    with pytest.raises(IndexFrameError, match="0 or 1"):
        IndexFrame.from_bits(SMALL, np.full(33, 2, np.uint8), frame_id=0)
    with pytest.raises(IndexFrameError, match="erasure flags"):
        IndexFrame.from_bits(
            SMALL, np.zeros(33, np.uint8), frame_id=0, erased_bits=np.zeros(11, np.bool_)
        )


@pytest.mark.parametrize("query", ["", "   ", "a\nb", "x" * 1001, "\ud800"])
def test_queries_that_are_refused(query: str) -> None:
    with pytest.raises(IndexFrameError, match="query"):
        check_query(query)


def test_query_is_stripped() -> None:
    assert check_query("  is it a cat? ") == "is it a cat?"


def test_every_flipped_bit_of_a_file_is_noticed() -> None:
    data = small_frame().to_bytes()
    for position in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[position // 8] ^= 1 << position % 8
        with pytest.raises(IndexFrameError):
            IndexFrame.from_bytes(bytes(damaged))


def test_every_truncation_of_a_file_is_noticed() -> None:
    data = small_frame().to_bytes()
    for size in range(len(data)):
        with pytest.raises(IndexFrameError):
            IndexFrame.from_bytes(data[:size])
    with pytest.raises(IndexFrameError, match="extended"):
        IndexFrame.from_bytes(data + b"\0")


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "frame.uoisc"
    path.write_bytes(small_frame().to_bytes())
    assert same(IndexFrame.read(path), small_frame())
    with pytest.raises(IndexFrameError, match=r"absent\.uoisc"):
        IndexFrame.read(tmp_path / "absent.uoisc")
    path.write_bytes(b"P5 32 32 255 not an index frame")
    with pytest.raises(IndexFrameError, match=r"frame\.uoisc: not an index frame"):
        IndexFrame.read(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "version 2"),
        ({"format": "1"}, "format"),
        ({"frame_id": -1}, "frame_id"),
        ({"frame_id": True}, "frame_id"),
        ({"frame_id": 1.0}, "frame_id"),
        ({"geometry": []}, "geometry"),
        ({"query": 7}, "query"),
        ({"query": ""}, "query"),
        ({"erased": 1}, "erased"),
        ({"erased": True}, "payload"),
        ({"bit_llrs": True}, "payload"),
    ],
)
def test_malformed_message_header(change: dict[str, object], message: str) -> None:
    header, payload = small_frame().to_message()
    with pytest.raises(IndexFrameError, match=message):
        IndexFrame.from_message(json.dumps({**json.loads(header), **change}).encode(), payload)


@pytest.mark.parametrize(
    "header",
    [
        b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 60_000, b"1" * 5000, b" " * (MAX_HEADER_BYTES + 1),
    ],
)  # fmt: skip
def test_headers_that_are_not_ours(header: bytes) -> None:
    with pytest.raises(IndexFrameError):
        IndexFrame.from_message(header, b"")


@given(st.data())
@settings(max_examples=300)
def test_a_damaged_message_is_a_frame_or_one_error(data: st.DataObject) -> None:
    """There is no checksum here (ZMQ has TCP's): what passes must at least be a whole valid frame."""
    header, payload = small_frame().to_message()
    damaged = bytearray(header)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.sampled_from([0, 0, 1, 7]))
    try:
        frame = IndexFrame.from_message(bytes(damaged), payload[: len(payload) - cut])
    except IndexFrameError:
        return
    assert same(IndexFrame.from_bytes(frame.to_bytes()), frame)
