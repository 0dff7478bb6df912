"""Convolutions that hand on their result already activated: the same network in fewer passes over memory.

On a CPU an eager convolution lays its weights out anew whenever it is called, and writes a result that the
activation behind it reads and writes once more; one that pads as TensorFlow does copies its input first.
oneDNN, which torch computes them with, can do all of it in one go. torch's door to that is the one its
compiler uses and no public one, hence :func:`can_fuse`: where it is shut, and wherever gradients or reduced
precision are asked for, the layers themselves run, as they would unfused.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

_Convolution = nn.Conv2d | nn.ConvTranspose2d


@dataclass(frozen=True)
class _Packed:
    """What one size of input needs: the weight in oneDNN's layout and the padding."""

    weight: Tensor
    padding: list[int]


class FusedConvolution(nn.Module):
    """A convolution and what directly follows it.

    Equal to ``activation(convolution(x))`` bit for bit where x has its channels last; otherwise up to
    rounding. Weights are laid out with the first input of every size and must not change after that.

    Args:
        convolution: in evaluation mode.
        activation: ReLU6, LeakyReLU or Identity.
        same: the convolution pads as TensorFlow's "same" does, whatever its ``padding`` says.
    """

    def __init__(
        self, convolution: _Convolution, activation: nn.Module, *, same: bool = False
    ) -> None:
        super().__init__()
        self.convolution = convolution
        self.activation = activation
        self.same = same
        self._attribute, self._scalars = _post_operation(activation)
        self._packed: dict[tuple[int, int], _Packed] = {}

    def forward(self, x: Tensor) -> Tensor:
        """Float ``[B, C, h, w]`` -> activated float ``[B, C', h', w']``."""
        if not can_fuse(x):
            found: Tensor = self.activation(self.convolution(x))
            return found
        height, width = x.shape[2:]
        packed = self._packed.get((height, width))
        if packed is None:
            packed = self._packed[height, width] = self._pack(x.shape)
        layer = self.convolution
        inputs = x.contiguous(memory_format=torch.channels_last)
        common = (list(layer.stride), list(layer.dilation), layer.groups)
        behind = (self._attribute, self._scalars, "")
        if isinstance(layer, nn.ConvTranspose2d):
            found = torch.ops.mkldnn._convolution_transpose_pointwise(
                inputs,
                packed.weight,
                layer.bias,
                packed.padding,
                list(layer.output_padding),
                *common,
                *behind,
            )
        else:
            found = torch.ops.mkldnn._convolution_pointwise(
                inputs, packed.weight, layer.bias, packed.padding, *common, *behind
            )
        return found

    def _pack(self, size: torch.Size) -> _Packed:
        layer, shape = self.convolution, list(size)
        weight = layer.weight.detach()
        strides, dilations = list(layer.stride), list(layer.dilation)
        if isinstance(layer, nn.ConvTranspose2d):
            padding = [int(side) for side in layer.padding]
            outside = list(layer.output_padding)
            packed = torch.ops.mkldnn._reorder_convolution_transpose_weight(
                weight, padding, outside, strides, dilations, layer.groups, shape
            )
            return _Packed(packed, padding)
        if self.same:
            weight, padding = _symmetric(layer, weight, shape[2:])
        else:
            padding = [int(side) for side in layer.padding]
        packed = torch.ops.mkldnn._reorder_convolution_weight(
            weight.contiguous(), padding, strides, dilations, layer.groups, shape
        )
        return _Packed(packed, padding)

    def _apply(self, fn: Any, recurse: bool = True) -> FusedConvolution:
        """To another device or type: what was laid out is laid out anew."""
        self._packed.clear()
        return super()._apply(fn, recurse)

    def __getstate__(self) -> dict[str, Any]:
        """Without oneDNN's tensors, which cannot be copied."""
        return {**self.__dict__, "_packed": {}}


def can_fuse(x: Tensor) -> bool:
    """Whether torch can convolve and activate x in one go, and nobody asks for more than the result."""
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and _HAS_FUSED
    )


_HAS_FUSED = torch.backends.mkldnn.is_available() and all(
    hasattr(torch.ops.mkldnn, name)
    for name in (
        "_convolution_pointwise",
        "_convolution_transpose_pointwise",
        "_reorder_convolution_weight",
        "_reorder_convolution_transpose_weight",
    )
)


def fuse_convolutions(network: nn.Module, same: type[nn.Conv2d] | None = None) -> int:
    """Put a :class:`FusedConvolution` in the place of every 2-D convolution, in place.

    Args:
        network: in evaluation mode, as it stays, its weights final; where a convolution and its activation
            are neighbours in one module (but for identities), they are called one after the other, as in
            an ``nn.Sequential`` and timm's blocks.
        same: the class whose convolutions pad as TensorFlow's "same" does (timm's ``Conv2dSame``).

    Returns:
        The number of convolutions replaced; other classes than torch's own and that one stay.
    """
    places = list(_convolutions(network, same))
    for parent, name, convolution, behind in places:
        activation: nn.Module = nn.Identity()
        if behind is not None:
            activation = parent.get_submodule(behind)
            setattr(parent, behind, nn.Identity())
        fused = FusedConvolution(convolution, activation, same=type(convolution) is same)
        setattr(parent, name, fused)
    return len(places)


def _convolutions(
    network: nn.Module, same: type[nn.Conv2d] | None
) -> Iterator[tuple[nn.Module, str, _Convolution, str | None]]:
    """Parent and name of every convolution not fused yet, and the name of the activation behind it."""
    kinds = (nn.Conv2d, nn.ConvTranspose2d, same)
    for parent in list(network.modules()):
        if isinstance(parent, FusedConvolution):
            continue
        children = [
            (name, child)
            for name, child in parent.named_children()
            if not isinstance(child, nn.Identity)
        ]
        for (name, child), (behind, follower) in pairwise([*children, ("", nn.Identity())]):
            if (
                isinstance(child, _Convolution)
                and type(child) in kinds
                and child.padding_mode == "zeros"
                and not isinstance(child.padding, str)
            ):
                known = isinstance(follower, nn.ReLU6 | nn.LeakyReLU)
                yield parent, name, child, behind if known else None


def _post_operation(activation: nn.Module) -> tuple[str, list[float]]:
    """Name and numbers of an activation in oneDNN's words."""
    if isinstance(activation, nn.ReLU6):
        return "hardtanh", [0.0, 6.0]
    if isinstance(activation, nn.LeakyReLU):
        return "leaky_relu", [activation.negative_slope]
    if isinstance(activation, nn.Identity):
        return "none", []
    raise TypeError(f"no activation to fuse: {activation}")


def _symmetric(layer: nn.Conv2d, weight: Tensor, sides: list[int]) -> tuple[Tensor, list[int]]:
    """The same convolution with as much padding before as behind.

    TensorFlow's "same" puts the odd zero behind. With one zero more before it, and a zero row before the
    kernel that meets it, everything comes out as it was, and no padded copy of the input is needed.

    Raises:
        ValueError: an odd zero and a dilated kernel, which cannot grow by one.
    """
    geometry = zip(sides, layer.kernel_size, layer.stride, layer.dilation, strict=True)
    totals = [
        max((math.ceil(side / stride) - 1) * stride + (kernel - 1) * dilation + 1 - side, 0)
        for side, kernel, stride, dilation in geometry
    ]
    odd = [total % 2 for total in totals]
    if any(extra and dilation > 1 for extra, dilation in zip(odd, layer.dilation, strict=True)):
        raise ValueError(f"padding of {totals} with dilation {layer.dilation} has no middle")
    grown = functional.pad(weight, (odd[1], 0, odd[0], 0))
    return grown, [(total + extra) // 2 for total, extra in zip(totals, odd, strict=True)]
