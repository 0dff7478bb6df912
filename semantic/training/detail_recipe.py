"""Recipes of the two-layer codec, ``two_layer*.yaml`` in ``semantic/configs``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from semantic.codec.detail_layer import DetailConfig
from semantic.codec_config import CONFIG_FOLDER, AdversarialConfig, ConfigError
from semantic.plain_yaml import read_plain_yaml

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DetailSizes(_Strict):
    """As :class:`semantic.codec.detail_layer.DetailConfig`."""

    transform_width: Annotated[int, Field(ge=8, le=1024)] = 128
    prior_width: Annotated[int, Field(ge=8, le=1024)] = 192
    refine_width: Annotated[int, Field(ge=8, le=256)] = 32
    token_width: Annotated[int, Field(ge=8, le=512)] = 128

    def config(self) -> DetailConfig:
        """For the model."""
        return DetailConfig(**self.model_dump())


class Schedule(_Strict):
    """What every training run has.

    Args:
        seed: of every random draw.
        steps: of the schedule.
        batch_size: photos per step.
        learning_rate: highest.
        warm_up_steps: over which it rises.
        gradient_clip: largest norm of a gradient.
        weight_average: decay of the moving average of the weights, which are what is shipped.
        validation_photos: held out, the last ones of a seeded shuffle.
        validate_every: steps between validations.
        least_log_gain, most_log_gain: of whole photos; rectangles of others may lie further out.
        partial: share of photos of which only a run of positions is coded.
        lost: share of photos that lose a run of positions on the way.
        bf16: forward passes in bfloat16, the prior's rounding and the transform's sums apart.
    """

    seed: int = 0
    steps: Annotated[int, Field(ge=1)] = 16000
    batch_size: Annotated[int, Field(ge=1)] = 8
    learning_rate: Positive = 0.0015
    warm_up_steps: Annotated[int, Field(ge=0)] = 200
    gradient_clip: Positive = 1.0
    weight_average: Annotated[float, Field(ge=0, lt=1)] = 0.999
    validation_photos: Annotated[int, Field(ge=1)] = 64
    validate_every: Annotated[int, Field(ge=1)] = 1000
    least_log_gain: Annotated[float, Field(ge=-3, le=1.6)] = -2.7
    most_log_gain: Annotated[float, Field(ge=-3, le=1.6)] = 1.2
    partial: Share = 0.26
    lost: Share = 0.14
    bf16: bool = True


class DetailTraining(Schedule):
    """How the detail layer learns.

    Args:
        distortion_weight: of squared error, in grey levels, against one bit per pixel, at gain 1.
        lost_log_gain: log gain that stands for positions that no slice brings.
    """

    distortion_weight: Positive = 0.01
    lost_log_gain: float = -1.6


class RecognitionTraining(Schedule):
    """How the recognition head learns.

    Args:
        log_mse_weight: of the logarithm of the squared error.
        feature_weight: of how differently the tower's maps see source and picture.
        class_weight: of the divergence of what the tower's classifier says of the two.
        tower_sides: sides in pixels at which the tower looks, one drawn for every step.
        adversarial: phase II, eq. (14); its share of the schedule may be 1: never.
    """

    log_mse_weight: Positive = 0.3
    feature_weight: Positive = 1.0
    class_weight: Annotated[float, Field(ge=0)] = 0.15
    tower_sides: tuple[Annotated[int, Field(ge=32, le=512)], ...] = (160, 192, 224)
    adversarial: AdversarialConfig = AdversarialConfig.model_validate(
        {"weight": 0.1, "begins": 0.75}
    )


class DetailRecipe(_Strict):
    """Base layer, sizes and training.

    Args:
        base: checkpoint of the codec whose coarsest layer is the base, in the folder of shipped checkpoints,
            or a path.
        detail: sizes.
        training: how it learns.
    """

    base: Path
    detail: DetailSizes = DetailSizes()
    training: DetailTraining = DetailTraining()


class RecognitionRecipe(_Strict):
    """A second decoder head for a two-layer codec.

    Args:
        codec: checkpoint of the codec, in the folder of shipped checkpoints, or a path.
        extra_blocks: residual blocks that the head has beyond the first one's.
        training: how it learns.
    """

    codec: Path
    extra_blocks: Annotated[int, Field(ge=0, le=8)] = 2
    training: RecognitionTraining = RecognitionTraining()


def is_detail_recipe(path: Path) -> bool:
    """Whether a recipe file, or bare name, is one of these."""
    try:
        keys = read_plain_yaml(_file_of(path))
    except (OSError, ValueError):
        return False  # read_recipe says what is wrong
    return "base" in keys or isinstance(keys.get("codec"), str)


def read_detail_recipe(path: Path) -> DetailRecipe | RecognitionRecipe:
    """Read a recipe; a bare name means a file of ``semantic/configs``.

    One with ``base`` is of a detail layer, one with ``codec`` of a recognition head.

    Raises:
        ConfigError: naming the file, the key and what was expected.
    """
    path = _file_of(path)
    try:
        keys = read_plain_yaml(path)
        return (DetailRecipe if "base" in keys else RecognitionRecipe).model_validate(keys)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{path}: {key or 'file'}: {first['msg']}") from None
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None


def _file_of(path: Path) -> Path:
    if not path.suffix and path.name == str(path):
        return CONFIG_FOLDER / f"{path.name}.yaml"
    return path
