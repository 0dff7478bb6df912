"""IndexSink in a real flowgraph with real sockets: pictures out, timeouts, drops and strangers counted."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pmt
import pytest
import zmq
from gnuradio import gr

from blocks.burst_messages import END_MESSAGE, to_pdu
from blocks.index_sink import PORT_BURSTS, IndexSink
from blocks.modem.burst import build_bursts
from blocks.modem.demodulator import CodeBlock
from blocks.modem.header import BurstHeader
from blocks.picture_taker import PictureTaker
from blocks.zmq_messages import (
    TOPIC_PICTURE,
    TOPIC_READY,
    TOPIC_STATISTICS,
    AddressError,
    MessageWriter,
    SocketLimits,
    open_socket,
    unpack_frame,
    unpack_header,
)
from semantic.index_frame import IndexFrame
from semantic.link_statistics import BurstRecord, Fate, LinkStatistics
from tests.link_parts import (
    ANY_PORT,
    GEOMETRY,
    PATIENCE_S,
    Decoder,
    post,
    random_frame,
    same_indices,
    wait_until,
)

_WAIT_MS = int(1000 * PATIENCE_S)


class Bench:
    """A running IndexSink with a decoder (PULL) and a watcher (SUB)."""

    def __init__(
        self,
        timeout_s: float | None = None,
        decoder: bool = True,
        send_timeout_ms: int = 5000,
        high_water_mark: int = 8,
    ) -> None:
        self.statistics = LinkStatistics()
        self.sink = IndexSink(
            ANY_PORT,
            ANY_PORT,
            [GEOMETRY],
            self.statistics,
            frame_timeout_s=timeout_s,
            high_water_mark=high_water_mark,
            send_timeout_ms=send_timeout_ms,
        )
        self.context = zmq.Context[zmq.Socket[bytes]]()
        limits = SocketLimits(100, 5000)
        self.pull = Decoder(self.sink.pictures_address) if decoder else None
        self.watch = open_socket(
            self.context, zmq.SUB, connect=self.sink.watch_address, limits=limits
        )
        self.watch.setsockopt(zmq.SUBSCRIBE, b"")
        # A subscription takes a moment to arrive; a message that comes back proves that it did.
        for _ in range(1000):
            self.sink._publish_statistics()
            if self.watch.poll(20):
                break
        while self.watch.poll(50):
            self.watch.recv_multipart()
        self.top = gr.top_block()
        # A flowgraph of one message block needs a connection to start it.
        self.relay = _Relay()
        self.top.msg_connect(self.relay, "out", self.sink, "bursts")
        self.top.start()

    def burst(
        self, header: BurstHeader, blocks: list[CodeBlock], fate: Fate = Fate.DECODED
    ) -> None:
        record = BurstRecord(
            fate, 0, 10.0, 0.0, 1.0, frame_id=header.frame_id, code_blocks=len(blocks)
        )
        self.statistics.add(record)
        post(self.sink, "bursts", to_pdu(header, blocks, record))

    def picture(self) -> IndexFrame:
        assert self.pull is not None
        assert self.pull.poll(_WAIT_MS), "no picture came"
        return self.pull.frame()

    def close(self) -> None:
        self.top.stop()
        self.top.wait()
        self.sink.close()
        if self.pull is not None:
            self.pull.close()
        self.context.destroy(linger=0)


class _Relay(gr.basic_block):
    def __init__(self) -> None:
        gr.basic_block.__init__(self, name="Relay", in_sig=None, out_sig=None)
        self.message_port_register_out(pmt.intern("out"))


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.close()


def received(
    frame: IndexFrame, mcs: int = 0, limit: int = 7500
) -> list[tuple[BurstHeader, list[CodeBlock]]]:
    """The bursts of a frame as a perfect receiver hands them on: 3 bursts of one block at mcs 0."""
    bits = frame.to_bits()
    bursts = list(
        build_bursts(
            bits,
            frame_id=frame.frame_id,
            codec_tag=frame.geometry.codec_tag,
            mcs=mcs,
            max_burst_symbols=limit,
        )
    )
    size = bursts[0].header.plan.payload_bits
    padded = np.zeros(size * bursts[0].header.frame_blocks, np.uint8)
    padded[: bits.size] = bits
    result = []
    for burst in bursts:
        header = burst.header
        blocks = []
        for number in range(header.first_block, header.first_block + header.blocks):
            part = padded[number * size : (number + 1) * size]
            blocks.append(CodeBlock(number, True, part, (10 - 20.0 * part).astype(np.float32), 1))
        result.append((header, blocks))
    return result


def test_a_whole_picture(bench: Bench) -> None:
    frame = random_frame(1)
    bursts = received(frame)
    assert len(bursts) == 3
    for header, blocks in bursts:
        bench.burst(header, blocks)
    back = bench.picture()
    assert back.complete
    assert back.frame_id == 1
    assert same_indices(back, frame)
    assert [picture.complete for picture in bench.sink.pictures] == [True]


def test_a_picture_with_a_hole_comes_with_the_next(bench: Bench) -> None:
    for header, blocks in received(random_frame(1))[:2]:
        bench.burst(header, blocks)
    assert bench.pull is not None
    assert not bench.pull.poll(100)
    for header, blocks in received(random_frame(2)):
        bench.burst(header, blocks)
    first, second = bench.picture(), bench.picture()
    assert (first.frame_id, first.complete, second.frame_id, second.complete) == (1, False, 2, True)
    assert first.erased_fraction == pytest.approx(1 / 3, abs=0.01)


def test_the_end_of_the_stream_hands_on_what_there_is(bench: Bench) -> None:
    header, blocks = received(random_frame(1))[1]
    bench.burst(header, blocks)
    post(bench.sink, "bursts", END_MESSAGE)
    assert bench.sink.finished.wait(PATIENCE_S)
    back = bench.picture()
    assert not back.complete
    assert back.bit_llrs is not None


def test_a_picture_times_out() -> None:
    bench = Bench(timeout_s=0.2)
    try:
        header, blocks = received(random_frame(1))[0]
        bench.burst(header, blocks)
        assert bench.picture().frame_id == 1
        # Its other bursts are late: they open no second picture.
        header, blocks = received(random_frame(1))[1]
        bench.burst(header, blocks)
        assert bench.pull is not None
        assert not bench.pull.poll(600)
    finally:
        bench.close()


def test_failed_blocks_alone_are_no_picture(bench: Bench) -> None:
    for header, blocks in received(random_frame(1)):
        bench.burst(header, [replace(block, ok=False) for block in blocks], Fate.BLOCKS_FAILED)
    post(bench.sink, "bursts", END_MESSAGE)
    assert bench.sink.finished.wait(PATIENCE_S)
    assert bench.pull is not None
    assert not bench.pull.poll(100)
    assert [picture.frame for picture in bench.sink.pictures] == [None]


def test_nobody_takes_the_picture() -> None:
    """It waits for a decoder where there is room. Else: dropped after the timeout, counted, its bursts' fate
    corrected, and the others are not hurt."""
    bench = Bench(decoder=False, send_timeout_ms=50, high_water_mark=1)
    try:
        for frame_id in (1, 2):
            for header, blocks in received(random_frame(frame_id)):
                bench.burst(header, blocks)
        wait_until(lambda: bench.sink.pictures_dropped == 1, "the drop")
        wait_until(lambda: bench.statistics.fates[Fate.QUEUE_FULL] == 3, "the fates")
        assert bench.statistics.fates[Fate.DECODED] == 3
        assert bench.statistics.detected == 6
        assert bench.sink.pictures_counts()["waiting"] == 1
        bench.pull = Decoder(bench.sink.pictures_address)
        assert bench.picture().frame_id == 1
        for header, blocks in received(random_frame(3)):
            bench.burst(header, blocks)
        assert bench.picture().frame_id == 3
        bench.pull.poll(0)
        wait_until(lambda: bench.sink.pictures_counts()["done"] >= 1, "the decoder's word")
    finally:
        bench.close()


def test_pictures_add_up_when_a_decoder_is_gone(bench: Bench) -> None:
    """What it was dealt and never said to be done with is known, and the next one gets the rest."""
    assert bench.pull is not None
    first = PictureTaker(bench.sink.pictures_address, ahead=1)
    bench.pull.close()
    first.ask(PATIENCE_S)
    for frame_id in range(6):
        for header, blocks in received(random_frame(frame_id), mcs=4, limit=20_000):
            bench.burst(header, blocks)
    picture = first.take(_WAIT_MS)
    assert picture is not None
    wait_until(lambda: sum(dealt(bench)) == 6, "all pictures")
    first.close()
    bench.pull = Decoder(bench.sink.pictures_address)
    rest = []
    while bench.pull.poll(500):
        rest.append(bench.pull.frame().frame_id)
    counts = bench.sink.pictures_counts()
    assert counts["complete"] == 6
    assert counts["taken"] == 6 - len(rest) > 0
    assert [counts[name] for name in ("done", "waiting", "dropped")] == [len(rest), 0, 0]


def dealt(bench: Bench) -> list[int]:
    counts = bench.sink.pictures_counts()
    return [counts[name] for name in ("done", "taken", "waiting")]


def test_nonsense_from_decoders_is_counted(bench: Bench) -> None:
    limits = SocketLimits(100, 5000)
    rude = open_socket(
        bench.context, zmq.DEALER, connect=bench.sink.pictures_address, limits=limits
    )
    writer = MessageWriter()
    headers: list[dict[str, Any]] = [
        {}, {"count": -1}, {"count": 1025}, {"count": True}, {"count": 1, "done": 3},
        {"count": 1, "done": [None]}, {"count": 1, "done": [0] * 65},
    ]  # fmt: skip
    for header in headers:
        rude.send_multipart(writer.pack(TOPIC_READY, header))
    rude.send_multipart(writer.pack(TOPIC_PICTURE, {"count": 1}))
    rude.send_multipart([b"x"])
    wait_until(lambda: bench.sink.socket_counts()["malformed"] == len(headers) + 2, "the counts")
    for header_, blocks in received(random_frame(4)):
        bench.burst(header_, blocks)
    assert bench.picture().frame_id == 4


def test_bursts_do_not_pile_up_while_nobody_takes_pictures() -> None:
    """150 pictures: all but the eight that wait, the ninth and the last few are dropped at once."""
    bench = Bench(decoder=False, send_timeout_ms=200)
    try:
        for frame_id in range(150):
            for header, blocks in received(random_frame(frame_id)):
                bench.burst(header, blocks)
        wait_until(lambda: bench.sink.nmsgs(PORT_BURSTS) <= 16, "the queue to shrink")
        assert bench.sink.pictures_dropped >= 130
        assert bench.statistics.fates[Fate.QUEUE_FULL] >= 3 * 130
    finally:
        bench.close()


def test_an_unknown_codec_is_counted(bench: Bench) -> None:
    header, blocks = received(random_frame(1))[0]
    bench.burst(replace(header, codec_tag=0x9999), blocks)
    wait_until(lambda: bench.statistics.fates[Fate.UNKNOWN_CODEC] == 1, "the fate")
    assert bench.statistics.fates[Fate.DECODED] == 0
    assert not bench.sink.pictures


def test_nonsense_on_the_message_port_is_counted(bench: Bench) -> None:
    header, blocks = received(random_frame(1))[0]
    good = to_pdu(header, blocks, BurstRecord(Fate.DECODED, 0, 1.0, 0.0, 1.0))
    nonsense = [
        pmt.PMT_NIL,
        pmt.PMT_T,
        pmt.from_long(4),
        pmt.intern("end"),
        pmt.cons(pmt.make_dict(), pmt.init_u8vector(1, [0])),
        pmt.cons(pmt.car(good), pmt.init_u8vector(3, [0, 1, 0])),
        pmt.cons(pmt.dict_delete(pmt.car(good), pmt.intern("ok")), pmt.cdr(good)),
        pmt.cons(
            pmt.dict_add(pmt.car(good), pmt.intern("fate"), pmt.intern("abducted")), pmt.cdr(good)
        ),
    ]
    for message in nonsense:
        post(bench.sink, "bursts", message)
    wait_until(lambda: bench.sink.messages_malformed == len(nonsense), "the count")
    for header, blocks in received(random_frame(2)):
        bench.burst(header, blocks)
    assert bench.picture().frame_id == 2


def test_watchers_see_pictures_and_totals(bench: Bench) -> None:
    for header, blocks in received(random_frame(3)):
        bench.burst(header, blocks)
    assert bench.watch.poll(_WAIT_MS)
    assert unpack_frame(bench.watch.recv_multipart(), TOPIC_PICTURE).frame_id == 3
    assert bench.watch.poll(_WAIT_MS)
    parts = bench.watch.recv_multipart()
    assert parts[0] == TOPIC_STATISTICS
    report = unpack_header(parts)
    assert report["fates"]["decoded"] == 3
    assert report["bursts_detected"] == 3
    assert json.loads(parts[1]) == report


def test_pictures_are_shared_among_decoders(bench: Bench) -> None:
    """Two decoders together get every picture once."""
    takers = [PictureTaker(bench.sink.pictures_address) for _ in range(2)]
    assert bench.pull is not None
    bench.pull.close()
    for taker in takers:
        taker.ask(PATIENCE_S)
    for frame_id in range(10):
        for header, blocks in received(random_frame(frame_id), mcs=4, limit=20_000):
            bench.burst(header, blocks)
    ids: list[list[int]] = [[], []]
    deadline_s = time.monotonic() + PATIENCE_S
    while sum(map(len, ids)) < 10 and time.monotonic() < deadline_s:
        for taker, seen in zip(takers, ids, strict=True):
            if (picture := taker.take(10)) is not None:
                seen.append(picture.frame.frame_id)
                taker.done(picture)
    for taker in takers:
        taker.close()
    assert sorted(ids[0] + ids[1]) == list(range(10))
    assert min(map(len, ids)) >= 2


def test_ports_in_use(bench: Bench) -> None:
    statistics = LinkStatistics()
    with pytest.raises(AddressError, match="already in use"):
        IndexSink(bench.sink.pictures_address, ANY_PORT, {}, statistics)
    with pytest.raises(AddressError, match="already in use"):
        IndexSink(ANY_PORT, bench.sink.watch_address, {}, statistics)


def test_stop_and_start(bench: Bench) -> None:
    """An incomplete picture survives a stop of the flowgraph."""
    first, second, third = received(random_frame(1))
    bench.burst(*first)
    bench.burst(*second)
    wait_until(lambda: bench.sink._assembler.waiting, "the first burst")
    bench.top.stop()
    bench.top.wait()
    bench.top.start()
    bench.burst(*third)
    assert bench.picture().frame_id == 1
