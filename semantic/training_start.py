"""What comes before the first step: another codec's weights, the scale of features, codebooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from semantic.checkpoint import read_checkpoint
from semantic.training_batch import batch_features, draw_batch
from semantic.training_state import Run, TrainingError, read_state

# Photos from which the per-channel standardisation is measured.
STANDARDIZE_PHOTOS = 256
# Batches from which the codebooks are initialised by k-means.
KMEANS_BATCHES = 16
# Of the weights of a codec to start from, at least this share must fit: less is another codec.
LEAST_SHARE = 0.5


def begin(run: Run, init_from: Path | None) -> dict[str, Any] | None:
    """Make a run ready for its first step.

    Args:
        run: as :func:`semantic.training_state.start_run` made it.
        init_from: see :func:`semantic.train.train`.

    Returns:
        For the log, what was taken from another codec; None without one.
    """
    entry = None if init_from is None else _inherit(run, init_from)
    fresh = [] if entry is None else entry["tensors_fresh"]
    if entry is None or any(".standardize." in name for name in fresh):
        _measure_standardization(run)
    if run.codebooks_ready:
        # Codebooks of layers whose encoder starts anew know nothing of what it says.
        anew = {int(name.split(".")[1]) for name in fresh if ".project_image." in name}
        initialise_codebooks(run, sorted(anew))
    return entry


def _inherit(run: Run, source: Path) -> dict[str, Any]:
    """Take every tensor of another codec that fits; an entry for the log."""
    codec_id, given = _weights_of(source)
    own = run.model.state_dict()
    taken = {n: t for n, t in given.items() if n in own and own[n].shape == t.shape}
    if _values(taken) < LEAST_SHARE * _values(given):
        raise TrainingError(
            f"{source}: another codec than this recipe's: {len(taken)} of its {len(given)} tensors "
            "fit, with too few of its weights"
            if taken
            else f"{source}: no tensor of it fits this recipe"
        )
    fresh = sorted(set(own) - set(taken))
    run.model.load_state_dict({**own, **taken})
    run.take_average()
    run.codebooks_ready = not any(name.startswith("quantizers.") for name in fresh)
    return {
        "event": "weights of another codec, fresh optimiser",
        "init_from": str(source),
        "codec_id": codec_id,
        "tensors_taken": float(len(taken)),
        "tensors_fresh": fresh,
        "tensors_unused": sorted(set(given) - set(taken)),
        "codebooks": "taken" if run.codebooks_ready else "start anew",
    }


def _weights_of(source: Path) -> tuple[str, Mapping[str, Tensor]]:
    """Id (empty for a run's state) and weights of another codec."""
    if source.suffix != ".pt":
        model, geometry, _ = read_checkpoint(source)
        return geometry.codec_id, model.state_dict()
    state = read_state(source)
    if "average" not in state:
        raise TrainingError(f"{source}: not the state of a training run")
    return "", state["average"]


def _values(tensors: Mapping[str, Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors.values())


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
    run.processes.share(run.model)
    run.take_average()


@torch.no_grad()
def initialise_codebooks(run: Run, layers: Sequence[int]) -> None:
    """Start the codebooks of some layers from k-means over the encoder's present output."""
    collected: list[list[Tensor]] = [[] for _ in run.model.alignments]
    for step in range(run.step, run.step + KMEANS_BATCHES):
        random = np.random.default_rng([run.training.seed, 3, step])
        aligned = run.model.align(*batch_features(run, draw_batch(run, step, random)))
        for layer, features in zip(collected, aligned, strict=True):
            layer.append(features)
    for number in layers:
        quantizer = run.model.segment_quantizers[number]
        quantizer.initialise(torch.cat(collected[number]), batches=KMEANS_BATCHES)
        run.processes.share(quantizer)
