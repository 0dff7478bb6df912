"""BurstReceiver in a real flowgraph: bursts out as messages, lost samples counted, stop and start clean."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Literal

import numpy as np
import pmt
import pytest
from gnuradio import blocks as gr_blocks
from gnuradio import gr
from numpy.typing import NDArray

from blocks.burst_messages import END_MESSAGE, from_pdu
from blocks.burst_modulator import END_TAG
from blocks.burst_receiver import BurstReceiver
from blocks.modem.burst import Burst
from semantic.link_statistics import Fate
from tests.link_parts import Collector, wait_until
from tests.simulated_air import FIRST_SYMBOL, Air, bursts_of, on_air, random_bits

SYMBOL_RATE_HZ = 1e6


def stream(
    count: int = 4, gap: int = 2000
) -> tuple[NDArray[np.complex64], list[Burst], list[float]]:
    """Samples at 2 per symbol, the bursts in them, and where each begins."""
    bursts = [bursts_of(random_bits(2000, seed), mcs=4, frame_id=seed)[0] for seed in range(count)]
    samples, begins = on_air(bursts, gap=gap, tail=6000)
    air = Air(snr_db=15.0, cfo=0.02, sro_ppm=20.0, delay=0.3)
    received = air.receive(samples, np.random.default_rng(1))
    return received, bursts, [air.arrival(begin + FIRST_SYMBOL) for begin in begins]


class Bench:
    """Samples with an end mark behind them into a receiver, with ears on both of its ports."""

    def __init__(
        self,
        samples: NDArray[np.complex64],
        receiver: BurstReceiver,
        tags: Iterable[gr.tag_t] = (),
    ) -> None:
        end = gr.tag_t()
        end.offset, end.key, end.value = samples.size, pmt.intern(END_TAG), pmt.PMT_T
        # The mark needs a sample to stand on; what follows it must be ignored. The source must not end
        # by itself: GNU Radio then stops the blocks behind message ports with messages still to come.
        after = np.full(5000, 0.5, np.complex64)
        self.source = gr_blocks.vector_source_c(
            np.concatenate([samples, after]).tolist(), True, 1, [end, *tags]
        )
        self.receiver = receiver
        self.bursts, self.constellation = Collector(), Collector()
        self.top = gr.top_block()
        self.top.connect(self.source, self.receiver)
        self.top.msg_connect(self.receiver, "bursts", self.bursts, "in")
        self.top.msg_connect(self.receiver, "constellation", self.constellation, "in")

    def run(self, most: int = 8192) -> list[pmt.pmt_base]:
        """Messages of bursts up to the end of the stream."""
        self.top.start(most)
        messages = []
        try:
            while not pmt.equal(message := self.bursts.get(), END_MESSAGE):
                messages.append(message)
        finally:
            self.top.stop()
            self.top.wait()
        return messages


def block_mode() -> BurstReceiver:
    return BurstReceiver(SYMBOL_RATE_HZ, ring_samples=5000, when_full="block")


def test_bursts_come_out_as_messages() -> None:
    samples, bursts, begins = stream()
    bench = Bench(samples, block_mode())
    messages = [from_pdu(message) for message in bench.run()]
    assert [message.header for message in messages] == [burst.header for burst in bursts]
    for seed, message in enumerate(messages):
        assert message.ok.all()
        assert message.fate == "decoded"
        assert np.array_equal(message.bits.reshape(-1), random_bits(2000, seed))
    records = list(bench.receiver.records)
    assert [record.start_sample for record in records] == [round(begin) for begin in begins]
    for record, burst in zip(records, bursts, strict=True):
        assert record.fate is Fate.DECODED
        assert record.cfo_hz == pytest.approx(0.02 * SYMBOL_RATE_HZ, abs=20)
        assert record.snr_db == pytest.approx(15, abs=1)
        assert record.symbols == burst.header.burst_symbols
        assert (record.frame_id, record.mcs) == (burst.header.frame_id, 4)
        assert record.code_blocks == record.code_blocks_ok == 1
    statistics = bench.receiver.statistics
    assert statistics.samples == samples.size  # all up to the end mark, none after it
    assert statistics.samples_dropped == 0
    assert statistics.fates[Fate.DECODED] == len(bursts)
    assert bench.receiver.failure is None


def test_constellation_message() -> None:
    samples, *_ = stream(1)
    bench = Bench(samples, block_mode())
    bench.top.start()
    message = bench.constellation.get()
    bench.top.stop()
    bench.top.wait()
    points = np.array(pmt.c32vector_elements(pmt.cdr(message)))
    assert 500 < points.size <= 2048
    nearest = np.exp(0.25j * np.pi * np.round(np.angle(points) / (np.pi / 4)))
    assert 10 * np.log10(np.mean(np.abs(points - nearest) ** 2)) < -13


@pytest.mark.parametrize("most", [17, 500, 8192])
def test_result_does_not_depend_on_the_scheduler(most: int) -> None:
    samples, *_ = stream(2, gap=0)
    bench = Bench(samples, block_mode())
    messages = bench.run(most)
    reference = Bench(samples, BurstReceiver(SYMBOL_RATE_HZ, when_full="block")).run()
    assert [pmt.serialize_str(m) for m in messages] == [pmt.serialize_str(m) for m in reference]


def test_block_mode_loses_nothing_through_a_ring_smaller_than_a_burst() -> None:
    samples, bursts, _ = stream(6, gap=0)
    bench = Bench(samples, BurstReceiver(SYMBOL_RATE_HZ, ring_samples=100, when_full="block"))
    assert len(bench.run()) == len(bursts)
    assert bench.receiver.statistics.samples == samples.size
    assert bench.receiver.statistics.samples_dropped == 0


def test_drop_mode_counts_what_it_loses_and_recovers_after_the_gap() -> None:
    """One stall of known length, so that what is lost does not depend on the machine: the ring is
    filled to the brim before the worker starts, in the middle of the second burst.
    """
    samples, _, begins = stream(4)
    ring = 20_000
    receiver = BurstReceiver(SYMBOL_RATE_HZ, ring_samples=ring, when_full="drop")
    first = int(begins[1]) + 2500  # in the middle of the second burst
    gap_end = int(begins[2]) - 1000  # before the third
    assert first < ring < samples.size
    taken = receiver._ring.write(samples[:first], 0)
    assert taken == first
    filler = np.zeros(ring - first, np.complex64)
    dropped = receiver._ring.write_or_drop(np.concatenate([filler, samples[first:gap_end]]))
    assert dropped == gap_end - first
    receiver.statistics.samples_dropped += dropped
    bench = Bench(samples[gap_end:], receiver)
    messages = [from_pdu(message) for message in bench.run()]
    decoded = [m.header.frame_id for m in messages if m.fate == "decoded"]
    assert decoded == [0, 2, 3]  # only the burst that the gap touches is lost
    fates = receiver.statistics.fates
    assert fates[Fate.DECODED] == 3
    assert fates[Fate.OVERFLOW] + fates[Fate.BLOCKS_FAILED] + fates[Fate.HEADER_FAILED] == 1
    # Positions go on counting the samples that were lost.
    starts = [record.start_sample for record in receiver.records if record.fate is Fate.DECODED]
    shift = filler.size
    expected = [round(begins[0]), round(begins[2]) + shift, round(begins[3]) + shift]
    assert np.allclose(starts, expected, atol=1)


def time_tag(offset: int, sample: int, value: pmt.pmt_base | None = None) -> gr.tag_t:
    """The time of a sample as a radio puts it on the stream: sample 0 was at 7 s."""
    whole_s, fraction_s = divmod(sample / (2 * SYMBOL_RATE_HZ), 1)
    tag = gr.tag_t()
    tag.offset, tag.key = offset, pmt.intern("rx_time")
    tag.value = value or pmt.make_tuple(
        pmt.from_uint64(7 + int(whole_s)), pmt.from_double(fraction_s)
    )
    return tag


@pytest.mark.parametrize("ring", [500, 1 << 20])
@pytest.mark.parametrize("most", [17, 8192])
def test_gap_that_the_radio_tells_of(ring: int, most: int) -> None:
    """Samples that were lost on the way, in the middle of the second burst."""
    samples, _, begins = stream(4)
    cut = int(begins[1]) + 2500
    lost = 1000
    heard = np.concatenate([samples[:cut], samples[cut + lost :]])
    tags = [time_tag(0, 0), time_tag(cut, cut + lost)]
    bench = Bench(heard, BurstReceiver(SYMBOL_RATE_HZ, ring, "block"), tags)
    messages = [from_pdu(message) for message in bench.run(most)]
    statistics = bench.receiver.statistics
    assert [m.header.frame_id for m in messages if m.fate == "decoded"] == [0, 2, 3]
    assert statistics.fates[Fate.OVERFLOW] == 1
    assert statistics.overflows == 1
    assert statistics.samples_lost == lost
    assert statistics.samples == heard.size
    starts = [record.start_sample for record in bench.receiver.records]
    assert np.allclose(starts, begins, atol=1)


def test_gap_in_front_of_a_burst_costs_nothing() -> None:
    """And a tag with the time that was to be expected is no gap, nor is one that tells no time."""
    samples, _, begins = stream(3)
    cut = int(begins[1]) - 600
    heard = np.concatenate([samples[: cut - 200], samples[cut:]])
    tags = [
        time_tag(0, 0),
        time_tag(int(begins[0]) + 50, int(begins[0]) + 50),
        time_tag(int(begins[0]) + 60, 0, pmt.intern("noon")),
        time_tag(cut - 200, cut),
    ]
    bench = Bench(heard, block_mode(), tags)
    assert len(bench.run()) == 3
    statistics = bench.receiver.statistics
    assert statistics.fates[Fate.DECODED] == 3
    assert (statistics.overflows, statistics.samples_lost) == (1, 200)


@pytest.mark.parametrize("most", [17, 8192])
def test_start_up_is_passed_over(most: int) -> None:
    """The first burst falls into it; places count from the first sample all the same."""
    samples, _, begins = stream(3)
    settle = int(begins[0]) + 1000
    receiver = BurstReceiver(SYMBOL_RATE_HZ, when_full="block", settle_samples=settle)
    bench = Bench(samples, receiver)
    messages = [from_pdu(message) for message in bench.run(most)]
    assert [m.header.frame_id for m in messages] == [1, 2]
    statistics = receiver.statistics
    assert statistics.samples == samples.size - settle
    assert statistics.overflows == 0
    assert np.allclose([record.start_sample for record in receiver.records], begins[1:], atol=1)


def test_drop_mode_under_real_overload_keeps_its_books() -> None:
    """The scheduler hands over more at a time than the ring holds: whatever is lost is counted."""
    samples, bursts, _ = stream(3, gap=200)
    many = np.tile(samples, 12)
    receiver = BurstReceiver(SYMBOL_RATE_HZ, ring_samples=4000, when_full="drop")
    bench = Bench(many, receiver)
    messages = bench.run()
    statistics = receiver.statistics
    assert statistics.samples + statistics.samples_dropped == many.size
    assert statistics.samples_dropped > 0
    assert statistics.detected <= 12 * len(bursts)
    # Every message is a real burst: a gap never joins two halves to something new.
    for message in map(from_pdu, messages):
        if message.fate == "decoded":
            assert np.array_equal(
                message.bits.reshape(-1), random_bits(2000, message.header.frame_id)
            )


def test_stop_in_the_middle_of_a_burst_and_start_again() -> None:
    samples, _, begins = stream(2)
    cut = int(begins[0]) + 2500
    receiver = block_mode()
    bursts = Collector()

    def run(piece: NDArray[np.complex64]) -> None:
        top = gr.top_block()
        top.connect(gr_blocks.vector_source_c(piece.tolist()), receiver)
        top.msg_connect(receiver, "bursts", bursts, "in")
        before = receiver.statistics.samples
        top.start()
        wait_until(lambda: receiver.statistics.samples == before + piece.size, "all samples")
        top.stop()
        top.wait()
        top.msg_disconnect(receiver, "bursts", bursts, "in")
        top.disconnect_all()

    run(samples[:cut])
    assert receiver.statistics.fates[Fate.TRUNCATED] == 1
    run(samples[int(begins[1]) - 500 :])
    assert receiver.statistics.fates[Fate.DECODED] == 1
    assert receiver.statistics.detected == 2
    assert receiver.failure is None


def workers() -> list[str]:
    """Threads of receivers that are alive."""
    return [t.name for t in threading.enumerate() if t.name.startswith("BurstReceiver")]


def endless(samples: NDArray[np.complex64], receiver: BurstReceiver) -> gr.top_block:
    """The same samples over and over, as fast as they go."""
    top = gr.top_block()
    # Kept by the top block: GNU Radio holds no reference to Python's objects.
    top.parts = (gr_blocks.vector_source_c(samples.tolist(), True), receiver)
    top.connect(*top.parts)
    return top


@pytest.mark.parametrize("when_full", ["block", "drop"])
@pytest.mark.parametrize("ring", [64, 20_000])
def test_stop_at_any_moment_is_clean(when_full: Literal["block", "drop"], ring: int) -> None:
    """From another thread, in the middle of a burst, with a full ring: soon over, nothing left behind."""
    samples, *_ = stream(1, gap=0)
    receiver = BurstReceiver(SYMBOL_RATE_HZ, ring, when_full)
    top = endless(samples, receiver)
    generator = np.random.default_rng(3)
    read = 0
    for _ in range(5):
        goal = receiver.statistics.samples + int(generator.integers(1, 3 * samples.size))
        top.start()
        wait_until(lambda goal=goal: receiver.statistics.samples >= goal, "some samples")  # type: ignore[misc]
        assert len(workers()) == 2
        stopper = threading.Thread(target=lambda: (top.stop(), top.wait()))
        stopper.start()
        stopper.join(timeout=10)
        assert not stopper.is_alive()
        assert workers() == []
        # GNU Radio counts anew from every start.
        read += receiver.nitems_read(0)
        assert receiver.statistics.samples + receiver.statistics.samples_dropped == read
    assert receiver.failure is None
    statistics = receiver.statistics
    assert statistics.detected == len(receiver.records)
    if when_full == "block":
        # Each stop cuts one burst at most; all the others are whole.
        cut = statistics.detected - statistics.fates[Fate.DECODED]
        assert cut <= 5
        assert statistics.fates[Fate.TRUNCATED] + statistics.fates[Fate.HEADER_FAILED] == cut


def test_lock_and_unlock() -> None:
    """A flowgraph that is changed while it runs: no burst is lost but the one that the change cuts."""
    samples, *_ = stream(2, gap=0)
    receiver = BurstReceiver(SYMBOL_RATE_HZ, 30_000, "block")
    top = endless(samples, receiver)
    top.start()
    for turn in range(1, 4):
        goal = receiver.statistics.samples + 3 * samples.size
        wait_until(lambda goal=goal: receiver.statistics.samples > goal, "samples")  # type: ignore[misc]
        top.lock()
        probe = gr_blocks.null_sink(gr.sizeof_gr_complex)
        top.connect(top.parts[0], probe)
        top.unlock()
        fates = receiver.statistics.fates
        assert receiver.statistics.detected - fates[Fate.DECODED] <= turn
    goal = receiver.statistics.samples + 3 * samples.size
    wait_until(lambda: receiver.statistics.samples > goal, "samples after the last change")
    top.stop()
    top.wait()
    assert workers() == []
    assert receiver.failure is None
    assert receiver.statistics.fates[Fate.DECODED] > 15


def test_restart_after_an_end_mark() -> None:
    samples, bursts, _ = stream(2)
    bench = Bench(samples, block_mode())
    for turn in (1, 2, 3):
        messages = bench.run()
        assert [from_pdu(message).fate for message in messages] == ["decoded"] * len(bursts)
        assert bench.receiver.statistics.fates[Fate.DECODED] == turn * len(bursts)
        assert bench.receiver.statistics.samples == turn * samples.size
        bench.source.rewind()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_worker_that_fails_is_heard_of() -> None:
    """A limit that the decoder refuses makes the worker fail for real; the flowgraph must not hang."""
    samples, *_ = stream(1)
    receiver = BurstReceiver(
        SYMBOL_RATE_HZ, ring_samples=1000, when_full="block", max_iterations=-1
    )
    top = gr.top_block()
    top.connect(gr_blocks.vector_source_c(samples.tolist(), True), receiver)
    top.start()
    wait_until(lambda: receiver.failure is not None, "the failure")
    top.stop()
    top.wait()
    assert "max_iterations" in str(receiver.failure)
    assert workers() == []
    # What waited for the worker counts as dropped: the books balance all the same.
    statistics = receiver.statistics
    assert statistics.samples + statistics.samples_dropped == receiver.nitems_read(0)
