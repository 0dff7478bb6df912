"""The embedded judge: an ImageNet classifier that hears the question.

``answer = argmax over classes of p(class | picture) * softmax(similarity(class name, query) / tau)``

p comes from EfficientNet-Lite2, a network that no codec here sees with or is trained by (or, as
``recognition_lite0``, from the one that codecs do see with: not to score them); the similarity from
MiniLM-L6 sentence vectors. It cannot say yes or no, count, or name a colour: it says which of the
1000 ImageNet classes it sees, and leans towards those that the question is about.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import yaml
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from semantic.backbone import load_backbone, read_classifier, towers_digest
from semantic.codec_config import ImageTowerConfig, PackagedTowers, TextTowerConfig
from semantic.judges.answers import Answer, SelfCheck, check_pairs, run_self_checks

_BATCH = 16
_TEXT_BATCH = 100

# The second one is answered by the question: unasked, the judge sees a helmet in that photo.
SELF_CHECKS = (
    SelfCheck("chelsea", "Is this a cat?", ("tabby cat", "tiger cat", "Egyptian Mau")),
    SelfCheck("astronaut", "Is there a space shuttle?", ("space shuttle",)),
)


class RecognitionConfig(BaseModel):
    """What the judge is made of.

    Args:
        classifier: an ImageNet classifier inside a Python package.
        text_tower: sentence vectors for class names and questions.
        input_size: side in pixels to which pictures are scaled.
        temperature: tau; small means that the question decides, large that it is not heard.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    classifier: ImageTowerConfig
    text_tower: TextTowerConfig
    input_size: int = Field(ge=32)
    temperature: float = Field(gt=0)


# The judge that scores, and another network for whoever must not be that one.
RECOGNITION_JUDGES = ("recognition", "recognition_lite0")


def read_recognition_config(name: str = RECOGNITION_JUDGES[0]) -> RecognitionConfig:
    """The shipped configuration of one of :data:`RECOGNITION_JUDGES`."""
    file = Path(__file__).with_name(f"{name}.yaml")
    return RecognitionConfig.model_validate(yaml.safe_load(file.read_text("utf-8")))


class RecognitionJudge:
    """Says which ImageNet class a picture shows, given a question.

    Args:
        config: None means the shipped one.
        device: where to compute.
        self_check: questions that it must answer rightly before anything else; empty to skip.
        name: for reports.

    Raises:
        WeightsError: a package that is missing, damaged or another version.
        JudgeError: the self-check failed.
    """

    def __init__(
        self,
        config: RecognitionConfig | None = None,
        device: str | torch.device = "cpu",
        self_check: Sequence[SelfCheck] = SELF_CHECKS,
        name: str = RECOGNITION_JUDGES[0],
    ) -> None:
        self.name = name
        self.config = config or read_recognition_config()
        towers = PackagedTowers(
            kind="packaged",
            image_tower=self.config.classifier,
            text_tower=self.config.text_tower,
        )
        self.identity = towers_digest(towers)
        self._device = torch.device(device)
        self._towers = load_backbone(towers, [4], self.config.input_size).to(self._device)
        weight, bias = read_classifier(self.config.classifier)
        self._weight, self._bias = weight.to(self._device), bias.to(self._device)
        self.class_names = class_names()
        self.name_vectors = self.text_vectors(self.class_names)
        run_self_checks(self, self_check)

    def with_temperature(self, temperature: float) -> RecognitionJudge:
        """The same judge with another tau; towers are shared."""
        other = copy.copy(self)
        other.config = self.config.model_copy(update={"temperature": temperature})
        return other

    def answer(self, pictures: Sequence[Image.Image], queries: Sequence[str]) -> list[Answer]:
        """One class per picture and question; a picture object given twice is looked at once."""
        check_pairs(pictures, queries)
        if not pictures:
            return []
        distinct = {id(picture): picture for picture in pictures}
        seen = dict(zip(distinct, self.log_classes(list(distinct.values())), strict=True))
        asked = list(dict.fromkeys(queries))
        heard = dict(zip(asked, self.log_relevance(asked), strict=True))
        return [
            self._answer(seen[id(picture)], heard[query])
            for picture, query in zip(pictures, queries, strict=True)
        ]

    def _answer(self, log_classes: Tensor, log_relevance: Tensor) -> Answer:
        posterior = (log_classes + log_relevance).softmax(-1)
        best = int(posterior.argmax())
        unasked = int(log_classes.argmax())
        return Answer(self.class_names[best], float(posterior[best]), self.class_names[unasked])

    @torch.inference_mode()
    def log_classes(self, pictures: Sequence[Image.Image]) -> Tensor:
        """Logarithm of p(class | picture), no question asked: float32 ``[N, 1000]``."""
        found = []
        for start in range(0, len(pictures), _BATCH):
            batch = self._batch(pictures[start : start + _BATCH])
            maps = self._towers.towers.visual((batch - self._towers.mean) / self._towers.std)
            logits = torch.nn.functional.linear(maps.mean((2, 3)), self._weight, self._bias)
            found.append(logits.log_softmax(-1))
        return torch.cat(found)

    @torch.inference_mode()
    def log_relevance(self, queries: Sequence[str]) -> Tensor:
        """Logarithm of softmax(similarity(class name, query) / tau): float32 ``[N, 1000]``."""
        similarity = self.text_vectors(queries) @ self.name_vectors.T
        return (similarity / self.config.temperature).log_softmax(-1)

    @torch.inference_mode()
    def text_vectors(self, texts: Sequence[str]) -> Tensor:
        """Unit-length sentence vectors, float32 ``[N, width]``."""
        # Short and long texts apart, because a batch is padded to its longest.
        order = sorted(range(len(texts)), key=lambda number: len(texts[number]))
        vectors = [
            self._towers.text_features([texts[k] for k in order[start : start + _TEXT_BATCH]])
            for start in range(0, len(order), _TEXT_BATCH)
        ]
        places = torch.tensor(order).argsort()
        return torch.cat(vectors)[places.to(self._device)]

    def _batch(self, pictures: Sequence[Image.Image]) -> Tensor:
        """float32 ``[N, 3, side, side]``, 0..1."""
        size = (self.config.input_size, self.config.input_size)
        scaled = [p.convert("RGB").resize(size, Image.Resampling.BICUBIC) for p in pictures]
        pixels = np.stack([np.asarray(picture, np.float32) for picture in scaled]) / 255
        return torch.from_numpy(pixels.transpose(0, 3, 1, 2)).contiguous().to(self._device)


def class_names() -> list[str]:
    """Names of the 1000 ImageNet classes in the order of their indices, as open_clip words them."""
    from open_clip import IMAGENET_CLASSNAMES

    return list(IMAGENET_CLASSNAMES)
