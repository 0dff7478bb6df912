"""Configuration of a codec: what is built (``CodecConfig``) and how it was trained (``TrainingConfig``).

Both stand in one YAML file (``semantic/configs``). Only the first part, with the trained tensors, makes
the ``codec_id``: two codecs that decode alike have one name, however they were trained. An unknown key
is an error, so that a misspelt setting is never silently ignored.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

CONFIG_FOLDER = Path(__file__).parent / "configs"

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class ConfigError(ValueError):
    """A codec configuration that cannot be read or does not fit together."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ImageTowerConfig(_Strict):
    """A timm image tower whose weights lie inside an installed Python package."""

    timm_model: str
    package: str
    file: str
    sha256: Sha256


class TextTowerConfig(_Strict):
    """A Hugging Face text tower whose files lie in a folder of an installed Python package."""

    package: str
    folder: str
    width: int
    sha256: dict[str, Sha256]


class PackagedTowers(_Strict):
    """Two towers from Python packages, joined by open_clip's ``CustomTextCLIP``."""

    kind: Literal["packaged"]
    image_tower: ImageTowerConfig
    text_tower: TextTowerConfig


class OpenClipModel(_Strict):
    """A model of open_clip's own list, or one described in full, with weights from a local file.

    ``weights_file: null`` means random weights (seed 0): the paper's "without pretrained VLM" model.
    """

    kind: Literal["open_clip"]
    model: str | None = None
    description: dict[str, object] | None = None
    weights_file: Path | None = None
    weights_sha256: Sha256 | None = None

    @model_validator(mode="after")
    def _consistent(self) -> OpenClipModel:
        if (self.model is None) == (self.description is None):
            raise ValueError(
                "give either model (a name) or description (embed_dim, vision_cfg, ...)"
            )
        if self.weights_file is not None and self.weights_sha256 is None:
            raise ValueError(
                "weights_file needs weights_sha256: files are checked before they are read"
            )
        return self


BackboneConfig = Annotated[PackagedTowers | OpenClipModel, Field(discriminator="kind")]


class LayerConfig(_Strict):
    """One transmitted layer l of S: feature maps of the image tower brought onto one grid.

    Args:
        features: indices of the tower's intermediate maps, concatenated along the channels.
        grid: side of the token grid; larger maps are folded into it (space to depth).
        dim: D, the width of a token after projection.
    """

    features: tuple[int, ...] = Field(min_length=1)
    grid: int = Field(ge=1)
    dim: int = Field(ge=1)


class QuantizerConfig(_Strict):
    """Segment-wise vector quantisation, eq. (5)-(7) and (12).

    Args:
        segment_length: d, values per segment; must divide every layer's D.
        codewords: K, a power of two.
        update: "ema" (running k-means, dead codewords revived) or "gradient" (first term of eq. (12)).
        decay: decay of the running averages.
        beta: weight of the commitment term in eq. (12).
    """

    segment_length: int = Field(ge=1)
    codewords: int = Field(ge=2, le=65536)
    update: Literal["ema", "gradient"] = "ema"
    decay: float = Field(0.99, gt=0, lt=1)
    beta: float = Field(0.25, ge=0)

    @model_validator(mode="after")
    def _power_of_two(self) -> QuantizerConfig:
        if self.codewords & (self.codewords - 1):
            raise ValueError(f"codewords: expected a power of two, got {self.codewords}")
        return self

    @property
    def bits_per_index(self) -> int:
        """log2 K."""
        return self.codewords.bit_length() - 1


class DecoderConfig(_Strict):
    """Convolutional decoder, eq. (10)."""

    channels: int = Field(ge=4)
    norm: Literal["group", "instance", "none"] = "group"
    residual: bool = True
    head_channels: int = Field(64, ge=4)
    refine_channels: int = Field(12, ge=1)


class CodecConfig(_Strict):
    """What a codec is; with its tensors this fixes ``codec_id``."""

    name: str
    image_size: int = Field(ge=16, le=2048)
    backbone: BackboneConfig
    layers: tuple[LayerConfig, ...] = Field(min_length=1)
    projection_hidden: int = Field(ge=1)
    quantizer: QuantizerConfig
    decoder: DecoderConfig

    @model_validator(mode="after")
    def _fits_together(self) -> CodecConfig:
        for number, layer in enumerate(self.layers):
            if layer.dim % self.quantizer.segment_length:
                raise ValueError(
                    f"layers[{number}].dim {layer.dim} is no multiple of segment_length "
                    f"{self.quantizer.segment_length}"
                )
        for number in range(len(self.layers) - 1):
            if self.layers[number].grid < self.layers[number + 1].grid:
                raise ValueError("layers: grids must not grow, the finest comes first")
        if self.image_size % self.layers[0].grid:
            raise ValueError("image_size must be a multiple of the first layer's grid")
        return self


class TrainingConfig(_Strict):
    """The recipe of one training run.

    Args:
        steps: optimiser steps of the full cosine schedule.
        warm_up_steps: linear rise of the learning rate.
        continuous_steps: first steps without quantiser; Gaussian noise of ``continuous_noise`` times
            each segment's spread stands in for it. Codebooks then start from k-means.
        l1_weight, mse_weight: weights of the two distortion terms on pictures in 0..1.
        quantization_weight: lambda_Q of eq. (13).
        erasure_probability: share of training pictures that lose runs of indices.
        index_error_probability: share of training pictures with a few wrong indices.
        feature_cache: keep the frozen tower's feature maps in memory (about 0.4 MB per photo and flip).
    """

    seed: int = 0
    steps: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    warm_up_steps: int = Field(200, ge=0)
    weight_decay: float = Field(0.01, ge=0)
    gradient_clip: float = Field(1.0, gt=0)
    weight_average: float = Field(0.999, ge=0, lt=1)
    continuous_steps: int = Field(0, ge=0)
    continuous_noise: float = Field(0.4, ge=0)
    l1_weight: float = Field(1.0, ge=0)
    mse_weight: float = Field(0.0, ge=0)
    quantization_weight: float = Field(1.0, ge=0)
    erasure_probability: float = Field(0.3, ge=0, le=1)
    index_error_probability: float = Field(0.1, ge=0, le=1)
    validation_photos: int = Field(32, ge=1)
    validate_every: int = Field(500, ge=1)
    bf16: bool = True
    feature_cache: bool = True


class Recipe(_Strict):
    """A YAML file of ``semantic/configs``: a codec and how to train it."""

    codec: CodecConfig
    training: TrainingConfig


def read_recipe(path: Path) -> Recipe:
    """Read a recipe; a bare name such as ``embedded`` means ``semantic/configs/embedded.yaml``.

    Raises:
        ConfigError: naming the file, the key and what was expected.
    """
    if not path.suffix and path.name == str(path):
        path = CONFIG_FOLDER / f"{path.name}.yaml"
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML ({error})") from None
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{path}: {key or 'file'}: {first['msg']}") from None
