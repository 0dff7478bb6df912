"""What a training run carries from step to step, and the file it goes on from after an interruption."""

from __future__ import annotations

import json
import math
import os
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from semantic.alignment import TEXT_FORM
from semantic.codec_config import Recipe, TrainingConfig
from semantic.dataset import PhotoSet, TowerFeatures
from semantic.discriminator import Adversary
from semantic.intent_judge import IntentJudge, load_intent_judge
from semantic.model import CodecModel
from semantic.processes import Processes, choose_device, has_fast_bf16

STATE_FILE = "state.pt"
STATE_KEYS = frozenset({"model", "average", "optimizer", "step", "elapsed_s", "recipe", "data"})


class TrainingError(ValueError):
    """A run that cannot begin or go on as asked."""


class NotFiniteError(FloatingPointError):
    """A loss, gradient or weight that is not finite, so that training had to stop."""


@dataclass
class Run:
    """Everything a training run carries from step to step.

    ``trained`` is the model as it is called in training: it averages gradients over the processes.
    ``codebooks_ready`` tells that the codebooks came with another codec's weights, so that the phase
    without quantiser and the k-means start are left out. ``skipped`` counts steps in a row whose
    gradient fp16 could not hold.
    """

    recipe: Recipe
    model: CodecModel
    trained: nn.Module
    processes: Processes
    features: TowerFeatures
    train_numbers: np.ndarray[Any, np.dtype[np.int64]]
    validation_numbers: list[int]
    optimizer: torch.optim.Optimizer
    average: dict[str, Tensor]
    judge: IntentJudge | None = None
    adversary: Adversary | None = None
    codebooks_ready: bool = False
    step: int = 0
    elapsed_s: float = 0.0
    best_psnr_db: float = -math.inf
    skipped: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def training(self) -> TrainingConfig:
        """The recipe's training part."""
        return self.recipe.training

    @property
    def device(self) -> torch.device:
        """Where this process computes."""
        return self.processes.device

    @property
    def continuous_steps(self) -> int:
        """Steps without quantiser at the start."""
        return 0 if self.codebooks_ready else self.training.continuous_steps

    def take_average(self) -> None:
        """Start the average of the weights from what they are now."""
        self.average = {name: value.clone() for name, value in self.model.state_dict().items()}


def start_run(recipe: Recipe, photos: PhotoSet, device: str = "cpu") -> Run:
    """A run before its first step.

    Raises:
        DeviceError: a device that is not there.
        TrainingError: too few photos, or a batch that the processes cannot share evenly.
        WeightsError: a tower that is missing or damaged.
    """
    config = recipe.training
    # Codebooks that follow gradients have none without quantiser, nor has the end of a tower.
    idle = recipe.codec.quantizer.update == "gradient" or recipe.codec.backbone.trainable
    precision = config.arithmetic(has_fast_bf16(choose_device(device)))
    processes = Processes(device, precision, idle)
    _check_sizes(config, photos, processes.count)
    torch.manual_seed(config.seed)
    model = CodecModel(recipe.codec).train().to(processes.device)
    model.backbone.to(processes.device)
    order = np.random.default_rng([config.seed, 0]).permutation(len(photos))
    trained, optimizer = processes.prepare(model, _optimizer(model, config))
    return Run(
        recipe=recipe,
        model=model,
        trained=trained,
        processes=processes,
        features=TowerFeatures(
            model.backbone,
            photos,
            keep=config.feature_cache,
            text_form=TEXT_FORM[recipe.codec.film],
        ),
        train_numbers=order[config.validation_photos :],
        validation_numbers=[int(n) for n in order[: config.validation_photos]],
        optimizer=optimizer,
        average={name: value.clone() for name, value in model.state_dict().items()},
        judge=_judge(recipe, processes.device),
        adversary=_adversary(config, processes),
    )


def _check_sizes(config: TrainingConfig, photos: PhotoSet, processes: int) -> None:
    if len(photos) <= config.validation_photos:
        raise TrainingError(
            f"{len(photos)} photos, and training.validation_photos holds out {config.validation_photos} of "
            "them: nothing is left to train on; give more photos or lower it"
        )
    if config.batch_size % processes:
        raise TrainingError(
            f"training.batch_size {config.batch_size} cannot be shared evenly by {processes} processes"
        )


def _optimizer(model: CodecModel, config: TrainingConfig) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad],
        lr=config.learning_rate,
        betas=(0.9, 0.99),
        weight_decay=config.weight_decay,
    )


def _judge(recipe: Recipe, device: torch.device) -> IntentJudge | None:
    config = recipe.training.intent
    if config is None or config.weight == 0:
        return None
    return load_intent_judge(config, recipe.codec.image_size, device)


def _adversary(config: TrainingConfig, processes: Processes) -> Adversary | None:
    if config.adversarial is None or config.adversarial.weight == 0:
        return None
    return Adversary(config.adversarial, config.seed, processes.device, processes)


def check_folder(output: Path, resume: bool) -> None:
    """Refuse to begin where a run lies already, or to go on where there is none.

    Raises:
        TrainingError: saying which.
    """
    found = [
        name for name in (STATE_FILE, "codec.safetensors") if (output / name).exists()
    ]  # a log alone: the run stopped before its first state
    if resume and STATE_FILE not in found:
        raise TrainingError(f"{output}: holds no run to resume (no {STATE_FILE})")
    if found and not resume:
        raise TrainingError(
            f"{output}: holds a run already ({found[0]}); go on with it (--resume) or choose another folder"
        )


def save(run: Run, file: Path) -> None:
    """Write the state that :func:`restore` reads, atomically.

    Raises:
        NotFiniteError: weights that are not finite; ``file`` is left as it was.
    """
    if not all(bool(torch.isfinite(value).all()) for value in run.model.state_dict().values()):
        raise NotFiniteError(f"step {run.step}: weights are not finite; {file} is left as it was")
    scaler = run.processes.scaler
    state = {
        "model": run.model.state_dict(),
        "average": run.average,
        "optimizer": run.optimizer.state_dict(),
        "adversary": None if run.adversary is None else run.adversary.state_dict(),
        "scaler": None if scaler is None else scaler.state_dict(),
        "codebooks_ready": run.codebooks_ready,
        "step": run.step,
        "elapsed_s": run.elapsed_s,
        "best_psnr_db": run.best_psnr_db,
        "recipe": run.recipe.model_dump_json(),
        "data": run.features.photos.digest,
    }
    temporary = file.with_suffix(".tmp")
    torch.save(state, temporary)
    os.replace(temporary, file)


def restore(run: Run, file: Path) -> None:
    """Go on where :func:`save` left off.

    Raises:
        TrainingError: a damaged file, one of another recipe or of other data.
    """
    state = read_state(file)
    if STATE_KEYS - state.keys():
        raise TrainingError(f"{file}: not the state of a training run")
    recipe = run.recipe.model_dump_json()
    if state["recipe"] != recipe:
        raise TrainingError(
            f"{file}: belongs to another recipe ({_difference(state['recipe'], recipe)}); "
            "choose another output folder"
        )
    if state["data"] != run.features.photos.digest:
        raise TrainingError(f"{file}: belongs to other training data; choose another output folder")
    run.model.load_state_dict(state["model"])
    run.average = {name: value.to(run.device) for name, value in state["average"].items()}
    run.optimizer.load_state_dict(state["optimizer"])
    if run.adversary is not None:
        run.adversary.load_state_dict(state["adversary"])
    # States of before these could be have no such entries.
    if run.processes.scaler is not None and state.get("scaler") is not None:
        run.processes.scaler.load_state_dict(state["scaler"])
    run.codebooks_ready = state.get("codebooks_ready", False)
    run.best_psnr_db = state.get("best_psnr_db", -math.inf)
    run.step, run.elapsed_s = state["step"], state["elapsed_s"]


def read_state(file: Path) -> dict[str, Any]:
    """What ``state.pt`` holds, unchecked.

    Raises:
        TrainingError: a file that is missing or damaged.
    """
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise TrainingError(f"{file}: no such file") from None
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError):
        raise TrainingError(f"{file}: damaged, or not the state of a training run") from None
    return state if isinstance(state, dict) else {}


def _difference(before: str, now: str) -> str:
    """The first key at which two recipes differ, with both values."""
    try:
        one, other = (_flat(json.loads(text)) for text in (before, now))
    except ValueError:
        return "unreadable"
    for key in sorted(one.keys() | other.keys()):
        if one.get(key) != other.get(key):
            return f"{key} was {one.get(key)}, is {other.get(key)}"
    return "the order of its keys"


def _flat(data: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one with dotted keys."""
    if not isinstance(data, dict):
        return {prefix: data}
    found: dict[str, Any] = {}
    for key, value in data.items():
        found |= _flat(value, f"{prefix}.{key}" if prefix else str(key))
    return found
