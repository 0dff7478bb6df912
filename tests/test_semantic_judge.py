"""The embedded judge, and what a match rate is worth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from semantic.backbone import WeightsError
from semantic.demo_photos import load_photo
from semantic.judge import (
    Answer,
    JudgeError,
    RecognitionJudge,
    SelfCheck,
    ask_reference,
    kappa,
    load_judge,
    refuse_same_judge,
)
from semantic.judges.agreement import another_each
from semantic.judges.answers import run_self_checks
from semantic.judges.recognition import read_recognition_config
from semantic.judges.vqa_text import normalize_answer


@pytest.fixture(scope="module")
def judge() -> RecognitionJudge:
    """With its self-check, as everybody gets it."""
    return RecognitionJudge()


def test_it_hears_the_question(judge: RecognitionJudge) -> None:
    photo = load_photo("astronaut", 160)
    asked, other = judge.answer([photo, photo], ["Is there a space shuttle?", "Is she smiling?"])
    assert asked.text == "space shuttle"
    assert other.text != "space shuttle"
    assert asked.without_query == other.without_query != "space shuttle"
    assert 0 < other.confidence < asked.confidence < 1


def test_answer_is_the_product_of_seeing_and_hearing(judge: RecognitionJudge) -> None:
    """Against the formula of DESIGN section 7 in NumPy, from similarities upwards."""
    photo, query = load_photo("chelsea", 160), "Is this a cat?"
    seen = np.exp(judge.log_classes([photo])[0].double().numpy())
    similarity = (judge.name_vectors @ judge.text_vectors([query])[0]).numpy()
    heard = np.exp(similarity.astype(float) / judge.config.temperature)
    product = seen * heard / heard.sum()
    product /= product.sum()
    (answer,) = judge.answer([photo], [query])
    assert answer.text == judge.class_names[int(product.argmax())]
    assert answer.confidence == pytest.approx(product.max(), rel=1e-4)
    assert answer.without_query == judge.class_names[int(seen.argmax())]
    assert seen.sum() == pytest.approx(1)


def test_temperature_turns_from_the_question_to_the_picture(judge: RecognitionJudge) -> None:
    photo = load_photo("coffee", 160)
    answers = []
    for temperature in (0.005, 100.0):
        answers += judge.with_temperature(temperature).answer([photo], ["Is this an elephant?"])
    assert "elephant" in answers[0].text
    assert answers[1].text == answers[1].without_query == "espresso"


def test_order_batch_and_size_do_not_matter(judge: RecognitionJudge) -> None:
    names = ["chelsea", "coffee", "rocket", "china"]
    pictures = [
        load_photo(name, side) for name, side in zip(names, (160, 90, 224, 300), strict=True)
    ]
    queries = ["Is this a cat?", "Is there a cup?", "Is it flying?", "Is this a temple?"]
    together = judge.answer(pictures, queries)
    alone = [judge.answer([p], [q])[0] for p, q in zip(pictures, queries, strict=True)]
    backwards = judge.answer(pictures[::-1], queries[::-1])[::-1]
    for a, b, c in zip(together, alone, backwards, strict=True):
        assert a.text == b.text == c.text
        assert a.confidence == pytest.approx(b.confidence, abs=1e-4)
        assert a.confidence == pytest.approx(c.confidence, abs=1e-4)
    assert judge.answer([], []) == []
    with pytest.raises(ValueError, match="2 pictures and 1 questions"):
        judge.answer(pictures[:2], queries[:1])


def test_it_is_frozen(judge: RecognitionJudge) -> None:
    assert not any(parameter.requires_grad for parameter in judge._towers.parameters())
    assert not judge.log_classes([load_photo("coffee", 160)]).requires_grad


def test_self_check_stops_a_judge_that_knows_no_cat(judge: RecognitionJudge) -> None:
    wrong = SelfCheck("coffee", "What is this?", ("tabby cat", "tiger cat"))
    with pytest.raises(
        JudgeError, match=r"'coffee' it answers .*expected 'tabby cat' or 'tiger cat'"
    ):
        run_self_checks(judge, [wrong])


def test_damaged_classifier_is_refused() -> None:
    config = read_recognition_config()
    other = config.classifier.model_copy(update={"sha256": "0" * 64})
    with pytest.raises(WeightsError, match="sha256"):
        RecognitionJudge(config.model_copy(update={"classifier": other}))


def test_another_network_than_the_codecs(judge: RecognitionJudge) -> None:
    """No loss may use the judge that scores; the codec's own tower must not judge either."""
    from semantic.codec_config import PackagedTowers, read_recipe

    backbone = read_recipe(Path("embedded")).codec.backbone
    assert isinstance(backbone, PackagedTowers)
    assert backbone.image_tower.sha256 != judge.config.classifier.sha256
    refuse_same_judge(judge, [None, "0" * 64])
    with pytest.raises(JudgeError, match="made to please"):
        refuse_same_judge(judge, [None, judge.identity])


def test_a_second_judge_is_another_one(judge: RecognitionJudge) -> None:
    """It answers at a transmitter, so it must be one that the judge that scores is not."""
    second = load_judge("recognition_lite0")
    assert second.name == "recognition_lite0"
    assert second.identity != judge.identity
    (answer,) = second.answer([load_photo("chelsea", 160)], ["Is this a cat?"])
    assert answer.text == "tiger cat"


def test_unknown_judge() -> None:
    with pytest.raises(
        JudgeError, match=r"no-such-folder.*recognition, recognition_lite0 or the folder"
    ):
        load_judge("no-such-folder")


# What a match rate is worth ----------------------------------------------------------------------


class Brightness:
    """A judge that can be computed by hand: "light" or "dark", or the question's last word."""

    name = "brightness"
    identity = "1" * 64

    def answer(self, pictures: Sequence[Image.Image], queries: Sequence[str]) -> list[Answer]:
        found = []
        for picture, query in zip(pictures, queries, strict=True):
            seen = "light" if np.asarray(picture).mean() > 128.5 else "dark"
            obeys = query.startswith("Say ")
            found.append(Answer(query.split()[-1] if obeys else seen, 1.0, seen))
        return found


def flat(level: int) -> Image.Image:
    return Image.new("RGB", (32, 32), (level, level, level))


def test_agreement_by_hand() -> None:
    light, dark = flat(250), flat(5)
    sources = [light, light, dark, dark]
    queries = ["How is it?", "Say yes", "How is it?", "How is it?"]
    judge = Brightness()
    reference = ask_reference(judge, sources, queries)
    # Grey counts as dark: rows 3 and 4 match it, row 2 always does. With two photos, each one's other
    # is the opposite: only the row that obeys matches.
    assert reference.chance_blank == 0.75
    assert reference.chance_unrelated == 0.25
    assert reference.chance == 0.75
    perfect = reference.agreement(judge.answer(sources, queries))
    assert (perfect.match, perfect.match_without_query, perfect.kappa) == (1, 1, 1)
    assert perfect.ci95 is not None
    assert perfect.ci95[1] == 1
    half = reference.agreement(judge.answer([light, light, dark, light], queries))
    assert (half.match, half.kappa) == (0.75, 0)


def test_a_judge_that_always_agrees_has_no_kappa() -> None:
    reference = ask_reference(Brightness(), [flat(9), flat(250)], ["Say yes", "Say yes"])
    agreement = reference.agreement(reference.answers)
    assert (reference.chance, agreement.match) == (1, 1)
    assert agreement.kappa is None
    assert agreement.ci95 is None


def test_one_photo_has_no_unrelated_one() -> None:
    photo = flat(250)
    reference = ask_reference(Brightness(), [photo, photo], ["How is it?", "Is it light?"])
    assert reference.chance_unrelated is None
    assert reference.chance == reference.chance_blank == 0
    with pytest.raises(ValueError, match="no pictures"):
        ask_reference(Brightness(), [], [])


def test_kappa_and_its_interval() -> None:
    assert kappa(0.8, 0.5) == pytest.approx(0.6)
    assert kappa(0.2, 0.5) == pytest.approx(-0.6)
    assert kappa(1.0, 1.0) is None
    # 400 photos, half light; nine tenths arrive as they were: chance 1/2, kappa 0.8 within 0.06.
    rng = np.random.default_rng(1)
    sources = [flat(250 if k % 2 else 5) for k in range(400)]
    received = [flat(5 if (k % 2) == (rng.random() < 0.1) else 250) for k in range(400)]
    judge = Brightness()
    queries = ["How is it?"] * 400
    reference = ask_reference(judge, sources, queries, seed=2)
    agreement = reference.agreement(judge.answer(received, queries))
    assert agreement.ci95 is not None
    low, high = agreement.ci95
    assert agreement.kappa is not None
    assert low < agreement.kappa < high
    # By the delta method at match 0.9 and chance 0.5: the two are estimated from the same 400 photos.
    deviation = math.sqrt((0.9 * 0.1 + 0.2**2 * 0.25) / 400) / 0.5
    assert high - low == pytest.approx(2 * 1.96 * deviation, rel=0.25)


@pytest.mark.parametrize("count", [2, 3, 10, 101])
def test_another_photo_for_each(count: int) -> None:
    others = another_each(count, seed=3)
    assert others is not None
    assert sorted(others) == list(range(count))
    assert not np.any(others == np.arange(count))
    assert another_each(1, seed=3) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Yes.", "yes"),
        ("  The Red ball!", "red ball"),
        ("There are TWO dogs", "there are 2 dogs"),
        ("1,000", "1000"),
        ("3.5 metres", "3.5 metres"),
        ("I don't know", "i dont know"),
        ("I don\u2019t know", "i dont know"),
        ("black/white", "black white"),
        ("a", ""),
    ],
)
def test_answers_in_words(text: str, expected: str) -> None:
    assert normalize_answer(text) == expected


def test_no_gradient_even_where_asked(judge: RecognitionJudge) -> None:
    with torch.enable_grad():
        assert not judge.log_relevance(["Is this a cat?"]).requires_grad
