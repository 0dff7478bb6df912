"""The search's arithmetic against the same sums written down one by one."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from blocks.modem import waveform as wf
from blocks.modem import word_correlation as wc
from blocks.modem.pulse import shape
from blocks.modem.simulated_air import noise

WORD = wf.preamble()[: wf.WORD_SYMBOLS].astype(np.complex128)


def naive(samples: NDArray[np.complex64]) -> tuple[NDArray[np.complex128], NDArray[np.float64]]:
    """``S`` for the words turned by +-1/2 of the promised offset, ``[2, n]``, and the energy."""
    time = np.arange(-wc.FILTER_HALF_TAPS, wc.FILTER_HALF_TAPS + 1) / 2
    taps = wf.root_raised_cosine(time) / 2
    x = samples.astype(np.complex128)
    filtered = np.convolve(x - x.mean(), taps, "valid")
    count = filtered.size - wc.REPEAT_SAMPLES
    sums = np.zeros((2, count), np.complex128)
    for row, offset in enumerate((0.5, -0.5)):
        turned = WORD * np.exp(2j * np.pi * offset * wf.MAX_CFO_SYMBOL_RATES * np.arange(8))
        words = sum(np.conj(turned[k]) * filtered[2 * k :][: count + 240] for k in range(8))
        for pair in range(15):
            first, second = words[16 * pair :][:count], words[16 * (pair + 1) :][:count]
            sums[row] += np.conj(first) * second
    energy = np.array([(np.abs(filtered[n : n + 256]) ** 2).sum() for n in range(count)])
    return sums, energy


def stretch(
    seed: int, snr_db: float = 3.0, cfo: float = 0.031, start: int = 700
) -> NDArray[np.complex64]:
    """2000 samples of noise of unit power with a preamble whose first symbol lies at ``start``."""
    generator = np.random.default_rng(seed)
    samples = noise(2000, 1.0, generator)
    burst = shape(wf.preamble(), 2) * 10 ** (snr_db / 20) / np.sqrt(2)
    burst = burst * np.exp(2j * np.pi * cfo / 2 * np.arange(burst.size))
    samples[start - 16 : start - 16 + burst.size] += burst
    return samples.astype(np.complex64)


@pytest.mark.parametrize("level", [1e-30, 1e-4, 1.0, 1e15])
@pytest.mark.parametrize("dc", [0.0, 3.0])
def test_sums_energy_and_score(level: float, dc: float) -> None:
    samples = stretch(1) + np.complex64(dc)
    sums, energy = naive(samples)
    found = wc.correlate((level * samples).astype(np.complex64))
    # The levels differ by a power of two of the search's own choice: compare what has no level.
    best = np.abs(sums).max(axis=0)
    score = 256 / (15 * 64) * best / energy
    assert np.allclose(found.score(np.arange(score.size)), score, atol=2e-6)
    clear = score > 0.05
    turns = np.take_along_axis(sums, np.abs(sums).argmax(axis=0)[None], axis=0)[0]
    phases = found.phase(np.arange(score.size))
    errors = np.angle(np.exp(1j * (phases - np.angle(turns))))
    assert np.abs(errors[clear]).max() < 1e-4
    ratio = found.power / found.energy**2 / (best / energy) ** 2
    assert np.allclose(ratio[clear], 1.0, atol=1e-4)


def test_a_preamble_without_noise_scores_one() -> None:
    samples = shape(wf.preamble(), 2)
    edge = np.zeros(300, np.complex64)
    found = wc.correlate(np.concatenate([edge, samples, edge]))
    # The short filter and the pulses that reach in from outside leave a little.
    start = np.array([300 + 16 - wc.FILTER_HALF_TAPS])
    assert found.score(start) == pytest.approx(1.0, abs=0.02)
    assert found.phase(start) == pytest.approx(0.0, abs=1e-3)


@pytest.mark.parametrize("cfo", [-0.05, -0.02, 0.0, 0.01, 0.05])
def test_the_phase_is_the_carrier_offset(cfo: float) -> None:
    samples = stretch(2, snr_db=40.0, cfo=cfo)
    phase = wc.correlate(samples).phase(np.array([700 - wc.FILTER_HALF_TAPS]))
    assert phase / (2 * np.pi * wf.WORD_SYMBOLS) == pytest.approx(cfo, abs=1e-4)


def test_one_peak_where_the_preamble_starts() -> None:
    found = wc.correlate(stretch(3, snr_db=10.0))
    (peak,) = wc.find_peaks(found, 0.2, reach=48, lag=224, share=0.5)
    assert abs(peak + wc.FILTER_HALF_TAPS - 700) <= 1
    assert wc.find_peaks(found, 1.1, reach=48, lag=224, share=0.5).size == 0


def test_peaks_against_their_definition() -> None:
    """Random strengths with ties: every position by itself, as the docstring says it."""
    generator = np.random.default_rng(4)
    power = generator.integers(0, 40, 3000).astype(np.float32) ** 2
    energy = generator.uniform(50, 100, power.size).astype(np.float32)
    power[::7] = 400.0
    energy[::7] = 64.0
    found = wc.Repetition(np.zeros((4, power.size), np.float32), power, energy)
    reach, lag, share, threshold = 5, 33, 0.9, 0.08
    strength = power / energy
    slope = np.zeros(power.size, np.bool_)
    slope[:-lag] = strength[lag:] <= np.float32(share) * strength[:-lag]
    score = found.score(np.arange(power.size))
    expected = []
    for n in range(reach, power.size - lag - reach):
        around = np.where(slope, strength, -1.0)[n - reach : n + reach + 1]
        if slope[n] and score[n] > threshold and int(np.argmax(around)) == reach:
            expected.append(n)
    assert len(expected) > 20
    assert list(wc.find_peaks(found, threshold, reach, lag, share)) == expected


def test_silence_has_no_score() -> None:
    for constant in (0.0, 0.3 - 0.1j):
        found = wc.correlate(np.full(1000, constant, np.complex64))
        assert found.score(np.arange(found.power.size)).max() < 1e-6
        assert wc.find_peaks(found, 0.01, 48, 224, 0.5).size == 0
