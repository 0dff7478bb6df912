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
from semantic.training.base_pictures import BatchWatch, make_base_pictures
from semantic.training.detail_batch import DetailBatch, load_rows
from semantic.training.detail_recipe import DetailRecipe, DetailTraining
from semantic.training.training_loop import Run, Watch, take_steps
from semantic.training_log import Report, TrainingLog

CHECKPOINT_FILE = "two_layer.safetensors"
# How far a step counts for its gain: losses at high gains are larger, but not in proportion more worth.
_GAIN_BALANCE = 0.7
_VALIDATION_LOG_GAINS = (-1.8, -0.9, 0.0, 0.9)


class DetailTask:
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

    def after_step(self, rate_share: float) -> dict[str, float]:
        """Nothing else learns."""
        return {}

    def state(self) -> dict[str, Any]:
        """Nothing else learned."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Nothing to take up."""

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
    max_minutes: float | None = None,
    report: Report | None = None,
    watch: Watch | None = None,
    watch_base: BatchWatch | None = None,
    init_from: Path | None = None,
    stop_after: int | None = None,
) -> Run:
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
    # Before the hours that follow.
    task = DetailTask(recipe, base_layer, base_id, base.device, init_from)
    bases = make_base_pictures(output, base_layer, base_id, photos, watch_base)
    run = Run.begin(task, recipe.training, photos, bases, base.device, output)
    log = TrainingLog(output, report, run.step)
    try:
        take_steps(
            run, output, output / CHECKPOINT_FILE, log,
            max_minutes=max_minutes, watch=watch, stop_after=stop_after,
        )  # fmt: skip
    finally:
        log.close()
    return run


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
    """Bits per pixel and PSNR of a layer on the held-out photos at four gains."""
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
