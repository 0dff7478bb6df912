"""Messages between processes over real sockets, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st

from blocks.zmq_messages import (
    MAX_MESSAGE_BYTES,
    TOPIC_FRAME,
    TOPIC_PICTURE,
    AddressError,
    MessageError,
    MessageReader,
    MessageWriter,
    Refusal,
    SequenceCheck,
    SocketLimits,
    bound_address,
    open_socket,
    unpack_frame,
    unpack_header,
)
from semantic.index_frame import MAX_PAYLOAD_BITS, FrameGeometry, LayerGeometry
from tests.link_parts import ANY_PORT, random_frame, same_indices

LIMITS = SocketLimits(high_water_mark=4, send_timeout_ms=50)


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    context = zmq.Context[zmq.Socket[bytes]]()
    yield context
    context.destroy(linger=0)


def test_frame_over_a_real_socket(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    pull = open_socket(context, zmq.PULL, bind=ANY_PORT, limits=LIMITS)
    push = open_socket(context, zmq.PUSH, connect=bound_address(pull), limits=LIMITS)
    frame = random_frame(3)
    push.send_multipart(MessageWriter().pack_frame(TOPIC_FRAME, frame))
    assert pull.poll(10_000)
    back = unpack_frame(pull.recv_multipart(), TOPIC_FRAME)
    assert same_indices(back, frame)
    assert (back.frame_id, back.query) == (3, frame.query)


def test_messages_are_numbered() -> None:
    writer = MessageWriter()
    headers = [unpack_header(writer.pack(b"t", {"a": 1})) for _ in range(3)]
    assert [header["seq"] for header in headers] == [0, 1, 2]
    assert {header["sender"] for header in headers} == {writer.sender}
    assert MessageWriter().sender != writer.sender


def test_the_largest_frame_goes_through_the_size_limit(
    context: zmq.Context[zmq.Socket[bytes]],
) -> None:
    geometry = FrameGeometry("01234567", 512, 1, (LayerGeometry(MAX_PAYLOAD_BITS, 1),))
    frame = random_frame(1, geometry=geometry)
    full = type(frame)(
        1, geometry, frame.indices, None, (frame.indices[0] > 0,),
        np.ones(MAX_PAYLOAD_BITS, np.int8),
    )  # fmt: skip
    parts = MessageWriter().pack_frame(TOPIC_PICTURE, full)
    assert sum(map(len, parts)) < MAX_MESSAGE_BYTES
    pull = open_socket(context, zmq.PULL, bind=ANY_PORT, limits=LIMITS)
    push = open_socket(context, zmq.PUSH, connect=bound_address(pull), limits=LIMITS)
    push.send_multipart(parts)
    assert pull.poll(10_000)
    assert same_indices(unpack_frame(pull.recv_multipart(), TOPIC_PICTURE), full)


def test_an_oversized_message_does_not_arrive(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    """The socket refuses it before any memory is spent; a proper sender still gets through."""
    pull = open_socket(context, zmq.PULL, bind=ANY_PORT, limits=LIMITS)
    rude = open_socket(context, zmq.PUSH, connect=bound_address(pull), limits=LIMITS)
    rude.send_multipart([TOPIC_FRAME, b"{}", bytes(2 * MAX_MESSAGE_BYTES + 1)])
    push = open_socket(context, zmq.PUSH, connect=bound_address(pull), limits=LIMITS)
    push.send_multipart(MessageWriter().pack_frame(TOPIC_FRAME, random_frame(2)))
    assert pull.poll(10_000)
    assert unpack_frame(pull.recv_multipart(), TOPIC_FRAME).frame_id == 2
    assert not pull.poll(100)


def test_a_send_without_a_receiver_gives_up(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    push = open_socket(context, zmq.PUSH, bind=ANY_PORT, limits=LIMITS)
    with pytest.raises(zmq.Again):
        push.send_multipart([b"t", b"{}", b""])


def test_address_in_use(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    first = open_socket(context, zmq.PULL, bind=ANY_PORT, limits=LIMITS)
    taken = bound_address(first)
    with pytest.raises(AddressError, match=f"{taken}: address already in use"):
        open_socket(context, zmq.PULL, bind=taken, limits=LIMITS)


@pytest.mark.parametrize("address", ["tcp://", "nonsense", ""])
def test_addresses_that_cannot_be(context: zmq.Context[zmq.Socket[bytes]], address: str) -> None:
    with pytest.raises(AddressError, match="cannot open"):
        open_socket(context, zmq.PULL, bind=address, limits=LIMITS)
    with pytest.raises(AddressError, match="cannot open"):
        open_socket(context, zmq.PUSH, connect=address, limits=LIMITS)


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [b"frame"],
        [b"frame", b"{}"],
        [b"frame", b"{}", b"", b""],
        [b"other", b"{}", b""],
        [b"", b"", b""],
        [b"frame", b"", b""],
        [b"frame", b"[1]", b""],
        [b"frame", b"\x80\x04N.", b""],
        [b"frame", b"{" * 100_000, b""],
    ],
)
def test_malformed_messages(parts: list[bytes]) -> None:
    with pytest.raises(MessageError):
        unpack_frame(parts, TOPIC_FRAME)


@given(st.lists(st.binary(max_size=200), max_size=5))
@settings(max_examples=200)
def test_random_bytes_are_one_named_error(parts: list[bytes]) -> None:
    with pytest.raises(MessageError):
        unpack_frame(parts, TOPIC_FRAME)
    try:
        header = unpack_header(parts)
    except MessageError:
        return
    assert isinstance(header, dict)


@given(st.data())
@settings(max_examples=200)
def test_a_damaged_frame_is_a_frame_or_one_error(data: st.DataObject) -> None:
    topic, header, payload = MessageWriter().pack_frame(TOPIC_FRAME, random_frame(4))
    values = json.loads(header)
    key = data.draw(st.sampled_from(sorted(values)))
    values[key] = data.draw(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
        | st.lists(st.integers(), max_size=3) | st.dictionaries(st.text(max_size=3), st.none())
    )  # fmt: skip
    try:
        frame = unpack_frame([topic, json.dumps(values).encode(), payload], TOPIC_FRAME)
    except MessageError:
        return
    assert frame.geometry == random_frame(4).geometry


@pytest.mark.parametrize("header", [b"", b"1", b"{", b"\xff", b"{" * 70_000])
def test_headers_that_are_no_objects(header: bytes) -> None:
    with pytest.raises(MessageError):
        unpack_header([b"t", header, b""])


def verdicts(check: SequenceCheck, *numbers: int, sender: str = "a") -> list[Refusal | None]:
    return [check.refusal(sender, number) for number in numbers]


def test_numbers_in_order_pass_and_gaps_are_counted() -> None:
    check = SequenceCheck()
    assert verdicts(check, 5, 6, 7, 10, 300) == [None] * 5
    assert check.missed == 2 + 289  # what was before the first is not known to be missing


def test_replayed_and_late_messages_are_told_apart() -> None:
    check = SequenceCheck()
    assert verdicts(check, 0, 1, 4) == [None] * 3
    assert verdicts(check, 1, 4, 0) == [Refusal.REPLAYED] * 3
    assert verdicts(check, 3, 3) == [Refusal.OUT_OF_ORDER, Refusal.REPLAYED]
    assert verdicts(check, 5, 2) == [None, Refusal.OUT_OF_ORDER]
    # Too long ago to know.
    assert verdicts(check, 100, 36, 37) == [None, Refusal.REPLAYED, Refusal.OUT_OF_ORDER]


def test_a_restarted_sender_is_no_replay() -> None:
    check = SequenceCheck()
    assert verdicts(check, 0, 1, 2, sender="before") == [None] * 3
    assert verdicts(check, 0, 1, sender="after") == [None] * 2
    assert verdicts(check, 1, sender="before") == [Refusal.REPLAYED]


def test_senders_are_remembered_but_not_without_end() -> None:
    check = SequenceCheck()
    for number in range(3000):
        assert check.refusal(f"sender {number}", 0) is None
    assert len(check._seen) == 1024
    assert check.refusal("sender 2999", 0) is Refusal.REPLAYED


@given(st.lists(st.integers(0, 200), max_size=60))
def test_every_number_passes_once_at_most(numbers: list[int]) -> None:
    check = SequenceCheck()
    passed = [number for number in numbers if check.refusal("a", number) is None]
    assert passed == sorted(set(passed))
    highest = -1
    for number, verdict in zip(numbers, verdicts(SequenceCheck(), *numbers), strict=True):
        assert (verdict is None) == (number > highest)
        highest = max(highest, number)


class Inbox:
    """A PULL socket with a reader, and a PUSH socket that sends to it."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], max_bytes: int) -> None:
        self.pull = open_socket(
            context, zmq.PULL, bind=ANY_PORT, limits=SocketLimits(100, 50, max_bytes)
        )
        self.push = open_socket(
            context, zmq.PUSH, connect=bound_address(self.pull), limits=SocketLimits(100, 5000)
        )
        self.reader = MessageReader(max_bytes)

    def pass_on(self, parts: list[bytes]) -> Any:
        """Send a message and read it; what the reader makes of it."""
        self.push.send_multipart(parts)
        assert self.pull.poll(10_000)
        return self.reader.read(self.pull, unpack_header)


def test_what_is_dropped_is_counted_by_cause(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    inbox = Inbox(context, max_bytes=1000)
    writer = MessageWriter()
    first, second, third = (writer.pack(b"t", {"a": n}) for n in range(3))
    assert inbox.pass_on(first)["a"] == 0
    assert inbox.pass_on(third)["a"] == 2
    dropped = [
        first,
        third,
        second,
        [b"t", first[1], bytes(1000)],
        [b"t", first[1], bytes(800), bytes(800)],
        [b"", first[1], b"", b""],
        [b"x"] * 500,
        [b""] * 500,
        [b"t", b"{}", b""],
        [b"t", b"[]", b""],
    ]
    dropped += [
        [b"t", json.dumps({"sender": sender, "seq": seq}).encode(), b""]
        for sender, seq in (
            ("a", -1), ("a", 1 << 63), ("a", 1.0), ("a", True), ("a", None), ("", 0), (None, 0),
            ("a" * 65, 0), ("\n", 0), ("\u00e4", 0), (3, 0),
        )
    ]  # fmt: skip
    for parts in dropped:
        assert inbox.pass_on(parts) is None
    assert inbox.reader.to_json() == {
        "oversized": 2,
        "malformed": len(dropped) - 5,
        "replayed": 2,
        "out_of_order": 1,
    }
    assert inbox.pass_on(writer.pack(b"t", {"a": 9}))["a"] == 9


def test_a_damaged_copy_does_not_use_up_the_number(
    context: zmq.Context[zmq.Socket[bytes]],
) -> None:
    inbox = Inbox(context, MAX_MESSAGE_BYTES)
    topic, header, payload = MessageWriter().pack_frame(TOPIC_FRAME, random_frame(1))

    def read(parts: list[bytes]) -> Any:
        inbox.push.send_multipart(parts)
        assert inbox.pull.poll(10_000)
        return inbox.reader.read(inbox.pull, lambda found: unpack_frame(found, TOPIC_FRAME))

    assert read([topic, header, payload[:-1]]) is None
    assert read([topic, header, payload]).frame_id == 1
    assert read([topic, header, payload]) is None
    assert [inbox.reader.refused[cause] for cause in (Refusal.MALFORMED, Refusal.REPLAYED)] == [
        1,
        1,
    ]


def test_ipv6_within_the_machine(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    try:
        pull = open_socket(context, zmq.PULL, bind="tcp://[::1]:*", limits=LIMITS)
    except AddressError as error:
        pytest.skip(f"no IPv6 on this machine: {error}")
    push = open_socket(context, zmq.PUSH, connect=bound_address(pull), limits=LIMITS)
    push.send(b"x")
    assert pull.poll(10_000)
