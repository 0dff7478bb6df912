"""Training of a codec; ``uoisc train`` is its command.

The two phases of the paper's section III with the losses of :mod:`semantic.losses` and a fast stand-in
for the radio (:mod:`semantic.index_channel`): phase I without, phase II with a discriminator that learns
in turn with the model. Every random draw of a step is derived from the seed
and the step's number, so a run that was interrupted continues as if it had not been (with
``feature_cache`` up to rounding: towers see a photo in other company after a restart, which changes
its features in the last bit). By default the schedule counts steps; with ``max_minutes`` it follows
the clock instead, which ends in time on a busy machine but depends on it. Several processes share the
work of every batch (:mod:`semantic.processes`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from semantic.checkpoint import write_checkpoint
from semantic.codec_config import Recipe, TrainingConfig
from semantic.dataset import PhotoSet
from semantic.losses import add_adversarial, loss_terms
from semantic.model import IndexDamage, Reconstruction
from semantic.processes import MAX_SKIPPED_STEPS
from semantic.training_batch import Batch, batch_features, batch_pictures, draw_batch, draw_channel
from semantic.training_intent import judge_batch
from semantic.training_log import Report, TrainingLog
from semantic.training_start import begin, initialise_codebooks
from semantic.training_state import STATE_FILE, NotFiniteError, Run, restore, save, start_run
from semantic.validation import averaged, codebook_record, validate

CHECKPOINT_EVERY_S = 120.0
LOG_EVERY = 50
FINAL_RATE_SHARE = 0.01

Watch = Callable[[int, float, float], None]


def train(
    recipe: Recipe,
    photos: PhotoSet,
    output: Path,
    *,
    max_minutes: float | None = None,
    device: str = "cpu",
    report: Report | None = None,
    watch: Watch | None = None,
    stop_after: int | None = None,
    init_from: Path | None = None,
) -> Run:
    """Train a codec, or go on with the run that ``output`` holds.

    Into ``output`` the main process writes ``state.pt`` (from which a run goes on), ``log.jsonl``,
    ``tensorboard/``, ``samples/``, at every validation with quantiser ``last.safetensors`` and, where its
    PSNR is the best yet, ``best.safetensors``; at the end ``codec.safetensors``.

    Args:
        recipe: codec and training configuration; ``batch_size`` counts all processes together.
        photos: the training set; a few photos are held out for validation.
        output: the run's folder.
        max_minutes: anneal on elapsed time instead of steps, and end then.
        device: where to compute, one of :data:`semantic.processes.DEVICES`.
        report: called with every logged entry, in the main process.
        watch: called after every step with its number, the share of the schedule that is done, 0..1,
            and the run's time in seconds, in the main process.
        stop_after: leave off at this step without finishing (as an interruption would).
        init_from: another codec's checkpoint, or another run's ``state.pt``: a new run starts from its
            weights with a fresh optimiser. A run that resumes has them already.

    Returns:
        The finished run; its model holds the averaged weights.

    Raises:
        NotFiniteError: a loss or gradient that is not finite; ``state.pt`` keeps the last good state.
        TrainingError: ``output`` holds a run of another recipe or other data, ``init_from`` is the
            weights of another codec, or there are too few photos.
        DeviceError: a device that is not there.
        WeightsError: a tower or ``init_from`` that is missing or damaged.
    """
    run = start_run(recipe, photos, device)
    output.mkdir(parents=True, exist_ok=True)
    state_file = output / STATE_FILE
    resumed = state_file.exists()
    if resumed:
        restore(run, state_file)
    log = TrainingLog(output, report, run.step if resumed else 0) if run.processes.main else None
    try:
        if not resumed:
            entry = begin(run, init_from)
            if log is not None and entry is not None:
                log.write(entry)
        if log is not None and run.training.bf16 and run.processes.precision == "fp32":
            log.write({"event": f"{run.device.type} in float32, not in bfloat16"})
        if _take_steps(run, state_file, log, max_minutes, stop_after, watch):
            _finish(run, output)
    finally:
        if log is not None:
            log.close()
    run.processes.wait()
    return run


def _take_steps(
    run: Run,
    state_file: Path,
    log: TrainingLog | None,
    max_minutes: float | None,
    stop_after: int | None,
    watch: Watch | None,
) -> bool:
    """Step by step to the end of the schedule (True) or to ``stop_after`` (False)."""
    last_save = time.monotonic()
    while (progress := _progress(run, max_minutes)) < 1.0:
        if stop_after is not None and run.step >= stop_after:
            break
        started = time.monotonic()
        try:
            record = _step(run, progress)
        except FloatingPointError as error:
            raise NotFiniteError(f"step {run.step}: {error}; {_way_on(state_file)}") from None
        run.step += 1
        elapsed = {"elapsed_s": time.monotonic() - started}
        run.elapsed_s += run.processes.mean_record(elapsed)["elapsed_s"]
        if log is None:
            continue
        _log(run, record, log)
        if watch is not None:
            watch(run.step, _progress(run, max_minutes), run.elapsed_s)
        if time.monotonic() - last_save > CHECKPOINT_EVERY_S:
            save(run, state_file)
            last_save = time.monotonic()
    if log is not None:
        save(run, state_file)
    return progress >= 1.0


def _way_on(state_file: Path) -> str:
    """What to do after a run that had to stop."""
    if not state_file.exists():
        return "lower the learning_rate and start again"
    return (
        f"{state_file} keeps the last good state: to go on from its weights lower the learning_rate, "
        f"choose another output folder and give --init-from {state_file}"
    )


def _progress(run: Run, max_minutes: float | None) -> float:
    """Share of the schedule that is done, 0..1."""
    if max_minutes is None:
        return run.step / run.training.steps
    return run.elapsed_s / (60 * max_minutes)


def learning_rate(config: TrainingConfig, step: int, progress: float) -> float:
    """Linear warm-up, then a cosine from ``learning_rate`` down to a hundredth of it."""
    warm = min(1.0, (step + 1) / max(1, config.warm_up_steps))
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return config.learning_rate * warm * (FINAL_RATE_SHARE + (1 - FINAL_RATE_SHARE) * cosine)


def _step(run: Run, progress: float) -> dict[str, float]:
    """One optimiser step; the terms of its loss, means over the processes."""
    config = run.training
    random = np.random.default_rng([config.seed, 1, run.step])
    torch.manual_seed(int(random.integers(1 << 62)))
    batch = draw_batch(run, run.step, random).share(run.processes)
    if run.step == run.continuous_steps and not run.codebooks_ready:
        initialise_codebooks(run, range(len(run.model.segment_quantizers)))
    pictures = batch_pictures(run, batch)
    rate = learning_rate(config, run.step, progress)
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    damage = None if run.step < run.continuous_steps else draw_channel(run, random)
    result = _forward(run, batch, damage)
    intent = judge_batch(run, pictures, result.pictures, batch.queries, damage)
    terms = loss_terms(pictures, result.pictures, result.quantization_loss, config, intent)
    adversary = run.adversary if _in_phase_two(run, progress) else None
    if adversary is not None:
        terms = add_adversarial(terms, result.pictures, run.model.last_layer, adversary, config)
    record = _descend(run, terms)
    if run.skipped:
        return {**record, "learning_rate": rate}
    revived = _update_codebooks(run, result)
    _update_average(run)
    if adversary is not None:
        record.update(adversary.learn(pictures, result.pictures, rate / config.learning_rate))
    gradient = record.pop("gradient")
    return {**record, "learning_rate": rate, "gradient": gradient, "revived": float(revived)}


def _descend(run: Run, terms: dict[str, Tensor]) -> dict[str, float]:
    """Gradients and a step of the optimiser; the terms and ``gradient``, the gradient's norm.

    Raises:
        FloatingPointError: a loss or gradient that is not finite; no weight has changed.
    """
    run.optimizer.zero_grad(set_to_none=True)
    run.processes.backward(terms["total"])
    norm = float(run.processes.clip(run.model.parameters(), run.training.gradient_clip))
    record = run.processes.mean_record({n: float(v.detach()) for n, v in terms.items()})
    # In fp16 gradients overflow now and then: such a step is left out, and their scale lowered.
    run.skipped = 0 if math.isfinite(norm) else run.skipped + 1
    allowed = 0 if run.processes.scaler is None else MAX_SKIPPED_STEPS
    if not math.isfinite(record["total"]) or run.skipped > allowed:
        values = ", ".join(f"{name} {value:.4g}" for name, value in record.items())
        raise FloatingPointError(f"loss or gradient is not finite ({values}, gradient {norm:.4g})")
    run.optimizer.step()
    return {**record, "gradient": norm}


def _in_phase_two(run: Run, progress: float) -> bool:
    """Phase II needs a quantiser to be there, and its turn to have come."""
    config = run.training.adversarial
    return config is not None and progress >= config.begins and run.step >= run.continuous_steps


def _forward(run: Run, batch: Batch, damage: IndexDamage | None) -> Reconstruction:
    """The model's training pass on this process's share of a batch."""
    maps, text = batch_features(run, batch)
    result: Reconstruction = run.trained(
        maps,
        text,
        damage=damage,
        continuous_noise=run.training.continuous_noise if damage is None else None,
        processes=run.processes,
    )
    return result


def _update_codebooks(run: Run, result: Reconstruction) -> int:
    """Running k-means of every quantiser over the whole batch; the number of codewords revived."""
    if not result.indices:
        return 0
    revived = 0
    for quantizer, features, indices in zip(
        run.model.segment_quantizers, result.features, result.indices, strict=True
    ):
        gather = run.processes.gather
        revived += quantizer.update(gather(features.detach()), gather(indices))
        # The same sums everywhere, but perhaps not added in the same order.
        run.processes.share(quantizer)
    return revived


@torch.no_grad()
def _update_average(run: Run) -> None:
    """Moving average of the weights; codebooks and their counts are averages already."""
    # A young average must not remember the random start.
    decay = min(run.training.weight_average, (1 + run.step) / (10 + run.step))
    for name, value in run.model.state_dict().items():
        if name.startswith("quantizers.") or not value.is_floating_point():
            run.average[name].copy_(value)
        else:
            run.average[name].lerp_(value, 1 - decay)


def _log(run: Run, record: dict[str, float], log: TrainingLog) -> None:
    """Log every :data:`LOG_EVERY` steps; validate and write the weights now and then."""
    due = run.step % run.training.validate_every == 0
    if not due and run.step % LOG_EVERY and run.step != 1:
        return
    entry = {"step": float(run.step), "elapsed_s": round(run.elapsed_s, 1), **record}
    if due:
        with averaged(run):
            found = validate(run)
            entry.update(found.metrics)
            entry.update(codebook_record(run))
            log.write_samples(found.samples, run.step)
            _write_last_and_best(run, log.output, found.metrics)
    run.history.append(entry)
    log.write(entry)


def _write_last_and_best(run: Run, output: Path, metrics: dict[str, float]) -> None:
    """The weights as they are; not before there are codebooks, without which nothing can be sent."""
    if run.step <= run.continuous_steps:
        return
    write_weights(run, output / "last.safetensors", metrics)
    if metrics["validation_psnr_db"] > run.best_psnr_db:
        run.best_psnr_db = metrics["validation_psnr_db"]
        write_weights(run, output / "best.safetensors", metrics)


def write_weights(run: Run, file: Path, metrics: dict[str, float]) -> None:
    """The model's weights as a checkpoint, with recipe, metrics and the data's digest inside."""
    reached = {name: v for name, v in codebook_record(run).items() if isinstance(v, float)}
    progress = {"steps": float(run.step), "elapsed_s": run.elapsed_s}
    write_checkpoint(
        file,
        run.recipe,
        run.model,
        {**metrics, **reached, **progress},
        run.features.photos.digest,
        None if run.judge is None else run.judge.identity,
    )


def _finish(run: Run, output: Path) -> None:
    """The averaged weights become the model's, and the codec of the run."""
    run.model.load_state_dict(run.average)
    if run.processes.main:
        run.model.eval()
        write_weights(run, output / "codec.safetensors", validate(run).metrics)
        run.model.train()
