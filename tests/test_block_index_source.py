"""IndexSource in a real flowgraph with a real socket: frames in, credit kept, nonsense counted."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator

import numpy as np
import pmt
import pytest
import zmq
from gnuradio import gr

from blocks.index_source import PORT_SENT, IndexSource, frame_to_pdu, pdu_to_bits
from blocks.zmq_messages import (
    TOPIC_FRAME,
    TOPIC_RECEIPT,
    AddressError,
    MessageWriter,
    SocketLimits,
    open_socket,
)
from semantic.geometries import shipped_geometries
from semantic.index_frame import IndexFrame
from tests.link_parts import (
    ANY_PORT,
    GEOMETRY,
    PATIENCE_S,
    Collector,
    post,
    random_frame,
    wait_until,
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


def receipts(bench: Bench, count: int) -> list[tuple[int | None, str]]:
    found = []
    for _ in range(count):
        assert bench.push.poll(int(1000 * PATIENCE_S)), f"no receipt after {found}"
        topic, header, _ = bench.push.recv_multipart()
        assert topic == TOPIC_RECEIPT
        values = json.loads(header)
        found.append((values["of"], values["outcome"]))
    return found


def test_every_message_has_a_receipt(bench: Bench) -> None:
    """Sent or refused once the modulator is done with it, and at once where it is dropped."""
    for frame_id in (1, 2):
        bench.send(frame_id)
        bench.collector.get()
    assert not bench.push.poll(200)
    post(bench.source, "sent", pmt.PMT_F)
    post(bench.source, "sent", pmt.PMT_T)
    assert receipts(bench, 2) == [(0, "refused"), (1, "sent")]
    topic, header, payload = bench.writer.pack_frame(TOPIC_FRAME, random_frame(3))
    bench.push.send_multipart([topic, header, payload[:-1]])
    bench.push.send_multipart([b"x"])
    bench.push.send_multipart([topic, header, payload])
    bench.push.send_multipart([topic, header, payload])
    bench.collector.get()
    bench.sent()
    expected = [(2, "malformed"), (None, "malformed"), (2, "replayed"), (2, "sent")]
    assert sorted(receipts(bench, 4), key=str) == sorted(expected, key=str)


def test_a_frame_that_cannot_be_sent_does_not_get_in(bench: Bench) -> None:
    """A map that is announced and missing: it must not end the thread that reads the socket."""
    geometry = next(one for one in shipped_geometries() if one.has_map)
    assert geometry.rung is not None
    indices = tuple(np.zeros((one.tokens, one.segments), np.uint16) for one in geometry.layers)
    frame = IndexFrame(4, geometry, indices, None, None, None, None)
    assert frame.map_lost
    bench.push.send_multipart(bench.writer.pack_frame(TOPIC_FRAME, frame))
    assert receipts(bench, 1) == [(0, "malformed")]
    bench.send(5)
    assert pdu_to_bits(bench.collector.get())[0] == 5
    assert bench.source.failure is None


def test_a_request_socket_will_do(bench: Bench) -> None:
    """The shortest program of one's own: send, and wait for the answer."""
    request = bench.context.socket(zmq.REQ)
    request.connect(bench.source.address)
    request.send_multipart(MessageWriter().pack_frame(TOPIC_FRAME, random_frame(8)))
    assert pdu_to_bits(bench.collector.get())[0] == 8
    bench.sent()
    assert request.poll(int(1000 * PATIENCE_S))
    assert json.loads(request.recv_multipart()[1])["outcome"] == "sent"


def test_what_was_taken_and_not_sent_is_told_at_the_end(bench: Bench) -> None:
    bench.send(1)
    bench.collector.get()
    bench.top.stop()
    bench.top.wait()
    end = threading.Thread(target=bench.source.close)
    end.start()
    assert receipts(bench, 1) == [(0, "given_up")]
    end.join()


def test_senders_have_streams(bench: Bench) -> None:
    writers = [MessageWriter() for _ in range(3)]
    streams = []
    for writer in (*writers, writers[1]):
        bench.push.send_multipart(writer.pack_frame(TOPIC_FRAME, random_frame(1)))
        streams.append(pdu_to_bits(bench.collector.get())[2])
        bench.sent()
    assert streams == [0, 1, 2, 1]


def test_a_thread_that_fails_is_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the flowgraph asks, and ends it: a transmitter that swallows everything is worse."""

    def fail(*_: object) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(bench.source, "_take", fail)
    bench.send(1)
    wait_until(lambda: bench.source.failure is not None, "the failure")
    assert str(bench.source.failure) == "a fault"


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
