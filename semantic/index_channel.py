"""A fast stand-in for the radio during training: which indices a batch loses or receives wrongly.

The radio drops whole code blocks, so a loss is a run of consecutive indices in transmission order (layer,
segment, token; :meth:`semantic.index_frame.IndexFrame.to_bits`), not a random sprinkle.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from semantic.codec_config import CodecConfig, TrainingConfig
from semantic.index_frame import LayerGeometry
from semantic.model import IndexDamage

# Runs per damaged picture, and the length of one as a share of the frame.
MAX_RUNS = 4
RUN_SHARES = (0.01, 0.25)
# Share of wrong indices in a picture that has any.
ERROR_SHARES = (0.001, 0.02)


def layer_geometry(config: CodecConfig) -> tuple[LayerGeometry, ...]:
    """Shapes of the index arrays, in transmission order."""
    return tuple(
        LayerGeometry(layer.grid**2, layer.dim // config.quantizer.segment_length)
        for layer in config.layers
    )


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
