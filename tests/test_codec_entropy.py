"""Range coding: what goes in comes out, in as many bits as promised; damage is an error, no crash."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semantic.codec.detail_prior import SCALE_LEVELS, SCALE_STEP, SMALLEST_LOG_SCALE
from semantic.codec.entropy import (
    SEAL_BITS,
    TABLE_WIDTH,
    EntropyError,
    ResidualModels,
    SliceReader,
    SliceWriter,
    logistic_table,
)

MODELS = ResidualModels(logistic_table())


def draw(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Residuals and the levels of the scales they were drawn from."""
    generator = np.random.default_rng(seed)
    levels = generator.integers(0, SCALE_LEVELS, count)
    scale = np.exp(SMALLEST_LOG_SCALE + SCALE_STEP * levels)
    residuals = np.rint(generator.logistic(0, scale)).astype(np.int64)
    return residuals.clip(-1023, 1023), levels


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 600))
def test_round_trip(seed: int, count: int) -> None:
    residuals, levels = draw(seed, count)
    writer = SliceWriter(MODELS)
    writer.write_step(-3, 1)
    writer.write(residuals[: count // 2], levels[: count // 2])
    writer.write(residuals[count // 2 :], levels[count // 2 :])
    bits = writer.bits()
    padded = np.concatenate([bits, np.zeros(64, np.uint8)])
    reader = SliceReader(MODELS, padded)
    assert reader.read_step(1) == -3
    np.testing.assert_array_equal(reader.read(levels[: count // 2]), residuals[: count // 2])
    np.testing.assert_array_equal(reader.read(levels[count // 2 :]), residuals[count // 2 :])
    assert reader.check == writer.check
    # As long as promised, up to the coder's last words.
    ideal = float(MODELS.lengths(residuals, levels).sum()) + 5
    assert len(bits) < ideal * 1.002 + SEAL_BITS


def test_ideal_lengths_are_those_of_a_logistic_distribution() -> None:
    residuals, levels = draw(3, 20_000)
    scale = np.exp(SMALLEST_LOG_SCALE + SCALE_STEP * levels)

    def below(x: np.ndarray) -> np.ndarray:
        return 0.5 * (1 + np.tanh(x / (2 * scale)))

    near = np.abs(residuals) < np.minimum(6 * scale, TABLE_WIDTH - 1)
    ideal = -np.log2(below(residuals + 0.5) - below(residuals - 0.5))
    found = MODELS.lengths(residuals, levels)
    np.testing.assert_allclose(found[near], ideal[near], atol=0.02)


def test_residuals_beyond_the_table() -> None:
    residuals = np.array([-1023, 1023, TABLE_WIDTH, 0, 3, -700])
    levels = np.array([0, 0, 40, 0, 0, 63])
    writer = SliceWriter(MODELS)
    writer.write(residuals, levels)
    found = SliceReader(MODELS, writer.bits()).read(levels)
    np.testing.assert_array_equal(found, residuals)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 100))
def test_any_bytes_are_read_or_refused(data: bytes, seed: int) -> None:
    bits = np.unpackbits(np.frombuffer(data, np.uint8))
    levels = draw(seed, 500)[1]
    reader = SliceReader(MODELS, bits)
    try:
        found = reader.read(levels)
        reader.read_step(0)
    except EntropyError:
        return
    assert len(found) == 500
    assert np.abs(found).max() < TABLE_WIDTH + 2048


def test_a_flipped_bit_shows_in_the_check() -> None:
    residuals, levels = draw(5, 800)
    writer = SliceWriter(MODELS)
    writer.write(residuals, levels)
    bits = writer.bits()
    missed = 0
    for place in range(0, len(bits) - SEAL_BITS, 61):
        damaged = bits.copy()
        damaged[place] ^= 1
        reader = SliceReader(MODELS, damaged)
        try:
            reader.read(levels)
        except EntropyError:
            continue
        missed += reader.check == writer.check
    assert missed == 0


@pytest.mark.parametrize("damage", ["shape", "negative", "empty"])
def test_tables_that_are_none(damage: str) -> None:
    table = logistic_table()
    if damage == "shape":
        table = table[:, :-1]
    elif damage == "negative":
        table[3, 3] = -1
    else:
        table[5, 1] = 0
    with pytest.raises(EntropyError, match="table of residuals"):
        ResidualModels(table)


def test_table_sums() -> None:
    table = logistic_table().astype(np.int64)
    np.testing.assert_array_equal(table[:, 0] + 2 * table[:, 1:].sum(1), 1 << 24)
