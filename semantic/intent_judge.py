"""Who says how much of the user's intent a reconstruction keeps: the judge inside the loss, eq. (11).

>>> judge = load_intent_judge(recipe.training.intent, image_size=160)          # doctest: +SKIP
>>> intent_loss(judge, sources, reconstructed, queries).backward()             # doctest: +SKIP

The paper takes nanoLLaVA's hidden states at the image tokens. :class:`TowerIntentJudge` needs no download:
it looks with the codec's own frozen tower, EfficientNet-Lite0. Neither may be the judge that scores
received pictures (:func:`semantic.judge.refuse_same_judge`); hence :attr:`IntentJudge.identity`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
# The same where it answers: the picture decides and the question leans.
ANSWER_TEMPERATURE = 0.1
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


@dataclass(frozen=True)
class Look:
    """What a judge makes of pictures, given questions.

    Args:
        hidden_states: float ``[B, N, W]``.
        log_answers: log-probability of each of its C answers, float ``[B, C]``.
    """

    hidden_states: Tensor
    log_answers: Tensor


class AnsweringJudge(IntentJudge, Protocol):
    """A judge that also says how likely it holds each of its answers."""

    def look(self, pictures: Tensor, queries: Sequence[str]) -> Look:
        """Hidden states and answers in one pass, arguments as of :meth:`hidden_states`."""


@dataclass(frozen=True)
class IntentDistances:
    """How far reconstructions are from their sources in the eyes of a judge.

    Args:
        hidden: eq. (11) picture by picture: mean over tokens of 1 - cosine, float ``[B]``, 0..2.
        answers: Kullback-Leibler divergence of the answers to the reconstruction from those to the source,
            in nats, float ``[B]``; None where nobody asked for it.
    """

    hidden: Tensor
    answers: Tensor | None = None


def intent_distances(
    judge: IntentJudge, pictures: Tensor, reconstructed: Tensor, queries: Sequence[str]
) -> IntentDistances:
    """Eq. (11), picture by picture.

    Args:
        judge: whose hidden states are compared.
        pictures: sources, float ``[B, 3, h, w]``, 0..1.
        reconstructed: float ``[B, 3, h, w]``, not clipped; gradients reach it.
        queries: B questions.
    """
    with torch.no_grad():
        wanted = judge.hidden_states(pictures, queries)
    found = judge.hidden_states(_shown(reconstructed), queries)
    return IntentDistances(_apart(found, wanted))


def answer_distances(
    judge: AnsweringJudge, pictures: Tensor, reconstructed: Tensor, queries: Sequence[str]
) -> IntentDistances:
    """Eq. (11) and the divergence of the answers, picture by picture; see :func:`intent_distances`."""
    with torch.no_grad():
        wanted = judge.look(pictures, queries)
    found = judge.look(_shown(reconstructed), queries)
    divergence = functional.kl_div(
        found.log_answers.float(), wanted.log_answers.float(), reduction="none", log_target=True
    )
    return IntentDistances(_apart(found.hidden_states, wanted.hidden_states), divergence.sum(-1))


def _shown(reconstructed: Tensor) -> Tensor:
    # The receiver shows what is left after clipping, and so does the judge see it.
    return reconstructed.float().clamp(0, 1)


def _apart(found: Tensor, wanted: Tensor) -> Tensor:
    return (1 - functional.cosine_similarity(found.float(), wanted.float(), dim=-1)).mean(-1)


def intent_loss(
    judge: IntentJudge, pictures: Tensor, reconstructed: Tensor, queries: Sequence[str]
) -> Tensor:
    """User-intent relevance loss, eq. (11): :func:`intent_distances`, mean over the batch.

    Returns:
        Scalar, 0 for identical pictures, 2 at most.
    """
    return intent_distances(judge, pictures, reconstructed, queries).hidden.mean()


class TowerIntentJudge(nn.Module):
    """Features of a frozen image tower, as far as the query concerns them.

    A token of the stride-16 grid holds the features of strides 8, 16 and 32 there, f (unit length, every
    stride with the same part), and its relevance r to the query, 0..1. Its hidden state is
    ``[r f, 1 - r]``: where the query concerns nothing all tokens look alike, whatever they show, so that
    the cosine of eq. (11) asks for likeness in the places that matter, and for the same places.

    Relevance is training-free: ImageNet class names compared with the query by the text tower weigh the
    class activation maps of the image tower (Zhou et al., CVPR 2016), standardised over the picture.

    Args:
        image_size: side in pixels to which pictures are scaled, rounded up to :data:`SIDE_STEP`.
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
        self._log_asked: dict[str, Tensor] = {}
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
        return self._states(*self._maps(pictures), queries)

    def look(self, pictures: Tensor, queries: Sequence[str]) -> Look:
        """See :meth:`AnsweringJudge.look`.

        Its answers are the 1000 ImageNet classes, p(class | picture) times softmax(similarity(class name,
        query) / :data:`ANSWER_TEMPERATURE`): the embedded judge's formula with another classifier.
        """
        maps, last = self._maps(pictures)
        logits = functional.linear(last.mean((2, 3)), self.classifier, self.classifier_bias)
        asked = torch.stack([self._asked(query) for query in queries])
        answers = (logits.log_softmax(-1) + asked).log_softmax(-1)
        return Look(self._states(maps, last, queries), answers)

    def _states(self, maps: list[Tensor], last: Tensor, queries: Sequence[str]) -> Tensor:
        """Hidden states from what :meth:`_maps` gives."""
        relevance = self._relevance(last, queries, maps[1].shape[-1])
        features = _hypercolumns(maps)
        return torch.cat([relevance * features, 1 - relevance], dim=1).flatten(2).transpose(1, 2)

    def relevance(self, pictures: Tensor, queries: Sequence[str]) -> Tensor:
        """Where the query concerns a picture: float ``[B, side/16, side/16]``, 0..1."""
        maps, last = self._maps(pictures)
        return self._relevance(last, queries, maps[1].shape[-1])[:, 0]

    def _maps(self, pictures: Tensor) -> tuple[list[Tensor], Tensor]:
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

    def _weights_of(self, query: str) -> Tensor:
        """How much each ImageNet class has to do with a query: float32 ``[1000]``, sum 1."""
        if query not in self._class_weights:
            self._class_weights[query] = (self._likeness(query) / NAME_TEMPERATURE).softmax(-1)
        return self._class_weights[query]

    def _asked(self, query: str) -> Tensor:
        """How much a query leans towards each ImageNet class: log-probabilities, float32 ``[1000]``."""
        if query not in self._log_asked:
            self._log_asked[query] = (self._likeness(query) / ANSWER_TEMPERATURE).log_softmax(-1)
        return self._log_asked[query]

    @torch.no_grad()
    def _likeness(self, query: str) -> Tensor:
        """Cosine between a query and the name of each ImageNet class: float32 ``[1000]``."""
        return self._backbone.text_features([query])[0] @ self.name_vectors.T


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
        return TowerIntentJudge(config.side or image_size).to(device)
    assert config.path is not None  # the configuration insists
    from semantic.judges.llava import LlavaJudge

    return LlavaJudge(config.path, device)
