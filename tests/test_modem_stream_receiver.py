"""The receiver as a stream: any pieces in, the same bursts out; and every way in which a stream can hurt."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from blocks.modem import waveform as wf
from blocks.modem.acquisition import SEARCH_CONTEXT_AFTER
from blocks.modem.burst import Burst
from blocks.modem.burst_finder import SEARCH_BLOCK_SAMPLES, BurstFinder
from blocks.modem.stream_receiver import Outcome, ReceivedBurst, StreamReceiver
from tests.simulated_air import (
    AIR_SPS,
    FIRST_SYMBOL,
    Air,
    bursts_of,
    noise,
    on_air,
    random_bits,
)

IMPAIRED = Air(snr_db=12.0, cfo=0.041, sro_ppm=25.0, delay=0.37, phase_noise=1e-5)


def run(
    samples: NDArray[np.complex64], sizes: Iterable[int] | int = 10_000, overflow: bool = False
) -> list[ReceivedBurst]:
    """Push all samples in pieces of the given sizes (repeated as needed), then flush."""
    receiver = StreamReceiver()
    received: list[ReceivedBurst] = []
    pieces = [sizes] if isinstance(sizes, int) else list(sizes)
    place = turn = 0
    while place < samples.size:
        size = pieces[turn % len(pieces)]
        received += receiver.push(samples[place : place + size])
        place, turn = place + size, turn + 1
    assert receiver.position == samples.size
    return received + receiver.flush(overflow)


def fingerprint(received: list[ReceivedBurst]) -> list[object]:
    """Everything a result says, to the last bit of every float."""
    return [
        (
            one.outcome,
            one.start,
            one.measurement,
            one.header,
            None
            if one.burst is None
            else [
                (b.number, b.ok, b.iterations, b.bits.tobytes(), b.llrs.tobytes())
                for b in one.burst.blocks
            ]
            + [one.burst.constellation.tobytes()],
        )
        for one in received
    ]


def bits_of(received: list[ReceivedBurst]) -> NDArray[np.uint8]:
    blocks = [block for one in received if one.burst is not None for block in one.burst.blocks]
    assert all(block.ok for block in blocks)
    return np.concatenate([block.bits for block in sorted(blocks, key=lambda b: b.number)])


def short_stream() -> NDArray[np.complex64]:
    """Three bursts, of which one loses its header to a fade, in noise, with a DC step."""
    bursts = [bursts_of(random_bits(400, seed), mcs=4, frame_id=seed)[0] for seed in range(3)]
    samples, begins = on_air(bursts, lead=700, gap=60, tail=900)
    fade = begins[1] + FIRST_SYMBOL + AIR_SPS * wf.PREAMBLE_SYMBOLS
    samples[fade : fade + AIR_SPS * 500] = 0
    samples[begins[2] + 6000 :] += np.complex64(0.2)
    return IMPAIRED.receive(samples, np.random.default_rng(1))


SHORT = short_stream()
WHOLE = fingerprint(run(SHORT, SHORT.size))


def test_the_short_stream_holds_what_it_should() -> None:
    outcomes = [one.outcome for one in run(SHORT, SHORT.size)]
    assert outcomes == [Outcome.DEMODULATED, Outcome.HEADER_FAILED, Outcome.DEMODULATED]


@pytest.mark.parametrize("size", [1, 7, 2047, 2048, 2049, 8192])
def test_same_result_for_any_piece_size(size: int) -> None:
    assert fingerprint(run(SHORT, size)) == WHOLE


@given(st.lists(st.integers(1, 9000), min_size=1, max_size=20))
@settings(max_examples=15)
def test_same_result_for_any_pieces(sizes: list[int]) -> None:
    assert fingerprint(run(SHORT, sizes)) == WHOLE


def test_empty_pieces() -> None:
    receiver = StreamReceiver()
    assert receiver.push(np.zeros(0, np.complex64)) == []
    assert receiver.position == 0
    assert receiver.flush() == []
    assert StreamReceiver().flush(overflow=True) == []


def test_bursts_come_out_as_soon_as_they_are_complete() -> None:
    """The moment its last sample is there: the search is far past the start of a burst of this length."""
    bursts = bursts_of(random_bits(8000, 2), mcs=4) * 2
    samples, begins = on_air(bursts, gap=60_000, tail=60_000)
    received = IMPAIRED.receive(samples, np.random.default_rng(2))
    receiver = StreamReceiver()
    ends = [
        begin + AIR_SPS * (burst.symbols.size + 16)
        for begin, burst in zip(begins, bursts, strict=True)
    ]
    heard: list[int] = []
    for place in range(0, received.size, 1000):
        heard += [place + 1000] * len(receiver.push(received[place : place + 1000]))
    for moment, end in zip(heard, ends, strict=True):
        assert end / 2 - 200 < moment < end / 2 + 1000


def test_short_bursts_wait_for_one_search_block_at_most() -> None:
    bursts = [bursts_of(random_bits(100, seed), mcs=4, frame_id=seed)[0] for seed in range(8)]
    samples, _ = on_air(bursts, gap=9001, tail=20_000)
    received = IMPAIRED.receive(samples, np.random.default_rng(2))
    finder = BurstFinder()
    waits = []
    for place in range(0, received.size, 100):
        for found in finder.push(received[place : place + 100]):
            waits.append(place + 100 - found.end)
    assert len(waits) == len(bursts)
    assert max(waits) < SEARCH_BLOCK_SAMPLES + SEARCH_CONTEXT_AFTER
    assert min(waits) < 300


def test_no_iterations_hand_on_what_was_received() -> None:
    """Without decoding everything before it is the same, and no block claims to be right."""
    samples, _ = on_air(bursts_of(random_bits(3000, 21), mcs=4))
    air = IMPAIRED.receive(samples, np.random.default_rng(21))
    receiver = StreamReceiver(max_iterations=0)
    (raw,) = receiver.push(air) + receiver.flush()
    (decoded,) = run(air)
    assert (raw.outcome, raw.start, raw.header) == (
        Outcome.DEMODULATED,
        decoded.start,
        decoded.header,
    )
    assert raw.burst is not None
    assert decoded.burst is not None
    assert np.array_equal(raw.burst.constellation, decoded.burst.constellation)
    assert [(block.ok, block.iterations) for block in raw.burst.blocks] == [(False, 0)]
    assert decoded.burst.blocks[0].ok


@pytest.mark.parametrize("mcs", range(10))
def test_every_code_rate_at_high_snr(mcs: int) -> None:
    bits = random_bits(20_000, mcs)
    bursts = bursts_of(bits, mcs)
    samples, begins = on_air(bursts)
    air = Air(snr_db=20.0, cfo=-0.05 + 0.01 * mcs, sro_ppm=40.0, delay=0.1 * mcs, phase_noise=1e-5)
    received = run(air.receive(samples, np.random.default_rng(mcs)))
    assert [one.outcome for one in received] == [Outcome.DEMODULATED] * len(bursts)
    assert [one.header for one in received] == [burst.header for burst in bursts]
    assert np.array_equal(bits_of(received)[: bits.size], bits)
    for one, begin in zip(received, begins, strict=True):
        assert one.start == pytest.approx(air.arrival(begin + FIRST_SYMBOL), abs=0.1)


@pytest.mark.parametrize(("sro_ppm", "cfo"), [(40.0, 0.05), (-40.0, -0.05)])
def test_the_longest_burst(sro_ppm: float, cfo: float) -> None:
    """Rate 1/2 at 5.5 dB over 18,768 symbols: the last block must do as well as the first."""
    bursts = bursts_of(random_bits(3 * 8424, 3), mcs=4)
    assert [burst.header.burst_symbols for burst in bursts] == [18_768]
    samples, _ = on_air(bursts)
    air = Air(snr_db=5.5, cfo=cfo, sro_ppm=sro_ppm, delay=0.9, phase_noise=1e-5)
    (received,) = run(air.receive(samples, np.random.default_rng(3)))
    assert received.burst is not None
    assert all(block.ok for block in received.burst.blocks)
    assert received.measurement.sample_rate_offset_ppm == pytest.approx(sro_ppm, abs=3)


def test_many_frames_in_one_stream() -> None:
    """60 frames of random size, rate and level, some back to back: each comes out once, in order."""
    generator = np.random.default_rng(4)
    bursts: list[Burst] = []
    parts: list[NDArray[np.complex64]] = [np.zeros(500, np.complex64)]
    for frame in range(60):
        bits = random_bits(int(generator.integers(1, 4000)), 1000 + frame)
        for burst in bursts_of(bits, mcs=int(generator.integers(2, 6)), frame_id=frame):
            bursts.append(burst)
            gap = np.zeros(int(generator.choice([0, 0, 13, 1000])), np.complex64)
            level = np.float32(10 ** generator.uniform(-0.25, 0))
            parts += [burst.samples(AIR_SPS) * level, gap]
    air = Air(snr_db=16.0, cfo=0.02, sro_ppm=-11.0, delay=0.5)
    received = run(air.receive(np.concatenate([*parts, np.zeros(900)]), generator))
    assert [one.outcome for one in received] == [Outcome.DEMODULATED] * len(bursts)
    assert [one.header for one in received] == [burst.header for burst in bursts]
    assert all(block.ok for one in received if one.burst for block in one.burst.blocks)


@pytest.mark.parametrize("gap", [-16 * AIR_SPS, 0, 5])
def test_back_to_back_at_low_snr(gap: int) -> None:
    """No gap; with -16 symbols even the transients of the pulses overlap, ramp follows ramp."""
    bursts = [bursts_of(random_bits(600, seed), mcs=1, frame_id=seed)[0] for seed in range(8)]
    length = sum(b.samples(AIR_SPS).size + gap for b in bursts) + 4000
    samples = np.zeros(length, np.complex64)
    place = 1000
    for burst in bursts:
        shaped = burst.samples(AIR_SPS)
        samples[place : place + shaped.size] += shaped
        place += shaped.size + gap
    air = Air(snr_db=3.0, cfo=-0.033, delay=0.2)
    received = run(air.receive(samples, np.random.default_rng(5)))
    assert [one.header for one in received] == [burst.header for burst in bursts]
    assert all(block.ok for one in received if one.burst for block in one.burst.blocks)


def test_two_bursts_20_db_apart_without_a_gap() -> None:
    one, two = bursts_of(random_bits(500, 6), 4)[0], bursts_of(random_bits(500, 7), 4)[0]
    for levels in ((1.0, 0.1), (0.1, 1.0)):
        parts = [np.zeros(800), one.samples(AIR_SPS) * levels[0], two.samples(AIR_SPS) * levels[1]]
        samples = np.concatenate([*parts, np.zeros(800)]).astype(np.complex64)
        received = run(Air(snr_db=28.0, cfo=0.01).receive(samples, np.random.default_rng(6)))
        assert [r.outcome for r in received] == [Outcome.DEMODULATED] * 2, levels
        assert np.array_equal(bits_of(received[:1]), random_bits(500, 6))
        assert np.array_equal(bits_of(received[1:]), random_bits(500, 7))


@pytest.mark.parametrize("gain", [1e-4, 1.0])
def test_amplitude(gain: float) -> None:
    samples, _ = on_air(bursts_of(random_bits(2000, 8), mcs=4))
    air = Air(snr_db=10.0, cfo=0.02, gain=gain)
    received = run(air.receive(samples, np.random.default_rng(8)))
    assert np.array_equal(bits_of(received), random_bits(2000, 8))
    assert received[0].measurement.level == pytest.approx(gain, rel=0.05)


def test_a_burst_that_a_header_failure_hides_nothing_behind() -> None:
    """A header whose symbols are noise, and a good burst right after it: one failed, one decoded."""
    bursts = [bursts_of(random_bits(300, seed), mcs=4)[0] for seed in (9, 10)]
    samples, begins = on_air(bursts, gap=0)
    header = begins[0] + FIRST_SYMBOL + AIR_SPS * wf.PREAMBLE_SYMBOLS
    generator = np.random.default_rng(9)
    samples[header : header + 2400] = noise(2400, 1.0, generator)
    received = run(Air(snr_db=15.0).receive(samples, generator))
    assert [one.outcome for one in received] == [Outcome.HEADER_FAILED, Outcome.DEMODULATED]
    assert received[0].header is None
    assert received[0].burst is None


def cut_burst() -> tuple[NDArray[np.complex64], Burst, int, int]:
    (burst,) = bursts_of(random_bits(8000, 11), mcs=4)
    samples, (begin,) = on_air([burst], lead=2000, tail=4000)
    air = Air(snr_db=15.0, cfo=0.02)
    received = air.receive(samples, np.random.default_rng(11))
    first = int(air.arrival(begin + FIRST_SYMBOL))
    last = first + 2 * (burst.header.burst_symbols - 2 * wf.RAMP_SYMBOLS)
    return received, burst, first, last


@pytest.mark.parametrize("overflow", [False, True])
def test_stream_that_ends_inside_a_burst(overflow: bool) -> None:
    samples, burst, first, last = cut_burst()
    payload = first + 2 * (wf.PREAMBLE_SYMBOLS + 544)
    expected = Outcome.OVERFLOW if overflow else Outcome.TRUNCATED
    for end in (payload + 1500, payload + (last - payload) // 4, (payload + last) // 2):
        (received,) = run(samples[:end], 997, overflow)
        assert received.outcome is expected
        assert received.header == burst.header
        assert received.start == pytest.approx(first, abs=1)
    # Inside the header nothing is known about it; inside the preamble there is no burst yet.
    (received,) = run(samples[: first + 2 * (wf.PREAMBLE_SYMBOLS + 60)], 997, overflow)
    assert received.outcome is (Outcome.OVERFLOW if overflow else Outcome.HEADER_FAILED)
    assert received.header is None
    assert run(samples[: first + 100], 997, overflow) == []
    # Where the code makes up for what is missing, nothing is lost.
    for end in (last - 4000, last - 500, last - 8):
        (received,) = run(samples[:end], 997, overflow)
        assert received.outcome is Outcome.DEMODULATED
        assert np.array_equal(bits_of([received]), random_bits(8000, 11))


def test_blocks_before_the_cut_are_saved_and_none_is_made_up_behind_it() -> None:
    """Three code blocks of 8448 bits: whatever was through is there, silence is never a block of zeros."""
    bits = random_bits(3 * 8424, 19)
    (burst,) = bursts_of(bits, mcs=4)
    samples, (begin,) = on_air([burst], tail=4000)
    air = Air(snr_db=15.0, cfo=0.02)
    received = air.receive(samples, np.random.default_rng(19))
    payload = int(air.arrival(begin + FIRST_SYMBOL)) + 2 * (wf.PREAMBLE_SYMBOLS + 544)
    block_samples = 2 * burst.header.plan.symbols * 136 // 128
    for through in (0.4, 1.05, 1.5, 2.05, 2.5):
        (one,) = run(received[: payload + int(through * block_samples)], 5000, overflow=True)
        assert one.outcome is Outcome.OVERFLOW
        assert one.burst is not None
        ok = [block.ok for block in one.burst.blocks]
        assert ok == [block.number < int(through) for block in one.burst.blocks]
        for block in one.burst.blocks[: int(through)]:
            sent = bits[8424 * block.number : 8424 * (block.number + 1)]
            assert np.array_equal(block.bits, sent)
    # The same where a source puts zeros in place of what it has lost, and goes on.
    silent = received.copy()
    silent[payload + block_samples : payload + 2 * block_samples + 100] = 0
    (one,) = run(silent)
    assert one.burst is not None
    assert not one.burst.blocks[1].ok


def test_a_payload_of_zeros_is_a_payload() -> None:
    (burst,) = bursts_of(np.zeros(4000, np.uint8), mcs=4)
    samples, _ = on_air([burst])
    received = run(Air(snr_db=8.0, cfo=-0.01).receive(samples, np.random.default_rng(20)))
    assert not bits_of(received).any()


GAP_BITS = random_bits(4000, 30)


def gap_stream() -> tuple[NDArray[np.complex64], list[float], float]:
    """Five bursts of one code block with little between them; starts of the bursts, and their length."""
    bursts = [bursts_of(GAP_BITS, mcs=4, frame_id=frame)[0] for frame in range(5)]
    samples, begins = on_air(bursts, lead=900, gap=120, tail=900)
    air = Air(snr_db=12.0, cfo=0.03, sro_ppm=-15.0, delay=0.6)
    received = air.receive(samples, np.random.default_rng(30))
    starts = [air.arrival(begin + FIRST_SYMBOL) for begin in begins]
    return received, starts, 2.0 * (bursts[0].header.burst_symbols - 2 * wf.RAMP_SYMBOLS)


GAP_STREAM, GAP_STARTS, GAP_BURST_SAMPLES = gap_stream()


@given(st.integers(0, GAP_STREAM.size - 1), st.integers(1, 3000))
@settings(max_examples=40)
def test_a_gap_loses_only_the_bursts_that_it_touches(first: int, lost: int) -> None:
    """An overflow anywhere: every burst that has all of its samples is decoded, and counted once.

    The gap is shorter than a burst and may touch two; one that lies within a burst loses that one at
    most.
    """
    received = run(GAP_STREAM[:first], 7000, overflow=True) + run(GAP_STREAM[first + lost :], 7000)
    decoded = []
    for one in received:
        if one.outcome is Outcome.DEMODULATED:
            assert one.header is not None
            assert np.array_equal(bits_of([one]), GAP_BITS)
            decoded.append(one.header.frame_id)
    whole = [
        frame
        for frame, start in enumerate(GAP_STARTS)
        if start + GAP_BURST_SAMPLES + 16 <= first or start - 16 >= first + lost
    ]
    assert set(whole) <= set(decoded)
    assert len(decoded) == len(set(decoded))
    touched = len(GAP_STARTS) - len(whole)
    assert touched <= 2
    assert len(received) <= len(whole) + touched


def test_stream_that_begins_inside_a_burst() -> None:
    samples, burst, first, _ = cut_burst()
    following, _ = on_air(bursts_of(random_bits(300, 12), mcs=4, frame_id=99), lead=0)
    after = Air(snr_db=15.0).receive(following, np.random.default_rng(12))
    for lost in (first - 40, first + 32, first + 300, first + 520, first + 1500, first + 9000):
        received = run(np.concatenate([samples[lost:], after]))
        assert received[-1].header is not None
        assert received[-1].header.frame_id == 99
        assert np.array_equal(bits_of(received[-1:]), random_bits(300, 12))
        # What is left of the first burst is decoded, or nothing is claimed about it.
        for one in received[:-1]:
            assert one.outcome is Outcome.HEADER_FAILED or one.header == burst.header
        if lost <= first:
            assert [one.outcome for one in received] == [Outcome.DEMODULATED] * 2
        if lost >= first + 520:
            assert len(received) == 1


def test_a_burst_at_the_very_start() -> None:
    (burst,) = bursts_of(random_bits(300, 13), mcs=4)
    samples, _ = on_air([burst], lead=0)
    (received,) = run(Air(snr_db=10.0).receive(samples, np.random.default_rng(13)))
    assert received.start == pytest.approx(FIRST_SYMBOL / 2, abs=0.1)
    assert np.array_equal(bits_of([received]), random_bits(300, 13))


def test_samples_that_are_not_numbers_count_as_silence() -> None:
    samples, *_ = cut_burst()
    bad = samples.copy()
    places = np.random.default_rng(14).choice(samples.size, 60, replace=False)
    bad[places[:20]] = np.nan
    bad[places[20:40]] = complex(np.inf, -np.inf)
    bad[places[40:]] = complex(0.0, np.nan)
    silent = samples.copy()
    silent[places[:40]] = 0
    silent[places[40:]] = 0
    received = run(bad)
    assert fingerprint(received) == fingerprint(run(silent))
    assert np.array_equal(bits_of(received), random_bits(8000, 11))
    assert run(np.full(50_000, np.nan, np.complex64)) == []


@pytest.mark.parametrize("glitch", [1e4, 1e10, 1e19, 3e38])
def test_absurdly_large_samples_do_not_stop_the_receiver(glitch: float) -> None:
    """A burst before and one after a stretch of nonsense: both must come through."""
    samples, *_ = cut_burst()
    wild = np.full(3000, glitch, np.complex64)
    quiet = np.zeros(10_000, np.complex64)
    received = run(np.concatenate([samples, quiet, wild, quiet, samples]))
    assert [one.outcome for one in received] == [Outcome.DEMODULATED] * 2


def test_noise_and_silence_report_nothing() -> None:
    """1 million samples of noise, 1 million of silence and constant."""
    generator = np.random.default_rng(15)
    for _ in range(4):
        assert run(noise(1 << 18, 2.0, generator).astype(np.complex64), 65_536) == []
    assert run(np.zeros(500_000, np.complex64), 65_536) == []
    assert run(np.full(500_000, 0.5 + 0.1j, np.complex64), 65_536) == []


def test_memory_stays_bounded() -> None:
    """Two million samples of noise and of bursts, pushed in large pieces, go through one buffer."""
    generator = np.random.default_rng(16)
    receiver = StreamReceiver()
    held = receiver._finder._buffer.size
    assert held < 5 * (2 * wf.MAX_BURST_SYMBOLS)
    samples, *_ = cut_burst()
    for _ in range(12):
        receiver.push(noise(1 << 17, 0.01, generator).astype(np.complex64))
        receiver.push(samples)
        assert receiver._finder._buffer.size == held


def test_far_below_the_threshold_nothing_is_made_up() -> None:
    """-9 dB: some preambles may be heard, no header may be read wrongly, no block pass its CRC."""
    bursts = bursts_of(random_bits(3000, 17), mcs=0) * 10
    samples, _ = on_air(bursts)
    received = run(Air(snr_db=-9.0, cfo=0.03).receive(samples, np.random.default_rng(17)))
    assert len(received) <= len(bursts)
    for one in received:
        assert one.header is None or one.header == bursts[0].header
        assert one.burst is None or not any(block.ok for block in one.burst.blocks)


@pytest.mark.slow
def test_false_alarms_long() -> None:
    """100 million samples of noise, with tones that come and go: not one confirmed preamble."""
    generator = np.random.default_rng(18)
    receiver = StreamReceiver()
    for turn in range(200):
        samples = noise(1 << 19, 2.0, generator)
        if turn % 2:
            envelope = np.arange(samples.size) // 20_000 % 2
            tone = np.exp(2j * np.pi * generator.uniform(-0.3, 0.3) * np.arange(samples.size))
            samples += 10 ** generator.uniform(-1, 1) * envelope * tone
        assert receiver.push(samples.astype(np.complex64)) == [], turn


@pytest.mark.parametrize("dc_db", [-10.0, 0.0, 10.0])
def test_dc_line_costs_nothing(dc_db: float) -> None:
    """A DC offset below, at and above the signal's level: every block of a short burst still decodes."""
    for seed in range(3):
        generator = np.random.default_rng(seed)
        bursts = bursts_of(random_bits(3000, seed), mcs=4)
        air = Air(
            snr_db=6.0,
            cfo=float(generator.uniform(-1, 1)) * wf.MAX_CFO_SYMBOL_RATES,
            dc=10 ** (dc_db / 20) * complex(np.exp(2j * np.pi * generator.uniform())),
        )
        samples, _ = on_air(bursts)
        receiver = StreamReceiver()
        found = receiver.push(air.receive(samples, generator)) + receiver.flush()
        blocks = [block for item in found if item.burst for block in item.burst.blocks]
        assert [block.ok for block in blocks] == [True] * sum(b.header.blocks for b in bursts)


_COMPILED_LATE = """
import sys
import numpy as np
from numba.core.dispatcher import Dispatcher
from blocks.modem.stream_receiver import StreamReceiver, warm_up

def compiled():
    modules = [module for name, module in sys.modules.items() if name.startswith("blocks.modem")]
    return {
        (one.__module__, one.__name__, str(signature))
        for module in modules for one in vars(module).values() if isinstance(one, Dispatcher)
        for signature in one.signatures
    }

samples = np.load(sys.argv[1])
warm_up()
before = compiled()
receiver = StreamReceiver()
received = receiver.push(samples) + receiver.flush()
print(len(before), [str(one.outcome) for one in received], compiled() - before)
"""


def test_nothing_is_left_to_load_once_the_receiver_is_warm(tmp_path: Path) -> None:
    """In a process of its own: the first bursts of a stream, one short and one long, find all code there."""
    bursts = bursts_of(random_bits(1000, 1), mcs=2) + bursts_of(random_bits(20_000, 2), mcs=4)
    samples = IMPAIRED.receive(on_air(bursts)[0], np.random.default_rng(3))
    np.save(tmp_path / "samples.npy", samples)
    ran = subprocess.run(
        [sys.executable, "-c", _COMPILED_LATE, str(tmp_path / "samples.npy")],
        capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    count, rest = ran.stdout.strip().split(" ", 1)
    assert int(count) > 20
    assert rest == f"{['demodulated'] * len(bursts)} set()"
