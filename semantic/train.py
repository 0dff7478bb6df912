"""Training of a codec: ``python -m semantic.train embedded --data .../train.jsonl --output RUN``.

The two phases of the paper's section III with the losses of :mod:`semantic.losses` and a fast stand-in
for the radio (:mod:`semantic.index_channel`): phase I without, phase II with a discriminator that learns
in turn with the model. Every random draw of a step is derived from the seed
and the step's number, so a run that was interrupted continues as if it had not been (with
``feature_cache`` up to rounding: towers see a photo in other company after a restart, which changes
its features in the last bit). By default the schedule counts steps; with ``max_minutes`` it follows
the clock instead, which ends in time on a busy machine but depends on it.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from semantic.alignment import TEXT_FORM, TextFeatures
from semantic.backbone import WeightsError
from semantic.checkpoint import read_checkpoint, write_checkpoint
from semantic.codec_config import Recipe, TrainingConfig, read_recipe
from semantic.dataset import PhotoSet, TowerFeatures, read_photo_set
from semantic.discriminator import Adversary
from semantic.index_channel import draw_damage, draw_unsent
from semantic.intent_judge import IntentJudge, intent_loss, load_intent_judge
from semantic.judges.answers import JudgeError
from semantic.losses import add_adversarial, loss_terms
from semantic.model import CodecModel, IndexDamage, Reconstruction

# Photos from which the per-channel standardisation is measured.
STANDARDIZE_PHOTOS = 256
# Batches from which the codebooks are initialised by k-means.
KMEANS_BATCHES = 16
CHECKPOINT_EVERY_S = 120.0
LOG_EVERY = 50
FINAL_RATE_SHARE = 0.01


@dataclass
class Run:
    """Everything a training run carries from step to step.

    ``codebooks_ready`` tells that the codebooks came with another codec's weights, so that the phase
    without quantiser and the k-means start are left out.
    """

    recipe: Recipe
    model: CodecModel
    features: TowerFeatures
    train_numbers: np.ndarray[Any, np.dtype[np.int64]]
    validation_numbers: list[int]
    optimizer: torch.optim.Optimizer
    average: dict[str, Tensor]
    device: torch.device
    judge: IntentJudge | None = None
    adversary: Adversary | None = None
    codebooks_ready: bool = False
    step: int = 0
    elapsed_s: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def training(self) -> TrainingConfig:
        """The recipe's training part."""
        return self.recipe.training

    @property
    def continuous_steps(self) -> int:
        """Steps without quantiser at the start."""
        return 0 if self.codebooks_ready else self.training.continuous_steps


def train(
    recipe: Recipe,
    photos: PhotoSet,
    output: Path,
    *,
    max_minutes: float | None = None,
    device: str = "cpu",
    report: Callable[[dict[str, Any]], None] | None = None,
    stop_after: int | None = None,
    init_from: Path | None = None,
) -> Run:
    """Train a codec, or go on with the run that ``output`` holds.

    Args:
        recipe: codec and training configuration.
        photos: the training set; a few photos are held out for validation.
        output: folder for ``state.pt`` (resumes), ``log.jsonl`` and, at the end, ``codec.safetensors``.
        max_minutes: anneal on elapsed time instead of steps, and end then.
        device: where to compute, ``"cpu"`` or ``"cuda"``.
        report: called with every logged record.
        stop_after: leave off at this step without finishing (as an interruption would).
        init_from: another codec's checkpoint, or another run's ``state.pt``: a new run starts from its
            weights with a fresh optimiser. A run that resumes has them already.

    Returns:
        The finished run; its model holds the averaged weights.

    Raises:
        FloatingPointError: a loss or gradient that is not finite; ``state.pt`` keeps the last good state.
        ValueError: ``output`` holds a run of another recipe or other data, or ``init_from`` has no tensor
            that fits.
        WeightsError: a tower or ``init_from`` that is missing or damaged.
    """
    output.mkdir(parents=True, exist_ok=True)
    run = start_run(recipe, photos, device)
    state_file = output / "state.pt"
    if state_file.exists():
        _restore(run, state_file)
    else:
        _begin(run, init_from, output, report)
    last_save = time.monotonic()
    while True:
        progress = _progress(run, max_minutes)
        if progress >= 1.0:
            break
        if stop_after is not None and run.step >= stop_after:
            _save(run, state_file)
            return run
        started = time.monotonic()
        try:
            record = _step(run, progress)
        except FloatingPointError as error:
            raise FloatingPointError(f"step {run.step}: {error}; {_way_on(state_file)}") from None
        run.step += 1
        run.elapsed_s += time.monotonic() - started
        _log(run, record, output, report)
        if time.monotonic() - last_save > CHECKPOINT_EVERY_S:
            _save(run, state_file)
            last_save = time.monotonic()
    _save(run, state_file)
    _use_average(run)
    return run


def _way_on(state_file: Path) -> str:
    """What to do after a run that had to stop."""
    if not state_file.exists():
        return "lower the learning_rate and start again"
    return (
        f"{state_file} keeps the last good state: to go on from its weights lower the learning_rate, "
        f"choose another output folder and give --init-from {state_file}"
    )


def start_run(recipe: Recipe, photos: PhotoSet, device: str = "cpu") -> Run:
    """A run before its first step."""
    torch.manual_seed(recipe.training.seed)
    model = CodecModel(recipe.codec).train().to(device)
    model.backbone.to(device)
    order = np.random.default_rng([recipe.training.seed, 0]).permutation(len(photos))
    config = recipe.training
    held_out = config.validation_photos
    trained = [p for p in model.parameters() if p.requires_grad]
    chosen = torch.device(device)
    return Run(
        recipe=recipe,
        model=model,
        features=TowerFeatures(
            model.backbone,
            photos,
            keep=config.feature_cache,
            text_form=TEXT_FORM[recipe.codec.film],
        ),
        train_numbers=order[held_out:],
        validation_numbers=[int(n) for n in order[:held_out]],
        optimizer=torch.optim.AdamW(
            trained,
            lr=config.learning_rate,
            betas=(0.9, 0.99),
            weight_decay=config.weight_decay,
        ),
        average={name: value.clone() for name, value in model.state_dict().items()},
        device=chosen,
        judge=(
            load_intent_judge(config.intent, recipe.codec.image_size, chosen)
            if config.intent is not None and config.intent.weight > 0
            else None
        ),
        adversary=(
            Adversary(config.adversarial, config.seed, chosen)
            if config.adversarial is not None and config.adversarial.weight > 0
            else None
        ),
    )


def _begin(
    run: Run,
    init_from: Path | None,
    output: Path,
    report: Callable[[dict[str, Any]], None] | None,
) -> None:
    """What comes before the first step of a new run."""
    fresh = [] if init_from is None else _inherit(run, init_from, output, report)
    if init_from is None or any(".standardize." in name for name in fresh):
        _measure_standardization(run)
    if run.codebooks_ready:
        # Codebooks of layers whose encoder starts anew know nothing of what it says.
        anew = {int(name.split(".")[1]) for name in fresh if ".project_image." in name}
        _initialise_codebooks(run, sorted(anew))


def _inherit(
    run: Run,
    source: Path,
    output: Path,
    report: Callable[[dict[str, Any]], None] | None,
) -> list[str]:
    """Take every tensor of another codec that fits; the names of those that start anew."""
    if source.suffix == ".pt":
        state = torch.load(source, map_location="cpu", weights_only=True)
        codec_id, given = "", state["average"]
    else:
        found, geometry, _ = read_checkpoint(source)
        codec_id, given = geometry.codec_id, found.state_dict()
    own = run.model.state_dict()
    taken = {n: t for n, t in given.items() if n in own and own[n].shape == t.shape}
    if not taken:
        raise ValueError(f"{source}: no tensor of it fits this recipe")
    fresh = sorted(set(own) - set(taken))
    run.model.load_state_dict({**own, **taken})
    run.average = {name: value.clone() for name, value in run.model.state_dict().items()}
    run.codebooks_ready = not any(name.startswith("quantizers.") for name in fresh)
    entry = {
        "event": "weights of another codec, fresh optimiser",
        "init_from": str(source),
        "codec_id": codec_id,
        "tensors_taken": float(len(taken)),
        "tensors_fresh": fresh,
        "tensors_unused": sorted(set(given) - set(taken)),
        "codebooks": "taken" if run.codebooks_ready else "start anew",
    }
    _write_log(entry, output, report)
    return fresh


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
    """One optimiser step; the terms of its loss."""
    config = run.training
    random = np.random.default_rng([config.seed, 1, run.step])
    torch.manual_seed(int(random.integers(1 << 62)))
    numbers, flips, queries = _draw_batch(run, random)
    if run.step == run.continuous_steps and not run.codebooks_ready:
        _initialise_codebooks(run, range(len(run.model.segment_quantizers)))
    pictures = run.features.pictures(numbers, flips).to(run.device)
    rate = learning_rate(config, run.step, progress)
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    result = _forward(run, numbers, flips, queries, random)
    intent = _intent_term(run, pictures, result.pictures, queries)
    terms = loss_terms(pictures, result.pictures, result.quantization_loss, config, intent)
    adversary = run.adversary if _in_phase_two(run, progress) else None
    if adversary is not None:
        terms = add_adversarial(terms, result.pictures, run.model.last_layer, adversary, config)
    run.optimizer.zero_grad(set_to_none=True)
    terms["total"].backward()
    norm = torch.nn.utils.clip_grad_norm_(run.model.parameters(), config.gradient_clip)
    record = {name: float(value.detach()) for name, value in terms.items()}
    if not (math.isfinite(record["total"]) and torch.isfinite(norm)):
        values = ", ".join(f"{name} {value:.4g}" for name, value in record.items())
        raise FloatingPointError(f"loss or gradient is not finite ({values}, gradient {norm:.4g})")
    run.optimizer.step()
    revived = _update_codebooks(run, result)
    _update_average(run)
    if adversary is not None:
        record.update(adversary.learn(pictures, result.pictures, rate / config.learning_rate))
    return {**record, "learning_rate": rate, "gradient": float(norm), "revived": float(revived)}


def _intent_term(
    run: Run, pictures: Tensor, reconstructed: Tensor, queries: list[str]
) -> Tensor | None:
    """Eq. (11) over the share of the batch that the recipe says; photos of a batch come in random order."""
    config = run.training.intent
    if run.judge is None or config is None:
        return None
    seen = math.ceil(config.share * len(queries))
    return intent_loss(run.judge, pictures[:seen], reconstructed[:seen], queries[:seen])


def _in_phase_two(run: Run, progress: float) -> bool:
    """Phase II needs a quantiser to be there, and its turn to have come."""
    config = run.training.adversarial
    return config is not None and progress >= config.begins and run.step >= run.continuous_steps


def _draw_batch(run: Run, random: np.random.Generator) -> tuple[list[int], list[bool], list[str]]:
    """Photos (every one once per epoch), mirrored or not, each with one of its questions."""
    size, count = run.training.batch_size, len(run.train_numbers)
    places = np.arange(run.step * size, (run.step + 1) * size)
    numbers = []
    for epoch in np.unique(places // count):
        order = np.random.default_rng([run.training.seed, 2, int(epoch)]).permutation(count)
        numbers += [
            int(run.train_numbers[order[p]]) for p in places[places // count == epoch] % count
        ]
    flips = [bool(f) for f in random.random(size) < 0.5]
    photos = run.features.photos
    queries = [photos.questions[n][int(random.integers(len(photos.questions[n])))] for n in numbers]
    return numbers, flips, queries


def _features(
    run: Run, numbers: list[int], flips: list[bool], queries: list[str]
) -> tuple[dict[int, Tensor], TextFeatures]:
    """What the towers say about photos and questions, on the run's device."""
    maps = {i: m.to(run.device) for i, m in run.features.maps(numbers, flips).items()}
    return maps, run.features.text(queries).to(run.device)


def _forward(
    run: Run, numbers: list[int], flips: list[bool], queries: list[str], random: np.random.Generator
) -> Reconstruction:
    """The model's training pass on a batch."""
    config = run.training
    maps, text = _features(run, numbers, flips, queries)
    continuous = run.step < run.continuous_steps
    damage = None
    if not continuous:
        damage = draw_damage(
            run.recipe.codec.layer_geometry,
            run.recipe.codec.quantizer.codewords,
            len(numbers),
            config,
            random,
        )
        damage = _with_unsent(damage, run, len(numbers), random).to(run.device)
    with torch.autocast(run.device.type, torch.bfloat16, enabled=config.bf16):
        result: Reconstruction = run.model(
            maps,
            text,
            damage=damage,
            continuous_noise=config.continuous_noise if continuous else None,
        )
    return result


def _with_unsent(
    damage: IndexDamage, run: Run, batch: int, random: np.random.Generator
) -> IndexDamage:
    """What is not sent is as unknown to the decoder as what is lost."""
    probability = run.training.ladder_probability
    if not probability:
        return damage
    unsent = draw_unsent(run.recipe.codec, batch, probability, random)
    pairs = zip(damage.erased, unsent, strict=True)
    return IndexDamage([erased | mask for erased, mask in pairs], damage.replaced)


def _update_codebooks(run: Run, result: Reconstruction) -> int:
    """Running k-means of every quantiser; the number of codewords revived."""
    if not result.indices:
        return 0
    return sum(
        quantizer.update(features.detach(), indices)
        for quantizer, features, indices in zip(
            run.model.segment_quantizers, result.features, result.indices, strict=True
        )
    )


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


def _use_average(run: Run) -> None:
    run.model.load_state_dict(run.average)


@torch.no_grad()
def _measure_standardization(run: Run) -> None:
    """Set every layer's fixed per-channel mean and spread from the first training photos."""
    numbers = [int(n) for n in run.train_numbers[:STANDARDIZE_PHOTOS]]
    collected: list[list[Tensor]] = [[] for _ in run.model.alignments]
    for start in range(0, len(numbers), 16):
        part = numbers[start : start + 16]
        maps = run.features.maps(part, [False] * len(part))
        for layer, tokens in zip(collected, run.model.tokens(maps), strict=True):
            layer.append(tokens.to(run.device))
    for alignment, parts in zip(run.model.alignments, collected, strict=True):
        alignment.standardize.measure(torch.cat(parts))
    run.average = {name: value.clone() for name, value in run.model.state_dict().items()}


@torch.no_grad()
def _initialise_codebooks(run: Run, layers: Sequence[int]) -> None:
    """Start the codebooks of some layers from k-means over the encoder's present output."""
    collected: list[list[Tensor]] = [[] for _ in run.model.alignments]
    keep = run.step
    for offset in range(KMEANS_BATCHES):
        run.step = keep + offset
        random = np.random.default_rng([run.training.seed, 3, run.step])
        numbers, flips, queries = _draw_batch(run, random)
        aligned = run.model.align(*_features(run, numbers, flips, queries))
        for layer, features in zip(collected, aligned, strict=True):
            layer.append(features)
    run.step = keep
    for number in layers:
        quantizer = run.model.segment_quantizers[number]
        quantizer.initialise(torch.cat(collected[number]), batches=KMEANS_BATCHES)


@torch.inference_mode()
def validate(run: Run) -> dict[str, Any]:
    """PSNR of the averaged weights on the held-out photos, without channel errors, in dB.

    Returns:
        ``validation_psnr_db``, everything sent, and ``validation_psnr_db_by_level`` with each level of the
        ladder everywhere.
    """
    live = {name: value.clone() for name, value in run.model.state_dict().items()}
    run.model.load_state_dict(run.average)
    run.model.eval()
    ladder = run.recipe.codec.ladder
    levels = [None] if ladder is None else [None, *ladder.levels]
    values = []
    for number in run.validation_numbers:
        question = run.features.photos.questions[number][0]
        aligned = run.model.align(*_features(run, [number], [False], [question]))
        picture = run.features.pictures([number], [False])
        if run.step <= run.continuous_steps:
            values.append([_psnr_db(run.model.decode_vectors(aligned), picture)] * len(levels))
            continue
        pairs = zip(run.model.segment_quantizers, aligned, strict=True)
        indices = [quantizer.nearest(features.float()) for quantizer, features in pairs]
        values.append(
            [
                _psnr_db(run.model.decode(indices, _beyond(indices, level)), picture)
                for level in levels
            ]
        )
    run.model.load_state_dict(live)
    run.model.train()
    whole, *by_level = np.mean(values, axis=0).tolist()
    found: dict[str, Any] = {"validation_psnr_db": whole}
    if by_level:
        found["validation_psnr_db_by_level"] = [round(value, 2) for value in by_level]
    return found


def _beyond(indices: list[Tensor], level: Sequence[int] | None) -> list[Tensor] | None:
    """Masks of the segments that a level leaves out."""
    if level is None:
        return None
    return [
        (torch.arange(index.shape[-1], device=index.device) >= sent).expand_as(index)
        for index, sent in zip(indices, level, strict=True)
    ]


def _psnr_db(found: Tensor, picture: Tensor) -> float:
    error = float((found.cpu() - picture).square().mean())
    return -10 * math.log10(max(error, 1e-10))


def _log(
    run: Run,
    record: dict[str, float],
    output: Path,
    report: Callable[[dict[str, Any]], None] | None,
) -> None:
    """Log every :data:`LOG_EVERY` steps, with a validation and the codebooks' use now and then."""
    due = run.step % run.training.validate_every == 0
    if not due and run.step % LOG_EVERY and run.step != 1:
        return
    entry = {"step": float(run.step), "elapsed_s": round(run.elapsed_s, 1), **record}
    if due:
        entry.update(validate(run))
        entry.update(codebook_record(run))
    run.history.append(entry)
    _write_log(entry, output, report)


def codebook_record(run: Run) -> dict[str, Any]:
    """How the codewords are used lately: means over all codebooks, and per layer and segment."""
    if run.step <= run.continuous_steps:
        return {}
    uses = [quantizer.use() for quantizer in run.model.segment_quantizers]
    return {
        "usage": float(torch.cat([use.usage for use in uses]).mean()),
        "perplexity": float(torch.cat([use.perplexity for use in uses]).mean()),
        "usage_by_segment": [_rounded(use.usage, 4) for use in uses],
        "perplexity_by_segment": [_rounded(use.perplexity, 1) for use in uses],
    }


def _rounded(values: Tensor, digits: int) -> list[float]:
    return [round(float(value), digits) for value in values]


def _write_log(
    entry: dict[str, Any], output: Path, report: Callable[[dict[str, Any]], None] | None
) -> None:
    """One line of ``log.jsonl``."""
    with (output / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")
    if report is not None:
        report(entry)


def _save(run: Run, file: Path) -> None:
    """Write the state that :func:`_restore` reads, atomically; never one that is not finite."""
    if not all(bool(torch.isfinite(value).all()) for value in run.model.state_dict().values()):
        raise FloatingPointError(
            f"step {run.step}: weights are not finite; {file} is left as it was"
        )
    state = {
        "model": run.model.state_dict(),
        "average": run.average,
        "optimizer": run.optimizer.state_dict(),
        "adversary": None if run.adversary is None else run.adversary.state_dict(),
        "codebooks_ready": run.codebooks_ready,
        "step": run.step,
        "elapsed_s": run.elapsed_s,
        "recipe": run.recipe.model_dump_json(),
        "data": run.features.photos.digest,
    }
    temporary = file.with_suffix(".tmp")
    torch.save(state, temporary)
    os.replace(temporary, file)


def _restore(run: Run, file: Path) -> None:
    """Go on where :func:`_save` left off; raises ValueError for another recipe or other data."""
    state = torch.load(file, map_location="cpu", weights_only=True)
    if state["recipe"] != run.recipe.model_dump_json():
        raise ValueError(f"{file}: belongs to another recipe; choose another output folder")
    if state["data"] != run.features.photos.digest:
        raise ValueError(f"{file}: belongs to other training data; choose another output folder")
    run.model.load_state_dict(state["model"])
    run.average = {name: value.to(run.device) for name, value in state["average"].items()}
    run.optimizer.load_state_dict(state["optimizer"])
    if run.adversary is not None:
        run.adversary.load_state_dict(state["adversary"])
    # States of before this could be have no such entry.
    run.codebooks_ready = state.get("codebooks_ready", False)
    run.step, run.elapsed_s = state["step"], state["elapsed_s"]


def main(arguments: list[str] | None = None) -> None:
    """Command line: train, print progress, write ``codec.safetensors`` and ``codec.json``."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "recipe", type=Path, help="a YAML file or the name of one in semantic/configs"
    )
    parser.add_argument("--data", type=Path, required=True, help="train.jsonl, images/ beside it")
    parser.add_argument("--output", type=Path, required=True, help="folder of the run")
    parser.add_argument("--max-minutes", type=float, help="anneal on elapsed time, and end then")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument(
        "--init-from",
        type=Path,
        help="start from another codec's weights (codec.safetensors, or a run's state.pt) with a fresh "
        "optimiser",
    )
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    torch.set_float32_matmul_precision("medium")
    try:
        _train_and_write(options)
    except (ValueError, FloatingPointError, WeightsError, JudgeError) as error:
        raise SystemExit(f"train: {error}") from None


def _train_and_write(options: argparse.Namespace) -> None:
    recipe = read_recipe(options.recipe)
    photos = read_photo_set(options.data, recipe.codec.image_size)
    run = train(
        recipe,
        photos,
        options.output,
        max_minutes=options.max_minutes,
        device=options.device,
        report=_print_progress,
        init_from=options.init_from,
    )
    reached = {name: v for name, v in codebook_record(run).items() if isinstance(v, float)}
    metrics = {
        **validate(run),
        **reached,
        "steps": float(run.step),
        "elapsed_s": run.elapsed_s,
    }
    write_checkpoint(
        options.output / "codec.safetensors",
        recipe,
        run.model,
        metrics,
        photos.digest,
        None if run.judge is None else run.judge.identity,
    )


def _print_progress(entry: dict[str, Any]) -> None:
    """One line per log record on standard error."""
    parts = [
        f"{name} {value:.5g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in entry.items()
        if not isinstance(value, list)
    ]
    sys.stderr.write(" ".join(parts) + "\n")


if __name__ == "__main__":
    main()
