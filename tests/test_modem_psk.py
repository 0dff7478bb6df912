"""BPSK and 8-PSK: the table, exact LLRs, error rates and capacity against theory."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from blocks.modem import psk

LABELS = (np.arange(8)[:, None] >> np.array([2, 1, 0])) & 1
# Es/N0 in dB at which Gray bit-interleaved 8-PSK carries each code rate.
CAPACITY_LIMITS = {
    "1/5": -2.37, "1/4": -1.18, "1/3": 0.47, "2/5": 1.64, "1/2": 3.23, "3/5": 4.79,
    "2/3": 5.83, "3/4": 7.21, "5/6": 8.74, "8/9": 9.90,
}  # fmt: skip


def random_bits(count: int, seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 2, count).astype(np.uint8)


def with_noise(symbols: NDArray[np.complex64], snr_db: float, seed: int) -> NDArray[np.complex64]:
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((symbols.size, 2)) @ np.array([1, 1j])
    return (symbols + noise * math.sqrt(0.5 * 10 ** (-snr_db / 10))).astype(np.complex64)


def brute_force_llrs(symbols: NDArray[np.complex64], noise_variance: float) -> NDArray[np.float64]:
    points = psk.CONSTELLATION_8PSK.astype(np.complex128)
    metric = -(np.abs(symbols.astype(np.complex128)[:, None] - points) ** 2) / noise_variance
    columns = [
        np.logaddexp.reduce(metric[:, LABELS[:, bit] == 0], axis=1)
        - np.logaddexp.reduce(metric[:, LABELS[:, bit] == 1], axis=1)
        for bit in range(3)
    ]
    return np.stack(columns, axis=1).ravel()


def tail(x: float) -> float:
    return 0.5 * math.erfc(x / math.sqrt(2))


def test_neighbours_differ_in_one_bit() -> None:
    order = np.argsort(np.angle(psk.CONSTELLATION_8PSK))
    around = LABELS[order]
    assert np.all((around ^ np.roll(around, 1, axis=0)).sum(axis=1) == 1)
    assert np.allclose(np.abs(psk.CONSTELLATION_8PSK), 1, atol=1e-6)
    assert psk.modulate_8psk(np.array([0, 0, 1], np.uint8))[0] == pytest.approx(
        math.sqrt(0.5) * (1 + 1j)
    )


def test_demapping_undoes_mapping() -> None:
    bits = random_bits(3000, 1)
    assert np.array_equal(psk.demap_8psk(psk.modulate_8psk(bits), 0.1) < 0, bits)
    assert np.array_equal(psk.demap_bpsk(psk.modulate_bpsk(bits), 0.1) < 0, bits)


@pytest.mark.parametrize("snr_db", [-20, -3, 5, 20, 60])
def test_8psk_llrs_are_exact(snr_db: float) -> None:
    noise_variance = float(np.float32(10 ** (-snr_db / 10)))
    symbols = with_noise(psk.modulate_8psk(random_bits(9000, 2)), snr_db, 3)
    llrs = psk.demap_8psk(symbols, noise_variance)
    assert llrs.dtype == np.float32
    expected = brute_force_llrs(symbols, noise_variance)
    # Two metrics of size 2 |y| / N0 cancel in single precision: that size sets the error.
    assert np.allclose(llrs, expected, rtol=2e-6, atol=2e-6 + 1e-6 / noise_variance)


@pytest.mark.parametrize("scale", [0.0, 1e-6, 30.0])
def test_8psk_llrs_far_from_the_circle(scale: float) -> None:
    symbols = (scale * psk.modulate_8psk(random_bits(300, 4))).astype(np.complex64)
    llrs = psk.demap_8psk(symbols, 1e-3)
    assert np.all(np.isfinite(llrs))
    assert np.allclose(llrs, brute_force_llrs(symbols, 1e-3), rtol=1e-5, atol=1e-4)


def test_one_noise_variance_per_symbol() -> None:
    symbols = with_noise(psk.modulate_8psk(random_bits(300, 5)), 5, 6)
    variances = np.linspace(0.1, 2, symbols.size).astype(np.float32)
    together = psk.demap_8psk(symbols, variances)
    alone = [psk.demap_8psk(symbols[i : i + 1], float(v)) for i, v in enumerate(variances)]
    # One number or many take different instructions, which may round differently.
    np.testing.assert_allclose(together, np.concatenate(alone), rtol=1e-5, atol=1e-5)
    assert np.allclose(psk.demap_bpsk(symbols, variances), 4 * symbols.real / variances)


def test_fills_the_array_it_is_given() -> None:
    symbols = psk.modulate_8psk(random_bits(30, 7))
    out = np.empty(30, np.float32)
    assert psk.demap_8psk(symbols, 0.5, out) is out
    assert np.array_equal(out, psk.demap_8psk(symbols, 0.5))


@pytest.mark.parametrize("snr_db", [8.0, 12.0])
def test_8psk_symbol_error_rate(snr_db: float) -> None:
    """Against the exact integral for M-PSK: (1/pi) int_0^(7 pi/8) exp(-snr sin^2(pi/8)/sin^2 t) dt."""
    bits = random_bits(3 * 200_000, 8)
    symbols = with_noise(psk.modulate_8psk(bits), snr_db, 9)
    wrong = ((psk.demap_8psk(symbols, 10 ** (-snr_db / 10)) < 0) != bits).reshape(-1, 3).any(axis=1)
    angle = (np.arange(20_000) + 0.5) * (7 * np.pi / 8) / 20_000
    integrand = np.exp(-(10 ** (snr_db / 10)) * np.sin(np.pi / 8) ** 2 / np.sin(angle) ** 2)
    expected = 7 / 8 * integrand.mean()
    assert wrong.sum() > 2000
    assert abs(wrong.mean() - expected) < 4 * math.sqrt(expected / wrong.size)


def test_bpsk_bit_error_rate() -> None:
    bits = random_bits(400_000, 10)
    symbols = with_noise(psk.modulate_bpsk(bits), 4.0, 11)
    errors = int(((psk.demap_bpsk(symbols, 10**-0.4) < 0) != bits).sum())
    expected = tail(math.sqrt(2 * 10**0.4)) * bits.size
    assert expected > 2000
    assert abs(errors - expected) < 4 * math.sqrt(expected)


@pytest.mark.parametrize(("rate", "snr_db"), CAPACITY_LIMITS.items())
def test_capacity_limits(rate: str, snr_db: float) -> None:
    numerator, denominator = map(int, rate.split("/"))
    target = 3 * numerator / denominator
    assert psk.bicm_capacity_8psk(snr_db - 0.02) < target < psk.bicm_capacity_8psk(snr_db + 0.02)


def test_llrs_carry_the_capacity() -> None:
    """Wrong scale, wrong sign or a max-log short cut would each lose information here."""
    bits = random_bits(3 * 200_000, 12)
    symbols = with_noise(psk.modulate_8psk(bits), 3.0, 13)
    signed = psk.demap_8psk(symbols, 10**-0.3).astype(np.float64) * (1 - 2.0 * bits)
    carried = 3 - 3 * np.logaddexp2(0, -signed / math.log(2)).mean()
    assert carried == pytest.approx(psk.bicm_capacity_8psk(3.0), abs=0.008)


def test_bad_input() -> None:
    symbols = psk.modulate_8psk(random_bits(30, 14))
    with pytest.raises(ValueError, match=r"bits \[3 n\]"):
        psk.modulate_8psk(np.zeros(4, np.uint8))
    with pytest.raises(ValueError, match="value 0 or 1"):
        psk.modulate_bpsk(np.array([3], np.uint8))
    with pytest.raises(ValueError, match="positive and finite"):
        psk.demap_8psk(symbols, 0.0)
    with pytest.raises(ValueError, match="positive and finite"):
        psk.demap_bpsk(symbols, float("nan"))
    with pytest.raises(ValueError, match="noise variance"):
        psk.demap_8psk(symbols, np.ones(3, np.float32))
    with pytest.raises(ValueError, match="complex64"):
        psk.demap_8psk(symbols.astype(np.complex128), 1.0)
    with pytest.raises(ValueError, match="out float32"):
        psk.demap_8psk(symbols, 1.0, np.empty(5, np.float32))
