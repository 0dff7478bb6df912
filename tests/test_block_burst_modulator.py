"""BurstModulator in a real flowgraph: the samples, the tags, the counts and the refusals."""

from __future__ import annotations

import numpy as np
import pmt
import pytest
from gnuradio import blocks as gr_blocks
from gnuradio import gr
from numpy.typing import NDArray

from blocks.burst_modulator import END_TAG, LENGTH_TAG, BurstModulator
from blocks.index_source import frame_to_pdu
from blocks.modem import waveform as wf
from blocks.modem.burst import build_bursts
from tests.link_parts import GEOMETRY, Collector, post, random_frame, wait_until


class Bench:
    """A modulator into a vector sink, running."""

    def __init__(self, **arguments: float) -> None:
        self.modulator = BurstModulator(**{"mcs": 4, **arguments})  # type: ignore[arg-type]
        self.sink = gr_blocks.vector_sink_c()
        self.sent = Collector()
        self.top = gr.top_block()
        self.top.connect(self.modulator, self.sink)
        self.top.msg_connect(self.modulator, "sent", self.sent, "in")

    def run(self, pdus: list[pmt.pmt_base]) -> NDArray[np.complex64]:
        """Send, wait for every answer and for the end mark; all samples."""
        self.top.start()
        try:
            for pdu in pdus:
                post(self.modulator, "frames", pdu)
            for _ in pdus:
                self.sent.get()
            self.modulator.finish()
            wait_until(lambda: any(name == END_TAG for name, *_ in self.tags()), "the end mark")
            last = next(place + size for name, place, size in self.tags() if name == END_TAG)
            wait_until(lambda: len(self.sink.data()) >= last, "the tail")
        finally:
            self.top.stop()
            self.top.wait()
        return np.array(self.sink.data(), np.complex64)

    def tags(self) -> list[tuple[str, int, int]]:
        return [
            (pmt.symbol_to_string(tag.key), tag.offset, pmt.to_long(tag.value))
            for tag in self.sink.tags()
        ]


def bursts_of_frame(frame_id: int, mcs: int = 4, limit: int = wf.MAX_BURST_SYMBOLS) -> list[object]:
    return list(
        build_bursts(
            random_frame(frame_id).to_bits(),
            frame_id=frame_id,
            codec_tag=GEOMETRY.codec_tag,
            mcs=mcs,
            max_burst_symbols=limit,
        )
    )


@pytest.mark.parametrize("samples_per_symbol", [2, 4, 5])
def test_samples_tags_and_counts(samples_per_symbol: int) -> None:
    bench = Bench(
        samples_per_symbol=samples_per_symbol, amplitude=0.3, gap_symbols=10, max_burst_symbols=5000
    )
    samples = bench.run([frame_to_pdu(random_frame(frame_id)) for frame_id in (1, 2)])
    place = 0
    expected_tags = []
    symbols = payload = count = 0
    for frame_id in (1, 2):
        for burst in build_bursts(
            random_frame(frame_id).to_bits(),
            frame_id=frame_id,
            codec_tag=GEOMETRY.codec_tag,
            mcs=4,
            max_burst_symbols=5000,
        ):
            shaped = burst.samples(samples_per_symbol)
            gap = 10 * samples_per_symbol
            expected_tags.append((LENGTH_TAG, place, shaped.size + gap))
            assert np.allclose(samples[place : place + shaped.size], 0.3 * shaped, atol=1e-6)
            assert not samples[place + shaped.size : place + shaped.size + gap].any()
            place += shaped.size + gap
            count += 1
            symbols += burst.symbols.size
            payload += burst.header.payload_symbols
    assert count == 4
    assert [tag for tag in bench.tags() if tag[0] == LENGTH_TAG] == expected_tags
    # The tail: silence, with the end mark well after the last burst.
    ((_, end, _),) = [tag for tag in bench.tags() if tag[0] == END_TAG]
    assert end == place + 512 * samples_per_symbol
    assert not samples[place:].any()
    modulator = bench.modulator
    assert (modulator.bursts_sent, modulator.frames_sent, modulator.frames_refused) == (4, 2, 0)
    assert (modulator.symbols_sent, modulator.payload_symbols_sent) == (symbols, payload)


def test_amplitude_is_the_root_mean_square() -> None:
    samples = Bench(amplitude=0.25, gap_symbols=0).run([frame_to_pdu(random_frame(3))])
    burst = samples[: samples.nonzero()[0][-1]]
    assert np.sqrt(np.mean(np.abs(burst[200:-200]) ** 2)) == pytest.approx(0.25, rel=0.02)


def test_nothing_to_send_is_no_sample() -> None:
    bench = Bench()
    bench.top.start()
    assert bench.sent.nothing_for(0.2)
    assert len(bench.sink.data()) == 0
    bench.top.stop()
    bench.top.wait()


def test_silence_while_idle_and_bursts_in_between() -> None:
    """Behind the head of the flowgraph the stream never ends, the bursts in it are the same."""
    bench = Bench(idle_silence=True)
    bench.top.start(1000)
    try:
        wait_until(lambda: len(bench.sink.data()) > 5000, "silence")
        post(bench.modulator, "frames", frame_to_pdu(random_frame(6)))
        bench.sent.get()
        end = len(bench.sink.data())
        wait_until(lambda: len(bench.sink.data()) > end + 5000, "silence")
    finally:
        bench.top.stop()
        bench.top.wait()
    samples = np.array(bench.sink.data(), np.complex64)
    ((name, place, size),) = bench.tags()
    expected = 0.25 * bursts_of_frame(6)[0].samples(4)  # type: ignore[attr-defined]
    assert (name, size) == (LENGTH_TAG, expected.size + 64 * 4)
    assert place >= 5000
    assert np.allclose(samples[place : place + expected.size], expected, atol=1e-6)
    assert not samples[:place].any()
    assert not samples[place + size :].any()
    assert bench.modulator.get_bursts_sent() == 1


def test_another_code_rate_while_running() -> None:
    bench = Bench()
    bench.modulator.set_mcs(1)
    with pytest.raises(wf.WaveformError, match="mcs"):
        bench.modulator.set_mcs(10)
    bench.run([frame_to_pdu(random_frame(7))])
    expected = bursts_of_frame(7, mcs=1)
    assert bench.modulator.bursts_sent == len(expected)
    assert bench.modulator.symbols_sent == sum(one.symbols.size for one in expected)  # type: ignore[attr-defined]


def bad_pdu(frame_id: int, codec_tag: int, bits: list[int]) -> pmt.pmt_base:
    meta = pmt.make_dict()
    meta = pmt.dict_add(meta, pmt.intern("frame_id"), pmt.from_uint64(frame_id))
    meta = pmt.dict_add(meta, pmt.intern("codec_tag"), pmt.from_uint64(codec_tag))
    return pmt.cons(meta, pmt.init_u8vector(len(bits), bits))


def test_frames_that_cannot_be_sent_are_refused_and_answered() -> None:
    """Each must give its credit back, or the source would stop for ever; the next frame goes out."""
    bad = [
        pmt.PMT_NIL,
        pmt.cons(pmt.make_dict(), pmt.init_u8vector(4, [0, 1, 0, 1])),
        bad_pdu(1, 2, []),
        bad_pdu(1 << 32, 2, [0, 1]),
        bad_pdu(1, 1 << 16, [0, 1]),
        bad_pdu(1, 2, [0, 2]),
        bad_pdu(1, 2, [0] * (1 << 20)),
    ]
    bench = Bench()
    samples = bench.run([*bad, frame_to_pdu(random_frame(4))])
    assert bench.modulator.frames_refused == len(bad)
    assert bench.modulator.frames_sent == 1
    assert samples.any()


def test_a_code_block_that_fits_no_burst_is_refused() -> None:
    bench = Bench(mcs=0, max_burst_symbols=1000)
    bench.run([frame_to_pdu(random_frame(5))])
    assert (bench.modulator.frames_refused, bench.modulator.bursts_sent) == (1, 0)


def test_mcs_that_does_not_exist() -> None:
    with pytest.raises(wf.WaveformError, match="mcs"):
        BurstModulator(mcs=10)


def test_stop_in_the_middle_of_a_burst_and_start_again() -> None:
    """A throttle makes the burst last: the flowgraph stops at once, and the rest follows on restart."""
    modulator = BurstModulator(mcs=4, gap_symbols=0)
    throttle = gr_blocks.throttle(gr.sizeof_gr_complex, 40_000)
    sink = gr_blocks.vector_sink_c()
    top = gr.top_block()
    top.connect(modulator, throttle, sink)
    total = sum(burst.samples(4).size for burst in build_bursts(
        random_frame(6).to_bits(), frame_id=6, codec_tag=GEOMETRY.codec_tag, mcs=4
    ))  # fmt: skip
    top.start()
    post(modulator, "frames", frame_to_pdu(random_frame(6)))
    wait_until(lambda: len(sink.data()) > 100, "the first samples")
    top.stop()
    top.wait()
    stopped = len(sink.data())
    assert 0 < stopped < total
    throttle.set_sample_rate(1e9)
    top.start()
    wait_until(lambda: modulator.frames_sent == 1, "the rest")
    top.stop()
    top.wait()
    assert modulator.bursts_sent == len(bursts_of_frame(6))
