"""The same frozen network with less to compute: normalisation folded, weights laid out anew.

Frozen, ``y = w * x`` followed by ``(y - mean) / sqrt(var + eps) * gain + bias`` is one convolution with
other weights. What follows is equal up to rounding.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn


@torch.no_grad()
def fold_batch_norms(network: nn.Module) -> int:
    """Fold every batch normalisation that directly follows a convolution, in place.

    Args:
        network: in evaluation mode, as it stays; of timm's make, where a convolution and its normalisation
            are neighbours in one module, in the order in which they are called.

    Returns:
        The number of normalisations folded.
    """
    folded = 0
    for parent in list(network.modules()):
        for (_, convolution), (name, norm) in pairwise(list(parent.named_children())):
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                _fold(convolution, norm)
                # timm's normalisation is followed by an activation inside the same module.
                setattr(parent, name, getattr(norm, "act", nn.Identity()))
                folded += 1
    return folded


def _fold(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    shift = norm.bias - norm.running_mean * scale
    if convolution.bias is not None:
        shift = shift + convolution.bias * scale
    trainable = convolution.weight.requires_grad
    convolution.weight.mul_(scale[:, None, None, None])
    convolution.bias = nn.Parameter(shift.clone(), requires_grad=trainable)


def put_inputs_first(network: nn.Module) -> None:
    """Lay the weights of linear layers out with their inputs first, in place; their shapes stay.

    A few vectors at a time, as the words of one query, pass them faster on a CPU.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            layer.weight.data = layer.weight.data.T.contiguous().T
