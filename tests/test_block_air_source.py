"""AirSource in a flowgraph: a transmitter's samples, its restarts, silence, and nonsense from the socket."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pmt
import pytest
import zmq
from gnuradio import gr
from numpy.typing import NDArray

from blocks.air_messages import pack_chunk, parse_ready
from blocks.air_sink import AirSink
from blocks.air_source import AirSource
from blocks.burst_modulator import LENGTH_TAG
from blocks.rx_time import RX_TIME_TAG
from blocks.zmq_messages import (
    AddressError,
    MessageWriter,
    SocketLimits,
    bound_address,
    open_socket,
)
from tests.link_parts import ANY_PORT, PATIENCE_S, wait_until

RATE_HZ = 1e6
TAIL = 5000


class Recorder(gr.sync_block):
    """Keeps samples and tags."""

    def __init__(self) -> None:
        gr.sync_block.__init__(self, name="Recorder", in_sig=[np.complex64], out_sig=None)
        self.parts: list[NDArray[np.complex64]] = []
        self.tags: list[tuple[int, str, Any]] = []

    def work(self, inputs: list[NDArray[np.complex64]], _outputs: list[object]) -> int:
        first = self.nitems_read(0)
        for tag in self.get_tags_in_range(0, first, first + inputs[0].size):
            key = pmt.symbol_to_string(tag.key)
            self.tags.append((int(tag.offset), key, pmt.to_python(tag.value)))
        self.parts.append(inputs[0].copy())
        return int(inputs[0].size)

    @property
    def samples(self) -> NDArray[np.complex64]:
        return np.concatenate([np.zeros(0, np.complex64), *self.parts])

    @property
    def signal(self) -> NDArray[np.complex64]:
        """What is not silence."""
        samples = self.samples
        return samples[samples != 0]

    def times(self) -> list[tuple[int, int]]:
        """Places and times, both in samples."""
        return [
            (place, round((value[0] + value[1]) * RATE_HZ))
            for place, key, value in self.tags
            if key == RX_TIME_TAG
        ]


class Bench:
    """An AirSource, running, and a plain ROUTER that plays transmitter."""

    def __init__(self, broken_after_s: float = 1000.0) -> None:
        self.context = zmq.Context[zmq.Socket[bytes]]()
        self.limits = SocketLimits(1000, 5000)
        self.router = open_socket(self.context, zmq.ROUTER, bind=ANY_PORT, limits=self.limits)
        self.address = bound_address(self.router)
        self.source = AirSource(
            self.address, RATE_HZ, tail_samples=TAIL, broken_after_s=broken_after_s
        )
        self.recorder = Recorder()
        self.top = gr.top_block()
        self.top.connect(self.source, self.recorder)
        self.top.start()
        self.writer = MessageWriter()
        self.position = 0
        self.peer = b""

    def restart(self) -> None:
        """Another transmitter at the same address."""
        self.context.destroy(linger=0)
        self.context = zmq.Context[zmq.Socket[bytes]]()
        self.router = open_socket(self.context, zmq.ROUTER, bind=self.address, limits=self.limits)
        self.writer, self.position = MessageWriter(), 0

    def hear(self) -> tuple[str, int]:
        """The next "ready"."""
        assert self.router.poll(int(1000 * PATIENCE_S)), "the receiver says nothing"
        self.peer, *parts = self.router.recv_multipart()
        ready = parse_ready(parts)
        return ready.session, ready.wanted

    def pack(self, samples: NDArray[np.complex64], **changes: Any) -> list[bytes]:
        values = {
            "position": self.position,
            "sample_rate_hz": RATE_HZ,
            "burst_samples": samples.size,
            "left": 0,
            **changes,
        }
        self.position += samples.size
        return pack_chunk(self.writer, samples, **values)

    def send(self, parts: list[bytes]) -> None:
        self.router.send_multipart([self.peer, *parts])

    def close(self) -> None:
        self.top.stop()
        self.top.wait()
        self.source.close()
        self.context.destroy(linger=0)


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


def ramp(start: int, count: int) -> NDArray[np.complex64]:
    return np.arange(start, start + count).astype(np.complex64)


def test_samples_come_through_and_are_acknowledged(bench: Bench) -> None:
    assert bench.hear() == ("", 0)
    session = bench.writer.sender
    bench.send(bench.pack(ramp(1, 30_000), burst_samples=40_000, left=10_000))
    bench.send(bench.pack(ramp(30_001, 10_000), burst_samples=0))
    wait_until(lambda: bench.recorder.signal.size == 40_000, "the samples")
    assert np.array_equal(bench.recorder.signal, ramp(1, 40_000))
    heard = bench.hear()
    while heard != (session, 2):
        heard = bench.hear()
    lengths = [value for _, key, value in bench.recorder.tags if key == LENGTH_TAG]
    assert lengths == [40_000]


def test_silence_follows_a_burst_but_never_cuts_one(bench: Bench) -> None:
    bench.hear()
    bench.send(bench.pack(ramp(1, 100), burst_samples=200, left=100))
    wait_until(lambda: bench.recorder.signal.size == 100, "the first half")
    bench.hear()
    bench.hear()  # it reminds every half second: idle time has passed
    bench.send(bench.pack(ramp(101, 100), burst_samples=0))
    wait_until(
        lambda: bench.recorder.samples.size >= 200 + TAIL and bench.recorder.signal.size == 200,
        "the tail",
    )
    samples = bench.recorder.samples
    first = int(np.flatnonzero(samples)[0])
    assert np.array_equal(samples[first : first + 200], ramp(1, 200))
    assert not samples[first + 200 :].any()


def test_what_was_missed_shows_in_the_time(bench: Bench) -> None:
    bench.hear()
    bench.send(bench.pack(ramp(1, 100)))
    bench.position += 4321
    bench.writer._next += 3
    bench.send(bench.pack(ramp(101, 100)))
    wait_until(lambda: bench.recorder.signal.size == 200, "both bursts")
    (place, start), (later, jumped) = bench.recorder.times()
    assert (place, start) == (0, 0)
    assert jumped - later == 4321
    assert bench.recorder.samples[later] == 101
    assert bench.source.to_json()["samples_missed"] == 4321


def test_another_session_is_a_break_and_goes_on(bench: Bench) -> None:
    """A transmitter that was killed in the middle of a burst and started again."""
    bench.hear()
    bench.send(bench.pack(ramp(1, 100), burst_samples=5000, left=4900))
    wait_until(lambda: bench.recorder.signal.size == 100, "the torso")
    bench.restart()
    bench.hear()
    bench.send(bench.pack(ramp(101, 100)))
    wait_until(lambda: bench.recorder.signal.size == 200, "the new burst")
    assert np.array_equal(bench.recorder.signal, ramp(1, 200))
    later, jumped = bench.recorder.times()[-1]
    assert bench.recorder.samples[later] == 101
    assert jumped > later
    # Silence between both, enough for the receiver to let go of the torso.
    assert not bench.recorder.samples[later - TAIL : later].any()
    counts = bench.source.to_json()
    assert (counts["sessions"], counts["samples_missed"]) == (2, 0)


def test_a_burst_that_never_ends_is_given_up() -> None:
    made = Bench(broken_after_s=0.3)
    try:
        made.hear()
        made.send(made.pack(ramp(1, 100), burst_samples=5000, left=4900))
        wait_until(lambda: made.source.bursts_broken == 1, "the end of patience")
        wait_until(lambda: made.recorder.samples.size >= 100 + TAIL, "silence")
        wait_until(lambda: made.recorder.samples.size >= 500 + TAIL, "more silence")
        assert made.source.bursts_broken == 1
    finally:
        made.close()


def test_nonsense_is_counted_by_cause_and_costs_nothing(bench: Bench) -> None:
    bench.hear()
    good = bench.pack(ramp(1, 100))
    header = json.loads(good[1])
    bench.send(good)
    second, third = bench.pack(ramp(101, 100)), bench.pack(ramp(201, 100))
    bench.send(third)
    for parts in (
        good,  # replayed
        third,  # replayed
        second,  # out of order
        [b"samples"],
        [b"samples", b"[]", b""],
        [b"ready", good[1], good[2]],
        [b"samples", json.dumps({**header, "left": -1}).encode(), good[2]],
        [b"samples", good[1], np.full(10, np.nan, np.complex64).tobytes()],
        [b"samples", good[1], bytes(700_000)],
    ):
        bench.send(parts)
    bench.send(bench.pack(ramp(301, 100)))
    wait_until(lambda: bench.recorder.signal.size == 300, "the good ones")
    assert bench.recorder.signal[-1] == 400
    counts = bench.source.to_json()
    causes = ("replayed", "out_of_order", "malformed", "oversized")
    assert [counts[cause] for cause in causes] == [2, 1, 5, 1]


def test_another_rate_is_refused(bench: Bench) -> None:
    bench.hear()
    bench.send(bench.pack(ramp(1, 100), sample_rate_hz=2e6))
    bench.send(bench.pack(ramp(101, 100)))
    wait_until(lambda: bench.recorder.signal.size == 100, "the right one")
    assert bench.recorder.signal[0] == 101
    assert bench.source.wrong_rate == 1


def test_a_source_and_a_sink_of_ours(bench: Bench) -> None:
    """Both ends together, cut by the scheduler as it likes, samples bit for bit."""
    from gnuradio import blocks as gr_blocks

    generator = np.random.default_rng(5)
    samples = generator.standard_normal((2, 300_000))
    stream = (samples[0] + 1j * samples[1]).astype(np.complex64)
    sink = AirSink(ANY_PORT, RATE_HZ)
    source, recorder = AirSource(sink.address, RATE_HZ, tail_samples=TAIL), Recorder()
    send, receive = gr.top_block(), gr.top_block()
    vector = gr_blocks.vector_source_c(stream.tolist(), False)
    send.connect(vector, sink)
    receive.connect(source, recorder)
    receive.start()
    send.start(777)
    try:
        wait_until(lambda: recorder.signal.size == stream.size, "all samples")
        assert np.array_equal(recorder.signal, stream)
    finally:
        for top, block in ((send, sink), (receive, source)):
            top.stop()
            top.wait()
            block.close()


def test_stop_while_nobody_sends(bench: Bench) -> None:
    bench.top.stop()
    bench.top.wait()


def test_an_address_that_cannot_be() -> None:
    with pytest.raises(AddressError, match="cannot open"):
        AirSource("nonsense", RATE_HZ)
