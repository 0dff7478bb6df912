"""Training losses as named terms.

Phase I of the paper, eq. (13): distortion, quantisation and (from a judge model, where there is one)
user-intent relevance. The adversarial term of phase II, eq. (14) and (15), is not implemented.
"""

from __future__ import annotations

from torch import Tensor

from semantic.codec_config import TrainingConfig


def loss_terms(
    pictures: Tensor, reconstructed: Tensor, quantization: Tensor, config: TrainingConfig
) -> dict[str, Tensor]:
    """Every term, unweighted, and their weighted sum under ``"total"``.

    Args:
        pictures: float32 ``[B, 3, h, w]``, 0..1.
        reconstructed: float ``[B, 3, h, w]``, not clipped.
        quantization: scalar, eq. (12).
        config: the weights.

    Returns:
        ``l1`` (mean absolute error), ``mse`` (mean squared error), ``quantization``, ``total``.
    """
    error = reconstructed.float() - pictures
    l1, mse = error.abs().mean(), error.square().mean()
    total = (
        config.l1_weight * l1 + config.mse_weight * mse + config.quantization_weight * quantization
    )
    return {"l1": l1, "mse": mse, "quantization": quantization, "total": total}
