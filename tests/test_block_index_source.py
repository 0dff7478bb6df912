"""IndexSource in a real flowgraph with a real socket: frames in, credit kept, nonsense counted."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pmt
import pytest
import zmq
from gnuradio import gr

from blocks.index_source import PORT_SENT, IndexSource, frame_to_pdu, pdu_to_bits
from blocks.zmq_messages import (
    TOPIC_FRAME,
    AddressError,
    MessageWriter,
    SocketLimits,
    open_socket,
)
from tests.link_parts import (
    ANY_PORT,
    GEOMETRY,
    Collector,
    post,
    random_frame,
)


class Bench:
    """An IndexSource with a collector behind it, running, and a socket that feeds it."""

    def __init__(self, window: int = 2) -> None:
        self.source = IndexSource(ANY_PORT, high_water_mark=1000, window=window)
        self.collector = Collector()
        self.top = gr.top_block()
        self.top.msg_connect(self.source, "frames", self.collector, "in")
        self.context = zmq.Context[zmq.Socket[bytes]]()
        self.push = open_socket(
            self.context, zmq.DEALER, connect=self.source.address, limits=SocketLimits(1000, 5000)
        )
        self.writer = MessageWriter()
        self.top.start()

    def send(self, frame_id: int) -> None:
        self.push.send_multipart(self.writer.pack_frame(TOPIC_FRAME, random_frame(frame_id)))

    def sent(self) -> None:
        post(self.source, "sent", pmt.PMT_T)

    def close(self) -> None:
        self.top.stop()
        self.top.wait()
        self.source.close()
        self.context.destroy(linger=0)


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.close()


def test_a_frame_comes_out_as_its_bits(bench: Bench) -> None:
    bench.send(9)
    frame_id, codec_tag, _, bits = pdu_to_bits(bench.collector.get())
    assert (frame_id, codec_tag) == (9, GEOMETRY.codec_tag)
    assert np.array_equal(bits, random_frame(9).to_bits())


def test_no_more_frames_in_flight_than_the_window(bench: Bench) -> None:
    """The window bounds memory: the third frame waits until the modulator has sent one."""
    for frame_id in range(6):
        bench.send(frame_id)
    assert [pdu_to_bits(bench.collector.get())[0] for _ in range(2)] == [0, 1]
    assert bench.collector.nothing_for(0.3)
    for frame_id in range(2, 6):
        bench.sent()
        assert pdu_to_bits(bench.collector.get())[0] == frame_id
        assert bench.collector.nothing_for(0.1)
    assert bench.source.frames_accepted == 6


def test_nonsense_is_counted_and_costs_no_credit(bench: Bench) -> None:
    generator = np.random.default_rng(1)
    good = bench.writer.pack_frame(TOPIC_FRAME, random_frame(1))
    messages: list[list[bytes]] = [
        [b"x"],
        [TOPIC_FRAME, b"{}"],
        [b"picture", *good[1:]],
        [TOPIC_FRAME, good[1], good[2][:-1]],
        [TOPIC_FRAME, good[1], good[2] + b"\0"],
        [TOPIC_FRAME, good[1].replace(b"0123abcd", b"0123ABCD"), good[2]],
        [TOPIC_FRAME, good[1], b"\xff" * len(good[2])],
        [b"", b"", b"", b""],
    ]
    for _ in range(100):
        count = int(generator.integers(1, 5))
        messages.append([generator.bytes(int(generator.integers(0, 300))) for _ in range(count)])
    for message in messages:
        bench.push.send_multipart(message)
    bench.send(77)
    assert pdu_to_bits(bench.collector.get())[0] == 77
    assert bench.source.messages_malformed == len(messages)
    bench.send(78)
    assert pdu_to_bits(bench.collector.get())[0] == 78


def test_a_sender_that_hangs_up_in_the_middle(bench: Bench) -> None:
    """Bytes that are not ZMQ at all, and a peer that is gone at once."""
    import socket

    host, port = bench.source.address.removeprefix("tcp://").split(":")
    for junk in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 100, bytes(range(256))):
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(junk)
    bench.send(3)
    assert pdu_to_bits(bench.collector.get())[0] == 3


def test_stop_leaves_frames_in_the_socket_and_start_takes_them(bench: Bench) -> None:
    bench.send(1)
    bench.collector.get()
    bench.top.stop()
    bench.top.wait()
    bench.send(2)
    assert bench.collector.nothing_for(0.2)
    bench.top.start()
    assert pdu_to_bits(bench.collector.get())[0] == 2


def test_port_in_use(bench: Bench) -> None:
    with pytest.raises(AddressError, match="already in use"):
        IndexSource(bench.source.address)


def test_closed_block_gives_its_port_back() -> None:
    first = IndexSource(ANY_PORT)
    address = first.address
    first.close()
    second = IndexSource(address)
    assert second.address == address
    second.close()


def test_stop_does_not_wait_for_a_frame(bench: Bench) -> None:
    """The window is used up: the thread waits for credit and must still hear of the stop."""
    bench.send(1)
    bench.send(2)
    bench.collector.get()
    bench.collector.get()
    bench.top.stop()
    bench.top.wait()
    bench.top.start()
    assert bench.collector.nothing_for(0.1)


@pytest.mark.parametrize(
    "pdu",
    [
        pmt.PMT_NIL,
        pmt.cons(pmt.make_dict(), pmt.init_u8vector(1, [1])),
        pmt.cons(pmt.make_dict(), pmt.init_f32vector(1, [1.0])),
        pmt.cons(
            pmt.dict_add(
                pmt.dict_add(pmt.make_dict(), pmt.intern("frame_id"), pmt.intern("x")),
                pmt.intern("codec_tag"),
                pmt.from_long(1),
            ),
            pmt.init_u8vector(1, [1]),
        ),
    ],
)
def test_pdus_that_are_no_frames(pdu: pmt.pmt_base) -> None:
    with pytest.raises(ValueError, match=r"PDU|wrong_type"):
        pdu_to_bits(pdu)


def test_pdu_round_trip() -> None:
    frame_id, codec_tag, _, bits = pdu_to_bits(frame_to_pdu(random_frame((1 << 32) - 1, seed=4)))
    assert frame_id == (1 << 32) - 1
    assert codec_tag == 0x0123
    assert np.array_equal(bits, random_frame(0, seed=4).to_bits())
    assert pmt.symbol_to_string(PORT_SENT) == "sent"
