"""Numbers that come out the same everywhere: what the prior computes with.

Both ends of the link must compute the same probabilities to the last bit, or the picture turns to noise
(Ballé, Johnston and Minnen 2019). So weights are integers of 8 bits times a power of two for every output
channel, values are integers of at most 8 bits, and every sum of products stays below 2**24: float32 holds it
exactly, in whatever order a device adds. Training sees the rounding and passes gradients straight through.
"""

from __future__ import annotations

import torch
from torch import Tensor

WEIGHT_LIMIT = 127
# Values per unit: of a prior's inputs and means, of its hidden values, of the linear path's weights.
INPUT_UNIT = 16
HIDDEN_UNIT = 32
LINEAR_UNIT = 256
INPUT_LIMIT = 127
HIDDEN_LIMIT = 255
# Float32 holds every integer up to here.
EXACT_LIMIT = 1 << 24


def weight_exponents(weight: Tensor) -> Tensor:
    """Largest e for every output channel with ``abs(weight) 2**e <= 127``: float32 ``[out]``."""
    largest = weight.detach().flatten(1).abs().amax(1).float().clamp_min(1e-6)
    # Not by a logarithm, whose last bit may differ between machines: a division does not.
    return (torch.frexp(WEIGHT_LIMIT / largest).exponent - 1).clamp(-8, 20).float()


def round_weight(weight: Tensor) -> Tensor:
    """A weight ``[out, ...]`` as its integers stand for it; the gradient passes straight through."""
    scale = torch.exp2(weight_exponents(weight)).view(-1, *[1] * (weight.dim() - 1))
    rounded = torch.round(weight.detach() * scale).clamp(-WEIGHT_LIMIT, WEIGHT_LIMIT) / scale
    return weight + (rounded - weight.detach())


def round_value(x: Tensor, unit: int) -> Tensor:
    """Rounded to whole ``1/unit``; the gradient passes straight through."""
    return x + (torch.round(x.detach() * unit) / unit - x.detach())


def compand(x: Tensor) -> Tensor:
    """``asinh(x)`` in whole 1/16, at most 127 of them: how coefficients enter the prior."""
    limit = INPUT_LIMIT / INPUT_UNIT
    return round_value(torch.asinh(x), INPUT_UNIT).clamp(-limit, limit)
