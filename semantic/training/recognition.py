"""Training of the recognition head; ``uoisc train two_layer_recognition`` is its command.

Everything else stays as it is: the head sees the bits of a trained codec. It goes down in squared error, in
how differently a frozen tower sees photo and picture at several depths, and in what the tower's classifier
says of them; at the end, phase II of the paper, a discriminator joins in. The judge that scores is another
network.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from semantic.backbone import load_backbone, read_classifier
from semantic.codec.base_layer import BaseLayer
from semantic.codec.detail_checkpoint import load_detail_of
from semantic.codec.detail_layer import DetailLayer
from semantic.codec.recognition_head import RecognitionHead, write_head
from semantic.codec.vq_codec import Codec
from semantic.codec_config import PackagedTowers
from semantic.dataset import PhotoSet
from semantic.discriminator import Adversary
from semantic.index_search import unlikeness
from semantic.training.detail_batch import DetailBatch, load_rows
from semantic.training.detail_recipe import RecognitionRecipe
from semantic.training.training_loop import Run, Task, train_task
from semantic.training_state import TrainingError

HEAD_FILE = "two_layer_recognition.safetensors"
_LEAST_MSE = 1e-5
_VALIDATION_LOG_GAINS = (-2.4, -1.8, -0.9)
# Depths of the tower at which pictures are compared.
_DEPTHS = (0, 1, 2, 3, 4)


class FrozenTower(nn.Module):
    """What a frozen tower sees in pictures, and what its classifier makes of it.

    Args:
        config: towers that come in packages.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, config: PackagedTowers) -> None:
        super().__init__()
        self.backbone = load_backbone(config, _DEPTHS, 224).requires_grad_(False)
        weight, bias = read_classifier(config.image_tower)
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, pictures: Tensor, side: int) -> tuple[list[Tensor], Tensor]:
        """Maps at several depths, and logits of classes; pictures are float, 0..1."""
        scaled = functional.interpolate(
            pictures, (side, side), mode="bicubic", align_corners=False, antialias=True
        )
        normalised = (scaled - self.backbone.mean) / self.backbone.std
        found = self.backbone.towers.visual.forward_intermediates(
            normalised, indices=list(_DEPTHS), output_fmt="NCHW"
        )
        pooled = found["image_features"].mean((2, 3))
        return list(found["image_intermediates"]), functional.linear(pooled, self.weight, self.bias)


class RecognitionTask(Task[RecognitionHead]):
    """Trains a second head for a two-layer codec.

    Args:
        recipe: of the head.
        codec_id: of the codec.
        layer: its detail layer; stays as it is.
        tower: that must see the same in photo and picture.
        device: to train on.
    """

    def __init__(
        self,
        recipe: RecognitionRecipe,
        codec_id: str,
        layer: DetailLayer,
        tower: FrozenTower,
        device: torch.device,
    ) -> None:
        config = recipe.training
        self._recipe, self._codec_id = recipe, codec_id
        torch.manual_seed(config.seed)
        self._layer = layer.to(device).eval().requires_grad_(False)
        self._tower = tower.to(device).eval()
        self.module = RecognitionHead.from_layer(layer, recipe.extra_blocks).to(device)
        self.module.train().requires_grad_(True)
        self.recipe_text = recipe.model_dump_json()
        self._adversary = Adversary(config.adversarial, config.seed, device)
        self._last: tuple[Tensor, Tensor] | None = None

    @torch.no_grad()
    def _received(self, batch: DetailBatch) -> Tensor:
        """Coefficients as the codec's decoder has them."""
        exact = self._layer.analyse(batch.pictures, batch.bases, batch.log_gain, batch.sent)
        coded = self._layer.prior(exact, batch.tokens, batch.log_gain, batch.sent, noisy=False)
        return coded.values * batch.arrived

    def _made(self, head: RecognitionHead, batch: DetailBatch, values: Tensor) -> Tensor:
        picture = self._layer.synthesise(values, batch.bases, batch.log_gain, batch.arrived, head)
        return picture.float() / 255

    def loss(self, batch: DetailBatch, progress: float) -> tuple[Tensor, dict[str, float]]:
        """Squared error, likeness, classes and, in phase II, the adversarial term."""
        config = self._recipe.training
        side = config.tower_sides[int(torch.randint(len(config.tower_sides), ()))]
        pictures = batch.pictures / 255
        with torch.autocast(pictures.device.type, torch.bfloat16, config.bf16):
            values = self._received(batch)
            made = self._made(self.module, batch, values)
        with torch.no_grad():
            seen, wanted = self._tower(pictures, side)
        look, said = self._tower(made.clamp(0, 1), side)
        log_mse = (made - pictures).square().mean((1, 2, 3)).clamp_min(_LEAST_MSE).log().mean()
        even = torch.ones_like(pictures[:, :1])
        apart = unlikeness(look, seen, even).mean()
        classes = _divergence(said, wanted).mean()
        loss = config.log_mse_weight * log_mse + config.feature_weight * apart
        loss = loss + config.class_weight * classes
        terms = {"log_mse": log_mse, "unlikeness": apart, "classes": classes}
        self._last = None
        if progress >= config.adversarial.begins:
            fooled = self._adversary.judge(made)
            weight = self._adversary.weight(loss, fooled, self.module.refine.last.weight)
            loss = loss + weight * fooled
            terms |= {"adversarial": fooled, "adversarial_weight": weight}
            self._last = pictures, made.detach()
        return loss, {
            name: float(value.detach()) for name, value in {"loss": loss, **terms}.items()
        }

    def after_step(self, rate_share: float) -> dict[str, float]:
        """The discriminator learns."""
        return {} if self._last is None else self._adversary.learn(*self._last, rate_share)

    def state(self) -> dict[str, Any]:
        """The discriminator."""
        return {"adversary": self._adversary.state_dict()}

    def load_state(self, state: dict[str, Any]) -> None:
        """The discriminator as it was."""
        self._adversary.load_state_dict(state["adversary"])

    def _averaged(self, run: Run) -> RecognitionHead:
        head = RecognitionHead(self.module.config).to(run.device)
        head.load_state_dict(run.average)
        return head.eval()

    @torch.inference_mode()
    def validate(self, run: Run) -> dict[str, float]:
        """PSNR and what the tower sees on the held-out photos, beside the layer's own head."""
        heads = {"": self._averaged(run), "fidelity_": None}
        found: dict[str, list[float]] = {}
        parts = range(0, len(run.validation_numbers), 16)
        for log_gain, begin in itertools.product(_VALIDATION_LOG_GAINS, parts):
            rows = 2 * run.validation_numbers[begin : begin + 16]
            loaded = load_rows(run.photos, run.bases, rows)
            pictures, bases, tokens = (part.to(run.device) for part in loaded)
            gains = torch.full_like(pictures[:, :1, ::8, ::8], log_gain)
            inside = torch.ones_like(gains, dtype=torch.bool)
            values = self._received(DetailBatch(pictures, bases, tokens, gains, inside, inside))
            for name, head in heads.items():
                made = self._layer.synthesise(values, bases, gains, inside, head)
                for key, each in self._compare(pictures, made.clamp(0, 255).round()).items():
                    found.setdefault(f"{name}{key}_at_{log_gain:g}", []).extend(each.tolist())
        return {name: float(np.mean(each)) for name, each in found.items()}

    def _compare(self, pictures: Tensor, made: Tensor) -> dict[str, Tensor]:
        """Figures of every picture, 0..255."""
        seen, wanted = self._tower(pictures / 255, 224)
        look, said = self._tower(made / 255, 224)
        error = (made - pictures).square().flatten(1).mean(1)
        return {
            "psnr_db": 10 * torch.log10(255**2 / error.clamp_min(1e-3)),
            "unlikeness": unlikeness(look, seen, torch.ones_like(pictures[:, :1])),
            "classes": _divergence(said, wanted),
            "same_class": (said.argmax(1) == wanted.argmax(1)).float(),
        }

    def write(self, run: Run, file: Path, record: Mapping[str, Any]) -> str:
        """A checkpoint of the head."""
        write_head(file, self._averaged(run), self._codec_id, record)
        return self._codec_id


def _divergence(said: Tensor, wanted: Tensor) -> Tensor:
    """Kullback and Leibler's, of what logits say from what those of the photo say: ``[B]``."""
    logs = said.log_softmax(1), wanted.log_softmax(1)
    return functional.kl_div(*logs, log_target=True, reduction="none").sum(1)


def train_recognition(
    recipe: RecognitionRecipe,
    codec_file: Path,
    base: Codec,
    photos: PhotoSet,
    output: Path,
    **options: Any,
) -> Run:
    """Train a recognition head, or go on with the run that ``output`` holds.

    Args:
        recipe: of the head.
        codec_file: checkpoint of the two-layer codec.
        base: the codec of its base layer, on the device to train on.
        photos: the training set, square.
        output: gets the base pictures, ``state.pt``, ``log.jsonl`` and the head.
        options: of :func:`semantic.training.training_loop.train_task`; errors as there.

    Raises:
        TrainingError: towers that classify nothing.
        WeightsError: weights that are missing or damaged.
    """
    towers = base.config.backbone
    if not isinstance(towers, PackagedTowers):
        raise TrainingError(f"{codec_file}: its image tower comes without a classifier")
    layer, codec_id = load_detail_of(codec_file, BaseLayer(base))
    task = RecognitionTask(recipe, codec_id, layer, FrozenTower(towers), base.device)
    return train_task(task, recipe.training, base, photos, output / HEAD_FILE, **options)
