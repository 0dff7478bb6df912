"""Reading and writing the two-layer codec: one safetensors file, and a small JSON file beside it.

Weights are stored as integers of 8 bits with a power of two for every row: the prior's are such integers,
those that only shape pixels are rounded to them. The base layer is another checkpoint in the same folder,
named by file and ``codec_id``. ``codec_id`` is recomputed from everything at every load.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from semantic.backbone import WeightsError
from semantic.codec import fixed_point as fp
from semantic.codec.base_layer import BaseLayer
from semantic.codec.detail_layer import DetailConfig, DetailLayer
from semantic.codec.entropy import EntropyError, ResidualModels
from semantic.codec.exact_products import PriorError
from semantic.codec.packed_weights import (
    EXPONENT,
    check_tensors,
    pack_matrix,
    replace_file,
    tensors_digest,
    unpack_weights,
)
from semantic.codec.recognition_head import RecognitionHead, head_file, load_head
from semantic.codec.settings import DecodeFor
from semantic.codec.two_layer import TwoLayerCodec
from semantic.codec.vq_codec import Codec, load_vq_codec
from semantic.geometries import CHECKPOINT_FOLDER

FORMAT = "uo-isc-two-layer-1"
TWO_LAYER_CHECKPOINT = CHECKPOINT_FOLDER / "two_layer.safetensors"

_TABLE = "residual_table"
# Follows from the base layer.
_CODEWORDS = "prior.codewords"


def pack_tensors(detail: DetailLayer, table: np.ndarray) -> dict[str, Tensor]:
    """What a checkpoint keeps of a detail layer."""
    packed: dict[str, Tensor] = {_TABLE: torch.from_numpy(table.astype(np.int32))}
    for name, tensor in detail.state_dict().items():
        value = tensor.detach().cpu()
        if name == _CODEWORDS:
            continue
        if name.startswith("prior.") and name.endswith(".linear.weight"):
            packed[name] = (torch.round(value * fp.LINEAR_UNIT) / fp.LINEAR_UNIT).half()
        elif name.endswith(".weight"):
            packed[name], packed[name + EXPONENT] = pack_matrix(value)
        else:
            packed[name] = value
    return {name: tensor.contiguous() for name, tensor in packed.items()}


def compute_codec_id(config: DetailConfig, base_id: str, tensors: Mapping[str, Tensor]) -> str:
    """First 8 hexadecimal digits of a sha256 over sizes, base layer and tensors."""
    text = json.dumps({**dataclasses.asdict(config), "base": base_id}, sort_keys=True)
    return tensors_digest(text, tensors)


def write_two_layer(
    file: Path,
    detail: DetailLayer,
    table: np.ndarray,
    base: tuple[str, str],
    training: Mapping[str, object],
) -> str:
    """Write ``file`` and its ``.json`` beside it, each atomically.

    Args:
        file: ends in ``.safetensors``.
        detail: trained.
        table: frequencies of residuals, as :class:`ResidualModels` takes them.
        base: file name of the base layer's checkpoint, in the same folder, and its ``codec_id``.
        training: how it was trained, for the record.

    Returns:
        The ``codec_id``.
    """
    tensors = pack_tensors(detail, table)
    codec_id = compute_codec_id(detail.config, base[1], tensors)
    metadata = {
        "format": FORMAT,
        "codec_id": codec_id,
        "detail": json.dumps(dataclasses.asdict(detail.config)),
        "base_file": base[0],
        "base_id": base[1],
        "training": json.dumps(training),
    }
    replace_file(file, save(tensors, metadata))
    text = json.dumps({"codec_id": codec_id, "stream": True}, indent=2) + "\n"
    replace_file(file.with_suffix(".json"), text.encode())
    return codec_id


def is_two_layer(file: Path) -> bool:
    """True for a checkpoint of :func:`write_two_layer`; False for any other file, or none."""
    try:
        with safe_open(file, framework="pt") as opened:
            return (opened.metadata() or {}).get("format") == FORMAT
    except (SafetensorError, OSError):
        return False


def base_file(file: Path) -> Path:
    """Checkpoint of a two-layer codec's base, which lies in the same folder.

    Raises:
        WeightsError: a file that is missing, damaged or no such codec.
    """
    try:
        with safe_open(file, framework="pt") as opened:
            name = (opened.metadata() or {})["base_file"]
    except (SafetensorError, OSError, KeyError) as error:
        raise WeightsError(f"{file}: cannot be read ({error})") from None
    if Path(name).name != name:
        raise WeightsError(f"{file}: base_file {name!r} is no plain name")
    return file.parent / name


def load_two_layer(
    file: Path = TWO_LAYER_CHECKPOINT,
    device: str = "auto",
    *,
    towers: bool = True,
    amp: bool = False,
    compiled: bool = False,
    decode_for: DecodeFor = "fidelity",
) -> TwoLayerCodec:
    """Load the two-layer codec.

    Args:
        file: a checkpoint of :func:`write_two_layer`; its base layer lies in the same folder.
        device: as for :func:`semantic.codec.vq_codec.load_vq_codec`.
        towers: False leaves the frozen towers until something is encoded.
        amp: see :class:`~semantic.codec.two_layer.TwoLayerCodec`.
        compiled: likewise.
        decode_for: what decoded pictures are for; the head for recognition lies beside the checkpoint.

    Raises:
        WeightsError: a file that is missing, damaged or altered.
    """
    config, base_id, claimed, packed = _read(file)
    base = load_vq_codec(base_file(file), device, towers=False, amp=amp)
    if base.geometry.codec_id != base_id:
        raise WeightsError(
            f"{file}: the base layer beside it is codec {base.geometry.codec_id}, expected {base_id}"
        )
    head = load_head(head_file(file), claimed) if decode_for == "recognition" else None
    codec = _build(file, base, config, packed, claimed, head, amp=amp, compiled=compiled)
    if towers:
        codec.load_towers()
    return codec


def _read(file: Path) -> tuple[DetailConfig, str, str, dict[str, Tensor]]:
    """Sizes, ``codec_id`` of the base and of the whole, and tensors of a checkpoint, checked."""
    try:
        with safe_open(file, framework="pt", device="cpu") as opened:
            metadata = opened.metadata() or {}
            packed = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{file}: cannot be read ({error})") from None
    try:
        if metadata["format"] != FORMAT:
            raise ValueError(f"format {metadata['format']!r}")
        config = DetailConfig(**json.loads(metadata["detail"]))
        base_id, claimed = (metadata[key] for key in ("base_id", "codec_id"))
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{file}: not a two-layer codec ({error})") from None
    check_tensors(file, packed)
    found = compute_codec_id(config, base_id, packed)
    if found != claimed:
        raise WeightsError(
            f"{file}: contents give codec_id {found}, the file claims {claimed}; it is damaged or was altered"
        )
    return config, base_id, claimed, packed


def load_detail_of(file: Path, base: BaseLayer) -> tuple[DetailLayer, str]:
    """The detail layer of a checkpoint alone, and its ``codec_id``.

    Args:
        file: a checkpoint of :func:`write_two_layer`.
        base: its base layer.

    Raises:
        WeightsError: a file that is missing, damaged or of another base.
    """
    config, _, codec_id, packed = _read(file)
    detail = DetailLayer(base.codewords(), config)
    try:
        _take_up(detail, packed)
    except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
        raise WeightsError(f"{file}: tensors do not fit ({error})") from None
    return detail.eval(), codec_id


def load_detail(detail: DetailLayer, file: Path) -> None:
    """Weights of a checkpoint into a layer of the same sizes.

    Raises:
        WeightsError: a file that is missing, damaged or of other sizes.
    """
    if file.exists() and not is_two_layer(file):
        raise WeightsError(f"{file}: cannot be taken up (no checkpoint of a two-layer codec)")
    try:
        with safe_open(file, framework="pt", device="cpu") as opened:
            packed = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        check_tensors(file, packed)
        _take_up(detail, packed)
    except (SafetensorError, OSError, IndexError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, WeightsError):
            raise
        raise WeightsError(f"{file}: cannot be taken up ({error})") from None


def _take_up(detail: DetailLayer, packed: Mapping[str, Tensor]) -> None:
    weights = {name: value for name, value in packed.items() if name != _TABLE}
    detail.load_state_dict({_CODEWORDS: detail.prior.codewords, **unpack_weights(weights)})


def _build(
    file: Path,
    base: Codec,
    config: DetailConfig,
    packed: Mapping[str, Tensor],
    codec_id: str,
    head: RecognitionHead | None,
    *,
    amp: bool,
    compiled: bool,
) -> TwoLayerCodec:
    try:
        detail = DetailLayer(BaseLayer(base).codewords(), config)
        _take_up(detail, packed)
        models = ResidualModels(packed[_TABLE].numpy())
        return TwoLayerCodec(base, detail, models, codec_id, head, amp=amp, compiled=compiled)
    except (
        *(KeyError, IndexError, TypeError, ValueError, RuntimeError),
        *(EntropyError, PriorError),
    ) as error:
        raise WeightsError(f"{file}: tensors do not fit ({error})") from None
