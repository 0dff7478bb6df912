"""Checkpoints of the right form with tensors that no codec of ours has: one named error each."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from semantic.backbone import WeightsError
from semantic.codec.loader import load_codec
from semantic.geometries import CHECKPOINT_FOLDER


def nan(tensor: Tensor) -> Tensor:
    changed = tensor.clone()
    changed.view(-1)[0] = float("nan")
    return changed


CHANGES = {
    "bf16": (lambda one: one.to(torch.bfloat16), "is bfloat16, expected float32"),
    "fp8": (lambda one: one.to(torch.float8_e4m3fn), "is float8_e4m3fn, expected float32"),
    "nan": (nan, "holds values that are no numbers"),
    "scalar": (lambda one: one.view(-1)[0].clone(), "codec_id|do not fit"),
    "complex": (lambda one: one.to(torch.complex64), "is complex64, expected float32"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", ["embedded", "two_layer", "two_layer_recognition"])
def test_tensors_that_do_not_belong(tmp_path: Path, name: str, change: str) -> None:
    for file in CHECKPOINT_FOLDER.glob("*"):
        if file.is_file():
            (tmp_path / file.name).symlink_to(file)
    source = CHECKPOINT_FOLDER / f"{name}.safetensors"
    with safe_open(source, framework="pt") as opened:
        metadata = opened.metadata()
        tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
    victim = next(key for key, one in tensors.items() if one.dtype == torch.float32 and one.ndim)
    alter, words = CHANGES[change]
    tensors[victim] = alter(tensors[victim])
    target = tmp_path / source.name
    target.unlink()
    save_file(tensors, target, metadata)
    of_head = name.endswith("recognition")
    codec = tmp_path / "two_layer.safetensors" if of_head else target
    with pytest.raises(WeightsError, match=f"{words}|differ") as caught:
        load_codec(codec, "cpu", towers=False, decode_for="recognition" if of_head else "fidelity")
    assert str(target) in str(caught.value)
