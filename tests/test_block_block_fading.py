"""BlockFading: one gain per burst, of the right law, the same for a seed however the stream is cut."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pmt
import pytest
from gnuradio import blocks as gr_blocks
from gnuradio import gr
from numpy.typing import NDArray

from blocks.block_fading import BlockFading, Fading, draw_gain
from blocks.burst_modulator import LENGTH_TAG


def run(
    places: list[int], length: int, seed: int, most: int, fading: Fading = "rayleigh"
) -> tuple[NDArray[np.complex64], list[complex]]:
    """Ones through the block, bursts beginning at ``places``, ``most`` samples at a time."""
    tags = []
    for place in places:
        tag = gr.tag_t()
        tag.offset, tag.key, tag.value = place, pmt.intern(LENGTH_TAG), pmt.from_long(1)
        tags.append(tag)
    source = gr_blocks.vector_source_c([1.0] * length, False, 1, tags)
    block = BlockFading(fading, 3.0, seed)
    sink = gr_blocks.vector_sink_c()
    top = gr.top_block()
    top.connect(source, block, sink)
    top.run(most)
    return np.array(sink.data(), np.complex64), block.gains


def test_gain_changes_at_the_tags_and_nowhere_else() -> None:
    places = [0, 10, 11, 5000, 20_000]
    out, gains = run(places, 30_000, seed=1, most=8192)
    assert len(gains) == len(set(gains)) == 5
    for (begin, end), gain in zip(pairwise([*places, 30_000]), gains, strict=True):
        assert np.allclose(out[begin:end], gain, atol=1e-6)


def test_silence_before_the_first_burst_is_left_alone() -> None:
    out, gains = run([100], 200, seed=1, most=64)
    assert np.all(out[:100] == 1)
    assert np.allclose(out[100:], gains[0])


@pytest.mark.parametrize("most", [3, 100, 1000])
def test_seed_decides_whatever_the_pieces(most: int) -> None:
    places = [5, 700, 1400, 4000]
    whole, _ = run(places, 6000, seed=7, most=8192)
    pieces, _ = run(places, 6000, seed=7, most=most)
    assert np.array_equal(whole, pieces)
    other, _ = run(places, 6000, seed=8, most=8192)
    assert not np.array_equal(whole, other)


def gains_of(fading: Fading, k_db: float, count: int = 40_000) -> NDArray[np.complex128]:
    generator = np.random.default_rng(2)
    return np.array([draw_gain(generator, fading, k_db) for _ in range(count)])


@pytest.mark.parametrize(
    ("fading", "k_db"), [("rayleigh", 0.0), ("rician", -5.0), ("rician", 3.0), ("rician", 20.0)]
)
def test_mean_power_is_one(fading: Fading, k_db: float) -> None:
    power = np.abs(gains_of(fading, k_db)) ** 2
    assert abs(power.mean() - 1) < 4 * power.std() / math.sqrt(power.size)


def test_rayleigh_power_is_exponential() -> None:
    power = np.abs(gains_of("rayleigh", 0.0)) ** 2
    for threshold in (0.01, 0.1, 0.5, 1.0, 3.0):
        expected = 1 - math.exp(-threshold)
        spread = math.sqrt(expected * (1 - expected) / power.size)
        assert abs((power < threshold).mean() - expected) < 4 * spread


@pytest.mark.parametrize("k_db", [0.0, 3.0, 10.0])
def test_rician_moments(k_db: float) -> None:
    """Var |h|^2 = (1 + 2 K) / (1 + K)^2."""
    k = 10 ** (k_db / 10)
    power = np.abs(gains_of("rician", k_db)) ** 2
    assert power.var() == pytest.approx((1 + 2 * k) / (1 + k) ** 2, rel=0.05)


@pytest.mark.parametrize(("fading", "k_db"), [("rayleigh", 0.0), ("rician", 10.0)])
def test_phase_is_uniform(fading: Fading, k_db: float) -> None:
    phasors = np.exp(1j * np.angle(gains_of(fading, k_db)))
    for harmonic in (1, 2):
        assert abs((phasors**harmonic).mean()) < 4 / math.sqrt(phasors.size)


def test_no_fading_is_one() -> None:
    assert draw_gain(np.random.default_rng(0), "none") == 1
    out, gains = run([0, 50], 100, seed=1, most=64, fading="none")
    assert np.all(out == 1)
    assert list(gains) == [1, 1]
