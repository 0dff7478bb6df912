"""The Gold sequence against the recursions of TS 38.211 5.2.1 written out bit by bit."""

from __future__ import annotations

import numpy as np
import pytest

from blocks.modem.scrambling import descramble, gold_sequence


def by_recursion(c_init: int, length: int) -> list[int]:
    first = [1] + [0] * 30
    second = [(c_init >> i) & 1 for i in range(31)]
    for n in range(1600 + length):
        first.append(first[n + 3] ^ first[n])
        second.append(second[n + 3] ^ second[n + 2] ^ second[n + 1] ^ second[n])
    return [first[n + 1600] ^ second[n + 1600] for n in range(length)]


@pytest.mark.parametrize("c_init", [0, 1, 0x5A5A5A5, 2**31 - 1])
@pytest.mark.parametrize("length", [0, 1, 27, 28, 29, 5000])
def test_recursion(c_init: int, length: int) -> None:
    sequence = gold_sequence(c_init, length)
    assert sequence.dtype == np.uint8
    assert sequence.tolist() == by_recursion(c_init, length)


def test_balanced_and_uncorrelated() -> None:
    a, b = gold_sequence(7, 100_000), gold_sequence(8, 100_000)
    four_sigma = 4 * 0.5 / np.sqrt(a.size)
    assert abs(a.mean() - 0.5) < four_sigma
    assert abs((a ^ b).mean() - 0.5) < four_sigma


def test_cached_result_cannot_be_spoilt() -> None:
    sequence = gold_sequence(3, 100)
    with pytest.raises(ValueError, match="read-only"):
        sequence[0] = 1


def test_descrambling_undoes_what_scrambling_did_to_the_bits() -> None:
    generator = np.random.default_rng(9)
    bits = generator.integers(0, 2, 1001).astype(np.uint8)
    certainty = generator.exponential(5.0, 1001).astype(np.float32)
    llrs = np.where(bits ^ gold_sequence(11, 1001), -certainty, certainty)
    descramble(llrs, 11)
    assert np.array_equal(llrs, np.where(bits, -certainty, certainty))


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="c_init"):
        gold_sequence(2**31, 10)
    with pytest.raises(ValueError, match="c_init"):
        gold_sequence(-1, 10)
    with pytest.raises(ValueError, match="length"):
        gold_sequence(1, -1)
