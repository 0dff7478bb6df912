"""The one door to the frozen vision-language towers.

Whatever the towers are (the two packaged ones of the embedded codec, or CLIP ViT-B/16 from a local
weights file), they come out as the same class, open_clip's ``CustomTextCLIP``, wrapped in a
:class:`Backbone` that gives image feature maps and one text vector per query. Both towers are frozen:
no gradient, always in evaluation mode. Nothing is ever fetched from the network, and every file is
checked by its sha256 before it is read.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from semantic.codec_config import OpenClipModel, PackagedTowers
from semantic.torchvision_operators import declare_missing_operators

MAX_QUERY_TOKENS = 77


class WeightsError(RuntimeError):
    """Weights that are missing, damaged or not the ones asked for; the text says how to mend it."""


class Backbone(nn.Module):
    """Frozen image and text towers.

    Args:
        towers: open_clip's ``CustomTextCLIP``.
        tokenize: list of queries -> token ids ``int64 [B, L]``.
        feature_indices: which intermediate maps of the image tower :meth:`image_features` returns.
        image_size: side of the input pictures in pixels.
        mean: per-channel mean the image tower was trained with, pictures in 0..1.
        std: per-channel spread, likewise.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        towers: Any,
        tokenize: Callable[[list[str]], Tensor],
        feature_indices: Sequence[int],
        image_size: int,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        super().__init__()
        self.towers: Any = towers.eval().requires_grad_(False)
        self.tokenize = tokenize
        self.feature_indices = sorted(set(feature_indices))
        self.image_size = image_size
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        self.eval()
        with torch.inference_mode():
            maps = self.image_features(torch.zeros(1, 3, image_size, image_size))
            self.text_width = int(self.text_features(["a photo"]).shape[-1])
        self.channels = {i: int(m.shape[1]) for i, m in maps.items()}
        self.grids = {i: int(m.shape[2]) for i, m in maps.items()}

    def train(self, mode: bool = True) -> Backbone:
        """Stay in evaluation mode whatever the enclosing model does: the towers are frozen."""
        return super().train(False)

    @torch.no_grad()
    def image_features(self, pictures: Tensor) -> dict[int, Tensor]:
        """Intermediate maps of the image tower.

        Args:
            pictures: float32 ``[B, 3, side, side]``, 0..1.

        Returns:
            index -> float32 ``[B, C_i, h_i, w_i]`` for every configured index.
        """
        normalised = (pictures.to(self.mean.device) - self.mean) / self.std
        found = self.towers.visual.forward_intermediates(
            normalised,
            indices=self.feature_indices,
            intermediates_only=True,
            output_fmt="NCHW",
        )["image_intermediates"]
        return dict(zip(self.feature_indices, found, strict=True))

    @torch.no_grad()
    def text_features(self, queries: list[str]) -> Tensor:
        """One unit-length vector per query, float32 ``[B, text_width]``."""
        tokens = self.tokenize(queries).to(self.mean.device)
        # Padding beyond the longest query of the batch only costs time.
        used = int((tokens != 0).sum(dim=1).max())
        if self._accepts_short_text():
            tokens = tokens[:, : max(used, 1)]
        return torch.nn.functional.normalize(self.towers.encode_text(tokens).float(), dim=-1)

    def _accepts_short_text(self) -> bool:
        """True for Hugging Face towers (attention mask); CLIP's own has fixed positions."""
        return hasattr(self.towers.text, "pooler")


def towers_digest(config: PackagedTowers | OpenClipModel) -> str:
    """Text that stands for all tower weights of a configuration, without loading them."""
    if isinstance(config, OpenClipModel):
        return config.weights_sha256 or "random-seed-0"
    digests = [config.image_tower.sha256, *sorted(config.text_tower.sha256.values())]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def load_backbone(
    config: PackagedTowers | OpenClipModel, feature_indices: Sequence[int], image_size: int
) -> Backbone:
    """Build the frozen towers of a codec.

    Args:
        config: which towers.
        feature_indices: intermediate maps of the image tower that the codec uses.
        image_size: side of the input pictures in pixels.

    Raises:
        WeightsError: a package or file that is missing or has another sha256.
    """
    declare_missing_operators()
    if isinstance(config, PackagedTowers):
        return _load_packaged(config, feature_indices, image_size)
    return _load_open_clip(config, feature_indices, image_size)


def _load_packaged(
    config: PackagedTowers, feature_indices: Sequence[int], image_size: int
) -> Backbone:
    from open_clip.model import CustomTextCLIP

    image, text = config.image_tower, config.text_tower
    image_file = _package_path(image.package) / image.file
    text_folder = _package_path(text.package) / text.folder
    check_sha256(image_file, image.sha256)
    for name, digest in text.sha256.items():
        check_sha256(text_folder / name, digest)
    with _quiet_offline():
        towers = CustomTextCLIP(
            text.width,
            {
                "timm_model_name": image.timm_model,
                "timm_model_pretrained": False,
                "timm_pool": "",
                "timm_proj": "none",
                "image_size": image_size,
            },
            {
                "hf_model_name": str(text_folder),
                "hf_tokenizer_name": str(text_folder),
                "hf_model_pretrained": True,
                "hf_pooler_type": "mean_pooler",
                "hf_proj_type": None,
            },
        )
        tokenize = _packaged_tokenizer(text_folder)
    trunk = towers.visual.trunk
    _load_in_order(trunk, image_file)
    return Backbone(
        towers,
        tokenize,
        feature_indices,
        image_size,
        trunk.default_cfg["mean"],
        trunk.default_cfg["std"],
    )


def _packaged_tokenizer(folder: Path) -> Callable[[list[str]], Tensor]:
    from open_clip.tokenizer import HFTokenizer

    tokenizer = HFTokenizer(str(folder), context_length=MAX_QUERY_TOKENS)
    return lambda queries: tokenizer(queries)


def _load_in_order(trunk: nn.Module, file: Path) -> None:
    """Fill a timm network from a state dict with other names but the same order.

    The packaged EfficientNet-Lite0 names its tensors as another code base does. The order of the
    layers is the same, so the tensors map one to one; every shape is compared. The package's last
    two tensors are the ImageNet classifier, which a backbone does not have.
    """
    stored = torch.load(file, map_location="cpu", weights_only=True)
    own = trunk.state_dict()
    tensors = list(stored.values())
    extra = list(stored)[len(own) :]
    if extra != ["_fc.weight", "_fc.bias"]:
        raise WeightsError(
            f"{file}: expected {len(own)} tensors and a classifier, got {len(tensors)}"
        )
    mapped = dict(zip(own, tensors, strict=False))
    for name, tensor in own.items():
        if mapped[name].shape != tensor.shape:
            raise WeightsError(f"{file}: {name} has shape {list(mapped[name].shape)}")
    trunk.load_state_dict(mapped)


def _load_open_clip(
    config: OpenClipModel, feature_indices: Sequence[int], image_size: int
) -> Backbone:
    import open_clip
    from open_clip.model import CustomTextCLIP, convert_to_custom_text_state_dict

    description: dict[str, Any] | None = dict(config.description or {})
    if config.model is not None:
        description = open_clip.get_model_config(config.model)
        if description is None:
            raise WeightsError(f"open_clip knows no model named {config.model!r}")
    assert description is not None
    expected_size = description["vision_cfg"]["image_size"]
    if expected_size != image_size:
        raise WeightsError(f"the image tower takes {expected_size} pixels, the codec {image_size}")
    description.pop("custom_text", None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        towers = CustomTextCLIP(**description)
    if config.weights_file is not None:
        assert config.weights_sha256 is not None  # the configuration insists
        mend = "put the right file there, or correct weights_file in the recipe"
        check_sha256(config.weights_file, config.weights_sha256, mend)
        state = convert_to_custom_text_state_dict(_read_state(config.weights_file))
        towers.load_state_dict({k: v.float() for k, v in state.items()})
    tokenizer = open_clip.SimpleTokenizer(context_length=towers.context_length)
    return Backbone(
        towers,
        lambda queries: tokenizer(queries),
        feature_indices,
        image_size,
        open_clip.OPENAI_DATASET_MEAN,
        open_clip.OPENAI_DATASET_STD,
    )


def _read_state(file: Path) -> dict[str, Tensor]:
    """State dict of a safetensors, TorchScript (OpenAI's CLIP files) or plain torch file."""
    if file.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(file)
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except RuntimeError:
        # A TorchScript archive; its sha256 has been checked by the caller.
        state = torch.jit.load(str(file), map_location="cpu").state_dict()
    state = state.get("state_dict", state)
    # OpenAI's files carry three numbers beside the weights.
    for name in ("input_resolution", "context_length", "vocab_size"):
        state.pop(name, None)
    return dict(state)


REINSTALL = "reinstall it with `make setup`"


def check_sha256(file: Path, expected: str, mend: str = REINSTALL) -> None:
    """Raise WeightsError unless the file exists and has this sha256; ``mend`` says what to do."""
    try:
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise WeightsError(f"{file}: {error.strerror}; {mend}") from None
    if digest != expected:
        raise WeightsError(
            f"{file}: sha256 is {digest[:12]}..., expected {expected[:12]}...; the file is damaged "
            f"or another version, {mend}"
        )


def _package_path(package: str) -> Path:
    """Folder of an installed package, without importing it (its code is not needed)."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise WeightsError(
            f"Python package {package} with pretrained weights is not installed; run `make setup`"
        )
    return Path(next(iter(spec.submodule_search_locations)))


@contextlib.contextmanager
def _quiet_offline() -> Iterator[None]:
    """No network look-ups and no loading chatter from the Hugging Face libraries meanwhile."""
    previous = os.environ.get("HF_HUB_OFFLINE")
    os.environ["HF_HUB_OFFLINE"] = "1"
    import transformers

    level = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    root_level = logging.getLogger().level
    try:
        yield
    finally:
        logging.getLogger().setLevel(root_level)
        transformers.logging.set_verbosity(level)
        if previous is None:
            del os.environ["HF_HUB_OFFLINE"]
        else:
            os.environ["HF_HUB_OFFLINE"] = previous
