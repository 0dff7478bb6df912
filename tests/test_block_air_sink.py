"""AirSink against real sockets: chunks, back-pressure, receivers that freeze, go, shout."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pmt
import pytest
import zmq
from gnuradio import blocks as gr_blocks
from gnuradio import gr
from numpy.typing import NDArray

from blocks.air_messages import CHUNK_SAMPLES, Chunk, Ready, pack_ready, parse_chunk
from blocks.air_sink import MAX_RECEIVERS, WINDOW_CHUNKS, AirSink
from blocks.burst_modulator import LENGTH_TAG
from blocks.zmq_messages import AddressError, MessageWriter, SocketLimits, open_socket
from tests.link_parts import ANY_PORT, PATIENCE_S, wait_until

RATE_HZ = 1e6


class Peer:
    """A receiver of the plainest kind."""

    def __init__(self, address: str) -> None:
        self.context = zmq.Context[zmq.Socket[bytes]]()
        self.socket = open_socket(
            self.context, zmq.DEALER, connect=address, limits=SocketLimits(1000, 5000)
        )
        self.writer = MessageWriter()
        self.last: Chunk | None = None

    def ready(self) -> None:
        last = self.last
        ready = Ready("", 0) if last is None else Ready(last.session, last.number + 1)
        self.socket.send_multipart(pack_ready(self.writer, ready))

    def get(self) -> Chunk:
        assert self.socket.poll(int(1000 * PATIENCE_S)), "no chunk came"
        self.last = parse_chunk(self.socket.recv_multipart())
        return self.last

    def waiting(self, wait_ms: int = 200) -> bool:
        return bool(self.socket.poll(wait_ms))

    def take(self, samples: int) -> NDArray[np.complex64]:
        """So many samples, each chunk acknowledged."""
        taken: list[NDArray[np.complex64]] = []
        while sum(map(len, taken)) < samples:
            taken.append(self.get().samples)
            self.ready()
        return np.concatenate(taken)

    def close(self) -> None:
        self.context.destroy(linger=0)


class Bench:
    """An AirSink with a source in front of it, started, and receivers that are closed in the end."""

    def __init__(self, samples: NDArray[np.complex64], bursts: dict[int, int], **settings: Any):
        self.sink = AirSink(ANY_PORT, RATE_HZ, **settings)
        tags = []
        for place, length in bursts.items():
            tag = gr.tag_t()
            tag.offset, tag.key = place, pmt.intern(LENGTH_TAG)
            tag.value = pmt.from_long(length)
            tags.append(tag)
        self.source = gr_blocks.vector_source_c(samples.tolist(), False, 1, tags)
        self.top = gr.top_block()
        self.top.connect(self.source, self.sink)
        self.top.start()
        self.peers: list[Peer] = []

    def peer(self) -> Peer:
        peer = Peer(self.sink.address)
        self.peers.append(peer)
        joined = self.sink.to_json()["receivers_joined"]
        peer.ready()
        wait_until(
            lambda: (
                self.sink.to_json()["receivers_joined"] > joined
                or self.sink.to_json()["receivers_turned_away"] > 0
            ),
            "the receiver to be heard",
        )
        return peer

    def close(self) -> None:
        self.top.stop()
        self.top.wait()
        self.sink.close()
        for peer in self.peers:
            peer.close()


MakeBench = Callable[..., Bench]


@pytest.fixture
def bench() -> Iterator[MakeBench]:
    made: list[Bench] = []

    def make(samples: NDArray[np.complex64], bursts: dict[int, int], **settings: Any) -> Bench:
        made.append(Bench(samples, bursts, **settings))
        return made[-1]

    yield make
    for one in made:
        one.close()


def noise(count: int) -> NDArray[np.complex64]:
    generator = np.random.default_rng(count)
    parts = generator.standard_normal((2, count))
    return (parts[0] + 1j * parts[1]).astype(np.complex64)


def test_a_burst_goes_out_in_chunks_as_soon_as_it_is_whole(bench: MakeBench) -> None:
    length = 2 * CHUNK_SAMPLES + 1000
    samples = noise(length + 500)
    made = bench(samples, {0: length, length: 500})
    peer = made.peer()
    chunks = [peer.get() for _ in range(4)]
    sizes = [CHUNK_SAMPLES, CHUNK_SAMPLES, 1000, 500]
    assert [chunk.samples.size for chunk in chunks] == sizes
    assert [chunk.burst_samples for chunk in chunks] == [length, 0, 0, 500]
    assert [chunk.left for chunk in chunks] == [CHUNK_SAMPLES + 1000, 1000, 0, 0]
    assert [chunk.position for chunk in chunks] == [0, *np.cumsum(sizes[:-1])]
    assert [chunk.number for chunk in chunks] == [0, 1, 2, 3]
    assert {chunk.sample_rate_hz for chunk in chunks} == {RATE_HZ}
    assert np.array_equal(np.concatenate([chunk.samples for chunk in chunks]), samples)


def test_a_stream_without_bursts_goes_out_as_it_comes(bench: MakeBench) -> None:
    samples = noise(100_000)
    made = bench(samples, {})
    assert np.array_equal(made.peer().take(samples.size), samples)


def test_a_burst_that_is_cut_short_ends_where_the_next_begins(bench: MakeBench) -> None:
    samples = noise(700)
    made = bench(samples, {0: 1000, 300: 400})
    peer = made.peer()
    first, second = peer.get(), peer.get()
    assert (first.samples.size, first.left) == (300, 700)
    assert (second.samples.size, second.burst_samples, second.left) == (400, 400, 0)


def test_every_receiver_gets_everything_from_where_it_joins(bench: MakeBench) -> None:
    total = (WINDOW_CHUNKS + 4) * CHUNK_SAMPLES
    samples = noise(total)
    made = bench(samples, {0: total})
    # The first takes nothing yet: the transmitter waits with its window full. What is left then fits into the
    # windows of the others, who take nothing before the first has everything.
    first = made.peer()
    window = WINDOW_CHUNKS * CHUNK_SAMPLES
    wait_until(lambda: made.sink.samples_sent == window, "the first one's window to be full")
    others = [made.peer() for _ in range(2)]
    assert np.array_equal(first.take(total), samples)
    for peer in others:
        assert np.array_equal(peer.take(total - window), samples[window:])


def test_nothing_is_sent_before_somebody_listens(bench: MakeBench) -> None:
    made = bench(noise(1000), {0: 1000})
    wait_until(lambda: made.sink.to_json()["waits"] > 2, "the sink to wait")
    assert made.sink.samples_sent == 0
    assert made.peer().get().samples.size == 1000


def test_into_the_void_where_that_is_wanted(bench: MakeBench) -> None:
    made = bench(noise(1000), {0: 1000}, wait_for_receiver=False)
    wait_until(lambda: made.sink.samples_unheard == 1000, "the samples to go")


def test_the_slowest_receiver_holds_the_transmitter(bench: MakeBench) -> None:
    total = 40 * CHUNK_SAMPLES
    made = bench(noise(total), {0: total}, wait_for_receiver=False, receiver_timeout_s=1000.0)
    slow = made.peer()
    heard_first = slow.get()
    sent = heard_first.position + heard_first.samples.size
    # Not acknowledged: a window of chunks and no more.
    for _ in range(WINDOW_CHUNKS - 1):
        sent += slow.get().samples.size
    assert not slow.waiting(500)
    held = made.sink.samples_sent
    time.sleep(0.2)
    assert made.sink.samples_sent == held
    slow.ready()
    assert slow.waiting(int(1000 * PATIENCE_S))


def test_a_frozen_receiver_is_left_behind_and_may_come_back(bench: MakeBench) -> None:
    before, after = 30 * CHUNK_SAMPLES, 4 * CHUNK_SAMPLES
    samples = noise(before + after)
    made = bench(samples, {0: before + after}, receiver_timeout_s=0.5)
    good = made.peer()
    frozen = made.peer()
    good_part = good.take(before - CHUNK_SAMPLES)
    assert np.array_equal(good_part, samples[: good_part.size])
    assert made.sink.to_json()["receivers_left_behind"] == 1
    # It thaws: what it finds in its queue is a window at most.
    while frozen.waiting():
        frozen.get()
    assert frozen.last is not None
    last = frozen.last
    assert last.number < 2 * WINDOW_CHUNKS
    frozen.ready()
    rest = good.take(samples.size - good_part.size)
    assert np.array_equal(rest, samples[good_part.size :])


def test_a_receiver_that_has_gone_is_noticed(bench: MakeBench) -> None:
    total = 30 * CHUNK_SAMPLES
    made = bench(noise(total), {0: total}, receiver_timeout_s=1000.0)
    good = made.peer()
    # Whoever is sent something is noticed to have gone; one whose window is full holds up for the timeout.
    window = WINDOW_CHUNKS * CHUNK_SAMPLES
    wait_until(lambda: made.sink.samples_sent == window, "the good one's window to be full")
    gone = made.peer()
    good.get()
    gone.close()
    good.ready()
    rest = good.take(total - CHUNK_SAMPLES)
    assert rest.size == total - CHUNK_SAMPLES
    assert made.sink.to_json()["receivers_gone"] == 1


def test_what_nobody_could_be_sent_waits_for_somebody(bench: MakeBench) -> None:
    """The only receiver has gone unnoticed: the burst is kept for the next one, first sample to last."""
    length = 2 * CHUNK_SAMPLES
    samples = noise(length + 3000)
    made = bench(samples[:1000], {0: 1000})
    gone = made.peer()
    gone.get()
    gone.close()
    made.top.wait()
    made.source.set_data(samples[1000:].tolist(), [])
    made.source.rewind()
    time.sleep(0.2)
    made.top.start()
    wait_until(lambda: made.sink.to_json()["receivers_gone"] == 1, "the gap to be noticed")
    assert made.sink.to_json()["samples_unheard"] == 0
    assert np.array_equal(made.peer().take(length + 2000), samples[1000:])


def test_no_more_than_so_many_receivers(bench: MakeBench) -> None:
    made = bench(noise(100), {})
    made.top.stop()
    made.top.wait()
    made.source.rewind()
    contexts = [Peer(made.sink.address) for _ in range(MAX_RECEIVERS + 1)]
    made.peers += contexts
    for peer in contexts:
        peer.ready()
    time.sleep(0.3)
    made.top.start()
    wait_until(lambda: made.sink.to_json()["receivers_turned_away"] == 1, "one too many")
    assert made.sink.to_json()["receivers_joined"] >= MAX_RECEIVERS


def test_nonsense_from_a_receiver_is_counted_by_cause(bench: MakeBench) -> None:
    made = bench(noise(1000), {0: 1000})
    rude = Peer(made.sink.address)
    made.peers.append(rude)
    good = pack_ready(rude.writer, Ready("", 0))
    header = json.loads(good[1])
    for parts in (
        [b"x"],
        [b"ready", b"{}", b""],
        [b"ready", json.dumps({**header, "wanted": -1}).encode(), b""],
        [b"samples", good[1], b""],
        [b"", b"", b"", b"", b""],
        [b"ready", json.dumps({**header, "session": "s" * 1500}).encode(), b""],
        good,
        good,
    ):
        rude.socket.send_multipart(parts)
    assert rude.get().samples.size == 1000
    wait_until(lambda: made.sink.to_json()["malformed"] == 5, "the malformed ones")
    assert made.sink.to_json()["oversized"] == 1


def test_stop_does_not_wait_for_a_receiver(bench: MakeBench) -> None:
    made = bench(noise(1000), {0: 1000})
    made.top.stop()
    made.top.wait()


def test_address_in_use(bench: MakeBench) -> None:
    made = bench(noise(10), {})
    with pytest.raises(AddressError, match="already in use"):
        AirSink(made.sink.address, RATE_HZ)
