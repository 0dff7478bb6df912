"""Eq. (11) to (15) as numbers, and whom their gradients reach."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from semantic.codec_config import AdversarialConfig, IntentConfig, TrainingConfig, read_recipe
from semantic.discriminator import (
    MAX_ADAPTIVE_WEIGHT,
    Adversary,
    Form,
    PatchDiscriminator,
    adaptive_weight,
    discriminator_loss,
    generator_loss,
)
from semantic.intent_judge import IntentDistances
from semantic.losses import add_adversarial, intent_terms, loss_terms


def _config(**changes: object) -> TrainingConfig:
    return read_recipe(Path("embedded_start")).training.model_copy(update=changes)


def _adversary(**changes: object) -> Adversary:
    config = AdversarialConfig.model_validate({"weight": 0.5, "channels": 8, **changes})
    return Adversary(config, 0, torch.device("cpu"))


def test_phase_one_is_the_weighted_sum() -> None:
    config = _config(intent=IntentConfig(weight=3.0))
    assert config.intent is not None
    pictures, found = torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.5)
    intent = intent_terms(IntentDistances(torch.tensor([0.7])), torch.ones(1), config.intent)
    terms = loss_terms(pictures, found, torch.tensor(2.0), config, intent)
    assert float(terms["intent"]) == pytest.approx(0.7)
    assert "answer" not in terms
    expected = (
        config.l1_weight * 0.5
        + config.mse_weight * 0.25
        + config.quantization_weight * 2.0
        + 3.0 * 0.7
    )
    assert float(terms["total"]) == pytest.approx(expected)


def test_intent_counts_more_where_little_is_received() -> None:
    config = IntentConfig(weight=2.0, answer_weight=0.5, sparse_gain=4.0)
    distances = IntentDistances(torch.tensor([0.3, 0.1]), torch.tensor([3.0, 1.0]))
    found = intent_terms(distances, torch.tensor([0.05, 1.0]), config)
    # The terms are reported as they are, so that runs with other weights compare.
    assert float(found.terms["intent"]) == pytest.approx(0.2)
    assert float(found.terms["answer"]) == pytest.approx(2.0)
    gains = 1 + 4 * np.exp([-0.5, -10.0])
    expected = np.mean(gains * [2 * 0.3 + 0.5 * 3.0, 2 * 0.1 + 0.5 * 1.0])
    assert float(found.weighted) == pytest.approx(expected, rel=1e-5)


def test_the_logarithm_of_the_error_counts_by_picture() -> None:
    config = _config(l1_weight=0.0, mse_weight=0.0, quantization_weight=0.0, log_mse_weight=2.0)
    pictures = torch.zeros(3, 3, 2, 2)
    found = torch.tensor([0.5, 0.1, 0.0])[:, None, None, None].expand(3, 3, 2, 2)
    terms = loss_terms(pictures, found, torch.tensor(0.0), config)
    # The third is perfect, which counts as 50 dB.
    expected = (np.log(0.25) + np.log(0.01) + np.log(1e-5)) / 3
    assert float(terms["log_mse"]) == pytest.approx(expected, rel=1e-5)
    assert float(terms["total"]) == pytest.approx(2 * expected, rel=1e-5)
    assert "log_mse" not in loss_terms(pictures, found, torch.tensor(0.0), _config())


@pytest.mark.parametrize("form", ["log", "hinge"])
def test_adversarial_losses_follow_the_equations(form: Form) -> None:
    real, fake = torch.randn(2, 1, 3, 3), torch.randn(2, 1, 3, 3)
    x, y = real.numpy().astype(float), fake.numpy().astype(float)
    if form == "log":
        d = lambda logits: 1 / (1 + np.exp(-logits))  # noqa: E731
        for_model = -np.log(d(y)).mean()
        for_discriminator = -np.log(d(x)).mean() - np.log(1 - d(y)).mean()
    else:
        for_model = -y.mean()
        for_discriminator = np.maximum(0, 1 - x).mean() + np.maximum(0, 1 + y).mean()
    assert float(generator_loss(fake, form)) == pytest.approx(for_model, rel=1e-5)
    assert float(discriminator_loss(real, fake, form)) == pytest.approx(for_discriminator, rel=1e-5)


def test_discriminator_looks_at_patches_of_46_pixels() -> None:
    torch.manual_seed(0)
    network = PatchDiscriminator(8).eval()
    picture = torch.rand(1, 3, 160, 160, requires_grad=True)
    logits = network(picture)
    assert logits.shape == (1, 1, 19, 19)
    logits[0, 0, 9, 9].backward()
    assert picture.grad is not None
    seen = picture.grad.abs().sum(dim=(0, 1)) > 0
    assert seen.any(0).sum() == seen.any(1).sum() == 46


def test_discriminator_sees_what_a_receiver_shows() -> None:
    network = PatchDiscriminator(8).eval()
    picture = 3 * torch.randn(1, 3, 32, 32)
    assert torch.equal(network(picture), network(picture.clamp(0, 1)))


def test_spectral_norm_bounds_every_layer() -> None:
    network = PatchDiscriminator(8)
    network.train()
    with torch.no_grad():
        for layer in network.body[::2]:
            layer.parametrizations.weight.original.mul_(50)
        for _ in range(30):
            network(torch.rand(2, 3, 32, 32))
    for layer in network.body[::2]:
        largest = torch.linalg.matrix_norm(layer.weight.detach().flatten(1), ord=2)
        assert float(largest) == pytest.approx(1.0, abs=0.02)


def test_adaptive_weight_is_the_ratio_of_gradients() -> None:
    weights = torch.tensor([3.0, 4.0], requires_grad=True)
    distortion, adversarial = weights.square().sum(), 0.5 * weights.sum()
    found = adaptive_weight(distortion, adversarial, weights)
    assert float(found) == pytest.approx(10 / (0.5 * np.sqrt(2)), rel=1e-3)
    assert not found.requires_grad
    indifferent = adaptive_weight(1e9 * distortion, 1e-9 * adversarial, weights)
    assert float(indifferent) == MAX_ADAPTIVE_WEIGHT


def test_phase_two_adds_the_adversarial_term_and_leaves_the_discriminator() -> None:
    """Eq. (14), with both pulls equally strong at the last layer."""
    torch.manual_seed(0)
    config, adversary = _config(), _adversary(weight=1.0)
    before = {n: v.clone() for n, v in adversary.network.state_dict().items()}
    last = torch.nn.Conv2d(3, 3, 3, padding=1)
    pictures = torch.rand(2, 3, 32, 32)
    found = last(torch.rand(2, 3, 32, 32))
    phase_one = loss_terms(pictures, found, torch.tensor(0.1), config)
    terms = add_adversarial(phase_one, found, last.weight, adversary, config)
    weight = terms["adversarial_weight"]
    assert float((terms["total"] - phase_one["total"]).detach()) == pytest.approx(
        float((weight * terms["adversarial"]).detach()), rel=1e-4
    )
    norms = [
        torch.autograd.grad(term, last.weight, retain_graph=True)[0].norm().item()
        for term in (phase_one["l1"] + 10 * phase_one["mse"], weight * terms["adversarial"])
    ]
    assert norms[0] == pytest.approx(norms[1], rel=0.02)
    terms["total"].backward()
    assert all(p.grad is None for p in adversary.network.parameters())
    for name, value in adversary.network.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_fixed_weight_on_request() -> None:
    adversary = _adversary(weight=0.3, adaptive=False)
    weights = torch.ones(2, requires_grad=True)
    assert float(adversary.weight(weights.sum(), weights.sum(), weights)) == pytest.approx(0.3)


@pytest.mark.parametrize("form", ["log", "hinge"])
def test_discriminator_learns_to_tell_apart_and_model_gets_no_gradient(form: Form) -> None:
    torch.manual_seed(0)
    adversary = _adversary(form=form, learning_rate=2e-3)
    smooth = torch.nn.AvgPool2d(5, 1, 2)
    offset = torch.zeros(1, requires_grad=True)
    records = []
    for _ in range(40):
        real = torch.rand(4, 3, 32, 32)
        records.append(adversary.learn(real, smooth(torch.rand(4, 3, 32, 32)) + offset, 1.0))
    assert offset.grad is None
    assert records[-1]["discriminator"] < 0.6 * records[0]["discriminator"]
    assert records[-1]["told_apart"] > 0.95


def test_discriminator_stops_at_what_is_not_finite() -> None:
    adversary = _adversary()
    before = {n: v.clone() for n, v in adversary.network.state_dict().items() if "_u" not in n}
    pictures = torch.rand(2, 3, 32, 32)
    with pytest.raises(FloatingPointError, match="discriminator"):
        adversary.learn(pictures, pictures * float("nan"), 1.0)
    for name, value in adversary.network.named_parameters():
        assert torch.equal(value, before[name]), name


def test_discriminator_goes_on_from_its_state() -> None:
    def data(step: int) -> tuple[torch.Tensor, torch.Tensor]:
        torch.manual_seed(step)
        return torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32) * 0.5

    whole, parts = _adversary(), _adversary()
    for step in range(2):
        whole.learn(*data(step), 1.0)
        parts.learn(*data(step), 1.0)
    resumed = Adversary(parts.config, 99, torch.device("cpu"))
    resumed.load_state_dict(parts.state_dict())
    for step in range(2, 4):
        assert whole.learn(*data(step), 0.5) == resumed.learn(*data(step), 0.5)
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name


def test_a_discriminator_leaves_the_models_random_numbers_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    _adversary()
    assert torch.equal(torch.rand(4), expected)
