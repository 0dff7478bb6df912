"""Training of the detail layer; ``uoisc train two_layer`` is its command.

Bits and squared error are weighed against each other by the gain of every position, so that one network
serves all rates. The prior is rounded from the first step on, as both ends of the link will have it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from semantic.codec.base_layer import BaseLayer
from semantic.codec.detail_checkpoint import load_detail, write_two_layer
from semantic.codec.detail_layer import DetailLayer
from semantic.codec.entropy import logistic_table
from semantic.codec.vq_codec import Codec
from semantic.dataset import PhotoSet
from semantic.training.detail_batch import DetailBatch, load_rows
from semantic.training.detail_recipe import DetailRecipe, DetailTraining
from semantic.training.training_loop import Run, Task, train_task

CHECKPOINT_FILE = "two_layer.safetensors"
# How far a step counts for its gain: losses at high gains are larger, but not in proportion more worth.
_GAIN_BALANCE = 0.7
_VALIDATION_LOG_GAINS = (-1.8, -0.9, 0.0, 0.9)


class DetailTask(Task[DetailLayer]):
    """Trains a detail layer over a base layer.

    Args:
        recipe: sizes and training.
        base: the base layer.
        base_id: ``codec_id`` of the codec it comes from.
        device: to train on.
        init_from: a two-layer checkpoint whose weights a new run starts from.

    Raises:
        WeightsError: ``init_from`` is missing, damaged or of other sizes.
    """

    def __init__(
        self,
        recipe: DetailRecipe,
        base: BaseLayer,
        base_id: str,
        device: torch.device,
        init_from: Path | None = None,
    ) -> None:
        torch.manual_seed(recipe.training.seed)
        layer = DetailLayer(base.codewords(), recipe.detail.config())
        if init_from is not None:
            load_detail(layer, init_from)
        self._recipe, self._base_id = recipe, base_id
        self.module = layer.to(device).train()
        self.recipe_text = recipe.model_dump_json()

    def loss(self, batch: DetailBatch, progress: float) -> tuple[Tensor, dict[str, float]]:
        """See :func:`detail_loss`."""
        return detail_loss(self.module, batch, self._recipe.training)

    def validate(self, run: Run) -> dict[str, float]:
        """Bits per pixel and PSNR at four gains."""
        return validate(run, self.averaged(run))

    def averaged(self, run: Run) -> DetailLayer:
        """The averaged weights as a layer of their own."""
        layer = DetailLayer(self.module.prior.codewords.cpu(), self.module.config).to(run.device)
        layer.load_state_dict(run.average)
        return layer.eval()

    def write(self, run: Run, file: Path, record: Mapping[str, Any]) -> str:
        """A checkpoint of the two-layer codec."""
        base = (self._recipe.base.name, self._base_id)
        return write_two_layer(file, self.averaged(run), logistic_table(), base, record)


def train_detail(
    recipe: DetailRecipe,
    base: Codec,
    photos: PhotoSet,
    output: Path,
    *,
    init_from: Path | None = None,
    **options: Any,
) -> Run:
    """Train a detail layer over a base layer, or go on with the run that ``output`` holds.

    Args:
        recipe: sizes and training.
        base: the codec with the base layer, on the device to train on.
        photos: the training set, square.
        output: gets the base pictures, ``state.pt``, ``log.jsonl`` and ``two_layer.safetensors``.
        init_from: a two-layer checkpoint whose weights a new run starts from.
        options: of :func:`semantic.training.training_loop.train_task`; errors as there.

    Raises:
        WeightsError: ``init_from`` is missing, damaged or of other sizes.
    """
    task = DetailTask(recipe, BaseLayer(base), base.geometry.codec_id, base.device, init_from)
    return train_task(task, recipe.training, base, photos, output / CHECKPOINT_FILE, **options)


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
    token_bits = layer.prior.tokens.bits(batch.tokens, layer.prior.codewords).mean()
    # The prior of the indices shares no weight with anything else.
    return loss + token_bits / pixels, {
        "loss": float(loss.detach()),
        "bits_per_pixel": float(bpp.detach().mean()),
        "token_bits": float(token_bits.detach()),
    }


@torch.inference_mode()
def validate(run: Run, layer: DetailLayer) -> dict[str, float]:
    """Bits per pixel and PSNR of a layer on the held-out photos at four gains; bits of their indices."""
    numbers = run.validation_numbers
    indices = torch.from_numpy(run.bases.tokens[2 * numbers]).long().to(run.device)
    token_bits = layer.prior.tokens.bits(indices, layer.prior.codewords)
    found = {"token_bits_per_picture": float(token_bits.mean())}
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
