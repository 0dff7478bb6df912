"""Messages of the virtual air: there and back, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.air_messages import (
    MAX_CHUNK_SAMPLES,
    TOPIC_READY,
    TOPIC_SAMPLES,
    Ready,
    pack_chunk,
    pack_ready,
    parse_chunk,
    parse_ready,
)
from blocks.zmq_messages import MessageError, MessageWriter

SAMPLES = (np.arange(10) + 1j).astype(np.complex64)


def chunk(**changes: Any) -> list[bytes]:
    values: dict[str, Any] = {
        "position": 70, "sample_rate_hz": 4e6, "burst_samples": 30, "left": 20, **changes,
    }  # fmt: skip
    return pack_chunk(MessageWriter(), SAMPLES, **values)


def changed(parts: list[bytes], **values: Any) -> list[bytes]:
    header = json.loads(parts[1])
    header.update(values)
    return [parts[0], json.dumps(header).encode(), parts[2]]


def test_a_chunk_there_and_back() -> None:
    writer = MessageWriter()
    for number in range(2):
        parts = pack_chunk(
            writer, SAMPLES, position=70, sample_rate_hz=4e6, burst_samples=30, left=20
        )
        back = parse_chunk(parts)
        assert (back.session, back.number) == (writer.sender, number)
        assert (back.position, back.sample_rate_hz) == (70, 4e6)
        assert (back.burst_samples, back.left) == (30, 20)
        assert back.samples.dtype == np.complex64
        assert np.array_equal(back.samples, SAMPLES)


def test_the_payload_is_little_endian_pairs_of_floats() -> None:
    assert chunk()[2][:16] == np.array([0, 1, 1, 1], "<f4").tobytes()


def test_ready_there_and_back() -> None:
    assert parse_ready(pack_ready(MessageWriter(), Ready("abc", 7))) == Ready("abc", 7)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("position", -1), ("position", 1.0), ("position", True), ("position", 1 << 63),
        ("left", None), ("burst_samples", "3"), ("sample_rate_hz", 0), ("sample_rate_hz", "4e6"),
        ("sample_rate_hz", -4e6), ("sample_rate_hz", 1e300), ("seq", -1),
    ],
)  # fmt: skip
def test_headers_that_cannot_be(key: str, value: Any) -> None:
    with pytest.raises(MessageError, match=key):
        parse_chunk(changed(chunk(), **{key: value}))


@pytest.mark.parametrize(
    "payload",
    [
        b"", b"1234567", bytes(8 * (MAX_CHUNK_SAMPLES + 1)),
        np.array([1, np.nan], "<f4").tobytes(), np.array([np.inf, 0], "<f4").tobytes(),
    ],
)  # fmt: skip
def test_payloads_that_cannot_be(payload: bytes) -> None:
    with pytest.raises(MessageError, match=r"payload|finite"):
        parse_chunk([*chunk()[:2], payload])


def test_one_is_not_taken_for_the_other() -> None:
    ready = pack_ready(MessageWriter(), Ready("", 0))
    with pytest.raises(MessageError, match="topic"):
        parse_chunk(ready)
    with pytest.raises(MessageError, match="topic"):
        parse_ready(chunk())
    with pytest.raises(MessageError, match="payload"):
        parse_ready([*ready[:2], b"x"])
    with pytest.raises(MessageError, match="session"):
        parse_ready(changed(ready, session=None))


@given(
    st.sampled_from([TOPIC_SAMPLES, TOPIC_READY]),
    st.dictionaries(
        st.sampled_from(["position", "left", "seq", "session", "wanted", "sample_rate_hz"]),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    ),
    st.binary(max_size=40),
)
def test_anything_else_is_one_named_error(
    topic: bytes, header: dict[str, Any], payload: bytes
) -> None:
    parts = [topic, json.dumps(header).encode(), payload]
    with pytest.raises(MessageError):
        parse_chunk(parts)
    try:
        parse_ready(parts)
    except MessageError:
        return
    assert set(header) >= {"session", "wanted"}
