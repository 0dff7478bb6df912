"""The equaliser against theory: least squares, the false-alarm rate, and the least mean square error."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from blocks.modem import equaliser as eq
from blocks.modem import waveform as wf
from tests.simulated_air import noise, random_bits

MAIN = eq.TAPS_BEFORE
OTHERS = np.arange(eq.TAPS_BEFORE + 1 + eq.TAPS_AFTER) != MAIN


def head_symbols(seed: int = 1) -> NDArray[np.complex64]:
    """Like the head of a burst: the preamble with its repeated words, then 544 BPSK symbols."""
    bits = random_bits(544, seed).astype(np.float64)
    return np.concatenate([wf.preamble(), 1 - 2 * bits]).astype(np.complex64)


def response_of(taps: dict[int, complex], noise_variance: float) -> eq.ImpulseResponse:
    """Taps by their delay in symbols; known exactly."""
    values = np.zeros(OTHERS.size, np.complex128)
    for delay, value in taps.items():
        values[MAIN + delay] = value
    return eq.ImpulseResponse(values, np.zeros(OTHERS.size), noise_variance)


def through(
    symbols: NDArray[np.complex64], taps: dict[int, complex], noise_variance: float, seed: int
) -> NDArray[np.complex64]:
    received = noise(symbols.size, noise_variance, np.random.default_rng(seed))
    for delay, value in taps.items():
        moved = np.roll(symbols.astype(np.complex128), delay)
        if delay > 0:
            moved[:delay] = 0
        if delay < 0:
            moved[delay:] = 0
        received += value * moved
    return received.astype(np.complex64)


ECHOES: dict[int, complex] = {-2: 0.05, 0: 1.0, 1: 0.3j, 4: -0.1, 9: 0.06 - 0.06j}


def test_without_noise_the_taps_are_found_exactly() -> None:
    symbols = head_symbols()
    found = eq.estimate_response(through(symbols, ECHOES, 0.0, 1), symbols)
    assert np.allclose(found.taps, response_of(ECHOES, 0).taps, atol=1e-5)
    assert found.noise_variance < 1e-10


@pytest.mark.parametrize("snr_db", [-2.0, 12.0])
def test_taps_scatter_as_least_squares_says(snr_db: float) -> None:
    symbols = head_symbols()
    variance = 10 ** (-snr_db / 10)
    found = [
        eq.estimate_response(through(symbols, ECHOES, variance, seed), symbols)
        for seed in range(400)
    ]
    errors = np.array([one.taps for one in found]) - response_of(ECHOES, 0).taps
    scatter = (np.abs(errors) ** 2).mean(axis=0)
    # Squared magnitudes are exponential: their mean over 400 scatters by 5 %.
    assert np.allclose(scatter / found[0].variances, 1, atol=0.2)
    assert np.abs(errors.mean(axis=0)).max() < 4 * np.sqrt(scatter.max() / 400)
    # One of 784 equations each; the repeated words tell some less than nothing repeated would.
    assert np.all(scatter > 0.8 * variance / 784)
    assert np.all(scatter < 2 * variance / 784)
    measured = np.mean([one.noise_variance for one in found])
    assert measured == pytest.approx(variance, rel=4 / np.sqrt(767 * 400))


def test_noise_alone_is_no_echo() -> None:
    """Taps that noise makes are exponential; with the factor 16 one burst in 560,000 is misjudged."""
    symbols = head_symbols()
    largest = []
    for seed in range(2000):
        found = eq.estimate_response(through(symbols, {0: 1.0}, 0.3, seed), symbols)
        assert found.echoes() is None
        largest.append(float((np.abs(found.taps) ** 2 / found.variances)[OTHERS].max()))
    for factor in (2.0, 4.0, 6.0):
        expected = 1 - (1 - np.exp(-factor)) ** OTHERS.sum()
        spread = np.sqrt(expected * (1 - expected) / 2000)
        assert abs(np.mean(np.array(largest) > factor) - expected) < 4 * spread + 0.05 * expected


@pytest.mark.parametrize("delay", [-6, -1, 1, 2, 10])
@pytest.mark.parametrize("snr_db", [-2.0, 10.0])
def test_an_echo_worth_undoing_is_found(delay: int, snr_db: float) -> None:
    """10 dB above the threshold on the mean, or 10 dB under the signal: found every time."""
    symbols = head_symbols()
    variance = 10 ** (-snr_db / 10)
    level = max(0.316, np.sqrt(10 * eq.DETECTION_FACTOR * variance / 784))
    for seed in range(20):
        echo = level * np.exp(1j * seed)
        received = through(symbols, {0: 1.0, delay: echo}, variance, seed)
        found = eq.estimate_response(received, symbols).echoes()
        assert found is not None
        assert abs(found.taps[MAIN + delay] - echo) < 5 * np.sqrt(variance / 784)
        # Most of what is only noise is gone.
        assert np.count_nonzero(found.taps) < 8


def two_tap_snr(echo: float, noise_variance: float) -> float:
    """Output of an endless linear equaliser with the least mean square error, for taps 1 and ``echo``.

    Mean over all frequencies of N0 / (|H|^2 + N0) is its error; integral of 1/(a + b cos).
    """
    a = 1 + echo**2 + noise_variance
    return float(np.sqrt(a**2 - 4 * echo**2) / noise_variance - 1)


@pytest.mark.parametrize("echo", [0.316, 0.5])
@pytest.mark.parametrize("snr_db", [-2.0, 5.0, 12.0, 20.0])
@pytest.mark.parametrize("delay", [-1, 1, 3])
def test_least_mean_square_error_of_two_taps(echo: float, snr_db: float, delay: int) -> None:
    variance = 10 ** (-snr_db / 10)
    taps = {0: 1.0 + 0j, delay: echo * np.exp(2j)}
    weights, snr = eq.mmse_filter(response_of(taps, variance))
    expected = two_tap_snr(echo, variance)
    assert snr == pytest.approx(expected, rel=0.01)
    # And that is what comes out: unbiased, with so much of noise and neighbours.
    symbols = np.exp(0.25j * np.pi * np.random.default_rng(3).integers(0, 8, 60_000))
    received = through(symbols.astype(np.complex64), taps, variance, 4)
    out = eq.equalise(received, weights)
    wanted = symbols[eq.FILTER_CENTRE : eq.FILTER_CENTRE + out.size]
    middle = slice(30, -30)
    gain = np.vdot(wanted[middle], out[middle]) / wanted[middle].size
    assert abs(gain - 1) < 4 / np.sqrt(wanted.size * expected)
    error = np.mean(np.abs(out - wanted)[middle] ** 2)
    assert 1 / error == pytest.approx(expected, rel=0.03)


def test_equaliser_of_a_clear_way_is_none() -> None:
    """Only the main tap: weights of a single 1, and the SNR of the way itself."""
    weights, snr = eq.mmse_filter(response_of({0: 1.0}, 0.1))
    assert np.allclose(weights, np.arange(eq.FILTER_TAPS) == eq.FILTER_CENTRE)
    assert snr == pytest.approx(10)


def test_equalise_is_the_plain_sum() -> None:
    generator = np.random.default_rng(5)
    stream = noise(100, 1.0, generator).astype(np.complex64)
    weights = noise(eq.FILTER_TAPS, 1.0, generator)
    expected = np.correlate(stream.astype(np.complex128), weights.conj(), "valid")
    assert np.allclose(eq.equalise(stream, weights), expected, atol=1e-4)


def test_inverse() -> None:
    generator = np.random.default_rng(6)
    rows = noise(40 * 17, 1.0, generator).reshape(40, 17)
    matrix = rows.conj().T @ rows
    assert np.allclose(eq._inverse(matrix) @ matrix, np.eye(17), atol=1e-10)


@pytest.mark.parametrize("level", [0.0, 1e-15, 1e15])
def test_any_input_gives_finite_weights(level: float) -> None:
    """Silence, a tone, a repeated echo of full strength: no exception, nothing infinite."""
    symbols = head_symbols()
    for received in (
        level * np.ones(symbols.size),
        level * through(symbols, {0: 1.0, 1: 1.0, 2: 1.0}, 0.0, 7),
        level * noise(symbols.size, 1.0, np.random.default_rng(8)),
    ):
        found = eq.estimate_response(received.astype(np.complex64), symbols)
        echoes = found.echoes() or found
        weights, snr = eq.mmse_filter(echoes)
        assert np.all(np.isfinite(weights))
        assert np.isfinite(snr)
