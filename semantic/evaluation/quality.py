"""How good a picture shown is: fidelity, features, the user's intent, and a judge's answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from semantic.backbone import load_backbone
from semantic.codec import picture_to_tensor
from semantic.codec_config import PackagedTowers
from semantic.intent_judge import TowerIntentJudge, intent_distances, whole_side
from semantic.judge import Answer, Judge
from semantic.judges.recognition import read_recognition_config
from semantic.metrics import ms_ssim, psnr_db

# Maps of the image tower at strides 2, 4, 8, 16 and 32.
_STRIDES = (0, 1, 2, 3, 4)
_BATCH = 8


@dataclass(frozen=True)
class Quality:
    """Of one picture shown in place of a source.

    Args:
        psnr_db: infinity for an exact copy.
        ms_ssim: 0..1.
        feature_distance: :class:`FeatureDistance`.
        intent_loss: eq. (11) in the eyes of the codec's own frozen tower.
        answer: the judge's, to the question.
        answer_without_query: to none; None where the judge needs one.
    """

    psnr_db: float
    ms_ssim: float
    feature_distance: float
    intent_loss: float
    answer: str
    answer_without_query: str | None


def feature_tower() -> str:
    """Which tower :class:`FeatureDistance` sees with, for reports."""
    return f"{read_recognition_config().classifier.timm_model}, strides 2 to 32"


class FeatureDistance:
    """How far two pictures are apart in the features of the embedded judge's image tower.

    LPIPS's idea (Zhang et al., CVPR 2018) without its learned weights, hence not its name: at every position
    of every stride the features are scaled to unit length; squared distances, mean over positions, mean over
    strides. 0 for the same picture, 4 at most.

    Args:
        image_size: side of the pictures; the tower sees them in that size, rounded up to whole maps.
        device: where it computes.
    """

    def __init__(self, image_size: int, device: str | torch.device = "cpu") -> None:
        config = read_recognition_config()
        towers = PackagedTowers(
            kind="packaged", image_tower=config.classifier, text_tower=config.text_tower
        )
        self._side = whole_side(image_size)
        self._backbone = load_backbone(towers, _STRIDES, self._side).to(device)

    def __call__(self, first: Tensor, second: Tensor) -> list[float]:
        """Distances of float ``[B, 3, h, w]``, 0..1, pair by pair."""
        maps = zip(self._maps(first), self._maps(second), strict=True)
        strides = [(a - b).square().sum(1).mean((1, 2)) for a, b in maps]
        found: list[float] = torch.stack(strides).mean(0).tolist()
        return found

    def _maps(self, pictures: Tensor) -> list[Tensor]:
        size = (self._side, self._side)
        if pictures.shape[-2:] != size:
            pictures = functional.interpolate(
                pictures, size, mode="bilinear", align_corners=False, antialias=True
            )
        features = self._backbone.image_features(pictures)
        return [functional.normalize(features[stride], dim=1) for stride in _STRIDES]


class Meter:
    """Measures pictures. The same pictures in one call give the same numbers, whatever was measured before.

    Args:
        judge: who answers.
        image_size: side of the pictures in pixels.
        device: where the networks of eq. (11) and of the feature distance compute.
    """

    def __init__(self, judge: Judge, image_size: int, device: str | torch.device = "cpu") -> None:
        self.judge = judge
        self.features = FeatureDistance(image_size, device)
        self.intent = TowerIntentJudge(image_size).to(device)
        self._device = torch.device(device)

    def measure(
        self, sources: Sequence[Image.Image], shown: Sequence[Image.Image], queries: Sequence[str]
    ) -> list[Quality]:
        """One of each per row; pictures are RGB squares of the meter's side."""
        if not sources:
            return []
        rows = range(len(sources))
        distances: list[float] = []
        losses: list[float] = []
        for start in range(0, len(sources), _BATCH):
            part = slice(start, start + _BATCH)
            pair = self._tensor(sources[part]), self._tensor(shown[part])
            with torch.inference_mode():
                distances += self.features(*pair)
                losses += intent_distances(self.intent, *pair, queries[part]).hidden.tolist()
        answers: list[Answer] = self.judge.answer(shown, queries)
        return [
            Quality(
                psnr_db(sources[row], shown[row]),
                ms_ssim(sources[row], shown[row]),
                distances[row],
                losses[row],
                answers[row].text,
                answers[row].without_query,
            )
            for row in rows
        ]

    def _tensor(self, pictures: Sequence[Image.Image]) -> Tensor:
        return torch.cat([picture_to_tensor(one) for one in pictures]).to(self._device)
