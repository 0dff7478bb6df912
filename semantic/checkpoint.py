"""Reading and writing trained codecs: one safetensors file, and a small JSON file beside it.

The safetensors metadata holds the codec's configuration, the recipe it was trained with, what it
reached and on which data. ``codec_id`` is recomputed from configuration and tensors at every load, so a
damaged or exchanged file cannot pass for another codec. The JSON file is the frame geometry alone, for a
receiver without torch (:mod:`semantic.geometries`).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from semantic.backbone import Backbone, WeightsError, towers_digest
from semantic.codec.packed_weights import check_tensors
from semantic.codec_config import CodecConfig, Recipe, TrainingConfig
from semantic.geometries import CHECKPOINT_FOLDER, geometries_to_json
from semantic.index_frame import FrameGeometry
from semantic.model import CodecModel, TowerWidths

FORMAT = "uo-isc-codec-1"
EMBEDDED_CHECKPOINT = CHECKPOINT_FOLDER / "embedded.safetensors"


def compute_codec_id(config: CodecConfig, tensors: dict[str, Tensor]) -> str:
    """First 8 hexadecimal digits of a sha256 over configuration, tower weights and tensors."""
    digest = hashlib.sha256(_canonical(config).encode())
    digest.update(towers_digest(config.backbone).encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()[:8]


def _canonical(config: CodecConfig) -> str:
    """The configuration as one JSON text, without what does not change the codec."""
    data = config.model_dump(mode="json")
    data.pop("name")
    data["backbone"].pop("weights_file", None)  # a path; its sha256 stays
    return json.dumps(data, sort_keys=True, separators=(",", ":"))


def _stored_tensors(model: CodecModel) -> dict[str, Tensor]:
    """What a checkpoint keeps: matrices and kernels as float16 (half the size), the rest float32.

    The running sums of the codebooks only matter to training and stay out. Codebooks stay float32:
    the encoder's choice between near codewords hangs on them.
    """
    stored = {}
    for name, tensor in model.state_dict().items():
        if name.endswith(".total"):
            continue
        small = name.startswith("quantizers.") or tensor.ndim < 2
        stored[name] = (
            tensor.detach().cpu().to(torch.float32 if small else torch.float16).contiguous()
        )
    return stored


def write_checkpoint(
    file: Path,
    recipe: Recipe,
    model: CodecModel,
    metrics: Mapping[str, float | list[float]],
    data_sha256: str,
    intent_judge: str | None = None,
) -> FrameGeometry:
    """Write ``file`` (safetensors) and its ``.json`` beside it, each atomically.

    Args:
        file: ends in ``.safetensors``.
        recipe: codec and training configuration.
        model: the trained network.
        metrics: what it reached.
        data_sha256: digest of the training set.
        intent_judge: identity of the judge in the loss, who must not score this codec; None without.

    Returns:
        The codec's frame geometry at its full rate, with its new ``codec_id``.
    """
    tensors = _stored_tensors(model)
    codec_id = compute_codec_id(recipe.codec, tensors)
    metadata = {
        "format": FORMAT,
        "codec_id": codec_id,
        "codec": recipe.codec.model_dump_json(),
        "training": recipe.training.model_dump_json(),
        "metrics": json.dumps(metrics),
        "data_sha256": data_sha256,
    }
    if intent_judge is not None:
        metadata["intent_judge"] = intent_judge
    geometries = recipe.codec.geometries(codec_id)
    _write(file, save(tensors, metadata))
    text = json.dumps(geometries_to_json(geometries), indent=2) + "\n"
    _write(file.with_suffix(".json"), text.encode())
    return geometries[-1]


def change_rungs(source: Path, recipe: Recipe, file: Path) -> FrameGeometry:
    """Trained weights with the rates of another ladder: nothing is trained anew, but the codec_id changes.

    Args:
        source: a checkpoint.
        recipe: its codec is that of ``source``, but for its name and ``ladder.rungs``.
        file: where to write; ``.json`` beside it.

    Returns:
        The new codec's frame geometry at its full rate.

    Raises:
        WeightsError: ``source`` is missing, damaged, or differs from the recipe in more than its rungs.
    """
    model, _, metadata = read_checkpoint(source)
    trained = CodecConfig.model_validate_json(metadata["codec"])
    if _without_rungs(trained) != _without_rungs(recipe.codec):
        raise WeightsError(
            f"{source}: trained as another codec than this recipe's; only ladder.rungs (and name) may differ"
        )
    training = TrainingConfig.model_validate_json(metadata["training"])
    return write_checkpoint(
        file,
        recipe.model_copy(update={"training": training}),
        model,
        json.loads(metadata["metrics"]),
        metadata["data_sha256"],
        metadata.get("intent_judge"),
    )


def _without_rungs(config: CodecConfig) -> str:
    data = json.loads(_canonical(config))
    if data.get("ladder") is not None:
        data["ladder"].pop("rungs", None)
    return json.dumps(data, sort_keys=True)


def _write(file: Path, data: bytes) -> None:
    temporary = file.with_name(file.name + ".tmp")
    temporary.write_bytes(data)
    os.replace(temporary, file)


def read_metadata(file: Path) -> dict[str, str]:
    """The metadata of a checkpoint.

    Raises:
        WeightsError: a file that is missing, damaged or not a codec.
    """
    return _read(file)[0]


def _read(file: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    if not file.is_file():
        raise WeightsError(
            f"{file}: no such checkpoint; restore it from the repository (git checkout) or train one "
            "(uoisc train)"
        )
    try:
        with safe_open(file, framework="pt", device="cpu") as opened:
            metadata = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{file}: damaged checkpoint ({error}); restore it from the repository (git checkout)"
        ) from None
    if metadata.get("format") != FORMAT:
        raise WeightsError(f"{file}: not a codec checkpoint (format {metadata.get('format')!r})")
    check_tensors(file, tensors)
    return metadata, tensors


def read_checkpoint(
    file: Path, backbone: Backbone | None = None
) -> tuple[CodecModel, FrameGeometry, dict[str, str]]:
    """Load a codec.

    The towers are loaded when something is first encoded, not here.

    Args:
        file: a checkpoint of :func:`write_checkpoint`.
        backbone: the frozen towers, where they are loaded already.

    Returns:
        The network in evaluation mode, its frame geometry at the full rate, and the metadata.

    Raises:
        WeightsError: missing, damaged or altered file.
    """
    metadata, tensors = _read(file)
    try:
        config = CodecConfig.model_validate_json(metadata["codec"])
        claimed = metadata["codec_id"]
    except (KeyError, ValueError) as error:
        raise WeightsError(f"{file}: unreadable codec description ({error})") from None
    found = compute_codec_id(config, tensors)
    if found != claimed:
        raise WeightsError(
            f"{file}: contents give codec_id {found}, the file claims {claimed}; it is damaged or was "
            "altered, restore it from the repository (git checkout)"
        )
    try:
        model = CodecModel(config, backbone, _stored_widths(config, tensors))
        # The running sums are left out of checkpoints: they follow from codebook and count.
        full = {name: tensor.float() for name, tensor in tensors.items()}
        for number in range(len(config.layers)):
            prefix = f"quantizers.{number}."
            full[prefix + "total"] = full[prefix + "codebook"] * full[prefix + "count"][..., None]
        model.load_state_dict(full)
    except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
        raise WeightsError(f"{file}: tensors do not fit the configuration ({error})") from None
    return model.eval(), config.geometries(claimed)[-1], metadata


def _stored_widths(config: CodecConfig, tensors: dict[str, Tensor]) -> TowerWidths:
    """Sizes of the towers' output, from the tensors that receive it; KeyError where they lack."""
    return TowerWidths(
        tuple(len(tensors[f"layers.{n}.standardize.mean"]) for n in range(len(config.layers))),
        0 if config.film == "none" else tensors["layers.0.project_text.0.weight"].shape[1],
    )
