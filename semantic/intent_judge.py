"""Who says how much of the user's intent a reconstruction keeps: the judge inside the loss, eq. (11).

>>> judge = load_intent_judge(recipe.training.intent, image_size=160)          # doctest: +SKIP
>>> intent_loss(judge, sources, reconstructed, queries).backward()             # doctest: +SKIP

The paper takes nanoLLaVA's hidden states at the image tokens. :class:`TowerIntentJudge` needs no download:
it looks with the codec's own frozen tower, EfficientNet-Lite0. Neither may be the judge that scores
received pictures (:func:`semantic.judge.refuse_same_judge`); hence :attr:`IntentJudge.identity`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from semantic.backbone import WeightsError, load_backbone, read_classifier, towers_digest
from semantic.codec_config import IntentConfig, PackagedTowers, read_recipe

# Maps of the image tower at strides 8, 16 and 32.
MAP_INDICES = (2, 3, 4)
# The coarsest map's sides are whole at multiples of its stride.
SIDE_STEP = 32
# Softmax temperature over class names given the query (cosine of sentence vectors).
NAME_TEMPERATURE = 0.02
# Steepness of the step from irrelevant to relevant, per standard deviation of the activation map.
RELEVANCE_SLOPE = 2.0
_NAMES_AT_ONCE = 50


class IntentJudge(Protocol):
    """What eq. (11) needs of a judge."""

    @property
    def identity(self) -> str:
        """Digest of its weights."""

    def hidden_states(self, pictures: Tensor, queries: Sequence[str]) -> Tensor:
        """How it sees pictures, given questions.

        Args:
            pictures: float ``[B, 3, h, w]``, 0..1; the result is differentiable in them.
            queries: B questions.

        Returns:
            float ``[B, N, W]``, N tokens.
        """


def intent_loss(
    judge: IntentJudge, pictures: Tensor, reconstructed: Tensor, queries: Sequence[str]
) -> Tensor:
    """User-intent relevance loss, eq. (11): mean over tokens and batch of 1 - cosine.

    Args:
        judge: whose hidden states are compared.
        pictures: sources, float ``[B, 3, h, w]``, 0..1.
        reconstructed: float ``[B, 3, h, w]``, not clipped; gradients reach it.
        queries: B questions.

    Returns:
        Scalar, 0 for identical pictures, 2 at most.
    """
    with torch.no_grad():
        wanted = judge.hidden_states(pictures, queries)
    # The receiver shows what is left after clipping, and so does the judge see it.
    found = judge.hidden_states(reconstructed.float().clamp(0, 1), queries)
    return (1 - functional.cosine_similarity(found.float(), wanted.float(), dim=-1)).mean()


class TowerIntentJudge(nn.Module):
    """Features of a frozen image tower, as far as the query concerns them.

    A token of the stride-16 grid holds the features of strides 8, 16 and 32 there, f (unit length, every
    stride with the same part), and its relevance r to the query, 0..1. Its hidden state is
    ``[r f, 1 - r]``: where the query concerns nothing all tokens look alike, whatever they show, so that
    the cosine of eq. (11) asks for likeness in the places that matter, and for the same places.

    Relevance is training-free: ImageNet class names compared with the query by the text tower weigh the
    class activation maps of the image tower (Zhou et al., CVPR 2016), standardised over the picture.

    Args:
        image_size: side of the pictures in pixels.
        towers: None means the embedded pair.

    Raises:
        WeightsError: a package that is missing or damaged, or the classifier that scores.
    """

    classifier: Tensor
    classifier_bias: Tensor
    name_vectors: Tensor

    def __init__(self, image_size: int, towers: PackagedTowers | None = None) -> None:
        super().__init__()
        config = towers or _embedded_towers()
        _refuse_the_scoring_classifier(config)
        self.identity = towers_digest(config)
        self.side = whole_side(image_size)
        self._backbone = load_backbone(config, MAP_INDICES, self.side)
        weight, bias = read_classifier(config.image_tower)
        self.register_buffer("classifier", weight)
        self.register_buffer("classifier_bias", bias)
        from open_clip import IMAGENET_CLASSNAMES

        self.register_buffer("name_vectors", self._embed(list(IMAGENET_CLASSNAMES)))
        self._class_weights: dict[str, Tensor] = {}
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> TowerIntentJudge:
        """A judge does not learn: evaluation mode always."""
        return super().train(False)

    @torch.no_grad()
    def _embed(self, texts: list[str]) -> Tensor:
        """Sentence vectors, float32 ``[N, width]``; in batches of like lengths, for padding costs time."""
        order = sorted(range(len(texts)), key=lambda number: len(texts[number]))
        found = torch.empty(len(texts), self._backbone.text_width)
        for start in range(0, len(texts), _NAMES_AT_ONCE):
            places = order[start : start + _NAMES_AT_ONCE]
            found[places] = self._backbone.text_features([texts[place] for place in places])
        return found

    def hidden_states(self, pictures: Tensor, queries: Sequence[str]) -> Tensor:
        """See :meth:`IntentJudge.hidden_states`: ``[B, (side/16)^2, 593]``."""
        maps, last = self._look(pictures)
        relevance = self._relevance(last, queries, maps[1].shape[-1])
        features = _hypercolumns(maps)
        return torch.cat([relevance * features, 1 - relevance], dim=1).flatten(2).transpose(1, 2)

    def relevance(self, pictures: Tensor, queries: Sequence[str]) -> Tensor:
        """Where the query concerns a picture: float ``[B, side/16, side/16]``, 0..1."""
        maps, last = self._look(pictures)
        return self._relevance(last, queries, maps[1].shape[-1])[:, 0]

    def _look(self, pictures: Tensor) -> tuple[list[Tensor], Tensor]:
        """Maps at strides 8, 16, 32, and the one the classifier stands on ``[B, 1280, h, h]``."""
        size = (self.side, self.side)
        if pictures.shape[-2:] != size:
            pictures = functional.interpolate(
                pictures, size, mode="bilinear", align_corners=False, antialias=True
            )
        normalised = (pictures - self._backbone.mean) / self._backbone.std
        found = self._backbone.towers.visual.forward_intermediates(
            normalised, indices=list(MAP_INDICES), output_fmt="NCHW"
        )
        return found["image_intermediates"], found["image_features"]

    def _relevance(self, last: Tensor, queries: Sequence[str], grid: int) -> Tensor:
        """Float ``[B, 1, grid, grid]``, 0..1."""
        weights = torch.stack([self._weights_of(query) for query in queries])
        # The weighted mean of the classes' activation maps is the map of one mean classifier.
        mean = weights @ self.classifier
        activation = torch.einsum("bchw,bc->bhw", last, mean)
        activation = activation + (weights @ self.classifier_bias)[:, None, None]
        level = activation.mean(dim=(1, 2), keepdim=True)
        spread = activation.var(dim=(1, 2), keepdim=True, correction=0).add(1e-6).sqrt()
        score = RELEVANCE_SLOPE * (activation - level) / spread
        larger = functional.interpolate(
            score[:, None], (grid, grid), mode="bilinear", align_corners=False
        )
        return larger.sigmoid()

    @torch.no_grad()
    def _weights_of(self, query: str) -> Tensor:
        """How much each ImageNet class has to do with a query: float32 ``[1000]``, sum 1."""
        if query not in self._class_weights:
            similarity = self._backbone.text_features([query])[0] @ self.name_vectors.T
            self._class_weights[query] = (similarity / NAME_TEMPERATURE).softmax(-1)
        return self._class_weights[query]


def whole_side(image_size: int) -> int:
    """The least side from ``image_size`` up at which all maps have whole sides."""
    return -(-image_size // SIDE_STEP) * SIDE_STEP


def _hypercolumns(maps: list[Tensor]) -> Tensor:
    """Three strides on the middle one's grid, unit length in all: float ``[B, channels, g, g]``."""
    fine, middle, coarse = maps
    size = middle.shape[-2:]
    columns = [
        functional.pixel_unshuffle(fine, fine.shape[-1] // middle.shape[-1]),
        middle,
        functional.interpolate(coarse, size, mode="bilinear", align_corners=False),
    ]
    return torch.cat([functional.normalize(c, dim=1) for c in columns], dim=1) / len(columns) ** 0.5


def _embedded_towers() -> PackagedTowers:
    towers = read_recipe(Path("embedded")).codec.backbone
    assert isinstance(towers, PackagedTowers)
    return towers


def _refuse_the_scoring_classifier(towers: PackagedTowers) -> None:
    from semantic.judges.recognition import read_recognition_config

    if towers.image_tower.sha256 == read_recognition_config().classifier.sha256:
        raise WeightsError(
            f"{towers.image_tower.package}: this classifier scores received pictures, so no loss may use it; "
            "take another tower"
        )


def load_intent_judge(
    config: IntentConfig, image_size: int, device: str | torch.device = "cpu"
) -> IntentJudge:
    """The judge of a recipe, on a device.

    Raises:
        WeightsError: an embedded tower that is missing or damaged.
        JudgeError: a Llava folder that is no checkpoint, or one that does not know a cat.
    """
    if config.judge == "tower":
        return TowerIntentJudge(image_size).to(device)
    assert config.path is not None  # the configuration insists
    from semantic.judges.llava import LlavaJudge

    return LlavaJudge(config.path, device)
