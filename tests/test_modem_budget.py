"""What a frame costs on the air, against the modulator; and the largest frame for a budget, against
trying."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocks.modem import waveform as wf
from blocks.modem.budget import air_symbols, payload_bits_within
from blocks.modem.burst import build_bursts

LARGEST = wf.MAX_PAYLOAD_BITS // 8 * 8
ALL_MCS = range(len(wf.MCS_CODE_RATES))


@pytest.mark.parametrize("mcs", [0, 1, 2, 4, 7, 9])
@pytest.mark.parametrize("payload_bits", [1, 8, 3816, 3824, 8424, 8432, 25_600, 90_000])
def test_symbols_are_those_of_the_modulator(payload_bits: int, mcs: int) -> None:
    bits = np.zeros(payload_bits, np.uint8)
    bursts = build_bursts(bits, frame_id=1, codec_tag=2, mcs=mcs)
    assert air_symbols(payload_bits, mcs) == sum(burst.symbols.size for burst in bursts)


def test_shorter_bursts_cost_more() -> None:
    bits = np.zeros(30_000, np.uint8)
    bursts = list(build_bursts(bits, frame_id=1, codec_tag=2, mcs=4, max_burst_symbols=7000))
    assert len(bursts) == 4
    expected = sum(burst.symbols.size for burst in bursts)
    assert air_symbols(30_000, 4, 7000) == expected > air_symbols(30_000, 4)


@given(
    st.sampled_from(ALL_MCS),
    st.integers(0, 400_000),
    st.sampled_from([7_000, 12_000, wf.MAX_BURST_SYMBOLS]),
)
@settings(max_examples=60, deadline=None)
def test_no_larger_frame_fits(mcs: int, extra: int, max_burst_symbols: int) -> None:
    """By trying every larger frame up to three code blocks more."""
    symbols = air_symbols(8, mcs, max_burst_symbols) + extra
    bits = payload_bits_within(symbols, mcs, max_burst_symbols)
    assert bits % 8 == 0
    assert air_symbols(bits, mcs, max_burst_symbols) <= symbols
    room = wf.max_info_bits(mcs) - wf.CODE_BLOCK_CRC_BITS
    for more in range(bits + 8, min(bits + 3 * room, LARGEST) + 1, 8):
        try:
            cost = air_symbols(more, mcs, max_burst_symbols)
        except wf.WaveformError:
            continue
        assert cost > symbols, more


@pytest.mark.parametrize("mcs", [2, 5, 9])
def test_against_trying_all_small_frames(mcs: int) -> None:
    costs = np.array([air_symbols(8 * size, mcs) for size in range(1, 6001)])
    top = int(costs[-1])
    generator = np.random.default_rng(mcs)
    borders = costs[generator.integers(0, 5000, 60)]
    for symbols in [*borders, *(borders - 1), *(borders + 1)]:
        if not costs[0] <= symbols < top - 9000:
            continue
        expected = 8 * (int(np.flatnonzero(costs <= symbols)[-1]) + 1)
        assert payload_bits_within(int(symbols), mcs) == expected


def test_a_longer_frame_may_be_cheaper() -> None:
    """Why the search goes block by block: here a frame with a code block more takes fewer symbols."""
    cheaper = [
        (bits, mcs)
        for mcs in ALL_MCS
        for bits in range(8, 60_000, 8)
        if air_symbols(bits + 8, mcs) < air_symbols(bits, mcs)
    ]
    assert cheaper
    for bits, mcs in cheaper[:50]:
        assert payload_bits_within(air_symbols(bits, mcs), mcs) > bits


@pytest.mark.parametrize("mcs", ALL_MCS)
def test_no_end_of_symbols(mcs: int) -> None:
    assert payload_bits_within(10**12, mcs) == LARGEST
    assert payload_bits_within(air_symbols(LARGEST, mcs), mcs) == LARGEST
    assert payload_bits_within(air_symbols(8, mcs), mcs) >= 8


def test_errors() -> None:
    least = air_symbols(8, 4)
    for symbols in (0, -1, least - 1):
        with pytest.raises(wf.WaveformError, match="one byte takes"):
            payload_bits_within(symbols, 4)
    for mcs in (-1, 10, True):
        with pytest.raises(wf.WaveformError, match="mcs"):
            payload_bits_within(10_000, mcs)
    for bits in (0, -8, wf.MAX_PAYLOAD_BITS + 1, 8.0):
        with pytest.raises(wf.WaveformError, match="frame bits"):
            air_symbols(bits, 4)  # type: ignore[arg-type]
    with pytest.raises(wf.WaveformError, match="max_burst_symbols"):
        payload_bits_within(10_000, 4, 500)


def test_blocks_that_no_burst_holds_are_not_counted_on() -> None:
    """The largest block of the lowest code rate has 6400 symbols, without what stands around them."""
    most = 5000
    bits = payload_bits_within(10**6, 0, most)
    assert air_symbols(bits, 0, most) <= 10**6
    with pytest.raises(wf.WaveformError):
        air_symbols(3816, 0, most)
