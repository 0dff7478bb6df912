"""How good a codec is while it is trained: held-out photos, use of the codewords, sample pictures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from semantic.training_batch import Batch, batch_features, batch_pictures
from semantic.training_state import Run

SAMPLE_PHOTOS = 8
# Levels of the ladder that sample pictures show, poorest first.
SAMPLE_LEVELS = 2

Level = Sequence[int] | None


@dataclass(frozen=True)
class Validation:
    """What the averaged weights make of the held-out photos, without channel errors.

    Args:
        metrics: ``validation_psnr_db`` with everything sent and, with a ladder,
            ``validation_psnr_db_by_level`` with each of its levels everywhere.
        samples: uint8 ``[rows h, photos h, 3]``: sources, everything sent, then the ladder's lowest
            levels, the better one first.
    """

    metrics: dict[str, Any]
    samples: NDArray[np.uint8]


@contextmanager
def averaged(run: Run) -> Iterator[None]:
    """Inside, the model has its averaged weights and is in evaluation mode."""
    live = {name: value.clone() for name, value in run.model.state_dict().items()}
    run.model.load_state_dict(run.average)
    run.model.eval()
    try:
        yield
    finally:
        run.model.load_state_dict(live)
        run.model.train()


@torch.inference_mode()
def validate(run: Run) -> Validation:
    """Measure the model as it is (see :func:`averaged`)."""
    ladder = run.recipe.codec.ladder
    levels: list[Level] = [None] if ladder is None else [None, *ladder.levels]
    values: list[list[float]] = []
    columns: list[list[Tensor]] = []
    for number in run.validation_numbers:
        question = run.features.photos.questions[number][0]
        batch = Batch([number], [False], [question])
        picture = batch_pictures(run, batch)
        found = _reconstruct(run, batch, levels)
        values.append([_psnr_db(other, picture) for other in found])
        if len(columns) < SAMPLE_PHOTOS:
            columns.append([picture, found[0], *reversed(found[1 : 1 + SAMPLE_LEVELS])])
    whole, *by_level = np.mean(values, axis=0).tolist()
    metrics: dict[str, Any] = {"validation_psnr_db": whole}
    if by_level:
        metrics["validation_psnr_db_by_level"] = [round(value, 2) for value in by_level]
    return Validation(metrics, _grid(columns))


def _reconstruct(run: Run, batch: Batch, levels: Sequence[Level]) -> list[Tensor]:
    """Pictures float32 ``[1, 3, h, w]`` at every level; without quantiser all are the same."""
    aligned = run.model.align(*batch_features(run, batch))
    if run.step <= run.continuous_steps:
        return [run.model.decode_vectors(aligned)] * len(levels)
    pairs = zip(run.model.segment_quantizers, aligned, strict=True)
    indices = [quantizer.nearest(features.float()) for quantizer, features in pairs]
    return [run.model.decode(indices, _beyond(indices, level)) for level in levels]


def _beyond(indices: list[Tensor], level: Level) -> list[Tensor] | None:
    """Masks of the segments that a level leaves out."""
    if level is None:
        return None
    return [
        (torch.arange(index.shape[-1], device=index.device) >= sent).expand_as(index)
        for index, sent in zip(indices, level, strict=True)
    ]


def _psnr_db(found: Tensor, picture: Tensor) -> float:
    error = float((found - picture).square().mean())
    return -10 * math.log10(max(error, 1e-10))


def _grid(columns: list[list[Tensor]]) -> NDArray[np.uint8]:
    """Columns of pictures ``[1, 3, h, w]``, 0..1 -> one picture ``[rows h, columns h, 3]``."""
    whole = torch.cat([torch.cat(column, dim=2) for column in columns], dim=3)[0]
    levels = (whole.clamp(0, 1) * 255).round().to(torch.uint8)
    return levels.permute(1, 2, 0).cpu().numpy()


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
