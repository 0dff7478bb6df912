"""Weights as files keep them: matrices as integers of 8 bits with a power of two for every row."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from semantic.backbone import WeightsError
from semantic.codec import fixed_point as fp

EXPONENT = ".exponent"
_WHOLE = (torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64)
_KINDS = (torch.float32, torch.float16, *_WHOLE)


def pack_matrix(value: Tensor) -> tuple[Tensor, Tensor]:
    """Integers and exponents of a weight ``[out, ...]``: int8, likewise and ``[out]``."""
    exponents = fp.weight_exponents(value)
    scale = torch.exp2(exponents).view(-1, *[1] * (value.dim() - 1))
    whole = torch.round(value * scale).clamp(-fp.WEIGHT_LIMIT, fp.WEIGHT_LIMIT)
    return whole.to(torch.int8), exponents.to(torch.int8)


def pack_weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Everything called a weight in 8 bits, the rest as it is."""
    packed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        value = tensor.detach().cpu()
        if name.endswith(".weight"):
            packed[name], packed[name + EXPONENT] = pack_matrix(value)
        else:
            packed[name] = value
    return {name: tensor.contiguous() for name, tensor in packed.items()}


def unpack_weights(packed: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Inverse of :func:`pack_weights`, as float32."""
    state = {}
    for name, tensor in packed.items():
        if name.endswith(EXPONENT):
            continue
        exponents = packed.get(name + EXPONENT)
        value = tensor.float()
        if exponents is not None:
            value = value / torch.exp2(exponents.float()).view(-1, *[1] * (value.dim() - 1))
        state[name] = value
    return state


def check_tensors(file: Path, tensors: Mapping[str, Tensor]) -> None:
    """Raise WeightsError for tensors that no checkpoint of ours holds: other kinds, or not finite."""
    for name, tensor in tensors.items():
        if tensor.dtype not in _KINDS:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise WeightsError(
                f"{file}: {name} is {kind}, expected float32, float16 or whole numbers"
            )
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise WeightsError(f"{file}: {name} holds values that are no numbers")


def tensors_digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    """First 8 hexadecimal digits of a sha256 over a text and tensors."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()[:8]


def replace_file(file: Path, data: bytes) -> None:
    """Write a file atomically."""
    temporary = file.with_name(file.name + ".tmp")
    temporary.write_bytes(data)
    os.replace(temporary, file)
