"""Better indices for one picture, found through the decoder.

The encoder was trained for all pictures and has one look at each; what the decoder makes of its indices it
never sees. Here its features go downhill in what is wrong with the decoded picture, straight through the
quantiser, for a few steps, and the best indices met on the way are sent (Campos et al. 2019, "Content
adaptive optimization for neural image compression"). The receiver decodes them as any others: bits, symbols
and time to decode stay the same; to encode takes one pass more through the decoder, and back, for every step.

What is wrong is the squared error, and how unlike the decoded picture looks to the codec's own image tower:
few bits cannot bring every pixel, but they can bring what tells a cat from a dog.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from semantic.model import CodecModel
from semantic.quantizer import Damage

# Length of the first step in spreads of a layer's codewords; it shrinks to nothing along a cosine. Chosen on
# the demo's photos and on coco128's of even number; momentum made it worse.
STEP = 0.1
# How much the tower's features count beside the logarithm of the squared error, where nobody says.
LIKENESS = 1.0
# A picture without any error must not draw the logarithm to minus infinity.
_LEAST_ERROR = 1e-8


def likeness_or_usual(likeness: float | None) -> float:
    """:data:`LIKENESS` where nobody says."""
    return LIKENESS if likeness is None else likeness


def describe_search(steps: int, likeness: float | None) -> str:
    """A search in words, for tables and notes."""
    if not steps:
        return "no search"
    return f"{steps} steps of search (likeness {likeness_or_usual(likeness):g})"


def search_indices(
    model: CodecModel,
    pictures: Tensor,
    features: list[Tensor],
    unsent: list[Tensor],
    weights: Tensor,
    steps: int,
    likeness: float = LIKENESS,
) -> list[Tensor]:
    """Search for indices from which the decoder makes a better picture.

    Args:
        model: in evaluation mode.
        pictures: float32 ``[B, 3, side, side]``, 0..1.
        features: per layer float ``[B, N, D]``, what the encoder says (eq. (4)): where the search starts.
        unsent: per layer bool ``[B, N, M]``, True where an index is not sent at the picture's rate.
        weights: float32 ``[B, 1, side, side]``, how much it counts where something is wrong.
        steps: of the search; with 0 the result is the encoder's own.
        likeness: how much the image tower's features count; 0: only pixels do.

    Returns:
        per layer int64 ``[B, N, M]``; ``ln(squared error) + likeness * unlikeness`` of each decoded picture
        is at most that of the encoder's own indices.
    """
    # Outside inference mode, whose tensors no gradient can pass.
    with torch.inference_mode(False), torch.enable_grad():
        pictures, weights = pictures.clone(), weights.clone()
        seen = _look(model, pictures) if likeness else []
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
            wrong = squared_error(decoded, pictures, weights).clamp_min(_LEAST_ERROR).log()
            if likeness:
                wrong = wrong + likeness * unlikeness(
                    _look(model, decoded.clamp(0, 1)), seen, weights
                )
            with torch.no_grad():
                better = wrong < least
                least = torch.where(better, wrong, least)
                indices = [one.indices for one in found]
                best = [
                    torch.where(better[:, None, None], new, old)
                    for new, old in zip(indices, best or indices, strict=True)
                ]
            if step == steps:
                break
            gradients = torch.autograd.grad(wrong.sum(), moving)
            length = STEP * (1 + math.cos(math.pi * step / steps)) / 2
            with torch.no_grad():
                for layer, gradient, spread in zip(moving, gradients, spreads, strict=True):
                    # Of unit size in every picture and layer: how steep it is says nothing about how far.
                    size = gradient.square().mean((1, 2), keepdim=True).sqrt().clamp_min(1e-20)
                    layer.sub_(length * spread * gradient / size)
        return best


def squared_error(decoded: Tensor, pictures: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean squared error of each picture, float ``[B]``.

    Args:
        decoded: float ``[B, 3, side, side]``, not clipped.
        pictures: float32 of the same shape, 0..1.
        weights: float32 ``[B, 1, side, side]``.
    """
    return ((decoded - pictures).square() * weights).mean((1, 2, 3))


def unlikeness(found: list[Tensor], wanted: list[Tensor], weights: Tensor) -> Tensor:
    """How differently a tower sees two pictures: sum over maps of the weighted mean of 1 - cosine.

    Args:
        found: maps of the decoded pictures, each float ``[B, C_i, h_i, h_i]``.
        wanted: of the sources.
        weights: float32 ``[B, 1, side, side]``.

    Returns:
        float ``[B]``, 0 where a tower sees no difference.
    """
    total = weights.new_zeros(len(weights))
    for one, other in zip(found, wanted, strict=True):
        places = functional.adaptive_avg_pool2d(weights, one.shape[2])
        apart = 1 - functional.cosine_similarity(one, other, dim=1)
        total = total + (apart[:, None] * places).mean((1, 2, 3))
    return total


def _look(model: CodecModel, pictures: Tensor) -> list[Tensor]:
    """The features of layers S that the codec itself sends."""
    return list(model.backbone.image_features(pictures).values())
