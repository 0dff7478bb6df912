"""Training losses as named terms.

Phase I of the paper, eq. (13): distortion, quantisation (12) and, where a judge is at hand, user-intent
relevance (11). Phase II, eq. (14), adds the adversarial term.
"""

from __future__ import annotations

from torch import Tensor

from semantic.codec_config import TrainingConfig
from semantic.discriminator import Adversary

# 50 dB: what the codec cannot reach must not draw the logarithm to minus infinity.
LEAST_MSE = 1e-5


def loss_terms(
    pictures: Tensor,
    reconstructed: Tensor,
    quantization: Tensor,
    config: TrainingConfig,
    intent: Tensor | None = None,
) -> dict[str, Tensor]:
    """Every term of phase I, unweighted, and their weighted sum, eq. (13), under ``"total"``.

    Args:
        pictures: float32 ``[B, 3, h, w]``, 0..1.
        reconstructed: float ``[B, 3, h, w]``, not clipped.
        quantization: scalar, eq. (12).
        config: the weights.
        intent: scalar, eq. (11); None without a judge.

    Returns:
        ``l1`` (mean absolute error), ``mse`` (mean squared error), ``quantization``, ``log_mse`` (mean over
        pictures of its logarithm) and ``intent`` where the recipe has them, ``total``.
    """
    error = reconstructed.float() - pictures
    terms = {"l1": error.abs().mean(), "mse": error.square().mean(), "quantization": quantization}
    if config.log_mse_weight:
        terms["log_mse"] = error.square().mean((1, 2, 3)).clamp_min(LEAST_MSE).log().mean()
    total = distortion(terms, config) + config.quantization_weight * quantization
    if intent is not None and config.intent is not None:
        terms["intent"] = intent
        total = total + config.intent.weight * intent
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
