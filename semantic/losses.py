"""Training losses as named terms.

Phase I of the paper, eq. (13): distortion, quantisation (12) and, where a judge is at hand, user-intent
relevance (11). Phase II, eq. (14), adds the adversarial term.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from semantic.codec_config import IntentConfig, TrainingConfig
from semantic.discriminator import Adversary
from semantic.intent_judge import IntentDistances

# 50 dB: what the codec cannot reach must not draw the logarithm to minus infinity.
LEAST_MSE = 1e-5
# Share of a picture's indices by which the extra weight of sparse pictures has fallen to 1/e.
SPARSE_SHARE = 0.1


@dataclass(frozen=True)
class IntentTerms:
    """Eq. (11) as a training step has it.

    Args:
        terms: unweighted means: ``intent`` and, where the judge answers, ``answer``.
        weighted: scalar, what they add to the loss.
    """

    terms: dict[str, Tensor]
    weighted: Tensor


def intent_terms(distances: IntentDistances, received: Tensor, config: IntentConfig) -> IntentTerms:
    """Weigh a judge's distances by how little of each picture was received.

    Args:
        distances: of B pictures.
        received: share of each picture's indices, float ``[B]``, 0..1.
        config: the weights.
    """
    terms = {"intent": distances.hidden.mean()}
    weighted = config.weight * distances.hidden
    if distances.answers is not None:
        terms["answer"] = distances.answers.mean()
        weighted = weighted + config.answer_weight * distances.answers
    gain = 1 + config.sparse_gain * torch.exp(-received / SPARSE_SHARE)
    return IntentTerms(terms, (gain * weighted).mean())


def loss_terms(
    pictures: Tensor,
    reconstructed: Tensor,
    quantization: Tensor,
    config: TrainingConfig,
    intent: IntentTerms | None = None,
) -> dict[str, Tensor]:
    """Every term of phase I, unweighted, and their weighted sum, eq. (13), under ``"total"``.

    Args:
        pictures: float32 ``[B, 3, h, w]``, 0..1.
        reconstructed: float ``[B, 3, h, w]``, not clipped.
        quantization: scalar, eq. (12).
        config: the weights.
        intent: eq. (11); None without a judge.

    Returns:
        ``l1`` (mean absolute error), ``mse`` (mean squared error), ``quantization``, ``log_mse`` (mean over
        pictures of its logarithm), ``intent`` and ``answer`` where the recipe has them, ``total``.
    """
    error = reconstructed.float() - pictures
    terms = {"l1": error.abs().mean(), "mse": error.square().mean(), "quantization": quantization}
    if config.log_mse_weight:
        terms["log_mse"] = error.square().mean((1, 2, 3)).clamp_min(LEAST_MSE).log().mean()
    total = distortion(terms, config) + config.quantization_weight * quantization
    if intent is not None:
        terms |= intent.terms
        total = total + intent.weighted
    return {**terms, "total": total}


def distortion(terms: dict[str, Tensor], config: TrainingConfig) -> Tensor:
    """Weighted sum of the terms that compare pixels."""
    total = config.l1_weight * terms["l1"] + config.mse_weight * terms["mse"]
    if config.log_mse_weight:
        total = total + config.log_mse_weight * terms["log_mse"]
    return total


def add_adversarial(
    terms: dict[str, Tensor],
    reconstructed: Tensor,
    last_layer: Tensor,
    adversary: Adversary,
    config: TrainingConfig,
) -> dict[str, Tensor]:
    """Phase II, eq. (14): the terms of :func:`loss_terms` with the adversarial one in ``"total"``.

    Args:
        terms: of phase I.
        reconstructed: float ``[B, 3, h, w]``.
        last_layer: the decoder's last weights, for the adaptive weight.
        adversary: the discriminator.
        config: the weights.

    Returns:
        ``terms`` and ``adversarial`` (unweighted), ``adversarial_weight``, ``total``.
    """
    adversarial = adversary.judge(reconstructed)
    weight = adversary.weight(distortion(terms, config), adversarial, last_layer)
    added = {"adversarial": adversarial, "adversarial_weight": weight}
    return {**terms, **added, "total": terms["total"] + weight * adversarial}
