"""Pulse shaping and matched filtering against the textbook formulas, written out naively here."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from blocks.modem import waveform as wf
from blocks.modem.pulse import (
    BANK_MARGIN_SAMPLES,
    BANK_PHASES,
    derotate,
    filter_real,
    matched_filter_bank,
    sample_mean,
    sample_symbols,
    shape,
    shaping_taps,
)
from tests.simulated_air import AIR_SPS, Air, noise

ALL_SPS = range(2, 9)


def symbols_of(count: int, seed: int) -> NDArray[np.complex64]:
    turns = np.random.default_rng(seed).integers(0, 8, count)
    return np.exp(0.25j * np.pi * turns).astype(np.complex64)


def raised_cosine(t: NDArray[np.float64]) -> NDArray[np.float64]:
    denominator = 1 - (2 * wf.ROLL_OFF * t) ** 2
    at_pole = np.abs(denominator) < 1e-9
    value = np.sinc(t) * np.cos(np.pi * wf.ROLL_OFF * t) / np.where(at_pole, 1, denominator)
    return np.where(at_pole, np.pi / 4 * np.sinc(1 / (2 * wf.ROLL_OFF)), value)


def test_pulse_has_unit_energy() -> None:
    time = np.arange(-400, 400, 1 / 16)
    assert (wf.root_raised_cosine(time) ** 2).sum() / 16 == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("samples_per_symbol", ALL_SPS)
def test_shaped_burst_has_unit_mean_power(samples_per_symbol: int) -> None:
    taps = shaping_taps(samples_per_symbol).astype(np.float64)
    # The cut at +-8 symbols takes away less than 0.1 % of the energy.
    assert (taps**2).sum() / samples_per_symbol == pytest.approx(1, abs=1e-3)
    samples = shape(symbols_of(20_000, 1), samples_per_symbol)
    middle = samples[16 * samples_per_symbol : -16 * samples_per_symbol]
    assert np.mean(np.abs(middle) ** 2) == pytest.approx(1, abs=0.01)


def test_pulse_after_its_matched_filter_is_the_raised_cosine() -> None:
    """The convolution of the infinite pulse with itself; 0 at every other symbol (Nyquist)."""
    step = 1 / 16
    time = np.arange(-200, 200 + step, step)
    pulse = wf.root_raised_cosine(time)
    for lag in (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 2.75):
        shifted = wf.root_raised_cosine(time - lag)
        assert (pulse * shifted).sum() * step == pytest.approx(
            float(raised_cosine(np.array([lag]))[0]), abs=1e-4
        )


@pytest.mark.parametrize("samples_per_symbol", ALL_SPS)
def test_shape_is_the_plain_convolution(samples_per_symbol: int) -> None:
    symbols = symbols_of(37, 2)
    span = wf.PULSE_HALF_SPAN_SYMBOLS
    upsampled = np.zeros(symbols.size * samples_per_symbol, np.complex128)
    upsampled[::samples_per_symbol] = symbols
    time = np.arange(-span * samples_per_symbol, (span + 1) * samples_per_symbol)
    expected = np.convolve(upsampled, wf.root_raised_cosine(time / samples_per_symbol))
    samples = shape(symbols, samples_per_symbol)
    assert samples.shape == ((symbols.size + 2 * span) * samples_per_symbol,)
    assert np.allclose(samples, expected[: samples.size], atol=2e-6)


@pytest.mark.parametrize("samples_per_symbol", [2, 4, 8])
def test_intersymbol_interference_is_below_minus_40_db(samples_per_symbol: int) -> None:
    """Shaped, taken down to 2 samples per symbol, matched filtered: what is left over.

    Without any channel in between, so that the two cut pulses are what is measured.
    """
    symbols = symbols_of(4000, 3)
    samples = np.ascontiguousarray(shape(symbols, samples_per_symbol)[:: samples_per_symbol // 2])
    received = sample_symbols(
        samples, matched_filter_bank(), 16.0, 2.0, np.arange(symbols.size, dtype=np.float64)
    )
    error_db = 10 * np.log10(np.mean(np.abs(received - symbols)[20:-20] ** 2))
    assert -60 < error_db < -40


@pytest.mark.parametrize("delay", [0.0, 0.13, 0.5, 1.37, 2.901])
def test_interference_at_any_fraction_of_a_sample(delay: float) -> None:
    """The bank has 128 phases per sample: rounding the instant adds little to the cut pulse."""
    symbols = symbols_of(3000, 4)
    air = Air(delay=delay)
    received = sample_symbols(
        air.receive(shape(symbols, AIR_SPS), np.random.default_rng(0)),
        matched_filter_bank(),
        air.arrival(wf.PULSE_HALF_SPAN_SYMBOLS * AIR_SPS),
        2.0,
        np.arange(symbols.size, dtype=np.float64),
    )
    error_db = 10 * np.log10(np.mean(np.abs(received - symbols)[20:-20] ** 2))
    assert error_db < -39


def test_matched_filter_leaves_the_noise_as_it_is() -> None:
    """A unit symbol comes out as 1, white noise of variance 2 N0 per sample (2 samples per symbol) as N0."""
    samples = noise(400_000, 2.0, np.random.default_rng(5)).astype(np.complex64)
    out = sample_symbols(
        samples, matched_filter_bank(), 50.3, 2.0, np.arange(199_900, dtype=np.float64)
    )
    # 199,900 nearly independent values: relative standard deviation 1/sqrt(n) = 0.22 %.
    assert np.mean(np.abs(out) ** 2) == pytest.approx(1, abs=0.01)
    neighbours = np.vdot(out[:-1], out[1:]) / np.vdot(out, out)
    assert abs(neighbours) < 0.01


def test_sample_symbols_is_the_plain_sum() -> None:
    generator = np.random.default_rng(6)
    samples = noise(400, 1.0, generator).astype(np.complex64)
    indices = np.sort(generator.uniform(0, 150, 40))
    first, step = 30.0, 2.0003
    out = sample_symbols(samples, matched_filter_bank(), first, step, indices)
    half = matched_filter_bank().shape[1] // 2
    for value, index in zip(out, indices, strict=True):
        instant = np.floor((first + step * index) * BANK_PHASES + 0.5) / BANK_PHASES
        near = np.arange(int(np.floor(instant)) - half, int(np.floor(instant)) + half + 1)
        taps = wf.root_raised_cosine((near - instant) / 2) / 2
        assert value == pytest.approx(complex(samples[near] @ taps), abs=1e-5)


def test_instants_outside_of_the_samples_read_zero() -> None:
    samples = np.ones(100, np.complex64)
    margin = BANK_MARGIN_SAMPLES
    instants = np.array([-1e6, -5.0, 3.0, margin, 99.0 - margin, 97.0, 1e6])
    out = sample_symbols(samples, matched_filter_bank(), 0.0, 1.0, instants)
    assert np.array_equal(out != 0, [False, False, False, True, True, False, False])


@given(st.floats(-0.5, 0.5), st.integers(1, 2000))
@settings(max_examples=50)
def test_derotate_is_the_exact_phasor(cycles: float, count: int) -> None:
    samples = noise(count, 1.0, np.random.default_rng(count)).astype(np.complex64)
    expected = samples * np.exp(-2j * np.pi * ((cycles * np.arange(count)) % 1.0))
    assert np.allclose(derotate(samples, cycles), expected, atol=2e-6)


def test_derotate_takes_the_dc_away_first() -> None:
    samples = noise(1000, 1.0, np.random.default_rng(7)).astype(np.complex64)
    dc = np.complex64(0.3 - 2.0j)
    expected = derotate(samples - dc, 0.0123)
    assert np.allclose(derotate(samples, 0.0123, complex(dc)), expected, atol=1e-6)


def test_derotate_stays_exact_over_a_million_samples() -> None:
    cycles = 0.012_345_678_9
    out = derotate(np.ones(1_000_001, np.complex64), cycles)
    places = np.array([0, 255, 256, 999_999, 1_000_000])
    expected = np.exp(-2j * np.pi * ((cycles * places) % 1.0))
    assert np.allclose(out[places], expected, atol=1e-6)
    assert np.allclose(np.abs(out), 1, atol=1e-6)


@given(st.integers(1, 60), st.integers(0, 100))
@settings(max_examples=50)
def test_filter_real_is_the_plain_correlation(taps: int, extra: int) -> None:
    generator = np.random.default_rng(taps)
    samples = noise(taps + extra, 1.0, generator).astype(np.complex64)
    weights = generator.standard_normal(taps).astype(np.float32)
    expected = np.correlate(samples, weights, "valid")
    assert np.allclose(filter_real(samples, weights), expected, atol=1e-4)


@pytest.mark.parametrize("count", [1, 2, 1001, 40_000])
def test_mean_in_double_precision(count: int) -> None:
    samples = noise(count, 1.0, np.random.default_rng(count)).astype(np.complex64)
    samples += np.complex64(1000 - 300j)
    expected = samples.astype(np.complex128).mean()
    assert sample_mean(samples) == pytest.approx(expected, rel=1e-12)
