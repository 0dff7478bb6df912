"""Eq. (11) with the embedded judge: it hears the question, and the decoder hears it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from semantic.backbone import WeightsError
from semantic.codec.vq_codec import picture_to_tensor
from semantic.codec_config import CodecConfig, IntentConfig, PackagedTowers, read_recipe
from semantic.demo_photos import load_photo
from semantic.intent_judge import (
    TowerIntentJudge,
    answer_distances,
    intent_distances,
    intent_loss,
    whole_side,
)
from semantic.judges.recognition import read_recognition_config
from semantic.model import CodecModel

# Left photo, right photo, and a question about each.
PAIRS = [
    ("chelsea", "coffee", "Is there a cat?", "Is there a cup of coffee?"),
    ("motorcycle_left", "chelsea", "Is there a motorcycle?", "Is there a cat?"),
]


@pytest.fixture(scope="module")
def judge() -> TowerIntentJudge:
    return TowerIntentJudge(160)


def _beside(left: str, right: str) -> Tensor:
    """Two photos side by side in one picture, 0..1."""
    halves = [picture_to_tensor(load_photo(name, 160))[..., 40:120] for name in (left, right)]
    return torch.cat(halves, dim=-1)


def _blurred(picture: Tensor, columns: slice) -> Tensor:
    soft = functional.avg_pool2d(picture, 9, 1, 4, count_include_pad=False)
    damaged = picture.clone()
    damaged[..., columns] = soft[..., columns]
    return damaged


class _KnownStates:
    """A judge whose hidden states are two tokens that the picture's mean turns."""

    identity = "known"

    def hidden_states(self, pictures: Tensor, queries: Sequence[str]) -> Tensor:
        angle = pictures.mean(dim=(1, 2, 3))
        turning = torch.stack([angle.cos(), angle.sin()], dim=-1)
        return torch.stack([turning, torch.ones_like(turning)], dim=1)


def test_intent_loss_is_the_mean_cosine_distance() -> None:
    pictures, found = torch.full((2, 3, 4, 4), 0.2), torch.full((2, 3, 4, 4), 0.9)
    expected = ((1 - np.cos(0.9 - 0.2)) + 0) / 2
    assert float(intent_loss(_KnownStates(), pictures, found, ["a", "b"])) == pytest.approx(
        expected
    )
    # The receiver shows clipped pixels: what is beyond white looks like white.
    white = torch.ones(1, 3, 4, 4)
    assert float(intent_loss(_KnownStates(), white, 1.5 * white, ["a"])) == pytest.approx(
        0, abs=1e-6
    )


@pytest.mark.parametrize(("left", "right", "ask_left", "ask_right"), PAIRS)
def test_value_depends_on_the_question(
    judge: TowerIntentJudge, left: str, right: str, ask_left: str, ask_right: str
) -> None:
    """Damage counts where the question points."""
    source = _beside(left, right)
    loss = {
        (side, question): float(intent_loss(judge, source, _blurred(source, columns), [question]))
        for side, columns in (("left", slice(0, 80)), ("right", slice(80, 160)))
        for question in (ask_left, ask_right)
    }
    assert loss["left", ask_left] > 1.5 * loss["left", ask_right]
    assert loss["right", ask_right] > 1.5 * loss["right", ask_left]
    assert float(intent_loss(judge, source, source, [ask_left])) == pytest.approx(0, abs=1e-6)


def test_relevance_lies_where_the_object_is(judge: TowerIntentJudge) -> None:
    for left, right, ask_left, ask_right in PAIRS:
        relevance = judge.relevance(
            _beside(left, right).expand(2, -1, -1, -1), [ask_left, ask_right]
        )
        assert relevance.shape == (2, 10, 10)
        assert float(relevance.min()) >= 0
        assert float(relevance.max()) <= 1
        assert float(relevance[0, :, :5].mean()) > float(relevance[0, :, 5:].mean()) + 0.2
        assert float(relevance[1, :, 5:].mean()) > float(relevance[1, :, :5].mean()) + 0.2


def test_hidden_states_are_relevant_features_and_what_is_left(judge: TowerIntentJudge) -> None:
    picture = _beside("chelsea", "coffee")
    states = judge.hidden_states(picture, ["Is there a cat?"])
    assert states.shape == (1, 100, 4 * 40 + 112 + 320 + 1)
    relevance = judge.relevance(picture, ["Is there a cat?"]).flatten(1)
    torch.testing.assert_close(states[..., -1], 1 - relevance)
    torch.testing.assert_close(states[..., :-1].norm(dim=-1), relevance)


def test_answers_are_class_and_question(judge: TowerIntentJudge) -> None:
    """log p(class | picture) + log softmax(cosine / 0.1), normalised."""
    from open_clip import IMAGENET_CLASSNAMES

    picture = _beside("chelsea", "coffee").expand(2, -1, -1, -1)
    questions = ["Is there a cat?", "Is there a cup of coffee?"]
    answers = judge.look(picture, questions).log_answers
    torch.testing.assert_close(answers.exp().sum(-1), torch.ones(2))
    assert "cat" in IMAGENET_CLASSNAMES[int(answers[0].argmax())]
    mug = IMAGENET_CLASSNAMES.index("coffee mug")
    assert float(answers[1, mug]) > float(answers[0, mug]) + 1
    # Without a question in the sum there is one distribution of classes for both.
    asked = torch.stack([judge._asked(question) for question in questions])
    unasked = (answers - asked).log_softmax(-1)
    torch.testing.assert_close(unasked[0], unasked[1], atol=1e-3, rtol=1e-3)


def test_distance_of_answers_is_the_divergence(judge: TowerIntentJudge) -> None:
    source = _beside("chelsea", "coffee")
    damaged = _blurred(source, slice(0, 80))
    found = answer_distances(judge, source, damaged, ["Is there a cat?"])
    p, q = (
        judge.look(picture, ["Is there a cat?"]).log_answers[0].double().numpy()
        for picture in (source, damaged)
    )
    assert found.answers is not None
    assert float(found.answers) == pytest.approx(float((np.exp(p) * (p - q)).sum()), rel=1e-3)
    assert float(found.answers) > 0.01
    alone = intent_distances(judge, source, damaged, ["Is there a cat?"])
    torch.testing.assert_close(found.hidden, alone.hidden)
    assert alone.answers is None
    same = answer_distances(judge, source, source, ["Is there a cat?"])
    assert same.answers is not None
    assert float(same.answers) == pytest.approx(0, abs=1e-5)


def test_questions_of_a_batch_do_not_mix(judge: TowerIntentJudge) -> None:
    picture = _beside("chelsea", "coffee")
    questions = ["Is there a cat?", "Is there a cup of coffee?"]
    both = judge.hidden_states(picture.expand(2, -1, -1, -1), questions)
    for number, question in enumerate(questions):
        alone = judge.hidden_states(picture, [question])[0]
        torch.testing.assert_close(both[number], alone, atol=1e-4, rtol=1e-3)


def test_gradient_reaches_the_decoder_and_no_tower(judge: TowerIntentJudge) -> None:
    torch.manual_seed(0)
    data = read_recipe(Path("tiny")).codec.model_dump()
    model = CodecModel(CodecConfig.model_validate(data)).train()
    judge.train()
    pictures = torch.rand(2, 3, 32, 32)
    queries = ["Is there a cat?", "How many?"]
    result = model(model.backbone.image_features(pictures), model.query_features(queries))
    # The judge enlarges nothing: 32 pixels are a step of its own, so look at 160.
    large = functional.interpolate(result.pictures, size=(160, 160), mode="bilinear")
    intent_loss(
        judge, _beside("chelsea", "coffee").expand(2, -1, -1, -1), large, queries
    ).backward()
    for name, parameter in model.decoder.named_parameters():
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().sum()) > 0, name
    # And through the straight-through quantiser the encoder's projection.
    assert float(model.alignments[0].project_image[0].weight.grad.abs().sum()) > 0
    assert all(p.grad is None and not p.requires_grad for p in judge.parameters())
    assert not any(module.training for module in judge.modules())


def test_pictures_of_another_size_are_brought_to_the_judges(judge: TowerIntentJudge) -> None:
    assert [whole_side(size) for size in (32, 40, 160, 224, 225)] == [32, 64, 160, 224, 256]
    assert judge.side == 160
    assert judge.hidden_states(torch.rand(1, 3, 40, 40), ["Is there a cat?"]).shape == (1, 100, 593)


def test_the_judge_that_scores_may_not_teach() -> None:
    scoring = read_recognition_config()
    towers = PackagedTowers(
        kind="packaged", image_tower=scoring.classifier, text_tower=scoring.text_tower
    )
    with pytest.raises(WeightsError, match="scores received pictures"):
        TowerIntentJudge(160, towers)
    with pytest.raises(ValueError, match="must not teach"):
        IntentConfig(weight=1.0, judge="recognition")
