"""Configuration of a codec: what is built (``CodecConfig``) and how it was trained (``TrainingConfig``).

Both stand in one YAML file (``semantic/configs``). Only the first part, with the trained tensors, makes
the ``codec_id``: two codecs that decode alike have one name, however they were trained. An unknown key
is an error, so that a misspelt setting is never silently ignored.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from semantic.frame_geometry import FrameGeometry, LayerGeometry, Rung
from semantic.plain_yaml import read_plain_yaml

CONFIG_FOLDER = Path(__file__).parent / "configs"

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class ConfigError(ValueError):
    """A codec configuration that cannot be read or does not fit together."""


class _Strict(BaseModel):
    """No unknown keys, no changes.

    ``added`` names the settings that came after the first codec was shipped. At their defaults they are
    not written, so that a codec without them keeps its ``codec_id`` and an older run still resumes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    added: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _without_added_defaults(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        data: dict[str, Any] = write(self)
        for name in self.added:
            if getattr(self, name) == type(self).model_fields[name].default:
                data.pop(name, None)
        return data


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
    """Two towers from Python packages, joined by open_clip's ``CustomTextCLIP``.

    Args:
        trainable: the same architecture from random numbers, trained with the codec and stored in its
            checkpoint (the paper's "without pretrained VLM"); the packages' weights are not read.
    """

    added: ClassVar[frozenset[str]] = frozenset({"trainable"})

    kind: Literal["packaged"]
    image_tower: ImageTowerConfig
    text_tower: TextTowerConfig
    trainable: bool = False


class OpenClipModel(_Strict):
    """A model of open_clip's own list, or one described in full, with weights from a local file.

    Args:
        model: a name of ``open_clip.list_models()``.
        description: or a model's parts (``embed_dim``, ``vision_cfg``, ``text_cfg``).
        weights_file: None means random weights (seed 0).
        weights_sha256: must come with ``weights_file``.
        trainable: train the random weights with the codec and store them in its checkpoint: the
            paper's "without pretrained VLM".
        pixel_mean, pixel_std: what the weights were trained with, pictures in 0..1; None means what
            open_clip knows of the model's weights, or OpenAI's where it knows nothing.
    """

    added: ClassVar[frozenset[str]] = frozenset({"trainable", "pixel_mean", "pixel_std"})

    kind: Literal["open_clip"]
    model: str | None = None
    description: dict[str, object] | None = None
    weights_file: Path | None = None
    weights_sha256: Sha256 | None = None
    trainable: bool = False
    pixel_mean: tuple[float, float, float] | None = None
    pixel_std: tuple[float, float, float] | None = None

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
        if self.weights_file is not None and self.trainable:
            raise ValueError("trainable towers start from random weights: leave out weights_file")
        if (self.pixel_mean is None) != (self.pixel_std is None):
            raise ValueError("pixel_mean and pixel_std come together")
        return self


BackboneConfig = Annotated[PackagedTowers | OpenClipModel, Field(discriminator="kind")]


class LayerConfig(_Strict):
    """One transmitted layer l of S: feature maps of the image tower brought onto one grid.

    Args:
        features: indices of the tower's intermediate maps, concatenated along the channels.
        grid: side of the token grid; larger maps are folded into it (space to depth).
        dim: D, the width of a token after projection.
        stages: segments of a residual quantiser; None otherwise, where D and d say how many.
    """

    added: ClassVar[frozenset[str]] = frozenset({"stages"})

    features: tuple[int, ...] = Field(min_length=1)
    grid: int = Field(ge=1)
    dim: int = Field(ge=1)
    stages: int | None = Field(None, ge=1)


class QuantizerConfig(_Strict):
    """Segment-wise vector quantisation, eq. (5)-(7) and (12).

    Args:
        segment_length: d, values per segment; must divide every layer's D. None with a residual quantiser.
        codewords: K, a power of two.
        update: "ema" (running k-means, dead codewords revived) or "gradient" (first term of eq. (12)).
        decay: decay of the running averages.
        beta: weight of the commitment term in eq. (12).
        residual: every index is a codeword of the whole token and each segment refines those before it,
            instead of a part of the token of its own. Then a layer says how many (``stages``).
    """

    added: ClassVar[frozenset[str]] = frozenset({"residual", "segment_length"})

    segment_length: int | None = Field(None, ge=1)
    codewords: int = Field(ge=2, le=65536)
    update: Literal["ema", "gradient"] = "ema"
    decay: float = Field(0.99, gt=0, lt=1)
    beta: float = Field(0.25, ge=0)
    residual: bool = False

    @model_validator(mode="after")
    def _power_of_two(self) -> QuantizerConfig:
        if self.codewords & (self.codewords - 1):
            raise ValueError(f"codewords: expected a power of two, got {self.codewords}")
        if self.residual == (self.segment_length is not None):
            raise ValueError("segment_length: needed, except where residual is true")
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


class RungConfig(_Strict):
    """One rate of the ladder.

    Args:
        levels: numbers of the levels that cells of a picture may have, poorest first. A single one is
            the same for all cells; with several a map of the cells' levels is sent as well.
        payload_bits: length of a picture, map and padding included; None with a single level, whose
            length follows.
    """

    levels: tuple[int, ...] = Field(min_length=1)
    payload_bits: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _consistent(self) -> RungConfig:
        if any(a >= b for a, b in pairwise(self.levels)):
            raise ValueError("levels: expected rising numbers")
        if (len(self.levels) == 1) != (self.payload_bits is None):
            raise ValueError("payload_bits: for several levels, and for them only")
        return self


class LadderConfig(_Strict):
    """Lower rates from the same weights: the first segments of every token, more of them where it matters.

    Args:
        grid: cells per side; the tokens of a cell have as many segments as its level says.
        levels: per level the number of segments of every layer, poorest level first.
        rungs: rates, poorest first. All segments of all tokens is a rung of its own, not named here.
    """

    grid: int = Field(ge=1)
    levels: tuple[tuple[int, ...], ...] = Field(min_length=1)
    rungs: tuple[RungConfig, ...] = ()

    @model_validator(mode="after")
    def _levels_rise(self) -> LadderConfig:
        for low, high in pairwise(self.levels):
            if (
                len(low) != len(high)
                or low == high
                or any(a > b for a, b in zip(low, high, strict=True))
            ):
                raise ValueError(f"levels: {list(high)} does not add segments to {list(low)}")
        for number, rung in enumerate(self.rungs):
            if not 0 <= rung.levels[0] <= rung.levels[-1] < len(self.levels):
                raise ValueError(f"rungs[{number}].levels: expected 0 to {len(self.levels) - 1}")
        return self


FilmMode = Literal["pooled", "cross_attention", "gated", "none"]
Precision = Literal["fp32", "bf16", "fp16"]


class CodecConfig(_Strict):
    """What a codec is; with its tensors this fixes ``codec_id``.

    ``film`` says how the query modulates the features (:mod:`semantic.alignment`); "none" is the paper's
    "without text alignment".
    """

    added: ClassVar[frozenset[str]] = frozenset({"film", "ladder"})

    name: str
    image_size: int = Field(ge=16, le=2048)
    backbone: BackboneConfig
    layers: tuple[LayerConfig, ...] = Field(min_length=1)
    projection_hidden: int = Field(ge=1)
    quantizer: QuantizerConfig
    decoder: DecoderConfig
    film: FilmMode = "pooled"
    ladder: LadderConfig | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> CodecConfig:
        for number, layer in enumerate(self.layers):
            if self.quantizer.residual != (layer.stages is not None):
                raise ValueError(
                    f"layers[{number}].stages: for a residual quantiser, and for no other"
                )
            length = self.quantizer.segment_length
            if length is not None and layer.dim % length:
                raise ValueError(
                    f"layers[{number}].dim {layer.dim} is no multiple of segment_length {length}"
                )
        for number in range(len(self.layers) - 1):
            if self.layers[number].grid < self.layers[number + 1].grid:
                raise ValueError("layers: grids must not grow, the finest comes first")
        if self.image_size % self.layers[0].grid:
            raise ValueError("image_size must be a multiple of the first layer's grid")
        if self.ladder is not None:
            self._check_ladder(self.ladder)
        rates = [geometry.payload_bits for geometry in self.geometries("00000000")]
        if any(low >= high for low, high in pairwise(rates)):
            raise ValueError(f"ladder.rungs: bits must rise to those of all segments, got {rates}")
        return self

    def _check_ladder(self, ladder: LadderConfig) -> None:
        segments = self.segments
        for number, level in enumerate(ladder.levels):
            if len(level) != len(segments) or any(
                not 0 <= sent <= have for sent, have in zip(level, segments, strict=True)
            ):
                raise ValueError(
                    f"ladder.levels[{number}]: expected one number per layer, at most {segments}"
                )
        for number, layer in enumerate(self.layers):
            if layer.grid % ladder.grid and len({level[number] for level in ladder.levels}) > 1:
                raise ValueError(
                    f"ladder.levels: layer {number} has {layer.grid} tokens a side, no multiple of "
                    f"ladder.grid {ladder.grid}, so all levels must have the same number of its segments"
                )

    @property
    def segments(self) -> tuple[int, ...]:
        """M of every layer."""
        length = self.quantizer.segment_length
        return tuple(layer.stages or layer.dim // (length or layer.dim) for layer in self.layers)

    @property
    def layer_geometry(self) -> tuple[LayerGeometry, ...]:
        """Shapes of the index arrays, in transmission order."""
        return tuple(
            LayerGeometry(layer.grid**2, segments)
            for layer, segments in zip(self.layers, self.segments, strict=True)
        )

    def geometries(self, codec_id: str) -> tuple[FrameGeometry, ...]:
        """What index frames of every rate look like: rungs of the ladder, then all segments.

        Raises:
            IndexFrameError: a rung whose bits do not hold what it must send.
        """
        rungs: list[Rung | None] = []
        if self.ladder is not None:
            levels, grid = self.ladder.levels, self.ladder.grid
            rungs += [
                Rung(grid, tuple(levels[n] for n in rung.levels), rung.payload_bits or 0)
                for rung in self.ladder.rungs
            ]
        rungs.append(None)
        return tuple(
            FrameGeometry(
                codec_id, self.image_size, self.quantizer.bits_per_index, self.layer_geometry, rung
            )
            for rung in rungs
        )


class IntentConfig(_Strict):
    """The user-intent relevance loss, eq. (11).

    Args:
        weight: lambda_UI of eq. (13).
        judge: whose hidden states are compared: "tower" (:mod:`semantic.intent_judge`) or "llava". The
            judge that scores received pictures ("recognition") must not teach.
        path: folder of the Llava model.
        share: of every batch that the judge looks at; it is the slowest part of a step on a CPU.
        side: pixels to which "tower" scales pictures, rounded up to 32; None means the codec's own size.
        answer_weight: of the divergence between what "tower" answers to source and reconstruction.
        sparse_gain: both terms count ``1 + sparse_gain exp(-r / 0.1)`` for a picture of which the share r
            of the indices is received, and every second step looks at those with the least: low rates
            leave a picture's meaning to the decoder.
    """

    added: ClassVar[frozenset[str]] = frozenset({"share", "side", "answer_weight", "sparse_gain"})

    weight: float = Field(ge=0)
    judge: str = "tower"
    path: Path | None = None
    share: float = Field(1.0, gt=0, le=1)
    side: int | None = Field(None, ge=32)
    answer_weight: float = Field(0.0, ge=0)
    sparse_gain: float = Field(0.0, ge=0)

    @model_validator(mode="after")
    def _judge_may_teach(self) -> IntentConfig:
        if self.judge not in ("tower", "llava"):
            raise ValueError(
                f"judge: expected 'tower' or 'llava', got {self.judge!r} (the judge that scores "
                "received pictures must not teach)"
            )
        if (self.judge == "llava") != (self.path is not None):
            raise ValueError("path: the folder of a Llava model, for judge llava and no other")
        if self.judge == "llava" and (self.answer_weight or self.side is not None):
            raise ValueError("answer_weight, side: for judge tower and no other")
        return self


class AdversarialConfig(_Strict):
    """Phase II, eq. (14) and (15).

    Args:
        weight: of the adversarial term in eq. (14).
        adaptive: multiply it by the ratio of the gradients of distortion and adversarial term at the
            decoder's last layer.
        form: "log" (Goodfellow et al. 2014, which the paper cites) or "hinge".
        begins: share of the schedule after which phase II begins.
        channels: of the discriminator's first layer.
        learning_rate: of the discriminator; follows the model's schedule.
    """

    weight: float = Field(ge=0)
    adaptive: bool = True
    form: Literal["log", "hinge"] = "log"
    begins: float = Field(0.5, ge=0, le=1)
    channels: int = Field(32, ge=4)
    learning_rate: float = Field(2e-4, gt=0)


class TrainingConfig(_Strict):
    """The recipe of one training run.

    Args:
        steps: optimiser steps of the full cosine schedule.
        warm_up_steps: linear rise of the learning rate.
        continuous_steps: first steps without quantiser; Gaussian noise of ``continuous_noise`` times
            each segment's spread stands in for it. Codebooks then start from k-means.
        l1_weight, mse_weight: weights of the two distortion terms on pictures in 0..1.
        log_mse_weight: weight of the mean over pictures of ln(mean squared error): a dB counts the same
            whether a picture is sent in full or on a low rung.
        quantization_weight: lambda_Q of eq. (13).
        intent: the user-intent relevance loss, eq. (11); None leaves it out.
        adversarial: phase II, eq. (14) and (15); None leaves it out.
        erasure_probability: share of training pictures that lose runs of indices.
        index_error_probability: share of training pictures with a few wrong indices.
        ladder_probability: share of training pictures of which only the first segments are sent
            (nested dropout, over the levels of the codec's ladder).
        bf16: compute in bfloat16 where that is good enough (autocast), if the device has arithmetic for it.
        precision: "fp32", "bf16" (emulated if need be) or "fp16" (CUDA only, gradients scaled); None means
            what ``bf16`` says.
        feature_cache: keep the frozen tower's feature maps in memory (about 0.4 MB per photo and flip).
    """

    added: ClassVar[frozenset[str]] = frozenset(
        {"intent", "adversarial", "ladder_probability", "log_mse_weight", "precision"}
    )

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
    log_mse_weight: float = Field(0.0, ge=0)
    quantization_weight: float = Field(1.0, ge=0)
    intent: IntentConfig | None = None
    adversarial: AdversarialConfig | None = None
    erasure_probability: float = Field(0.3, ge=0, le=1)
    index_error_probability: float = Field(0.1, ge=0, le=1)
    ladder_probability: float = Field(0.0, ge=0, le=1)
    validation_photos: int = Field(32, ge=1)
    validate_every: int = Field(500, ge=1)
    bf16: bool = True
    precision: Precision | None = None
    feature_cache: bool = True

    def arithmetic(self, fast_bf16: bool) -> Precision:
        """In which numbers the model computes while it is trained, on a device with or without bfloat16."""
        return self.precision or ("bf16" if self.bf16 and fast_bf16 else "fp32")


class Recipe(_Strict):
    """A YAML file of ``semantic/configs``: a codec and how to train it."""

    codec: CodecConfig
    training: TrainingConfig

    @model_validator(mode="after")
    def _fits_together(self) -> Recipe:
        if self.codec.backbone.trainable and self.training.feature_cache:
            raise ValueError(
                "training.feature_cache: false, for features of trainable towers change"
            )
        if self.training.ladder_probability and self.codec.ladder is None:
            raise ValueError("training.ladder_probability: needs codec.ladder")
        return self


def read_recipe(path: Path) -> Recipe:
    """Read a recipe; a bare name such as ``embedded`` means ``semantic/configs/embedded.yaml``.

    Raises:
        ConfigError: naming the file, the key and what was expected.
    """
    if not path.suffix and path.name == str(path):
        path = CONFIG_FOLDER / f"{path.name}.yaml"
    try:
        data = read_plain_yaml(path)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{path}: {key or 'file'}: {first['msg']}") from None
