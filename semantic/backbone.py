"""The one door to the vision-language towers.

Whatever the towers are (the two packaged ones of the embedded codec, or CLIP ViT-B/16 from a local
weights file), they come out as the same class, open_clip's ``CustomTextCLIP``, wrapped in a
:class:`Backbone` that gives image feature maps and text vectors of queries. Both towers are frozen: no
gradient, always in evaluation mode; except in the "without pretrained VLM" baseline, whose towers start
from random numbers and are trained. Nothing is ever fetched from the network, and every file is checked
by its sha256 before it is read.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import importlib.util
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from semantic.alignment import TextFeatures, TextForm
from semantic.codec_config import ImageTowerConfig, OpenClipModel, PackagedTowers
from semantic.folding import fold_batch_norms, put_inputs_first
from semantic.fused_convolution import fuse_convolutions
from semantic.torchvision_operators import declare_missing_operators

MAX_QUERY_TOKENS = 77


class WeightsError(RuntimeError):
    """Weights that are missing, damaged or not the ones asked for; the text says how to mend it."""


class Backbone(nn.Module):
    """Image and text towers, frozen unless ``trainable``.

    Args:
        towers: open_clip's ``CustomTextCLIP``.
        tokenize: list of queries -> token ids ``int64 [B, L]``.
        feature_indices: which intermediate maps of the image tower :meth:`image_features` returns.
        image_size: side of the input pictures in pixels.
        mean: per-channel mean the image tower was trained with, pictures in 0..1.
        std: per-channel spread, likewise.
        trainable: leave them open to training; the codec then keeps them in its ``state_dict``.
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
        trainable: bool = False,
    ) -> None:
        super().__init__()
        self.trainable = trainable
        self.towers: Any = towers.eval().requires_grad_(trainable)
        # Token ids and what the text tower made of them: a codec asks for the words and for the whole of
        # a query, and people put one query to many photos.
        self._last_heard: tuple[Tensor, Any] | None = None
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
        """Frozen towers stay in evaluation mode whatever the enclosing model does."""
        return super().train(mode and self.trainable)

    def speed_up(self) -> None:
        """Put frozen towers into the forms that are fastest for one picture and query at a time.

        Features then hang in their last bits on how many pictures are in a batch, which training in several
        processes would notice. Trainable towers stay as they are.
        """
        if self.trainable:
            return
        trunk = getattr(self.towers.visual, "trunk", None)
        if trunk is not None:
            from timm.layers import Conv2dSame

            fuse_convolutions(trunk, same=Conv2dSame)
        put_inputs_first(self.towers.text)

    def image_features(self, pictures: Tensor) -> dict[int, Tensor]:
        """Intermediate maps of the image tower.

        Args:
            pictures: float32 ``[B, 3, side, side]``, 0..1.

        Returns:
            index -> float32 ``[B, C_i, h_i, w_i]`` for every configured index; differentiable in pictures
            that ask for a gradient.
        """
        normalised = (pictures.to(self.mean.device) - self.mean) / self.std
        found = self.towers.visual.forward_intermediates(
            normalised,
            indices=self.feature_indices,
            intermediates_only=True,
            output_fmt="NCHW",
        )["image_intermediates"]
        return dict(zip(self.feature_indices, found, strict=True))

    def text_features(self, queries: list[str]) -> Tensor:
        """One unit-length vector per query, float32 ``[B, text_width]``."""
        ids = self._token_ids(queries)
        with torch.set_grad_enabled(self.trainable and torch.is_grad_enabled()):
            return torch.nn.functional.normalize(self._pooled(ids).float(), dim=-1)

    def text_tokens(self, queries: list[str]) -> TextFeatures:
        """One unit-length vector per word piece (with start and end marks), in the pooled one's space.

        The last layer's output behind the tower's own projection, before it pools.
        """
        ids = self._token_ids(queries)
        # Padding comes last; CLIP's pad id is also the id of "!", so the value alone does not tell.
        places = torch.arange(ids.shape[1], device=ids.device)
        last = torch.where(ids != self._pad_id(), places, 0).amax(dim=1)
        mask = places <= last[:, None]
        with torch.set_grad_enabled(self.trainable and torch.is_grad_enabled()):
            vectors = torch.nn.functional.normalize(self._last_layer(ids).float(), dim=-1)
        used = int(last.max()) + 1
        return TextFeatures(vectors[:, :used], mask[:, :used])

    def query_features(self, queries: list[str], form: TextForm) -> TextFeatures:
        """What a codec asks of the text tower: see :data:`semantic.alignment.TEXT_FORM`."""
        if form == "tokens":
            return self.text_tokens(queries)
        if form == "pooled":
            return TextFeatures.pooled(self.text_features(queries))
        return TextFeatures.nothing(len(queries)).to(self.mean.device)

    def _token_ids(self, queries: list[str]) -> Tensor:
        """int64 ``[B, L]`` on the towers' device."""
        ids = self.tokenize(queries).to(self.mean.device)
        # Padding beyond the longest query of the batch only costs time.
        used = int((ids != self._pad_id()).sum(dim=1).max())
        return ids[:, : max(used, 1)] if self._is_hugging_face() else ids

    def _pad_id(self) -> int:
        text = self.towers.text
        return int(text.config.pad_token_id if self._is_hugging_face() else text.pad_id)

    def _pooled(self, ids: Tensor) -> Tensor:
        """Float ``[B, text_width]`` of token ids ``[B, L]``, as open_clip's ``encode_text`` has it."""
        if not self._is_hugging_face():
            encoded: Tensor = self.towers.encode_text(ids)
            return encoded
        text = self.towers.text
        pooled: Tensor = text.proj(text.pooler(self._heard(ids), self._known(ids)))
        return pooled

    def _known(self, ids: Tensor) -> Tensor:
        """Where token ids are no padding: int64 ``[B, L]``."""
        return (ids != self._pad_id()).long()

    def _heard(self, ids: Tensor) -> Any:
        """What a Hugging Face tower's transformer makes of token ids, once for the same ones in a row."""
        transformer = self.towers.text.transformer
        if self.trainable:
            return transformer(input_ids=ids, attention_mask=self._known(ids))
        last = self._last_heard
        if last is None or last[0].device != ids.device or not torch.equal(last[0], ids):
            # No inference tensors: training may ask for the same query later.
            with torch.inference_mode(False), torch.no_grad():
                ids = ids.clone()
                last = (ids, transformer(input_ids=ids, attention_mask=self._known(ids)))
            self._last_heard = last
        return last[1]

    def _last_layer(self, ids: Tensor) -> Tensor:
        """Float ``[B, L, text_width]`` of token ids ``[B, L]``."""
        text = self.towers.text
        if self._is_hugging_face():
            projected: Tensor = text.proj(self._heard(ids).last_hidden_state)
            return projected
        hidden: Tensor = text.forward_intermediates(
            ids, indices=1, normalize_intermediates=True, intermediates_only=True, output_fmt="NLC"
        )["text_intermediates"][-1]
        projection = text.text_projection
        if projection is None:
            return hidden
        return projection(hidden) if isinstance(projection, nn.Linear) else hidden @ projection

    def _is_hugging_face(self) -> bool:
        """True for Hugging Face towers, which take short text; CLIP's own has fixed positions."""
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


@contextlib.contextmanager
def _seed_zero() -> Iterator[None]:
    """Random start of towers without weights, the same everywhere; the caller's randomness stays."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def _load_packaged(
    config: PackagedTowers, feature_indices: Sequence[int], image_size: int
) -> Backbone:
    from open_clip.model import CustomTextCLIP

    image, text = config.image_tower, config.text_tower
    image_file = _package_path(image.package) / image.file
    text_folder = _package_path(text.package) / text.folder
    if not config.trainable:
        check_sha256(image_file, image.sha256)
    for name, digest in text.sha256.items():
        check_sha256(text_folder / name, digest)
    start = _seed_zero() if config.trainable else contextlib.nullcontext()
    with quiet_offline(), start:
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
                "hf_model_pretrained": not config.trainable,
                "hf_pooler_type": "mean_pooler",
                "hf_proj_type": None,
            },
        )
        tokenize = _packaged_tokenizer(text_folder)
    trunk = towers.visual.trunk
    if not config.trainable:
        _load_in_order(trunk, image_file)
        fold_batch_norms(trunk.eval())
    return Backbone(
        towers,
        tokenize,
        feature_indices,
        image_size,
        trunk.default_cfg["mean"],
        trunk.default_cfg["std"],
        config.trainable,
    )


def _packaged_tokenizer(folder: Path) -> Callable[[list[str]], Tensor]:
    from open_clip.tokenizer import HFTokenizer

    tokenizer = HFTokenizer(str(folder), context_length=MAX_QUERY_TOKENS)
    return lambda queries: tokenizer(queries)


def _load_in_order(trunk: nn.Module, file: Path) -> None:
    """Fill a timm network from a state dict with other names but the same order.

    The packaged EfficientNets name their tensors as another code base does. The order of the
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


def read_classifier(tower: ImageTowerConfig) -> tuple[Tensor, Tensor]:
    """The ImageNet classifier that a packaged image tower comes with and a backbone leaves aside.

    Returns:
        Weight float32 ``[1000, channels]`` and bias ``[1000]``, to be applied to the mean over the
        cells of the tower's last map (``towers.visual``).

    Raises:
        WeightsError: a package or file that is missing or has another sha256.
    """
    file = _package_path(tower.package) / tower.file
    check_sha256(file, tower.sha256)
    stored = torch.load(file, map_location="cpu", weights_only=True)
    return stored["_fc.weight"].float(), stored["_fc.bias"].float()


def _load_open_clip(
    config: OpenClipModel, feature_indices: Sequence[int], image_size: int
) -> Backbone:
    import open_clip
    from open_clip.model import CustomTextCLIP, convert_to_custom_text_state_dict

    description: dict[str, Any] | None = copy.deepcopy(config.description or {})
    if config.model is not None:
        description = open_clip.get_model_config(config.model)
        if description is None:
            raise WeightsError(f"open_clip knows no model named {config.model!r}")
    assert description is not None
    expected_size = description["vision_cfg"]["image_size"]
    if expected_size != image_size:
        raise WeightsError(f"the image tower takes {expected_size} pixels, the codec {image_size}")
    if "multimodal_cfg" in description:
        raise WeightsError(
            f"{config.model}: a CoCa model; image and text towers side by side are needed"
        )
    description.pop("custom_text", None)
    try:
        with quiet_offline(), _seed_zero():
            towers = CustomTextCLIP(**description)
            tokenizer = (
                open_clip.SimpleTokenizer(context_length=towers.context_length)
                if config.model is None
                else open_clip.get_tokenizer(config.model)
            )
    except OSError as error:
        raise WeightsError(
            f"{config.model}: its text tower needs files from the Hugging Face hub that are not on this "
            f"machine ({str(error).splitlines()[0]}); choose a model without hf_* settings, or put them "
            "into the hub's cache"
        ) from None
    mean, std = _pixel_statistics(config)
    if config.weights_file is not None:
        assert config.weights_sha256 is not None  # the configuration insists
        mend = "put the right file there, or correct weights_file in the recipe"
        check_sha256(config.weights_file, config.weights_sha256, mend)
        state = convert_to_custom_text_state_dict(_read_state(config.weights_file))
        towers.load_state_dict({k: v.float() for k, v in state.items()})
    return Backbone(
        towers,
        lambda queries: tokenizer(queries),
        feature_indices,
        image_size,
        mean,
        std,
        config.trainable,
    )


def _pixel_statistics(config: OpenClipModel) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and spread of the pixels a model was trained with; WeightsError where that is ambiguous."""
    import open_clip

    if config.pixel_mean is not None and config.pixel_std is not None:
        return config.pixel_mean, config.pixel_std
    default = (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
    tags = open_clip.list_pretrained_tags_by_model(config.model) if config.model else []
    known = [open_clip.get_pretrained_cfg(config.model, tag) for tag in tags]
    found = {(tuple(k.get("mean", default[0])), tuple(k.get("std", default[1]))) for k in known}
    if len(found) > 1 and config.weights_file is not None:
        raise WeightsError(
            f"{config.model}: its known weights were trained with different pixel statistics; say which "
            "in backbone.pixel_mean and backbone.pixel_std"
        )
    return found.pop() if len(found) == 1 else default


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
def quiet_offline() -> Iterator[None]:
    """No network look-ups and no loading chatter from the Hugging Face libraries meanwhile."""
    import transformers
    from transformers.utils.hub import constants

    # huggingface_hub's; it reads the environment variable once, at its import, which may be long ago.
    offline = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    level = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    root_level = logging.getLogger().level
    try:
        yield
    finally:
        logging.getLogger().setLevel(root_level)
        transformers.logging.set_verbosity(level)
        constants.HF_HUB_OFFLINE = offline
