"""Better indices for one picture, found through the decoder.

The encoder was trained for all pictures and has one look at each; what the decoder makes of its indices it
never sees. Here its features go downhill in the error of the decoded picture, straight through the quantiser,
for a few steps, and the best indices met on the way are sent (Campos et al. 2019, "Content adaptive
optimization for neural image compression"). The receiver decodes them as any others: bits, symbols and time
to decode stay the same; to encode takes one pass more through the decoder, and back, for every step.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from semantic.model import CodecModel
from semantic.quantizer import Damage

# Length of the first step in spreads of a layer's codewords; it shrinks to nothing along a cosine. Chosen on
# the demo's photos and on coco128's of even number; momentum made it worse.
STEP = 0.1


def search_indices(
    model: CodecModel,
    pictures: Tensor,
    features: list[Tensor],
    unsent: list[Tensor],
    weights: Tensor,
    steps: int,
) -> list[Tensor]:
    """Search for indices from which the decoder makes a better picture.

    Args:
        model: in evaluation mode.
        pictures: float32 ``[B, 3, side, side]``, 0..1.
        features: per layer float ``[B, N, D]``, what the encoder says (eq. (4)): where the search starts.
        unsent: per layer bool ``[B, N, M]``, True where an index is not sent at the picture's rate.
        weights: float32 ``[B, 1, side, side]``, how much a squared error counts where.
        steps: of the search; with 0 the result is the encoder's own.

    Returns:
        per layer int64 ``[B, N, M]``; the weighted squared error of each decoded picture is at most that of
        the encoder's own indices.
    """
    # Outside inference mode, whose tensors no gradient can pass.
    with torch.inference_mode(False), torch.enable_grad():
        pictures, weights = pictures.clone(), weights.clone()
        moving = [layer.detach().clone().float().requires_grad_() for layer in features]
        lost = [
            Damage(mask.clone(), mask.new_full(mask.shape, -1, dtype=torch.long)) for mask in unsent
        ]
        spreads = [q.codebook.detach().std((1, 2)).mean() for q in model.segment_quantizers]
        least = pictures.new_full((len(pictures),), math.inf)
        best: list[Tensor] = []
        for step in range(steps + 1):
            found = [
                quantizer(layer, damage)
                for quantizer, layer, damage in zip(
                    model.segment_quantizers, moving, lost, strict=True
                )
            ]
            decoded = model.decoder([one.vectors for one in found]).float()
            with torch.no_grad():
                errors = _error(decoded.clamp(0, 1), pictures, weights)
                better = errors < least
                least = torch.where(better, errors, least)
                indices = [one.indices for one in found]
                best = [
                    torch.where(better[:, None, None], new, old)
                    for new, old in zip(indices, best or indices, strict=True)
                ]
            if step == steps:
                break
            gradients = torch.autograd.grad(_error(decoded, pictures, weights).sum(), moving)
            length = STEP * (1 + math.cos(math.pi * step / steps)) / 2
            with torch.no_grad():
                for layer, gradient, spread in zip(moving, gradients, spreads, strict=True):
                    # Of unit size in every picture and layer: errors of pictures differ a hundredfold.
                    size = gradient.square().mean((1, 2), keepdim=True).sqrt().clamp_min(1e-20)
                    layer.sub_(length * spread * gradient / size)
        return best


def _error(decoded: Tensor, pictures: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean squared error of each picture, ``[B]``."""
    return ((decoded - pictures).square() * weights).mean((1, 2, 3))
