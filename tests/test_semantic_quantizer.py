"""Eq. (5) to (7), (9) and (12) against plain NumPy."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from semantic.codec_config import QuantizerConfig
from semantic.quantizer import Damage, ResidualQuantizer, SegmentwiseQuantizer, codebook_use


def _quantizer(update: str = "ema", codewords: int = 8) -> SegmentwiseQuantizer:
    torch.manual_seed(1)
    config = QuantizerConfig.model_validate(
        {"segment_length": 4, "codewords": codewords, "update": update, "decay": 0.9, "beta": 0.25}
    )
    return SegmentwiseQuantizer(12, config)


def _residual(update: str = "ema", stages: int = 4, codewords: int = 16) -> ResidualQuantizer:
    torch.manual_seed(1)
    config = QuantizerConfig.model_validate(
        {"residual": True, "codewords": codewords, "update": update, "decay": 0.9, "beta": 0.25}
    )
    return ResidualQuantizer(6, stages, config)


def _naive_indices(features: np.ndarray, codebook: np.ndarray) -> np.ndarray:
    batch, tokens, _ = features.shape
    segments, _, length = codebook.shape
    found = np.empty((batch, tokens, segments), np.int64)
    for b in range(batch):
        for n in range(tokens):
            for m in range(segments):
                part = features[b, n, m * length : (m + 1) * length]
                found[b, n, m] = np.argmin(((codebook[m] - part) ** 2).sum(axis=1))
    return found


def test_nearest_codeword() -> None:
    quantizer = _quantizer()
    features = torch.randn(3, 10, 12)
    expected = _naive_indices(features.numpy(), quantizer.codebook.numpy())
    np.testing.assert_array_equal(quantizer.nearest(features).numpy(), expected)


def test_nearest_takes_the_lowest_index_of_equals() -> None:
    quantizer = _quantizer()
    with torch.no_grad():
        quantizer.codebook[:] = quantizer.codebook[:, :1]
    assert int(quantizer.nearest(torch.randn(2, 5, 12)).max()) == 0


def test_lookup_and_erasure() -> None:
    quantizer = _quantizer()
    indices = torch.randint(8, (2, 5, 3))
    erased = torch.rand(2, 5, 3) < 0.4
    quantizer.count.copy_(torch.rand(3, 8))
    codebook, count = quantizer.codebook.numpy(), quantizer.count.numpy()
    found = quantizer.lookup(indices, erased).numpy()
    for b, n, m in np.ndindex(2, 5, 3):
        expected = codebook[m, indices[b, n, m]]
        if erased[b, n, m]:
            expected = (codebook[m] * count[m][:, None]).sum(0) / count[m].sum()
        np.testing.assert_allclose(found[b, n, 4 * m : 4 * m + 4], expected, rtol=1e-5, atol=1e-6)


def test_posterior_mean() -> None:
    quantizer = _quantizer()
    quantizer.count.copy_(torch.rand(3, 8))
    llrs = torch.randn(2, 5, 3, 3) * 2
    codebook, count = quantizer.codebook.numpy(), quantizer.count.numpy()
    found = quantizer.posterior_mean(llrs).numpy()
    for b, n, m in np.ndindex(2, 5, 3):
        probability = count[m] / count[m].sum()
        for k in range(8):
            for place in range(3):
                bit = (k >> (2 - place)) & 1
                zero = 1 / (1 + np.exp(-float(llrs[b, n, m, place])))
                probability[k] *= 1 - zero if bit else zero
        expected = (probability[:, None] * codebook[m]).sum(0) / probability.sum()
        np.testing.assert_allclose(found[b, n, m], expected, rtol=1e-3, atol=1e-4)
    none = quantizer.posterior_mean(torch.zeros(1, 1, 3, 3))
    torch.testing.assert_close(none.flatten(), quantizer.mean_codeword().flatten())


@pytest.mark.parametrize("update", ["ema", "gradient"])
def test_quantisation_loss(update: str) -> None:
    quantizer = _quantizer(update)
    features = torch.randn(2, 5, 12)
    result = quantizer(features)
    codewords = quantizer.lookup(result.indices).detach().numpy()
    distance = float(((features.numpy() - codewords) ** 2).mean())
    # First term (codebook) only where the gradient moves it; second term weighted by beta.
    expected = (0.25 + (1.0 if update == "gradient" else 0.0)) * distance
    assert result.loss.item() == pytest.approx(expected, rel=1e-5)


def test_gradient_of_the_quantisation_loss() -> None:
    """Eq. (12): its first term pulls the codewords, its second, weighted by beta, the encoder."""
    quantizer = _quantizer("gradient")
    features = torch.randn(2, 5, 12, requires_grad=True)
    result = quantizer(features)
    result.loss.backward()
    values, codebook = features.detach().numpy(), quantizer.codebook.detach().numpy()
    indices = result.indices.numpy()
    to_features, to_codebook = np.zeros_like(values), np.zeros_like(codebook)
    for b, n, m in np.ndindex(2, 5, 3):
        part, k = slice(4 * m, 4 * m + 4), indices[b, n, m]
        error = values[b, n, part] - codebook[m, k]
        to_features[b, n, part] = 0.25 * 2 * error / values.size
        to_codebook[m, k] -= 2 * error / values.size
    assert features.grad is not None
    assert quantizer.codebook.grad is not None
    np.testing.assert_allclose(features.grad.numpy(), to_features, rtol=1e-4, atol=1e-8)
    np.testing.assert_allclose(quantizer.codebook.grad.numpy(), to_codebook, rtol=1e-4, atol=1e-8)


def test_straight_through_gradient() -> None:
    quantizer = _quantizer()
    features = torch.randn(2, 5, 12, requires_grad=True)
    weights = torch.randn(2, 5, 12)
    (quantizer(features).vectors * weights).sum().backward()
    torch.testing.assert_close(features.grad, weights)


def test_loss_moves_only_what_it_should() -> None:
    ema, by_gradient = _quantizer("ema"), _quantizer("gradient")
    features = torch.randn(2, 5, 12, requires_grad=True)
    ema(features).loss.backward()
    assert features.grad is not None
    assert float(features.grad.abs().sum()) > 0
    assert ema.codebook.grad is None
    by_gradient(features.detach()).loss.backward()
    assert by_gradient.codebook.grad is not None
    assert float(by_gradient.codebook.grad.abs().sum()) > 0


def test_running_means_follow_the_equation() -> None:
    quantizer = _quantizer()
    # Every codeword is used, so that none is revived.
    features = torch.randn(40, 10, 12)
    indices = quantizer.nearest(features)
    count, total = quantizer.count.numpy().copy(), quantizer.total.numpy().copy()
    for m in range(3):
        for k in range(8):
            part = features.numpy()[..., 4 * m : 4 * m + 4][indices.numpy()[..., m] == k]
            count[m, k] = 0.9 * count[m, k] + 0.1 * len(part)
            total[m, k] = 0.9 * total[m, k] + 0.1 * part.sum(axis=0)
    assert quantizer.update(features, indices) == 0
    np.testing.assert_allclose(quantizer.count.numpy(), count, rtol=1e-4)
    np.testing.assert_allclose(quantizer.total.numpy(), total, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(
        quantizer.codebook.numpy(), total / count[..., None], rtol=1e-3, atol=1e-4
    )


def test_dead_codeword_restarts_on_the_data_with_average_and_count() -> None:
    quantizer = _quantizer()
    with torch.no_grad():
        quantizer.codebook[:, 3] = 1000.0
        quantizer.total[:, 3] = 1000.0
    features = torch.randn(20, 10, 12)
    revived = 0
    for _ in range(60):
        revived += quantizer.update(features, quantizer.nearest(features))
    assert revived >= 3
    assert float(quantizer.codebook.abs().max()) < 10
    torch.testing.assert_close(
        quantizer.codebook * quantizer.count[..., None], quantizer.total, rtol=1e-4, atol=1e-4
    )
    used = torch.stack(
        [quantizer.nearest(features)[..., m].flatten().bincount(minlength=8) for m in range(3)]
    )
    assert int(used.min()) > 0


def test_by_gradient_only_dead_codewords_are_moved() -> None:
    quantizer = _quantizer("gradient")
    with torch.no_grad():
        quantizer.codebook[:, 3] = 1000.0
    before = quantizer.codebook.detach().clone()
    features = torch.randn(20, 10, 12)
    revived = 0
    # The count of an unused codeword halves every seven steps: dead after about forty.
    for _ in range(60):
        revived += quantizer.update(features, quantizer.nearest(features))
    assert revived >= 3
    others = [k for k in range(8) if k != 3]
    assert torch.equal(quantizer.codebook[:, others], before[:, others])
    assert float(quantizer.codebook[:, 3].abs().max()) < 10
    assert quantizer.codebook.requires_grad


def test_codebook_use() -> None:
    counts = torch.tensor([[5.0, 5, 5, 5], [20, 0, 0, 0], [12, 6, 2, 0]])
    use = codebook_use(counts)
    torch.testing.assert_close(use.usage, torch.tensor([1.0, 0.25, 0.75]))
    share = np.array([0.6, 0.3, 0.1])
    third = float(np.exp(-(share * np.log(share)).sum()))
    torch.testing.assert_close(use.perplexity, torch.tensor([4.0, 1.0, third]))
    # A codeword below 2 % of its fair part counts as dead.
    assert float(codebook_use(torch.tensor([[1000.0, 1000, 1000, 14]])).usage) == 0.75


def test_running_use_follows_the_data() -> None:
    quantizer = _quantizer()
    features = torch.randn(40, 10, 12)
    quantizer.initialise(features)
    indices = quantizer.nearest(features).flatten(0, 1)
    counts = torch.stack([indices[:, m].bincount(minlength=8) for m in range(3)]).float()
    torch.testing.assert_close(
        quantizer.use().perplexity, codebook_use(counts).perplexity, rtol=0.02, atol=0
    )


def test_kmeans_start_beats_random_codewords() -> None:
    quantizer = _quantizer(codewords=16)
    features = torch.randn(40, 25, 12) * 3 + 5
    before = float((features - quantizer.lookup(quantizer.nearest(features))).square().mean())
    quantizer.initialise(features, batches=10)
    after = float((features - quantizer.lookup(quantizer.nearest(features))).square().mean())
    assert after < 0.2 * before
    assert float(quantizer.count.sum(1)[0]) == pytest.approx(100, rel=0.2)


def _naive_stages(features: np.ndarray, codebook: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices and what every stage found left over, one vector after the other."""
    batch, tokens, _ = features.shape
    found = np.empty((batch, tokens, len(codebook)), np.int64)
    left = np.empty((len(codebook), batch * tokens, features.shape[-1]), np.float32)
    for b, n in np.ndindex(batch, tokens):
        rest = features[b, n].copy()
        for m, book in enumerate(codebook):
            left[m, b * tokens + n] = rest
            found[b, n, m] = np.argmin(((book - rest) ** 2).sum(axis=1))
            rest = rest - book[found[b, n, m]]
    return found, left


def test_residual_stages_one_by_one() -> None:
    quantizer = _residual()
    features = torch.randn(3, 7, 6)
    quantizer.initialise(features)
    found, left = _naive_stages(features.numpy(), quantizer.codebook.numpy())
    indices = quantizer.nearest(features)
    np.testing.assert_array_equal(indices.numpy(), found)
    np.testing.assert_allclose(quantizer.targets(features, indices).numpy(), left, atol=1e-5)
    summed = sum(quantizer.codebook[m].numpy()[found[..., m]] for m in range(4))
    np.testing.assert_allclose(quantizer.lookup(indices).numpy(), summed, atol=1e-5)


def test_every_stage_brings_a_token_nearer() -> None:
    quantizer = _residual(stages=6)
    features = torch.randn(20, 25, 6)
    quantizer.initialise(features, batches=4)
    indices = quantizer.nearest(features)
    errors = []
    for stages in range(7):
        beyond = (torch.arange(6) >= stages).expand_as(indices)
        errors.append(float((quantizer.lookup(indices, beyond) - features).square().mean()))
    assert all(later < 0.8 * earlier for earlier, later in pairwise(errors))
    assert float(quantizer.count.sum(1)[0]) == pytest.approx(125, rel=0.2)


@pytest.mark.parametrize("update", ["ema", "gradient"])
def test_residual_loss_is_the_mean_over_prefixes(update: str) -> None:
    quantizer = _residual(update)
    features = torch.randn(2, 5, 6, requires_grad=True)
    result = quantizer(features)
    book, values = quantizer.codebook.detach().numpy(), features.detach().numpy()
    reached = np.zeros_like(values)
    terms = []
    for m in range(4):
        reached = reached + book[m][result.indices.numpy()[..., m]]
        terms.append(((values - reached) ** 2).mean())
    expected = (0.25 + (update == "gradient")) * np.mean(terms)
    assert result.loss.item() == pytest.approx(float(expected), rel=1e-5)
    result.loss.backward()
    assert features.grad is not None
    assert (quantizer.codebook.grad is not None) == (update == "gradient")


def test_residual_damage_and_gradient() -> None:
    quantizer = _residual()
    features = torch.randn(2, 5, 6, requires_grad=True)
    indices = quantizer.nearest(features.detach())
    erased = torch.rand(2, 5, 4) < 0.4
    replaced = torch.where(torch.rand(2, 5, 4) < 0.3, torch.randint(16, (2, 5, 4)), -1)
    result = quantizer(features, Damage(erased, replaced))
    np.testing.assert_array_equal(result.indices, indices)  # what was sent, not what came
    received = torch.where(replaced >= 0, replaced, indices)
    torch.testing.assert_close(result.vectors, quantizer.lookup(received, erased))
    weights = torch.randn(2, 5, 6)
    (result.vectors * weights).sum().backward()
    torch.testing.assert_close(features.grad, weights)


def test_residual_running_means_follow_the_equation() -> None:
    quantizer = _residual(stages=2, codewords=4)
    features = torch.randn(40, 10, 6)
    quantizer.initialise(features)
    indices = quantizer.nearest(features)
    _, left = _naive_stages(features.numpy(), quantizer.codebook.numpy())
    count, total = quantizer.count.numpy().copy(), quantizer.total.numpy().copy()
    for m, k in np.ndindex(2, 4):
        part = left[m][indices.numpy()[..., m].reshape(-1) == k]
        count[m, k] = 0.9 * count[m, k] + 0.1 * len(part)
        total[m, k] = 0.9 * total[m, k] + 0.1 * part.sum(axis=0)
    assert quantizer.update(features, indices) == 0
    np.testing.assert_allclose(
        quantizer.codebook.numpy(), total / count[..., None], rtol=1e-3, atol=1e-4
    )


def test_soft_bits_of_a_residual_stage() -> None:
    quantizer = _residual()
    quantizer.count.copy_(torch.rand(4, 16))
    indices = torch.randint(16, (2, 5, 4))
    erased = torch.rand(2, 5, 4) < 0.5
    llrs = torch.randn(2, 5, 4, 4)
    found = quantizer.lookup(indices, erased, llrs)
    guess, book = quantizer.posterior_mean(llrs), quantizer.codebook
    for b, n in np.ndindex(2, 5):
        expected = sum(
            guess[b, n, m] if erased[b, n, m] else book[m, indices[b, n, m]] for m in range(4)
        )
        torch.testing.assert_close(found[b, n], expected)
    bits = (indices[..., None] >> torch.arange(3, -1, -1)) & 1
    certain = 60.0 * (1 - 2 * bits)
    everything = torch.ones_like(erased)
    torch.testing.assert_close(
        quantizer.lookup(indices, everything, certain), quantizer.lookup(indices)
    )


def test_a_residual_configuration_makes_no_segmentwise_quantiser() -> None:
    config = QuantizerConfig.model_validate({"residual": True, "codewords": 8})
    with pytest.raises(ValueError, match="segment_length"):
        SegmentwiseQuantizer(12, config)
