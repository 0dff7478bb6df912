"""The floating-point yardstick itself: its functions against NumPy's, its rules against the equations."""

from __future__ import annotations

import numpy as np
import pytest

from blocks.modem.ldpc_code import LdpcError, get_code
from blocks.modem.ldpc_reference import (
    belief,
    decode_blocks_float,
    exp_of_negative,
    log_of_positive,
    min_sum,
)


def test_exp_and_log() -> None:
    x = np.linspace(0, 30, 3001)
    ours = np.array([exp_of_negative(value) for value in x])
    assert ours == pytest.approx(np.exp(-x), rel=1e-9)
    y = np.exp(np.linspace(-31, 31, 3001))
    logs = np.array([log_of_positive(value) for value in y])
    assert logs == pytest.approx(np.log(y), abs=1e-12)


@pytest.mark.parametrize("degree", [2, 3, 7, 19])
def test_rules(degree: int) -> None:
    inputs = np.random.default_rng(degree).normal(0, 6, (degree, 50))
    inputs[0, 0] = 0.0  # a bit of which nothing is known
    exact, approximate, scratch = (np.empty_like(inputs) for _ in range(3))
    belief(inputs, exact, scratch)
    min_sum(inputs, approximate, 0.5)
    for edge in range(degree):
        others = np.delete(inputs, edge, axis=0)
        expected = 2 * np.arctanh(np.prod(np.tanh(others / 2), axis=0))
        assert exact[edge] == pytest.approx(expected, rel=1e-6, abs=1e-9)
        smallest = np.abs(others).min(axis=0)
        sign = np.prod(np.where(others < 0, -1, 1), axis=0)
        assert approximate[edge] == pytest.approx(
            sign * np.where(smallest > 1, smallest - 0.5, smallest / 2), abs=1e-12
        )


def test_wrong_shape() -> None:
    with pytest.raises(LdpcError, match="300"):
        decode_blocks_float(get_code(100, 300), np.zeros((2, 299), np.float32), 5)
