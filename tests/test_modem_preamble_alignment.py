"""Alignment of the known symbols against the same correlation written down place by place."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from blocks.modem import preamble_alignment as pa
from blocks.modem import waveform as wf
from blocks.modem.simulated_air import noise

MIDDLE = 120
KNOWN = wf.preamble().astype(np.complex128)


def received(
    seed: int,
    snr_db: float,
    start: int = MIDDLE,
    cfo: float = 0.0,
    symbols: NDArray[np.complex128] = KNOWN,
) -> NDArray[np.complex64]:
    """Behind the matched filter: symbols at every second sample from ``start``, white noise everywhere."""
    samples = noise(900, 10 ** (-snr_db / 10), np.random.default_rng(seed))
    samples[start : start + 512 : 2] += symbols * np.exp(2j * np.pi * cfo * np.arange(256))
    return samples.astype(np.complex64)


def naive(filtered: NDArray[np.complex64]) -> tuple[float, float, int, float]:
    best = (0.0, 0.0, 0, 0.0)
    for word in range(-6, 7):
        for shift in range(-2, 3):
            position = MIDDLE + 16 * word + shift
            values = filtered[position : position + 512 : 2].astype(np.complex128)
            energy = float((np.abs(values) ** 2).sum())
            parts = (values * KNOWN.conj()).reshape(16, 16).sum(axis=1)
            for step in range(-16, 17):
                turn = np.exp(-2j * np.pi * step / 1024 * 16 * np.arange(16))
                power = abs(np.sum(parts * turn)) ** 2
                strength = power**2 / (256 * energy)
                if strength > best[0]:
                    best = (strength, power / (256 * energy), position, step / 1024)
    return best


@pytest.mark.parametrize("seed", range(6))
def test_against_the_definition(seed: int) -> None:
    generator = np.random.default_rng(seed)
    start = MIDDLE + 16 * int(generator.integers(-6, 7)) + int(generator.integers(-2, 3))
    filtered = received(seed, 0.0, start, cfo=float(generator.uniform(-0.01, 0.01)))
    found = pa.align(filtered, MIDDLE)
    assert found is not None
    strength, score, position, cfo = naive(filtered)
    assert (found.position, found.cfo) == (position, cfo)
    assert position == start
    assert found.score == pytest.approx(score, rel=1e-5)
    assert found.strength == pytest.approx(strength, rel=1e-5)


def test_without_noise_both_scores_are_one() -> None:
    filtered = received(1, 100.0, MIDDLE + 17, cfo=5 / 1024)
    found = pa.align(filtered, MIDDLE)
    assert found is not None
    assert (found.position, found.cfo) == (MIDDLE + 17, 5 / 1024)
    # Within a segment the offset turns the symbols by 2 pi 5/1024 15, which the sum of 16 loses.
    assert 0.97 < found.score <= 1.0
    assert pa.pn_score(filtered, found) == pytest.approx(1.0, abs=1e-4)


def test_words_without_the_pn_part_are_turned_away() -> None:
    words = np.resize(KNOWN[: wf.WORD_SYMBOLS], 256)
    for seed in range(20):
        assert pa.align(received(seed, 20.0, symbols=words), MIDDLE) is None
    halves = np.concatenate([KNOWN[:128], np.zeros(128)])
    for seed in range(20):
        assert pa.align(received(seed, 10.0, symbols=halves), MIDDLE) is None


def test_noise_and_silence_are_turned_away() -> None:
    """At most a few of 500: each place has 16 degrees of freedom, and there are 65."""
    passed = 0
    for seed in range(500):
        passed += pa.align(received(seed, -100.0), MIDDLE) is not None
    assert passed <= 5
    assert pa.align(np.zeros(900, np.complex64), MIDDLE) is None


def test_bursts_at_the_lowest_useful_snr_are_not() -> None:
    """-2 dB, the offset wrong by 0.012, 4 sigma of what the search leaves: 300 of 300."""
    for seed in range(300):
        found = pa.align(received(seed, -2.0, cfo=0.012), MIDDLE)
        assert found is not None, seed
        assert found.position == MIDDLE, seed
