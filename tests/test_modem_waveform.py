"""The constants of the air interface agree with each other, and frames are cut without a loose end."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocks.modem import waveform as wf
from blocks.modem.ldpc_code import get_code

ALL_MCS = range(len(wf.MCS_CODE_RATES))
EDGE_BITS = (1, 2, 3, 100, 3815, 3816, 3817, 8423, 8424, 8425, 33_600, 112_896, wf.MAX_PAYLOAD_BITS)


def test_repeated_word() -> None:
    word = wf.preamble()[: wf.WORD_SYMBOLS].astype(np.complex128)
    # Zero mean: no line where a receiver's own DC offset sits.
    assert abs(word.sum()) < 1e-6
    periodic = np.abs(np.fft.ifft(np.abs(np.fft.fft(word)) ** 2)) / wf.WORD_SYMBOLS
    assert periodic[0] == pytest.approx(1)
    assert periodic[1:].max() <= 0.25 + 1e-6
    repeats = wf.preamble()[: wf.WORD_SYMBOLS * wf.WORD_REPEATS].reshape(-1, wf.WORD_SYMBOLS)
    assert np.all(repeats == repeats[0])


def test_preamble_and_pilots_have_unit_amplitude() -> None:
    assert wf.preamble().shape == (wf.PREAMBLE_SYMBOLS,) == (256,)
    assert np.allclose(np.abs(wf.preamble()), 1, atol=1e-6)
    assert wf.pilots(100).shape == (100, wf.PILOT_SYMBOLS)
    assert np.allclose(np.abs(wf.pilots(100)), 1, atol=1e-6)
    # A longer burst begins with the pilots of a shorter one.
    assert np.array_equal(wf.pilots(100)[:7], wf.pilots(7))
    for symbols in (wf.preamble(), wf.pilots(3), wf.ramp_window()):
        assert not symbols.flags.writeable


def test_pn_part_marks_one_instant() -> None:
    """The aperiodic autocorrelation decides between neighbouring words: no side lobe above 1/4."""
    known = wf.preamble().astype(np.complex128)
    pn = known[-wf.PN_SYMBOLS :]
    correlation = np.abs(np.correlate(pn, pn, "full")) / wf.PN_SYMBOLS
    correlation[wf.PN_SYMBOLS - 1] = 0
    assert correlation.max() < 0.25


def test_ramp() -> None:
    window = wf.ramp_window()
    assert np.all(np.diff(window) > 0)
    # Rising and falling ramp add up to one, as in a cross fade.
    assert np.allclose(window + window[::-1], 1, atol=1e-6)


def test_header_code_is_rate_one_quarter() -> None:
    code = get_code(wf.HEADER_BITS, wf.HEADER_CODED_BITS)
    assert (code.base_graph, code.rate) == (2, 0.25)


def test_code_rates() -> None:
    assert [str(rate) for rate in wf.MCS_CODE_RATES] == [
        "1/5", "1/4", "1/3", "2/5", "1/2", "3/5", "2/3", "3/4", "5/6", "8/9",
    ]  # fmt: skip


@pytest.mark.parametrize("mcs", ALL_MCS)
def test_largest_block_uses_the_base_graph_of_the_standard(mcs: int) -> None:
    info = wf.max_info_bits(mcs)
    graph = get_code(info, wf.coded_bits(info, mcs)).base_graph
    assert (info, graph) == ((3840, 2) if wf.MCS_CODE_RATES[mcs] <= Fraction(1, 4) else (8448, 1))


@given(st.integers(25, 8448), st.sampled_from(ALL_MCS))
def test_coded_bits_are_the_fewest_whole_symbols(info: int, mcs: int) -> None:
    coded = wf.coded_bits(info, mcs)
    rate = wf.MCS_CODE_RATES[mcs]
    assert coded % wf.BITS_PER_SYMBOL == 0
    assert Fraction(info, coded) <= rate
    assert Fraction(info, coded - wf.BITS_PER_SYMBOL) > rate


def check_plan(frame_bits: int, mcs: int) -> None:
    plan = wf.plan_blocks(frame_bits, mcs)
    assert plan.blocks * plan.payload_bits >= frame_bits
    assert (plan.blocks - 1) * plan.payload_bits < frame_bits  # the last block is not empty
    assert plan.info_bits == plan.payload_bits + wf.CODE_BLOCK_CRC_BITS <= wf.max_info_bits(mcs)
    assert (
        plan.symbols * wf.BITS_PER_SYMBOL == plan.coded_bits == wf.coded_bits(plan.info_bits, mcs)
    )
    assert wf.plan_blocks(frame_bits, mcs, plan.blocks) == plan
    code = get_code(plan.info_bits, plan.coded_bits)
    assert code.rate <= float(wf.MCS_CODE_RATES[mcs]) + 1e-12
    counts = wf.blocks_per_burst(plan)
    assert sum(counts) == plan.blocks
    assert max(counts) - min(counts) <= 1
    assert min(counts) >= 1
    assert max(counts) <= wf.MAX_BLOCKS_PER_BURST
    assert wf.burst_symbols(max(counts) * plan.symbols) <= wf.MAX_BURST_SYMBOLS


@pytest.mark.parametrize("mcs", ALL_MCS)
@pytest.mark.parametrize("frame_bits", EDGE_BITS)
def test_plan_at_the_edges(frame_bits: int, mcs: int) -> None:
    check_plan(frame_bits, mcs)


@given(st.integers(1, wf.MAX_PAYLOAD_BITS), st.sampled_from(ALL_MCS))
@settings(max_examples=200)
def test_plan(frame_bits: int, mcs: int) -> None:
    check_plan(frame_bits, mcs)


@given(st.integers(1, wf.MAX_PAYLOAD_BITS), st.sampled_from(ALL_MCS), st.integers(1, 512))
@settings(max_examples=200)
def test_a_receiver_cuts_as_announced_or_refuses(frame_bits: int, mcs: int, blocks: int) -> None:
    """The number of blocks comes out of a header: whatever it says must fit or be an error."""
    try:
        plan = wf.plan_blocks(frame_bits, mcs, blocks)
    except wf.WaveformError:
        room = wf.max_info_bits(mcs) - wf.CODE_BLOCK_CRC_BITS
        payload = -(-frame_bits // blocks)
        assert payload > room or payload * (blocks - 1) >= frame_bits
        return
    assert plan.blocks == blocks
    assert (blocks - 1) * plan.payload_bits < frame_bits <= blocks * plan.payload_bits


@given(st.integers(1000, wf.MAX_BURST_SYMBOLS), st.integers(1, 200_000), st.sampled_from(ALL_MCS))
@settings(max_examples=200)
def test_burst_limit_is_kept(limit: int, frame_bits: int, mcs: int) -> None:
    plan = wf.plan_blocks(frame_bits, mcs)
    try:
        counts = wf.blocks_per_burst(plan, limit)
    except wf.WaveformError:
        too_long = wf.burst_symbols(plan.symbols) > limit
        most = next((n for n in range(16, 0, -1) if wf.burst_symbols(n * plan.symbols) <= limit), 0)
        assert too_long or -(-plan.blocks // most) > wf.MAX_BURSTS_PER_FRAME
        return
    assert sum(counts) == plan.blocks
    assert wf.burst_symbols(max(counts) * plan.symbols) <= limit


@given(st.integers(1, 20_000))
def test_pilots_follow_every_128_symbols_and_the_last(body: int) -> None:
    total = wf.body_symbols_with_pilots(body)
    groups, rest = divmod(total - body, wf.PILOT_SYMBOLS)
    assert rest == 0
    assert (groups - 1) * wf.PILOT_SPACING < body <= groups * wf.PILOT_SPACING


def test_symbols_of_a_burst_by_hand() -> None:
    # 2 ramps of 8, preamble 256, header 512 and 1000 data symbols with 12 pilot groups of 8
    assert wf.burst_symbols(1000) == 16 + 256 + 1512 + 96


def test_scrambling_seeds_never_repeat() -> None:
    seeds = {
        wf.payload_scrambling_seed(block, version)
        for block in range(wf.MAX_BLOCKS_PER_FRAME)
        for version in range(4)
    }
    assert len(seeds) == 4 * wf.MAX_BLOCKS_PER_FRAME
    assert max(seeds) < 1 << 31  # what a Gold sequence takes


@pytest.mark.parametrize("mcs", [-1, 10, True, 1.0, "4", None])
def test_mcs_that_do_not_exist(mcs: object) -> None:
    with pytest.raises(wf.WaveformError, match="mcs"):
        wf.check_mcs(mcs)  # type: ignore[arg-type]


@pytest.mark.parametrize("frame_bits", [0, -1, wf.MAX_PAYLOAD_BITS + 1])
def test_frame_bits_out_of_range(frame_bits: int) -> None:
    with pytest.raises(wf.WaveformError, match="frame bits"):
        wf.plan_blocks(frame_bits, 4)


# 10,000 bits need two blocks at rate 1/2; three blocks of two bits each leave 4 bits' last one empty.
@pytest.mark.parametrize(
    ("frame_bits", "blocks"),
    [(10_000, 0), (10_000, -1), (10_000, 1), (10_000, 513), (4, 3), (4, 5)],
)
def test_numbers_of_blocks_that_cannot_be(frame_bits: int, blocks: int) -> None:
    with pytest.raises(wf.WaveformError, match="code blocks"):
        wf.plan_blocks(frame_bits, 4, blocks)


def test_one_block_that_fits_no_burst() -> None:
    plan = wf.plan_blocks(3816, 0)
    with pytest.raises(wf.WaveformError, match="one code block of mcs 0 needs"):
        wf.blocks_per_burst(plan, 1000)


def test_pulse_is_smooth_at_its_removable_poles() -> None:
    pole = 1 / (4 * wf.ROLL_OFF)
    for t in (0.0, pole, -pole):
        around = wf.root_raised_cosine(np.array([t - 1e-6, t, t + 1e-6]))
        assert np.ptp(around) < 1e-5
