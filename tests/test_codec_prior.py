"""The prior in integers: the trained network's numbers, and the same ones in every circumstance."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from semantic.codec import fixed_point as fp
from semantic.codec.detail_prior import (
    SCALE_STEP,
    SMALLEST_LOG_SCALE,
    DetailPrior,
    logistic_bits,
)
from semantic.codec.exact_products import PriorError
from semantic.codec.integer_prior import IntegerPrior, Pass
from semantic.codec.slice_layout import make_layout
from semantic.codec.wavelet import CHANNELS, GROUPS

IntArray = NDArray[np.int64]
CPU = torch.device("cpu")
ROWS, COLUMNS = 3, 2


def random_prior(width: int = 24) -> DetailPrior:
    """Weights as training might leave them, only quicker."""
    torch.manual_seed(0)
    codewords = torch.randint(-127, 128, (2, 16, 4), dtype=torch.int8)
    prior = DetailPrior(codewords, width, 16)
    with torch.no_grad():
        for name, weight in prior.named_parameters():
            if "heads" in name or "linear" in name:
                weight.copy_(torch.randn_like(weight) * 0.05)
    return prior


def inputs(seed: int = 1) -> tuple[NDArray[np.float64], torch.Tensor, IntArray]:
    """Coefficients in steps ``[positions, 192]``, tokens and gains, row by row over the picture."""
    generator = np.random.default_rng(seed)
    positions = ROWS * COLUMNS * 16
    exact = generator.laplace(0, 3, (positions, CHANNELS))
    tokens = torch.from_numpy(generator.integers(0, 16, (ROWS, COLUMNS, 2)))
    gains = generator.integers(-40, 20, positions)
    return exact, tokens, gains


def trace(
    prior: DetailPrior, runs: list[tuple[int, int]], coefficients: IntArray | None = None
) -> tuple[IntArray, IntArray, IntArray]:
    """Coefficients, means and scale levels by place on the picture, -1 where not coded."""
    exact, tokens, gains = inputs()
    layout = make_layout(ROWS, COLUMNS, runs)
    means, levels = (np.full((ROWS * COLUMNS * 16, CHANNELS), -1) for _ in range(2))

    def choose(step: Pass, mean: IntArray, level: IntArray) -> IntArray:
        places, (begin, end) = layout.places[step.rows], step.channels
        means[places, begin:end], levels[places, begin:end] = mean, level
        if coefficients is not None:
            return coefficients[places, begin:end]
        wanted = exact[places, begin:end] - mean / fp.INPUT_UNIT
        return mean + fp.INPUT_UNIT * np.rint(wanted).astype(np.int64)

    pairs = tokens.reshape(-1, tokens.shape[-1])[torch.from_numpy(layout.cells)]
    found = IntegerPrior(prior, CPU).run(layout, pairs, gains[layout.places], choose)
    values = np.full((ROWS * COLUMNS * 16, CHANNELS), -1)
    values[layout.places] = found
    return values, means, levels


WHOLE = [(0, ROWS * COLUMNS * 16)]


def test_the_integers_are_the_network_that_was_trained() -> None:
    prior = random_prior()
    values, _, levels = trace(prior, WHOLE)
    exact, tokens, gains = inputs()
    shape = (1, -1, 4 * ROWS, 4 * COLUMNS)
    log_gain = torch.from_numpy(gains / 16).float().reshape(shape)
    planes = torch.from_numpy(exact.T.copy()).float().reshape(shape)
    inside = torch.ones_like(log_gain, dtype=torch.bool)
    with torch.no_grad():
        coded = prior(planes, tokens[None], log_gain, inside, noisy=False)
    trained = coded.values[0].flatten(1).T.numpy() * fp.INPUT_UNIT
    # The network adds in floating point: a value on the edge of two integers may fall either way.
    assert np.mean(trained == values) > 0.99
    steps = (values - np.rint(trained)) / fp.INPUT_UNIT
    assert np.mean(np.abs(steps) > 1) < 1e-3
    residual = torch.from_numpy(values - trace(prior, WHOLE)[1]).float() / fp.INPUT_UNIT
    scale = torch.from_numpy(levels * SCALE_STEP + SMALLEST_LOG_SCALE).float()
    bits = float(logistic_bits(residual, scale).sum())
    assert bits == pytest.approx(float(coded.bits), rel=0.01)


def test_a_slice_knows_nothing_of_the_others() -> None:
    """Means and scales of a slice are those it has alone, wherever else slices are decoded beside it."""
    prior = random_prior()
    runs = [(0, 30), (30, 41), (71, 25)]
    together = trace(prior, runs)
    for run in runs:
        alone = trace(prior, [run])
        places = make_layout(ROWS, COLUMNS, [run]).places
        for one, other in zip(alone, together, strict=True):
            np.testing.assert_array_equal(one[places], other[places])
    assert (together[1] != trace(prior, WHOLE)[1]).any()


def test_threads_precisions_and_other_settings_change_nothing() -> None:
    prior = random_prior()
    before = trace(prior, WHOLE)
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    try:
        for count in (1, 2, 3):
            for allowed in ("highest", "medium"):
                torch.set_num_threads(count)
                torch.set_float32_matmul_precision(allowed)
                with torch.autocast("cpu", torch.bfloat16, enabled=False):
                    for one, other in zip(trace(prior, WHOLE), before, strict=True):
                        np.testing.assert_array_equal(one, other)
                assert torch.get_float32_matmul_precision() == allowed
    finally:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)


def test_another_process_computes_the_same(tmp_path: Path) -> None:
    file = tmp_path / "found.npy"
    program = (
        "import sys, numpy, torch; torch.set_num_threads(2); sys.path.insert(0, sys.argv[1]);"
        "from tests.test_codec_prior import WHOLE, random_prior, trace;"
        "numpy.save(sys.argv[2], numpy.stack(trace(random_prior(), WHOLE)))"
    )
    folder = Path(__file__).parents[1]
    subprocess.run([sys.executable, "-c", program, folder, file], check=True, cwd=folder)
    np.testing.assert_array_equal(np.load(file), np.stack(trace(random_prior(), WHOLE)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_a_gpu_computes_the_same() -> None:
    exact, tokens, gains = inputs()
    layout = make_layout(ROWS, COLUMNS, WHOLE)
    found = []
    for device in ("cpu", "cuda"):

        def choose(step: Pass, mean: IntArray, level: IntArray) -> IntArray:
            begin, end = step.channels
            wanted = exact[layout.places[step.rows], begin:end] - mean / fp.INPUT_UNIT
            return mean + fp.INPUT_UNIT * np.rint(wanted).astype(np.int64)

        prior = IntegerPrior(random_prior(), torch.device(device))
        pairs = tokens.reshape(-1, 2)[torch.from_numpy(layout.cells)]
        found.append(prior.run(layout, pairs, gains[layout.places], choose))
    np.testing.assert_array_equal(*found)


def test_integers_and_float32_sum_to_the_same() -> None:
    """The product of the CPU, and the one of every other device in any order: all are exact."""
    prior = IntegerPrior(random_prior(), CPU)
    generator = torch.Generator().manual_seed(0)
    for group in prior._groups:
        for product in (group._known, group._own, *group._hidden, *group._heads):
            assert product.weight.dtype == torch.int8
            for rows in (1, 2, 7, 200):
                size = rows, len(product.weight)
                x = torch.randint(-128, 128, size, dtype=torch.int8, generator=generator)
                order = torch.randperm(len(product.weight), generator=generator)
                floats = replace(product, weight=product.weight[order].float())
                exact = x.double() @ product.weight.double() + product.bias.double()
                assert torch.equal(product(x), floats(x[:, order]))
                assert torch.equal(product(x).double(), exact * product.scale.double())


def test_weights_that_float32_cannot_hold_are_refused() -> None:
    prior = random_prior()
    with torch.no_grad():
        prior.groups[0].linear.weight.fill_(40.0)  # type: ignore[union-attr]
    with pytest.raises(PriorError, match="2\\*\\*24"):
        IntegerPrior(prior, CPU)


def test_layouts_cover_every_position_once() -> None:
    layout = make_layout(2, 3, [(0, 40), (40, 56)])
    assert sorted(layout.places) == list(range(96))
    assert sorted(np.concatenate(layout.halves)) == list(range(96))
    assert sum(GROUPS) == CHANNELS == 192
    # A neighbour lies in the same slice, or is nobody.
    for row, around in enumerate(layout.near3):
        real = around[around < 96]
        assert (layout.slice_of[real] == layout.slice_of[row]).all()
        assert row in real
