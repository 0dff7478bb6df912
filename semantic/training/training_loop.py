"""The loop that trains parts of the two-layer codec: schedule, moving average, resumable checkpoints.

What is trained, and by which loss, is a :class:`Task`.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from semantic.codec.base_layer import BaseLayer
from semantic.codec.vq_codec import Codec
from semantic.dataset import PhotoSet
from semantic.training.base_pictures import BasePictures, BatchWatch, make_base_pictures
from semantic.training.detail_batch import DetailBatch, draw_batch
from semantic.training.detail_recipe import Schedule
from semantic.training_log import Report, TrainingLog
from semantic.training_state import STATE_FILE, NotFiniteError, TrainingError

FINAL_RATE_SHARE = 0.03
CHECKPOINT_EVERY_S = 120.0
LOG_EVERY = 100

Watch = Callable[[int, float, float], None]
Trained = TypeVar("Trained", bound=nn.Module)


class Task(ABC, Generic[Trained]):
    """What a run trains.

    Attributes:
        module: its parameters, on the device to train on.
        recipe_text: all that a state must have been made by to be taken up again, JSON.
    """

    module: Trained
    recipe_text: str

    @abstractmethod
    def loss(self, batch: DetailBatch, progress: float) -> tuple[Tensor, dict[str, float]]:
        """Scalar to go down in, and figures for the log; ``progress`` is the share of the schedule done."""

    @abstractmethod
    def validate(self, run: Run) -> dict[str, float]:
        """Figures of the averaged weights on the held-out photos."""

    @abstractmethod
    def write(self, run: Run, file: Path, record: Mapping[str, Any]) -> str:
        """The averaged weights as a checkpoint; the codec's id."""

    def after_step(self, rate_share: float) -> dict[str, float]:
        """Whatever else learns from the last batch; figures for the log."""
        return {}

    def state(self) -> dict[str, Any]:
        """What :meth:`after_step` changed, for :meth:`load_state`."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state` gave."""


@dataclass
class Run:
    """Everything a run carries from step to step."""

    task: Task[Any]
    schedule: Schedule
    optimizer: torch.optim.Optimizer
    photos: PhotoSet
    bases: BasePictures
    train_numbers: NDArray[np.int64]
    validation_numbers: NDArray[np.int64]
    device: torch.device
    average: dict[str, Tensor] = field(default_factory=dict)
    step: int = 0
    elapsed_s: float = 0.0

    @classmethod
    def begin(
        cls,
        task: Task[Any],
        schedule: Schedule,
        photos: PhotoSet,
        bases: BasePictures,
        device: torch.device,
        output: Path,
    ) -> Run:
        """A run at step 0, or where the state in ``output`` left off.

        Raises:
            TrainingError: a state of another recipe or other photos, or too few photos.
        """
        if len(photos) <= schedule.validation_photos:
            raise TrainingError(
                f"{len(photos)} photos, and training.validation_photos holds out "
                f"{schedule.validation_photos} of them: nothing is left to train on"
            )
        optimizer = torch.optim.AdamW(
            task.module.parameters(), lr=schedule.learning_rate, betas=(0.9, 0.98), weight_decay=0.0
        )
        order = np.random.default_rng([schedule.seed, 0]).permutation(len(photos))
        run = cls(
            task, schedule, optimizer, photos, bases, order[: -schedule.validation_photos],
            np.sort(order[-schedule.validation_photos :]), device,
            {name: value.clone() for name, value in task.module.state_dict().items()},
        )  # fmt: skip
        if (output / STATE_FILE).exists():
            _restore(run, output / STATE_FILE)
        return run


def train_task(
    task: Task[Any],
    schedule: Schedule,
    base: Codec,
    photos: PhotoSet,
    file: Path,
    *,
    max_minutes: float | None = None,
    report: Report | None = None,
    watch: Watch | None = None,
    watch_base: BatchWatch | None = None,
    stop_after: int | None = None,
) -> Run:
    """Train, or go on with the run in the checkpoint's folder.

    Args:
        task: what is trained.
        schedule: of its recipe.
        base: the codec of the base layer, on the device to train on.
        photos: the training set, square.
        file: the checkpoint, in the folder of the run; base pictures, ``state.pt`` and ``log.jsonl`` lie
            beside it.
        max_minutes: anneal on elapsed time instead of steps, and end then.
        report: called with every logged entry.
        watch: called after every step: number, share of the schedule done, seconds.
        watch_base: as for :func:`~semantic.training.base_pictures.make_base_pictures`.
        stop_after: leave off at this step without finishing.

    Raises:
        NotFiniteError: a loss that is not finite; ``state.pt`` keeps the last good state.
        TrainingError: a state of another recipe or other photos, or too few photos.
    """
    output = file.parent
    output.mkdir(parents=True, exist_ok=True)
    layer = BaseLayer(base)
    bases = make_base_pictures(output, layer, base.geometry.codec_id, photos, watch_base)
    run = Run.begin(task, schedule, photos, bases, base.device, output)
    log = TrainingLog(output, report, run.step)
    try:
        _take_steps(run, file, log, max_minutes, watch, stop_after)
    finally:
        log.close()
    return run


def _take_steps(
    run: Run,
    file: Path,
    log: TrainingLog,
    max_minutes: float | None,
    watch: Watch | None,
    stop_after: int | None,
) -> None:
    """To the end of the schedule, or to ``stop_after`` without finishing."""
    state_file = file.parent / STATE_FILE
    last_save = time.monotonic()
    terms: list[dict[str, float]] = []
    flushed = torch.set_flush_denormal(True)  # what starts at zero makes denormals, which are slow
    try:
        while (progress := _progress(run, max_minutes)) < 1.0 and run.step != stop_after:
            started = time.monotonic()
            terms.append(_step(run, progress))
            run.step += 1
            run.elapsed_s += time.monotonic() - started
            if watch is not None:
                watch(run.step, _progress(run, max_minutes), run.elapsed_s)
            due = run.step % run.schedule.validate_every == 0
            if due or run.step % LOG_EVERY == 0:
                names = dict.fromkeys(name for one in terms for name in one)
                means = {n: float(np.mean([t[n] for t in terms if n in t])) for n in names}
                entry = {"step": float(run.step), "elapsed_s": round(run.elapsed_s, 1), **means}
                log.write({**entry, **(run.task.validate(run) if due else {})})
                terms.clear()
            if time.monotonic() - last_save > CHECKPOINT_EVERY_S:
                _save(run, state_file)
                write_checkpoint(run, file, {})
                last_save = time.monotonic()
        _save(run, state_file)
        if progress >= 1.0:
            write_checkpoint(run, file, run.task.validate(run))
    finally:
        if flushed:
            torch.set_flush_denormal(False)


def _progress(run: Run, max_minutes: float | None) -> float:
    if max_minutes is None:
        return run.step / run.schedule.steps
    return run.elapsed_s / (60 * max_minutes)


def learning_rate(config: Schedule, step: int, progress: float) -> float:
    """Linear warm-up, then a cosine down to 3 %."""
    warm = min(1.0, (step + 1) / max(1, config.warm_up_steps))
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return config.learning_rate * warm * (FINAL_RATE_SHARE + (1 - FINAL_RATE_SHARE) * cosine)


def _step(run: Run, progress: float) -> dict[str, float]:
    config = run.schedule
    random = np.random.default_rng([config.seed, 1, run.step])
    torch.manual_seed(int(random.integers(1 << 62)))
    numbers = _numbers_of_step(run.train_numbers, run.step, config)
    batch = draw_batch(run.photos, run.bases, numbers, config, random)
    batch = DetailBatch(*(part.to(run.device) for part in vars(batch).values()))
    rate = learning_rate(config, run.step, progress)
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    run.optimizer.zero_grad(set_to_none=True)
    loss, terms = run.task.loss(batch, progress)
    loss.backward()
    norm = float(torch.nn.utils.clip_grad_norm_(run.task.module.parameters(), config.gradient_clip))
    if not math.isfinite(norm) or not math.isfinite(terms["loss"]):
        raise NotFiniteError(f"step {run.step}: loss {terms['loss']:.4g}, gradient {norm:.4g}")
    run.optimizer.step()
    _update_average(run)
    return {**terms, "gradient": norm, **run.task.after_step(rate / config.learning_rate)}


def _numbers_of_step(numbers: NDArray[np.int64], step: int, config: Schedule) -> NDArray[np.int64]:
    """The photos of a step: every epoch another seeded order."""
    per_epoch = max(1, len(numbers) // config.batch_size)
    epoch, within = divmod(step, per_epoch)
    order = np.random.default_rng([config.seed, 2, epoch]).permutation(numbers)
    return order[within * config.batch_size : (within + 1) * config.batch_size]


@torch.no_grad()
def _update_average(run: Run) -> None:
    decay = min(run.schedule.weight_average, (1 + run.step) / (10 + run.step))
    for name, value in run.task.module.state_dict().items():
        if value.is_floating_point():
            run.average[name].lerp_(value, 1 - decay)


def write_checkpoint(run: Run, file: Path, metrics: Mapping[str, float]) -> str:
    """The averaged weights as a checkpoint; the codec's id."""
    record: dict[str, Any] = {
        "recipe": json.loads(run.task.recipe_text),
        "photos": run.photos.digest,
        "steps": run.step,
        "elapsed_s": round(run.elapsed_s, 1),
        **metrics,
    }
    return run.task.write(run, file, record)


def _save(run: Run, file: Path) -> None:
    weights = run.task.module.state_dict()
    if not all(bool(torch.isfinite(value).all()) for value in weights.values()):
        raise NotFiniteError(f"step {run.step}: weights are not finite; {file} is left as it was")
    state = {
        "layer": weights,
        "average": run.average,
        "optimizer": run.optimizer.state_dict(),
        "step": run.step,
        "elapsed_s": run.elapsed_s,
        "recipe": run.task.recipe_text,
        "photos": run.photos.digest,
        "task": run.task.state(),
    }
    temporary = file.with_suffix(".tmp")
    torch.save(state, temporary)
    os.replace(temporary, file)


def _restore(run: Run, file: Path) -> None:
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
        if state["recipe"] != run.task.recipe_text:
            raise TrainingError(f"{file}: belongs to another recipe; choose another output folder")
        if state["photos"] != run.photos.digest:
            raise TrainingError(f"{file}: belongs to other photos; choose another output folder")
        run.task.module.load_state_dict(state["layer"])
        run.average = {name: value.to(run.device) for name, value in state["average"].items()}
        run.optimizer.load_state_dict(state["optimizer"])
        run.step, run.elapsed_s = int(state["step"]), float(state["elapsed_s"])
        run.task.load_state(state.get("task", {}))
    except TrainingError:
        raise
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, TypeError, pickle.UnpicklingError,
            json.JSONDecodeError):  # fmt: skip
        raise TrainingError(f"{file}: damaged, or not the state of a training run") from None
