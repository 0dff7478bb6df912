"""Products of integers that are exact on every device: what the priors compute with.

Values and weights are integers of 8 bits; matrix products add them up, on a CPU in int32, elsewhere in
float32, whose sums stay below 2**24 (:mod:`semantic.codec.fixed_point`). Both are exact, so neither the order
of additions nor the choice between them matters. No convolution routines, which may go by way of
Winograd's or of tensor cores.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from semantic.codec import fixed_point as fp

_SHIFT = 128


class PriorError(RuntimeError):
    """Weights whose sums float32 would not hold exactly."""


@dataclass(frozen=True)
class Product:
    """``(x @ weight + bias) * scale`` of integers ``x``, int8.

    Args:
        weight: int8 where an integer product is at hand, else float32.
        bias: whole numbers in float32.
        scale: powers of two in float32.
    """

    weight: Tensor
    bias: Tensor
    scale: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """float32 ``[n, out]`` of ``[n, in]``."""
        if self.weight.dtype == torch.int8:
            sums = torch._int_mm(x, self.weight).float()
        else:
            sums = x.float() @ self.weight
        return (sums + self.bias) * self.scale


@contextmanager
def whole_float32() -> Iterator[None]:
    """No TF32 or bfloat16 inside products of float32, whatever the program allows elsewhere."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def clip_values(x: Tensor, limit: int) -> Tensor:
    """The activation: whole numbers from 0 to a limit."""
    return torch.round(x).clamp(0, limit)


def shift_values(x: Tensor) -> Tensor:
    """Hidden values, 0 to 255, as int8; :func:`product` puts back what is taken off here."""
    return (x - _SHIFT).to(torch.int8)


def _integers(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Weights as integers and the power of two that each row was multiplied by."""
    factor = torch.exp2(fp.weight_exponents(weight))
    limit = fp.WEIGHT_LIMIT
    return torch.round(weight.detach() * factor[:, None]).clamp(-limit, limit), factor


def product(
    weight: Tensor,
    bias: Tensor | None,
    unit: int,
    unit_out: int,
    limit: int,
    device: torch.device,
    *,
    shifted: bool = False,
) -> Product:
    """A layer that takes values in ``1 / unit`` up to ``limit`` and gives them in ``1 / unit_out``."""
    whole, factor = _integers(weight)
    offset = torch.zeros_like(factor) if bias is None else bias.detach() * factor * unit
    offset = torch.round(offset)
    if shifted:
        offset = offset + _SHIFT * whole.sum(1)
    check_exact(whole.abs().sum(1) * limit + offset.abs())
    scale = unit_out / (factor * unit)
    # The same sums either way, several times as fast.
    stored = torch.int8 if device.type == "cpu" and torch.backends.mkldnn.is_available() else None
    matrix = whole.T.contiguous().to(device, stored or torch.float32)
    return Product(matrix, offset.to(device), scale.to(device))


def check_exact(bound: Tensor) -> None:
    """Raise PriorError where sums may leave the range in which float32 is exact."""
    worst = float(bound.max())
    if worst >= fp.EXACT_LIMIT:
        raise PriorError(f"prior: a sum may reach {worst:.0f}, float32 is exact below 2**24")
