"""Bursts as the transmitter builds them: everything in its place, and the books of symbols right."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from blocks.modem import waveform as wf
from blocks.modem.burst import Burst, assemble, build_bursts, insert_pilots
from blocks.modem.crc import check_crc24b
from blocks.modem.header import BurstHeader, decode_header
from blocks.modem.known_symbols import body_positions
from blocks.modem.ldpc_code import get_code
from blocks.modem.ldpc_decoder import decode
from blocks.modem.psk import demap_8psk
from blocks.modem.scrambling import gold_sequence
from tests.simulated_air import bursts_of, random_bits


@given(st.integers(1, 60_000), st.integers(0, 9), st.sampled_from([7500, 12_000, 20_000]))
@settings(max_examples=30)
def test_bursts_of_a_frame(frame_bits: int, mcs: int, limit: int) -> None:
    bursts = bursts_of(random_bits(frame_bits, 1), mcs, max_burst_symbols=limit)
    first = 0
    for number, burst in enumerate(bursts):
        header = burst.header
        assert (header.burst_number, header.first_block) == (number, first)
        assert (header.frame_bits, header.mcs, header.frame_id) == (frame_bits, mcs, 7)
        assert burst.symbols.shape == (header.burst_symbols,)
        assert header.burst_symbols <= limit
        first += header.blocks
    assert first == bursts[0].header.frame_blocks


def test_parts_of_a_burst_by_hand() -> None:
    """Cut a burst apart with nothing but the specification, and decode it without the receiver."""
    bits = random_bits(3000, 2)
    (burst,) = bursts_of(bits, mcs=4)
    symbols = burst.symbols
    rise, preamble, rest = symbols[:8], symbols[8:264], symbols[264:]
    assert np.array_equal(preamble, wf.preamble())
    assert np.allclose(rise, wf.preamble()[:8] * wf.ramp_window())
    body, fall = rest[:-8], rest[-8:]
    assert np.allclose(fall, body[-8:] * wf.ramp_window()[::-1])
    data, place, group = [], 0, 0
    remaining = wf.HEADER_SYMBOLS + burst.header.payload_symbols
    while remaining:
        count = min(128, remaining)
        data.append(body[place : place + count])
        assert np.array_equal(body[place + count : place + count + 8], wf.pilots(99)[group])
        place, group, remaining = place + count + 8, group + 1, remaining - count
    assert place == body.size
    joined = np.concatenate(data)
    assert decode_header(joined[: wf.HEADER_SYMBOLS], 0.1) == burst.header
    plan = burst.header.plan
    llrs = demap_8psk(joined[wf.HEADER_SYMBOLS :], 0.1)
    llrs *= 1 - 2 * gold_sequence(0x1000_0000, plan.coded_bits).astype(np.float32)
    result = decode(get_code(plan.info_bits, plan.coded_bits), llrs, bits_per_symbol=3)
    assert check_crc24b(result.bits)
    assert np.array_equal(result.bits[:3000], bits)


def test_mean_power_of_a_burst() -> None:
    (burst,) = bursts_of(random_bits(8000, 3), mcs=4)
    for samples_per_symbol in (2, 4, 5):
        samples = burst.samples(samples_per_symbol)
        assert samples.size == (burst.symbols.size + 16) * samples_per_symbol
        inside = samples[40 * samples_per_symbol : -40 * samples_per_symbol]
        assert np.mean(np.abs(inside) ** 2) == pytest.approx(1, abs=0.02)


def test_spectrum_stays_in_its_band() -> None:
    """Beyond 0.625 symbol rates nothing but what the cut pulse and the ramps leave."""
    (burst,) = bursts_of(random_bits(8000, 4), mcs=4)
    samples = burst.samples(4)
    windowed = samples * np.blackman(samples.size)
    power = np.abs(np.fft.fft(windowed)) ** 2
    frequency = np.abs(np.fft.fftfreq(samples.size, 1 / 4))
    outside = power[frequency > 0.7].mean() / power[frequency < 0.3].mean()
    assert 10 * np.log10(outside) < -40


def test_scrambling_hides_the_content() -> None:
    """Bits that are all zero give symbols as balanced as any: no line, no carrier."""
    (burst,) = bursts_of(np.zeros(8000, np.uint8), mcs=4)
    payload = burst.symbols[8 + 256 + 544 : -16]
    assert abs(payload.mean()) < 4 / np.sqrt(payload.size)


def test_pilots_are_inserted_in_the_right_places() -> None:
    body = np.full(300, 2, np.complex64)
    with_pilots = insert_pilots(body)
    is_pilot = with_pilots != 2
    expected = np.zeros(324, np.bool_)
    for start in (128, 264, 316):
        expected[start : start + 8] = True
    assert np.array_equal(is_pilot, expected)


def test_same_blocks_in_other_bursts_are_the_same_symbols() -> None:
    """A code block does not depend on the burst that carries it: any burst may repeat any block."""
    bits = random_bits(30_000, 5)
    together = bursts_of(bits, mcs=4)[0]
    alone = bursts_of(bits, mcs=4, max_burst_symbols=8000)
    size = together.header.plan.symbols
    one = without_pilots(together)[:size]
    other = without_pilots(alone[0])[:size]
    assert np.array_equal(one, other)


def without_pilots(burst: Burst) -> NDArray[np.complex64]:
    positions = body_positions(wf.HEADER_SYMBOLS + burst.header.payload_symbols)
    return burst.symbols[wf.RAMP_SYMBOLS :][positions[wf.HEADER_SYMBOLS :]]


@pytest.mark.parametrize(
    ("arguments", "bits"),
    [
        ({"frame_id": 1 << 32}, 100),
        ({"frame_id": -1}, 100),
        ({"codec_tag": 1 << 16}, 100),
        ({"mcs": 10}, 100),
        ({"stream": 32}, 100),
        ({"max_burst_symbols": 500}, 100),
        ({}, 0),
        ({}, 1 << 20),
    ],
)
def test_what_the_waveform_cannot_express_is_refused_before_the_first_burst(
    arguments: dict[str, int], bits: int
) -> None:
    """The call raises, not the first step of the iteration: who queues bursts must hear of it then."""
    with pytest.raises(wf.WaveformError):
        build_bursts(
            np.zeros(bits, np.uint8),
            **{"frame_id": 0, "codec_tag": 0, "mcs": 4, **arguments},
        )


def test_header_and_payload_must_agree() -> None:
    header = BurstHeader(
        mcs=4, frame_id=1, burst_number=0, frame_bits=1000, first_block=0, frame_blocks=1, blocks=1,
        codec_tag=1,
    )  # fmt: skip
    symbols = assemble(header, random_bits(1000, 6).reshape(1, -1))
    assert symbols.shape == (header.burst_symbols,)
