"""The NumPy channel that error-rate curves are measured through, against closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from blocks.modem.simulated_air import AIR_SAMPLES_PER_SYMBOL, Air, decimate, noise, resample


def tone(frequency: float, count: int, start: float = 0.0, step: float = 1.0) -> np.ndarray:
    return np.exp(2j * np.pi * frequency * (start + step * np.arange(count)))


@pytest.mark.parametrize("frequency", [0.0, 0.05, -0.17, 0.2])
@pytest.mark.parametrize(("first", "step"), [(100.3, 1.0), (100.0, 1 / (1 + 40e-6)), (99.99, 1.01)])
def test_resampling_is_exact_within_the_signal_band(
    frequency: float, first: float, step: float
) -> None:
    samples = tone(frequency, 4000).astype(np.complex64)
    out = resample(samples, first, step, 3000)
    error = np.mean(np.abs(out - tone(frequency, 3000, first, step)) ** 2)
    assert 10 * np.log10(error) < -80


def test_silence_outside_the_samples() -> None:
    out = resample(np.ones(100, np.complex64), -500.0, 1.0, 400)
    assert not out.any()


def test_decimation_keeps_the_signal_and_drops_what_would_fold() -> None:
    # In symbol rates at 4 samples per symbol: 0.7 is the pass band's end, 1.3 the stop band's start.
    kept = decimate(tone(0.7 / 4, 4000))[100:-100]
    dropped = decimate(tone(1.3 / 4, 4000))[100:-100]
    assert np.abs(20 * np.log10(np.abs(kept))).max() < 0.1
    assert 20 * np.log10(np.abs(dropped).max()) < -40


def test_noise_is_white_and_as_strong_as_asked() -> None:
    count = 1_000_000
    samples = noise(count, 2.5, np.random.default_rng(0))
    # The mean power of n circular samples has the relative spread 1/sqrt(n): five of them.
    assert np.mean(np.abs(samples) ** 2) == pytest.approx(2.5, rel=5 / np.sqrt(count))
    assert abs(np.mean(samples**2)) < 5 * 2.5 / np.sqrt(count)
    assert abs(np.mean(samples[1:] * samples[:-1].conj())) < 5 * 2.5 / np.sqrt(count)


def test_offsets_of_carrier_and_clock() -> None:
    generator = np.random.default_rng(1)
    air = Air(cfo=0.03, sro_ppm=50.0, delay=12.5)
    samples = np.ones(8000, np.complex64)
    out = air.receive(samples, generator)[200:-200]
    turns = np.unwrap(np.angle(out)) / (2 * np.pi)
    # Two samples per symbol leave the receiver's decimation.
    assert np.diff(turns).mean() * 2 == pytest.approx(0.03, rel=1e-4)
    assert air.arrival(1000.0) == pytest.approx(1012.5 * (1 + 50e-6) / 2)


def test_echoes_shape_the_spectrum_as_two_taps_do() -> None:
    # A tone of f cycles per symbol through 1 + g z^-d is scaled by 1 + g exp(-j 2 pi f d).
    echoes = ((1.0, 0.3j), (2.37, -0.2 + 0.0j))
    for frequency in (-0.4, 0.0, 0.11, 0.5):
        sent = tone(frequency / AIR_SAMPLES_PER_SYMBOL, 4000).astype(np.complex64)
        direct, echoed = (
            Air(delay=7.3, sro_ppm=30.0, echoes=paths).receive(sent, np.random.default_rng(0))
            for paths in ((), echoes)
        )
        expected = 1 + sum(gain * np.exp(-2j * np.pi * frequency * delay) for delay, gain in echoes)
        ratio = echoed[200:1800] / direct[200:1800]
        assert np.abs(ratio - expected).max() < 1e-4


def test_echoes_come_after_the_direct_path() -> None:
    pulse = np.zeros(400, np.complex64)
    pulse[200] = 1.0
    air = Air(echoes=((8.0, 0.5 + 0.0j),))
    out = np.abs(air.receive(pulse, np.random.default_rng(0)))
    first = round(air.arrival(200))
    assert np.argmax(out) == first
    assert out[first + 2 * 8] == pytest.approx(0.5 * out[first], rel=1e-3)


def test_last_echo_is_not_cut_off() -> None:
    samples = np.zeros(400, np.complex64)
    samples[-1] = 1.0
    out = Air(echoes=((30.0, 1.0 + 0.0j),)).receive(samples, np.random.default_rng(0))
    assert np.abs(out[-20:]).max() > 0.2


def test_same_seed_same_samples() -> None:
    air = Air(snr_db=3.0, phase_noise=1e-4)
    samples = np.ones(500, np.complex64)
    one, other = (air.receive(samples, np.random.default_rng(7)) for _ in range(2))
    assert np.array_equal(one, other)
