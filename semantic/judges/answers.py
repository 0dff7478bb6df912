"""What every judge has in common: an answer to a question about a picture, and a check at the start."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from PIL import Image

from semantic.demo_photos import load_photo

# Larger than what any codec here makes; a judge scales pictures to its own size.
_SELF_CHECK_SIDE = 224


class JudgeError(RuntimeError):
    """A judge that cannot be loaded, or that does not know a cat when it sees one."""


@dataclass(frozen=True)
class Answer:
    """One judge's answer to one question about one picture.

    Args:
        text: the answer; two answers match when their texts are equal.
        confidence: the judge's own probability of it, 0..1.
        without_query: what the judge says when no question is asked; None where it always needs one.
    """

    text: str
    confidence: float
    without_query: str | None = None


class Judge(Protocol):
    """Answers questions about pictures; never part of the loss that trained what it scores."""

    @property
    def name(self) -> str:
        """Short name for reports."""

    @property
    def identity(self) -> str:
        """Digest of its weights: two judges with the same one are the same judge."""

    def answer(self, pictures: Sequence[Image.Image], queries: Sequence[str]) -> list[Answer]:
        """One answer per picture and question.

        Args:
            pictures: N RGB pictures of any size.
            queries: N questions.
        """


@dataclass(frozen=True)
class SelfCheck:
    """A photo of the demo, a question about it, and the answers a sound judge may give.

    Args:
        photo: name of a demo photo.
        question: asked about it.
        accepted: any of these will do.
    """

    photo: str
    question: str
    accepted: tuple[str, ...]


def check_pairs(pictures: Sequence[Image.Image], queries: Sequence[str]) -> None:
    """Raise ValueError unless there is one question per picture."""
    if len(pictures) != len(queries):
        raise ValueError(f"{len(pictures)} pictures and {len(queries)} questions")


def run_self_checks(judge: Judge, checks: Sequence[SelfCheck]) -> None:
    """Ask a judge what is known.

    Raises:
        JudgeError: naming the photo, the question, the answer and what was expected.
    """
    if not checks:
        return
    pictures = [load_photo(check.photo, _SELF_CHECK_SIDE) for check in checks]
    answers = judge.answer(pictures, [check.question for check in checks])
    for check, answer in zip(checks, answers, strict=True):
        if answer.text not in check.accepted:
            raise JudgeError(
                f"judge {judge.name}: asked {check.question!r} about the photo {check.photo!r} it answers "
                f"{answer.text!r}, expected {' or '.join(map(repr, check.accepted))}; its weights or its "
                "settings are wrong, no score of it would mean anything"
            )


def refuse_same_judge(judge: Judge, pleased: Iterable[str | None]) -> None:
    """No loss may use the judge that scores, neither in training nor in a search at the transmitter.

    Args:
        judge: the one about to score.
        pleased: identities of the judges in the losses; None where there was none.

    Raises:
        JudgeError: they are the same.
    """
    if judge.identity in pleased:
        raise JudgeError(
            f"judge {judge.name}: what is sent was made to please this very judge; take another one"
        )
