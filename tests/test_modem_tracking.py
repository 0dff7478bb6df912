"""Timing, phase, carrier offset and noise from known symbols, against what was put in and the bounds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from blocks.modem import known_symbols as ks
from blocks.modem import tracking as tr
from blocks.modem import waveform as wf
from blocks.modem.burst import assemble, insert_pilots
from blocks.modem.header import BurstHeader, header_symbols
from blocks.modem.pulse import derotate, shape
from tests.simulated_air import AIR_SPS, FIRST_SYMBOL, RECEIVER_SPS, Air, noise, random_bits


def burst_header(blocks: int = 3) -> BurstHeader:
    """Three of the largest blocks at rate 1/2: a burst of 18,768 symbols, close to the longest."""
    return BurstHeader(
        mcs=4, frame_id=1, burst_number=0, frame_bits=8424 * blocks, first_block=0,
        frame_blocks=blocks, blocks=blocks, codec_tag=1,
    )  # fmt: skip


def burst_symbols(header: BurstHeader, seed: int) -> NDArray[np.complex64]:
    payload = random_bits(header.blocks * header.plan.payload_bits, seed)
    return assemble(header, payload.reshape(header.blocks, -1))


def known_of(header: BurstHeader) -> ks.KnownSymbols:
    body = wf.HEADER_SYMBOLS + header.payload_symbols
    return ks.join(
        ks.known_preamble(), ks.known_pilots(body), ks.known_body(0, header_symbols(header))
    )


@given(st.integers(1, 3000))
def test_positions_name_the_symbols_that_are_there(body: int) -> None:
    """Data and pilots found by their positions are those that the transmitter put there."""
    symbols = np.arange(1, body + 1).astype(np.complex64)
    sent = np.concatenate([wf.preamble(), insert_pilots(symbols)])
    assert np.array_equal(sent[ks.body_positions(body)], symbols)
    for known in (ks.known_pilots(body), ks.known_preamble()):
        assert np.array_equal(sent[known.indices.astype(int)], known.symbols)


@pytest.mark.parametrize("blocks", [1, 2])
def test_known_symbols_behind_the_header_are_all_parts_joined(blocks: int) -> None:
    header = burst_header(blocks)
    body = wf.HEADER_SYMBOLS + header.payload_symbols
    known, joined = ks.known_behind_header(body, header_symbols(header)), known_of(header)
    assert np.array_equal(known.indices, joined.indices)
    assert np.array_equal(known.symbols, joined.symbols)


def test_known_symbols_of_a_whole_burst() -> None:
    header = burst_header(2)
    sent = burst_symbols(header, 1)[wf.RAMP_SYMBOLS :]
    known = known_of(header)
    assert np.allclose(sent[known.indices.astype(int)], known.symbols, atol=1e-6)
    assert np.all(np.diff(known.centres) > 0)
    assert known.symbols.size == 256 + 512 + 8 * -(-(512 + header.payload_symbols) // 128)


@pytest.mark.parametrize("sro_ppm", [0.0, 40.0, -40.0, 100.0, -100.0])
@pytest.mark.parametrize("snr_db", [5.0, 30.0])
def test_timing_over_a_long_burst(sro_ppm: float, snr_db: float) -> None:
    """At 100 ppm the last of 20,000 symbols is two symbol periods late."""
    header = burst_header()
    assert header.burst_symbols > 18_000
    air = Air(snr_db=snr_db, sro_ppm=sro_ppm, delay=3.3)
    samples = air.receive(shape(burst_symbols(header, 2), AIR_SPS), np.random.default_rng(2))
    true_start = air.arrival(FIRST_SYMBOL)
    start, step = tr.track_timing(samples, true_start + 0.1, known_of(header))
    # The instant of the first and of the last symbol, in symbols: 1/100 costs -40 dB.
    last = header.burst_symbols - 2 * wf.RAMP_SYMBOLS - 1
    true_end = air.arrival(FIRST_SYMBOL + AIR_SPS * last)
    limit = 0.01 if snr_db > 20 else 0.03
    assert abs(start - true_start) / RECEIVER_SPS < limit
    assert abs(start + step * last - true_end) / RECEIVER_SPS < limit
    assert (step / RECEIVER_SPS - 1) * 1e6 == pytest.approx(sro_ppm, abs=1.5)


def test_timing_of_the_shortest_burst() -> None:
    """A burst of one bit: too short for a drift to matter, so none may be made up that does."""
    header = BurstHeader(
        mcs=9, frame_id=1, burst_number=0, frame_bits=1, first_block=0, frame_blocks=1, blocks=1,
        codec_tag=1,
    )  # fmt: skip
    air = Air(snr_db=0.0, delay=1.7)
    for seed in range(20):
        samples = air.receive(shape(burst_symbols(header, 3), AIR_SPS), np.random.default_rng(seed))
        start, step = tr.track_timing(samples, air.arrival(FIRST_SYMBOL), known_of(header))
        last = header.burst_symbols - 2 * wf.RAMP_SYMBOLS - 1
        assert abs(start - air.arrival(FIRST_SYMBOL)) / RECEIVER_SPS < 0.15
        assert abs(start + step * last - air.arrival(FIRST_SYMBOL + AIR_SPS * last)) < 0.3


@pytest.mark.parametrize("offset", [-5e-4, -1e-4, 0.0, 3e-6, 2e-4, 5e-4])
def test_residual_carrier_offset(offset: float) -> None:
    """Against the Cramer-Rao bound for these groups at 0 dB, and a few bounds for the largest error."""
    known = ks.join(ks.known_preamble(), ks.known_pilots(wf.HEADER_SYMBOLS))
    generator = np.random.default_rng(4)
    centres = known.centres
    bound = math.sqrt(
        1.0 / (2 * ks.GROUP * (2 * np.pi) ** 2 * np.sum((centres - centres.mean()) ** 2))
    )
    errors = []
    for _ in range(100):
        tone = np.exp(2j * np.pi * (offset * centres + generator.uniform()))
        phasors = tone + noise(centres.size, 1.0 / ks.GROUP, generator)
        errors.append(tr.residual_cfo(phasors.astype(np.complex64), centres) - offset)
    assert 0.8 < np.std(errors) / bound < 1.25
    assert np.abs(errors).max() < 5 * bound
    assert abs(np.mean(errors)) < 4 * bound / 10


def walk(centres: NDArray[np.float64], per_symbol: float, seed: int) -> NDArray[np.float64]:
    generator = np.random.default_rng(seed)
    steps = generator.standard_normal(centres.size) * np.sqrt(
        per_symbol * np.diff(centres, prepend=centres[0])
    )
    return np.cumsum(steps)


def test_power_of_a_tone_is_that_of_its_phasors_turned_back() -> None:
    centres = ks.known_preamble().centres
    tones = np.array([[1.0], [0.5j]]) * np.exp(2j * np.pi * 3e-4 * centres)
    powers = tr.tone_powers(tones.astype(np.complex64), centres, 3e-4)
    assert powers == pytest.approx([32.0**2, 16.0**2], rel=1e-5)
    # Off by one over the span of all groups: the sum goes once round.
    off = tr.tone_powers(tones.astype(np.complex64), centres, 3e-4 + 1 / wf.PREAMBLE_SYMBOLS)
    assert max(off) < 1e-3


@pytest.mark.parametrize("snr_db", [-2.0, 5.0, 20.0])
def test_phase_tracker_follows_the_promised_phase_noise(snr_db: float) -> None:
    """Random walk of 1e-5 rad^2/symbol, pilots every 136 symbols: the mean square error of the phase
    approaches that of the steady-state Wiener smoother, sqrt(Q R) / 2 for Q per group and R.
    """
    centres = ks.known_pilots(18_000).centres
    noise_variance = 10 ** (-snr_db / 10)
    errors = []
    for seed in range(20):
        phase = walk(centres, 1e-5, seed)
        phasors = np.exp(1j * phase) + noise(
            centres.size, noise_variance / ks.GROUP, np.random.default_rng(100 + seed)
        )
        tracked = tr.track_phase(phasors.astype(np.complex64), centres, noise_variance)
        errors.append(np.angle(tracked * np.exp(-1j * phase))[5:-5])
    mean_square = float(np.mean(np.square(errors)))
    observation = noise_variance / (2 * ks.GROUP)
    per_group = 1e-5 * 136
    # Exact two-sided smoother of a random walk in white noise.
    expected = observation * math.sqrt(per_group / (per_group + 4 * observation))
    assert 0.85 * expected < mean_square < 1.25 * expected
    # And it pays: better than taking each group as it is.
    assert mean_square < (0.5 if snr_db < 10 else 0.95) * observation


def test_phase_tracker_finds_a_still_channel_in_noise() -> None:
    centres = ks.known_pilots(18_000).centres
    channel = 0.3 * np.exp(2j)
    noise_variance = 0.09  # 0 dB
    generator = np.random.default_rng(5)
    phasors = channel + noise(centres.size, noise_variance / ks.GROUP, generator)
    tracked = tr.track_phase(phasors.astype(np.complex64), centres, noise_variance)
    error = np.mean(np.abs(tracked - channel) ** 2) / abs(channel) ** 2
    assert error < 0.25 / ks.GROUP


def test_phase_tracker_without_noise_is_the_identity() -> None:
    centres = ks.known_pilots(5000).centres
    phasors = np.exp(1j * walk(centres, 1e-4, 6)).astype(np.complex64)
    assert np.allclose(tr.track_phase(phasors, centres, 1e-12), phasors, atol=1e-5)


def test_channel_between_the_groups_is_linear() -> None:
    centres = np.array([4.0, 12.0, 148.0])
    channel = np.array([1.0, 1j, -1.0])
    positions = np.array([0.0, 4.0, 8.0, 80.0, 148.0, 200.0])
    expected = np.array([1.0, 1.0, 0.5 + 0.5j, 0.5j - 0.5, -1.0, -1.0], np.complex64)
    symbols, noise_variance = tr.divide_channel(expected, positions, channel, centres, 0.0, 0.1)
    assert np.allclose(symbols, 1, atol=1e-6)
    assert np.allclose(noise_variance, 0.1 / np.abs(expected) ** 2)


@given(st.integers(0, 1000), st.floats(-6e-4, 6e-4))
def test_division_is_the_plain_formula(seed: int, cfo: float) -> None:
    generator = np.random.default_rng(seed)
    positions = np.sort(generator.choice(3000, 500, replace=False)).astype(np.float64)
    centres = np.sort(generator.uniform(0, 3000, 12))
    channel = 1 + 0.5 * noise(12, 1.0, generator)
    received = noise(500, 1.0, generator).astype(np.complex64)
    real = np.interp(positions, centres, channel.real)
    value = real + 1j * np.interp(positions, centres, channel.imag)
    value *= np.exp(2j * np.pi * cfo * positions)
    symbols, variance = tr.divide_channel(received, positions, channel, centres, cfo, 0.2)
    assert np.allclose(symbols, received / value, rtol=1e-5, atol=1e-6)
    assert np.allclose(variance, 0.2 / np.abs(value) ** 2, rtol=1e-5)


@pytest.mark.parametrize("value", [0.0, 1e-25, np.nan, np.inf, 1e35])
def test_without_a_channel_symbols_say_nothing(value: float) -> None:
    """Nothing to divide by: zero with as much noise as there can be, never a NaN."""
    symbols, variance = tr.divide_channel(
        np.ones(3, np.complex64), np.arange(3.0), np.full(2, value + 0j), np.array([0.0, 9.0]), 0, 1
    )
    assert not symbols.any()
    assert np.all(variance == np.float32(1e30))


def test_group_means_tell_channel_and_noise() -> None:
    known = ks.known_pilots(100_000)
    generator = np.random.default_rng(8)
    received = 0.5j * known.symbols + noise(known.symbols.size, 0.3, generator).reshape(
        -1, ks.GROUP
    )
    means, variance = ks.group_means(received.astype(np.complex64), known.symbols)
    assert np.allclose(means, (received * known.symbols.conj()).mean(axis=1), atol=1e-6)
    # 7 of 8 degrees of freedom are left: relative scatter 1 / sqrt(7 * groups) = 1.4 %.
    assert variance == pytest.approx(0.3, rel=0.05)


@pytest.mark.parametrize("cfo", [0.0, 0.001, -0.0375, 0.05])
@pytest.mark.parametrize("snr_db", [0.0, 25.0])
def test_dc_from_known_symbols(cfo: float, snr_db: float) -> None:
    """Its scatter is that of n known symbols of which the groups' channels take an eighth, N0 / (7n/8),
    or of what there was before where that is less.
    """
    known = known_of(burst_header(1))
    count = known.symbols.size
    variance = 10 ** (-snr_db / 10)
    instants = 17.3 + RECEIVER_SPS * known.indices
    tone = np.exp(-2j * np.pi * cfo / RECEIVER_SPS * instants)
    generator = np.random.default_rng(9)
    span = 7000.0
    before = (1 + variance) / span
    after = []
    for _ in range(300):
        dc = noise(1, before, generator)[0]
        disturbance = noise(count, variance, generator).reshape(-1, ks.GROUP)
        received = 1j * known.symbols + dc * tone + disturbance
        found = tr.residual_dc(
            received.astype(np.complex64), known, instants, cfo / RECEIVER_SPS, span
        )
        after.append(abs(dc - found) ** 2)
    estimate = variance / (7 / 8 * count)
    expected = estimate * before / (estimate + before)
    assert np.mean(after) == pytest.approx(expected, rel=4 / np.sqrt(300))
    assert np.mean(after) < before


def test_mean_channel_of_a_group() -> None:
    header = burst_header(1)
    air = Air(delay=0.6, phase=0.2, gain=0.5)
    samples = air.receive(shape(burst_symbols(header, 7), AIR_SPS), np.random.default_rng(7))
    # Half a sample early and late a random symbol shows R(1/4), its pulse's autocorrelation.
    starts = air.arrival(FIRST_SYMBOL) + np.array([0.0, -0.5, 0.5])
    known = known_of(header)
    phasors, early, late = known.phasors(samples, starts, float(RECEIVER_SPS))
    assert np.allclose(phasors, 0.5 * np.exp(0.4j * np.pi), atol=0.01)
    raised_cosine = np.sinc(0.25) * np.cos(np.pi * wf.ROLL_OFF / 4) / (1 - (wf.ROLL_OFF / 2) ** 2)
    for shifted in (early, late):
        assert abs(shifted.mean() / phasors.mean()) == pytest.approx(raised_cosine, rel=0.03)
    turned = derotate(samples, 0.001 / RECEIVER_SPS)
    (phasors,) = known.phasors(turned, starts[:1], float(RECEIVER_SPS))
    turns = np.angle(phasors[1:] * np.conj(phasors[:-1]))
    expected = -2 * np.pi * 0.001 * np.diff(known.centres)
    assert np.allclose(turns, expected, atol=0.03)
