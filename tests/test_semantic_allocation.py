"""Spending bits where they matter: against exhaustive search, and what the rules say."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from semantic.allocation import (
    TRUST_FROM,
    TRUST_FULLY,
    allocate,
    cell_costs,
    importance,
    trusted_focus,
)
from semantic.frame_geometry import FrameGeometry, LayerGeometry, Rung

COSTS = np.array([0, 1, 3, 7])


def errors(cells: int, seed: int) -> np.ndarray:
    """Convex falling errors, as those of a good quantiser are."""
    generator = np.random.default_rng(seed)
    start = generator.uniform(1, 20, (cells, 1))
    return start * np.exp(-generator.uniform(0.1, 1, (cells, 1)) * COSTS)


@pytest.mark.parametrize("seed", range(8))
def test_as_good_as_exhaustive_search_where_the_room_is_filled(seed: int) -> None:
    table = errors(5, seed)
    for room in range(0, 36, 3):
        chosen = allocate(table, COSTS, room)
        spent = int(COSTS[chosen].sum())
        assert spent <= room
        best = min(
            table[np.arange(5), list(levels)].sum()
            for levels in product(range(4), repeat=5)
            if COSTS[list(levels)].sum() <= spent
        )
        found = table[np.arange(5), chosen].sum()
        # Steps of different size: the greedy choice can miss the optimum by the last one alone.
        step = max(float((row[:-1] - row[1:]).max()) for row in table)
        assert found <= best + step
    assert (allocate(table, COSTS, 35) == 3).all()


def test_nothing_is_spent_where_nothing_is_gained() -> None:
    table = np.array([[1.0, 1.0, 1.0, 1.0], [1.0, 2.0, 3.0, 4.0], [1.0, 0.9, 0.8, 0.7]])
    assert allocate(table, COSTS, 100).tolist() == [0, 0, 3]


def test_importance_moves_the_room() -> None:
    table = np.repeat(errors(1, 3), 4, axis=0)
    chosen = allocate(table * np.array([[1], [1], [50], [1]]), COSTS, 7)
    assert chosen[2] == 3
    assert chosen.sum() == 3


def test_a_level_that_does_not_pay_by_itself_is_passed_over() -> None:
    # Level 1 gains nothing, level 2 much: the hull goes straight from 0 to 2.
    table = np.array([[10.0, 10.0, 1.0, 1.0]])
    assert allocate(table, COSTS, 3).tolist() == [2]


def test_costs_of_cells() -> None:
    layers = (LayerGeometry(400, 10), LayerGeometry(100, 5), LayerGeometry(25, 5))
    levels = ((0, 1, 5), (0, 5, 5), (2, 5, 5), (10, 5, 5))
    geometry = FrameGeometry("00c0ffee", 160, 8, layers, Rung(10, levels, 6400))
    assert cell_costs(geometry).tolist() == [0, 4, 12, 44]
    with pytest.raises(ValueError, match="no map"):
        cell_costs(FrameGeometry("00c0ffee", 160, 8, layers))


def test_importance_of_cells() -> None:
    relevance = np.zeros((5, 5))
    relevance[2, 2], relevance[4, 4] = 1.0, 1e-3  # the square of so little is nothing
    found = importance(relevance, 1.0).reshape(5, 5)
    kernel = np.outer([1, 2, 1], [1, 2, 1]) / 16
    np.testing.assert_allclose(found[1:4, 1:4], 25 * kernel, rtol=1e-4)
    assert found.sum() == pytest.approx(25)
    assert found[0].max() == 0
    assert found[4].max() < 1e-4
    half = importance(relevance, 0.5).reshape(5, 5)
    np.testing.assert_allclose(half, 0.5 + 0.5 * found)
    # At the edge nothing leaks out: a flat map stays flat.
    np.testing.assert_allclose(importance(np.full((4, 4), 0.3), 0.9), np.ones(16))


def test_bits_follow_a_map_as_far_as_it_is_trusted() -> None:
    assert trusted_focus(0.7, 0.0) == trusted_focus(0.7, TRUST_FROM) == 0
    assert trusted_focus(0.7, TRUST_FULLY) == trusted_focus(0.7, 1.0) == 0.7
    assert trusted_focus(0.7, (TRUST_FROM + TRUST_FULLY) / 2) == pytest.approx(0.35)
    assert trusted_focus(0.0, 1.0) == 0
