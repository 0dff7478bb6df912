"""A fast stand-in for the radio during training: what of a batch is not sent, lost or received wrongly.

The radio drops whole code blocks, so a loss is a run of consecutive indices in transmission order (layer,
segment, token; :meth:`semantic.index_frame.IndexFrame.to_bits`), not a random sprinkle.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from semantic.codec_config import CodecConfig, TrainingConfig
from semantic.frame_geometry import LayerGeometry
from semantic.model import IndexDamage

# Runs per damaged picture, and the length of one as a share of the frame.
MAX_RUNS = 4
RUN_SHARES = (0.01, 0.25)
# Share of wrong indices in a picture that has any.
ERROR_SHARES = (0.001, 0.02)


def draw_damage(
    layers: tuple[LayerGeometry, ...],
    codewords: int,
    batch: int,
    config: TrainingConfig,
    random: np.random.Generator,
) -> IndexDamage:
    """Random erasure runs and index errors for a batch."""
    total = sum(layer.indices for layer in layers)
    erased = np.zeros((batch, total), np.bool_)
    replaced = np.full((batch, total), -1, np.int64)
    for number in range(batch):
        if random.random() < config.erasure_probability:
            _erase_runs(erased[number], random)
        if random.random() < config.index_error_probability:
            wrong = random.random(total) < random.uniform(*ERROR_SHARES)
            replaced[number, wrong] = random.integers(0, codewords, int(wrong.sum()))
    return IndexDamage(
        [torch.from_numpy(part) for part in unflatten_batch(erased, layers)],
        [torch.from_numpy(part) for part in unflatten_batch(replaced, layers)],
    )


def draw_unsent(
    config: CodecConfig, batch: int, probability: float, random: np.random.Generator
) -> list[torch.Tensor]:
    """Nested dropout: which indices of a batch are not sent, because a picture is on a lower rung.

    Half of the pictures drawn have one level everywhere, the others maps: two levels, or all between
    two, higher inside a random ellipse with ragged edges.

    Args:
        config: with a ladder.
        batch: pictures.
        probability: share of the pictures that are not sent in full.
        random: source of all draws.

    Returns:
        per layer bool ``[B, N, M]``.
    """
    assert config.ladder is not None  # the recipe insists
    levels = np.array(config.ladder.levels)
    grid = config.ladder.grid
    chosen = np.full((batch, grid, grid), -1)  # -1: all segments
    for number in range(batch):
        if random.random() < probability:
            chosen[number] = _draw_levels(grid, len(levels), random)
    unsent = []
    for number, (layer, segments) in enumerate(zip(config.layers, config.segments, strict=True)):
        depth = np.where(chosen < 0, segments, levels[chosen, number])
        places = np.arange(layer.grid) * grid // layer.grid
        of_tokens = depth[:, places[:, None], places].reshape(batch, -1)
        unsent.append(torch.from_numpy(np.arange(segments) >= of_tokens[..., None]))
    return unsent


def _draw_levels(grid: int, levels: int, random: np.random.Generator) -> NDArray[np.int64]:
    """Level of every cell, ``[grid, grid]``."""
    low, high = np.sort(random.integers(0, levels, 2))
    if random.random() < 0.5:
        return np.full((grid, grid), low)
    centre, radii = random.random(2), random.uniform(0.15, 0.6, 2)
    y, x = (np.mgrid[:grid, :grid] + 0.5) / grid
    inside = -np.hypot((y - centre[0]) / radii[0], (x - centre[1]) / radii[1])
    field = inside + random.uniform(0, 1) * random.normal(size=inside.shape)
    rank = field.ravel().argsort().argsort().reshape(field.shape) / field.size  # 0..1
    if random.random() < 0.5:
        return np.where(rank > 1 - random.uniform(0.05, 0.5), high, low)
    return low + np.floor(rank * (high - low + 1)).astype(np.int64)


def _erase_runs(flags: NDArray[np.bool_], random: np.random.Generator) -> None:
    """Set one to :data:`MAX_RUNS` runs of a flat flag array."""
    for _ in range(int(random.integers(1, MAX_RUNS + 1))):
        length = max(1, int(random.uniform(*RUN_SHARES) * len(flags)))
        start = int(random.integers(0, len(flags) - length + 1))
        flags[start : start + length] = True


def unflatten_batch(
    flat: NDArray[np.generic], layers: tuple[LayerGeometry, ...]
) -> list[NDArray[np.generic]]:
    """``[B, indices]`` in transmission order -> per layer ``[B, tokens, segments]``."""
    parts, start = [], 0
    for layer in layers:
        part = flat[:, start : start + layer.indices]
        part = part.reshape(len(flat), layer.segments, layer.tokens).transpose(0, 2, 1)
        parts.append(np.ascontiguousarray(part))
        start += layer.indices
    return parts
