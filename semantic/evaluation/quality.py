"""How good a picture shown is: fidelity, features, the user's intent, and a judge's answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from semantic.backbone import load_backbone
from semantic.codec.vq_codec import picture_to_tensor
from semantic.codec_config import PackagedTowers
from semantic.evaluation.table import QUALITY
from semantic.intent_judge import TowerIntentJudge, intent_distances, whole_side
from semantic.judge import Answer, Judge, Reference
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


@dataclass(frozen=True)
class SourceAnswers:
    """What a judge says about the source of one row, and whether chance would say the same.

    Args:
        source_answer: to the row's question.
        source_answer_without_query: to none; None where the judge needs one.
        blank_match: a grey picture gets the same answer.
        unrelated_match: likewise another photo of the set; None where there is none.
    """

    source_answer: str
    source_answer_without_query: str | None
    blank_match: bool
    unrelated_match: bool | None

    @classmethod
    def of(cls, reference: Reference, row: int) -> SourceAnswers:
        """One row of :func:`semantic.judge.ask_reference`."""
        answer, unrelated = reference.answers[row], reference.unrelated_matches
        return cls(
            answer.text,
            answer.without_query,
            bool(reference.blank_matches[row]),
            None if unrelated is None else bool(unrelated[row]),
        )


def quality_columns(quality: Quality | None, source: SourceAnswers) -> dict[str, Any]:
    """One row's part of the table: the columns of :data:`semantic.evaluation.table.QUALITY`.

    Args:
        quality: of the picture shown; None where the system could not code it.
        source: what it is held against.
    """
    chance = {
        "answer_source": source.source_answer,
        "blank_match": source.blank_match,
        "unrelated_match": source.unrelated_match,
    }
    if quality is None:
        return dict.fromkeys(QUALITY) | chance
    found = asdict(quality)
    received, wanted = found.pop("answer_without_query"), source.source_answer_without_query
    agrees = {
        "match": quality.answer == source.source_answer,
        "match_without_query": None if wanted is None else received == wanted,
    }
    return chance | found | agrees


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
