"""Check nodes against the equation: every degree, any rotation, lanes past the end."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit
from numpy.typing import NDArray

from blocks.modem.ldpc_check_nodes import (
    EXACT_DEGREE,
    MAX_DEGREE,
    MESSAGE_LIMIT,
    STEPS_PER_LLR,
    update_row,
)
from blocks.modem.ldpc_lanes import LANES

Steps = NDArray[np.int16]


@njit
def _update(degree, posterior, messages, width, size, sources, turns, targets):  # type: ignore[no-untyped-def]
    update_row(degree, posterior, messages, 0, width, size, sources, turns, targets)


def box_plus_of_others(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """[degree, checks] in LLR, by the product of hyperbolic tangents."""
    half = np.tanh(np.clip(values, -36, 36) / 2)
    others = np.array([np.prod(np.delete(half, edge, axis=0), axis=0) for edge in range(len(half))])
    return 2 * np.arctanh(np.clip(others, -1 + 1e-15, 1 - 1e-15))


@pytest.mark.parametrize("degree", range(2, MAX_DEGREE + 1))
@pytest.mark.parametrize("size", [5, LANES, 3 * LANES + 8])
def test_one_row(degree: int, size: int) -> None:
    rng = np.random.default_rng([degree, size])
    bits = rng.normal(0, 60, (degree, size)).round().astype(np.int16)
    turns = rng.integers(0, size, degree).astype(np.int32)
    width = -(-size // LANES) * LANES
    stride = size + 2 * LANES
    columns = np.zeros((2 * degree, stride), np.int16)
    columns[:degree, : size + LANES] = np.take(bits, np.arange(size + LANES), axis=1, mode="wrap")
    posterior, messages = columns.reshape(-1), np.zeros(degree * width, np.int16)
    starts = (np.arange(2 * degree) * stride).astype(np.int32)
    first, second = starts[:degree], starts[degree:]
    _update(degree, posterior, messages, width, size, first, turns, second)

    turned = np.array([np.roll(row, -turn) for row, turn in zip(bits, turns, strict=True)])
    after = columns[degree:, :size]
    sent = (after - turned).astype(np.float64)
    exact = np.clip(
        box_plus_of_others(turned / STEPS_PER_LLR) * STEPS_PER_LLR, -MESSAGE_LIMIT, MESSAGE_LIMIT
    )
    # Every box-plus is off by half a step of rounding and half a step of the parabola.
    tolerance = 1.0 * (degree + 1)
    if degree <= EXACT_DEGREE:
        assert np.abs(sent - exact).max() <= tolerance
    else:
        least = np.abs(turned) == np.abs(turned).min(axis=0)
        assert np.abs(sent - exact)[least].max() <= tolerance
        assert (np.abs(sent) <= np.abs(exact) + tolerance).all()
    repeated = np.take(after, np.arange(LANES), axis=1, mode="wrap")
    assert np.array_equal(columns[degree:, size : size + LANES], repeated)
    # Once more from there: what was said is taken out before anything new is said.
    none = np.zeros(degree, np.int32)
    _update(degree, posterior, messages, width, size, second, none, first)
    assert np.array_equal(columns[:degree, :size], after)


def test_another_degree_is_left_alone() -> None:
    posterior, messages = np.ones(256, np.int16), np.ones(256, np.int16)
    index = np.zeros(1, np.int32)
    _update(1, posterior, messages, LANES, LANES, index, index, index)
    assert (posterior == 1).all()
    assert (messages == 1).all()
