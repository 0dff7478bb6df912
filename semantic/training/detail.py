"""Training of the detail layer; ``uoisc train two_layer`` is its command.

Bits and squared error are weighed against each other by the gain of every position, so that one network
serves all rates. The prior is rounded from the first step on, as both ends of the link will have it.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from semantic.codec.base_layer import BaseLayer
from semantic.codec.detail_checkpoint import load_detail, write_two_layer
from semantic.codec.detail_layer import DetailLayer
from semantic.codec.entropy import logistic_table
from semantic.codec.vq_codec import Codec
from semantic.dataset import PhotoSet
from semantic.training.base_pictures import BasePictures, BatchWatch, make_base_pictures
from semantic.training.detail_batch import DetailBatch, draw_batch, load_rows
from semantic.training.detail_recipe import DetailRecipe, DetailTraining
from semantic.training_log import Report, TrainingLog
from semantic.training_state import STATE_FILE, NotFiniteError, TrainingError

CHECKPOINT_FILE = "two_layer.safetensors"
FINAL_RATE_SHARE = 0.03
CHECKPOINT_EVERY_S = 120.0
LOG_EVERY = 100
# How far a step counts for its gain: losses at high gains are larger, but not in proportion more worth.
_GAIN_BALANCE = 0.7
_VALIDATION_LOG_GAINS = (-1.8, -0.9, 0.0, 0.9)

Watch = Callable[[int, float, float], None]


@dataclass
class DetailRun:
    """Everything a run carries from step to step."""

    recipe: DetailRecipe
    layer: DetailLayer
    average: dict[str, Tensor]
    optimizer: torch.optim.Optimizer
    photos: PhotoSet
    bases: BasePictures
    train_numbers: NDArray[np.int64]
    validation_numbers: NDArray[np.int64]
    device: torch.device
    step: int = 0
    elapsed_s: float = 0.0


def train_detail(
    recipe: DetailRecipe,
    base: Codec,
    photos: PhotoSet,
    output: Path,
    *,
    max_minutes: float | None = None,
    report: Report | None = None,
    watch: Watch | None = None,
    watch_base: BatchWatch | None = None,
    init_from: Path | None = None,
    stop_after: int | None = None,
) -> DetailRun:
    """Train a detail layer over a base layer, or go on with the run that ``output`` holds.

    Args:
        recipe: sizes and training.
        base: the codec with the base layer, on the device to train on.
        photos: the training set, square.
        output: gets the base pictures, ``state.pt``, ``log.jsonl`` and ``two_layer.safetensors``.
        max_minutes: anneal on elapsed time instead of steps, and end then.
        report: called with every logged entry.
        watch: called after every step: number, share of the schedule done, seconds.
        watch_base: as for :func:`~semantic.training.base_pictures.make_base_pictures`.
        init_from: a two-layer checkpoint whose weights a new run starts from.
        stop_after: leave off at this step without finishing.

    Raises:
        NotFiniteError: a loss that is not finite; ``state.pt`` keeps the last good state.
        TrainingError: a state of another recipe or other photos, or too few photos.
        WeightsError: ``init_from`` is missing, damaged or of other sizes.
    """
    output.mkdir(parents=True, exist_ok=True)
    base_layer = BaseLayer(base)
    base_id = base.geometry.codec_id
    if init_from is not None:  # before the hours that follow
        load_detail(DetailLayer(base_layer.codewords(), recipe.detail.config()), init_from)
    bases = make_base_pictures(output, base_layer, base_id, photos, watch_base)
    run = _start(recipe, base_layer, photos, bases, base.device, init_from)
    state_file = output / STATE_FILE
    if state_file.exists():
        _restore(run, state_file)
    log = TrainingLog(output, report, run.step)
    flushed = torch.set_flush_denormal(True)  # what starts at zero makes denormals, which are slow
    try:
        if _take_steps(run, base_id, output, log, max_minutes, watch, stop_after):
            write_weights(run, base_id, output / CHECKPOINT_FILE, validate(run))
    finally:
        if flushed:
            torch.set_flush_denormal(False)
        log.close()
    return run


def _start(
    recipe: DetailRecipe,
    base: BaseLayer,
    photos: PhotoSet,
    bases: BasePictures,
    device: torch.device,
    init_from: Path | None,
) -> DetailRun:
    config = recipe.training
    if len(photos) <= config.validation_photos:
        raise TrainingError(
            f"{len(photos)} photos, and training.validation_photos holds out "
            f"{config.validation_photos} of them: nothing is left to train on"
        )
    torch.manual_seed(config.seed)
    layer = DetailLayer(base.codewords(), recipe.detail.config())
    if init_from is not None:
        load_detail(layer, init_from)
    layer = layer.to(device).train()
    optimizer = torch.optim.AdamW(
        layer.parameters(), lr=config.learning_rate, betas=(0.9, 0.98), weight_decay=0.0
    )
    order = np.random.default_rng([config.seed, 0]).permutation(len(photos))
    average = {name: value.clone() for name, value in layer.state_dict().items()}
    return DetailRun(
        recipe, layer, average, optimizer, photos, bases, order[: -config.validation_photos],
        np.sort(order[-config.validation_photos :]), device,
    )  # fmt: skip


def _take_steps(
    run: DetailRun,
    base_id: str,
    output: Path,
    log: TrainingLog,
    max_minutes: float | None,
    watch: Watch | None,
    stop_after: int | None,
) -> bool:
    """To the end of the schedule (True) or to ``stop_after`` (False)."""
    last_save = time.monotonic()
    terms: list[dict[str, float]] = []
    config = run.recipe.training
    while (progress := _progress(run, max_minutes)) < 1.0 and run.step != stop_after:
        started = time.monotonic()
        terms.append(_step(run, progress))
        run.step += 1
        run.elapsed_s += time.monotonic() - started
        if watch is not None:
            watch(run.step, _progress(run, max_minutes), run.elapsed_s)
        due = run.step % config.validate_every == 0
        if due or run.step % LOG_EVERY == 0:
            means = {name: float(np.mean([t[name] for t in terms])) for name in terms[0]}
            entry = {"step": float(run.step), "elapsed_s": round(run.elapsed_s, 1), **means}
            log.write({**entry, **(validate(run) if due else {})})
            terms.clear()
        if time.monotonic() - last_save > CHECKPOINT_EVERY_S:
            _save(run, output / STATE_FILE)
            write_weights(run, base_id, output / CHECKPOINT_FILE, {})
            last_save = time.monotonic()
    _save(run, output / STATE_FILE)
    return progress >= 1.0


def _progress(run: DetailRun, max_minutes: float | None) -> float:
    if max_minutes is None:
        return run.step / run.recipe.training.steps
    return run.elapsed_s / (60 * max_minutes)


def learning_rate(config: DetailTraining, step: int, progress: float) -> float:
    """Linear warm-up, then a cosine down to 3 %."""
    warm = min(1.0, (step + 1) / max(1, config.warm_up_steps))
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return config.learning_rate * warm * (FINAL_RATE_SHARE + (1 - FINAL_RATE_SHARE) * cosine)


def detail_loss(
    layer: DetailLayer, batch: DetailBatch, config: DetailTraining
) -> tuple[Tensor, dict[str, float]]:
    """Bits per pixel plus squared error, weighed by the gain, of a batch; and figures for the log."""
    pixels = batch.pictures[0, 0].numel()
    with torch.autocast(batch.pictures.device.type, torch.bfloat16, config.bf16):
        exact = layer.analyse(batch.pictures, batch.bases, batch.log_gain, batch.sent)
        coded = layer.prior(exact, batch.tokens, batch.log_gain, batch.sent, noisy=True)
        values = coded.values * batch.arrived
        made = layer.synthesise(values, batch.bases, batch.log_gain, batch.arrived)
    log_gain = torch.where(batch.arrived, batch.log_gain, config.lost_log_gain)
    weight = config.distortion_weight * torch.exp(2 * log_gain)
    error = (made.float() - batch.pictures).square().mean(1, keepdim=True)
    per_position = torch.nn.functional.avg_pool2d(error, 8)
    balance = torch.exp(-_GAIN_BALANCE * batch.log_gain.mean((1, 2, 3)))
    bpp = coded.bits.float() / pixels
    loss = ((bpp + (per_position * weight).mean((1, 2, 3))) * balance).mean()
    return loss, {"loss": float(loss.detach()), "bits_per_pixel": float(bpp.detach().mean())}


def _step(run: DetailRun, progress: float) -> dict[str, float]:
    config = run.recipe.training
    random = np.random.default_rng([config.seed, 1, run.step])
    torch.manual_seed(int(random.integers(1 << 62)))
    numbers = _numbers_of_step(run.train_numbers, run.step, config)
    batch = draw_batch(run.photos, run.bases, numbers, config, random)
    batch = DetailBatch(*(part.to(run.device) for part in vars(batch).values()))
    for group in run.optimizer.param_groups:
        group["lr"] = learning_rate(config, run.step, progress)
    run.optimizer.zero_grad(set_to_none=True)
    loss, terms = detail_loss(run.layer, batch, config)
    loss.backward()
    norm = float(torch.nn.utils.clip_grad_norm_(run.layer.parameters(), config.gradient_clip))
    if not math.isfinite(norm) or not math.isfinite(terms["loss"]):
        raise NotFiniteError(f"step {run.step}: loss {terms['loss']:.4g}, gradient {norm:.4g}")
    run.optimizer.step()
    _update_average(run)
    return {**terms, "gradient": norm}


def _numbers_of_step(
    numbers: NDArray[np.int64], step: int, config: DetailTraining
) -> NDArray[np.int64]:
    """The photos of a step: every epoch another seeded order."""
    per_epoch = max(1, len(numbers) // config.batch_size)
    epoch, within = divmod(step, per_epoch)
    order = np.random.default_rng([config.seed, 2, epoch]).permutation(numbers)
    return order[within * config.batch_size : (within + 1) * config.batch_size]


@torch.no_grad()
def _update_average(run: DetailRun) -> None:
    decay = min(run.recipe.training.weight_average, (1 + run.step) / (10 + run.step))
    for name, value in run.layer.state_dict().items():
        if value.is_floating_point():
            run.average[name].lerp_(value, 1 - decay)


@torch.inference_mode()
def validate(run: DetailRun) -> dict[str, float]:
    """Bits per pixel and PSNR of the averaged weights on the held-out photos at four gains."""
    layer = averaged_layer(run)
    numbers = run.validation_numbers
    found: dict[str, float] = {}
    for log_gain in _VALIDATION_LOG_GAINS:
        bpp, psnr_db = [], []
        for begin in range(0, len(numbers), 16):
            rows = 2 * numbers[begin : begin + 16]
            parts = load_rows(run.photos, run.bases, rows)
            pictures, bases, tokens = (part.to(run.device) for part in parts)
            gains = torch.full_like(pictures[:, :1, ::8, ::8], log_gain)
            inside = torch.ones_like(gains, dtype=torch.bool)
            made, coded = layer(pictures, bases, tokens, gains, inside, noisy=False)
            error = (made.clamp(0, 255).round() - pictures).square().flatten(1).mean(1)
            psnr_db += (10 * torch.log10(255**2 / error.clamp_min(1e-3))).tolist()
            bpp += (coded.bits / pictures[0, 0].numel()).tolist()
        found[f"bits_per_pixel_at_{log_gain:g}"] = float(np.mean(bpp))
        found[f"psnr_db_at_{log_gain:g}"] = float(np.mean(psnr_db))
    return found


def averaged_layer(run: DetailRun) -> DetailLayer:
    """The averaged weights as a layer of their own."""
    config = run.layer.config
    layer = DetailLayer(run.layer.prior.codewords.cpu(), config).to(run.device)
    layer.load_state_dict(run.average)
    return layer.eval()


def write_weights(run: DetailRun, base_id: str, file: Path, metrics: dict[str, float]) -> str:
    """The averaged weights as a checkpoint; its ``codec_id``."""
    record: dict[str, Any] = {
        "recipe": run.recipe.model_dump(mode="json"),
        "photos": run.photos.digest,
        "steps": run.step,
        "elapsed_s": round(run.elapsed_s, 1),
        **metrics,
    }
    base = (run.recipe.base.name, base_id)
    return write_two_layer(file, averaged_layer(run), logistic_table(), base, record)


def _save(run: DetailRun, file: Path) -> None:
    if not all(bool(torch.isfinite(value).all()) for value in run.layer.state_dict().values()):
        raise NotFiniteError(f"step {run.step}: weights are not finite; {file} is left as it was")
    state = {
        "layer": run.layer.state_dict(),
        "average": run.average,
        "optimizer": run.optimizer.state_dict(),
        "step": run.step,
        "elapsed_s": run.elapsed_s,
        "recipe": run.recipe.model_dump_json(),
        "photos": run.photos.digest,
    }
    temporary = file.with_suffix(".tmp")
    torch.save(state, temporary)
    os.replace(temporary, file)


def _restore(run: DetailRun, file: Path) -> None:
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
        if state["recipe"] != run.recipe.model_dump_json():
            raise TrainingError(f"{file}: belongs to another recipe; choose another output folder")
        if state["photos"] != run.photos.digest:
            raise TrainingError(f"{file}: belongs to other photos; choose another output folder")
        run.layer.load_state_dict(state["layer"])
        run.average = {name: value.to(run.device) for name, value in state["average"].items()}
        run.optimizer.load_state_dict(state["optimizer"])
        run.step, run.elapsed_s = int(state["step"]), float(state["elapsed_s"])
    except TrainingError:
        raise
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, TypeError, pickle.UnpicklingError,
            json.JSONDecodeError):  # fmt: skip
        raise TrainingError(f"{file}: damaged, or not the state of a training run") from None
