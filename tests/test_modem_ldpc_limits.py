"""The normal approximation: its ingredients against simulation, its limits against capacity."""

from __future__ import annotations

import numpy as np
import pytest

from blocks.modem.ldpc_limits import normal_approximation_per, normal_approximation_snr_db
from blocks.modem.psk import bicm_density_8psk, demap_8psk, modulate_8psk


@pytest.mark.parametrize("snr_db", [-2.0, 3.5, 10.0])
def test_mean_and_variance_of_the_density(snr_db: float) -> None:
    rng = np.random.default_rng(1)
    bits = rng.integers(0, 2, 3 * 200_000).astype(np.uint8)
    noise_variance = 10 ** (-snr_db / 10)
    noise = rng.standard_normal((bits.size // 3, 2)) @ np.array([1, 1j])
    received = modulate_8psk(bits) + noise * np.sqrt(noise_variance / 2)
    llrs = demap_8psk(received.astype(np.complex64), noise_variance).astype(np.float64)
    signed = llrs * (1 - 2.0 * bits)
    density = (1 - np.logaddexp2(0, -signed / np.log(2))).reshape(-1, 3).sum(axis=1)
    mean, variance = bicm_density_8psk(snr_db)
    assert density.mean() == pytest.approx(mean, abs=4 * np.sqrt(variance / density.size))
    assert density.var() == pytest.approx(variance, rel=0.02)


def test_long_blocks_approach_capacity() -> None:
    """Rate 1/2: 3.23 dB. The distance falls as one over the square root of the length."""
    distances = [normal_approximation_snr_db(k, 2 * k) - 3.23 for k in (1000, 16_000, 1_000_000)]
    assert 0 < distances[2] < 0.04
    assert distances[0] / distances[1] == pytest.approx(4, rel=0.15)


def test_inverse() -> None:
    snr_db = normal_approximation_snr_db(8448, 16896, 1e-3)
    assert normal_approximation_per(8448, 16896, snr_db) == pytest.approx(1e-3, rel=0.1)
    assert normal_approximation_per(8448, 16896, snr_db - 0.3) > 0.5


def test_impossible_rate() -> None:
    with pytest.raises(ValueError, match="no Es/N0"):
        normal_approximation_snr_db(1000, 900)
