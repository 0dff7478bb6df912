"""The prior of the base layer's indices: the trained network in integers, and what a slice may know."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from semantic.codec.detail_checkpoint import load_two_layer
from semantic.codec.exact_products import PriorError
from semantic.codec.token_prior import IntegerTokenPrior, TokenPrior, wavefronts
from semantic.demo_photos import load_photo, photo_names

IntArray = NDArray[np.int64]
CPU = torch.device("cpu")
SEGMENTS, CODEWORDS, LENGTH = 3, 16, 4
ROWS, COLUMNS = 4, 5


def trained(seed: int = 0) -> tuple[TokenPrior, torch.Tensor]:
    """Weights large enough that contexts matter."""
    torch.manual_seed(seed)
    prior = TokenPrior(SEGMENTS, CODEWORDS, LENGTH, 24)
    with torch.no_grad():
        for weight in prior.heads.parameters():
            weight.mul_(6)
    codewords = torch.randint(-127, 128, (SEGMENTS, CODEWORDS, LENGTH), dtype=torch.int8)
    return prior, codewords


def drawn(count: int, seed: int = 1) -> IntArray:
    return np.random.default_rng(seed).integers(0, CODEWORDS, (count, SEGMENTS))


WHOLE = np.arange(ROWS * COLUMNS)


def test_the_integers_are_the_network_that_was_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    prior, codewords = trained()
    tokens = drawn(len(WHOLE))
    monkeypatch.setattr("semantic.codec.token_prior._DROPPED", 0.0)
    with torch.no_grad():
        grid = torch.from_numpy(tokens).reshape(1, ROWS, COLUMNS, SEGMENTS)
        expected = float(prior.bits(grid, codewords))
    counts = IntegerTokenPrior(prior, codewords, CPU).counts(tokens, [WHOLE], COLUMNS)
    own = np.take_along_axis(counts, tokens[..., None], 2)[..., 0]
    bits = float(np.log2(counts.sum(2) / own).sum())
    assert bits == pytest.approx(expected, rel=0.01)
    # Not what indices of equal likelihood would take.
    assert abs(bits - tokens.size * np.log2(CODEWORDS)) > 0.02 * bits


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_who_reads_cell_by_cell_sees_the_same(threads: int) -> None:
    """An encoder computes everything at once, a decoder wavefront by wavefront."""
    prior, codewords = trained()
    cells = [np.array([0, 1, 2, 3, 4, 5, 6]), np.array([0, 7, 8, 9, 12, 13, 14, 19])]
    tokens = drawn(sum(len(some) for some in cells))
    integers = IntegerTokenPrior(prior, codewords, CPU)
    counts = integers.counts(tokens.copy(), cells, COLUMNS)
    seen = np.zeros_like(counts)

    def choose(rows: IntArray, segment: int, weights: NDArray[np.float64]) -> IntArray:
        seen[rows, segment] = weights
        return tokens[rows, segment]

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        found = integers.run(cells, COLUMNS, choose)
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(found, tokens)
    np.testing.assert_array_equal(seen, counts)
    assert (counts >= 1).all()
    assert (counts == np.rint(counts)).all()


def test_a_slice_knows_nothing_of_the_others() -> None:
    prior, codewords = trained()
    integers = IntegerTokenPrior(prior, codewords, CPU)
    cells = [WHOLE[:7], WHOLE[7:]]
    tokens = drawn(len(WHOLE))
    together = integers.counts(tokens, cells, COLUMNS)
    for part, some in zip((slice(0, 7), slice(7, None)), cells, strict=True):
        alone = integers.counts(tokens[part], [some], COLUMNS)
        np.testing.assert_array_equal(together[part], alone)
    whole = integers.counts(tokens, [WHOLE], COLUMNS)
    np.testing.assert_array_equal(whole[:7], together[:7])
    assert (whole[7:] != together[7:]).any()


def test_wavefronts_come_after_all_that_they_look_at() -> None:
    when = np.zeros(len(WHOLE), np.int64)
    for number, rows in enumerate(wavefronts(WHOLE, COLUMNS)):
        when[rows] = number
        assert (np.diff(rows) > 0).all() or len(rows) == 1
    times = when.reshape(ROWS, COLUMNS)
    assert (times[:, 1:] > times[:, :-1]).all()
    assert (times[1:] > times[:-1]).all()
    assert (times[1:, :-1] > times[:-1, 1:]).all()  # above right


def test_weights_beyond_exact_sums_are_refused() -> None:
    prior, codewords = trained()
    with torch.no_grad():
        prior.heads[0].bias.fill_(1e9)  # type: ignore[operator, union-attr]
    with pytest.raises(PriorError, match="exact below"):
        IntegerTokenPrior(prior, codewords, CPU)


def test_the_shipped_one_saves_a_third() -> None:
    codec = load_two_layer(device="cpu")
    found = [codec.base_bits(load_photo(n, 160), "What is in the picture?") for n in photo_names()]
    assert {fixed for _, fixed in found} == {1000}
    assert np.mean([coded for coded, _ in found]) < 700
