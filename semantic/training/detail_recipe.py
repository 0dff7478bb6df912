"""Recipe of the two-layer codec: ``semantic/configs/two_layer.yaml``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from semantic.codec.detail_layer import DetailConfig
from semantic.codec_config import CONFIG_FOLDER, ConfigError
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

    def config(self) -> DetailConfig:
        """For the model."""
        return DetailConfig(**self.model_dump())


class DetailTraining(_Strict):
    """How the detail layer learns.

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
        distortion_weight: of squared error, in grey levels, against one bit per pixel, at gain 1.
        lost_log_gain: log gain that stands for positions that no slice brings.
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
    distortion_weight: Positive = 0.01
    lost_log_gain: float = -1.6
    partial: Share = 0.26
    lost: Share = 0.14
    bf16: bool = True


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


def is_detail_recipe(path: Path) -> bool:
    """Whether a recipe file, or bare name, is one of these."""
    try:
        return "base" in read_plain_yaml(_file_of(path))
    except (OSError, ValueError):
        return False  # read_recipe says what is wrong


def read_detail_recipe(path: Path) -> DetailRecipe:
    """Read a recipe; a bare name means a file of ``semantic/configs``.

    Raises:
        ConfigError: naming the file, the key and what was expected.
    """
    path = _file_of(path)
    try:
        return DetailRecipe.model_validate(read_plain_yaml(path))
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
