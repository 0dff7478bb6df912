"""The one door to the judges: who says whether the received picture still answers the question.

>>> judge = load_judge("recognition")                                   # doctest: +SKIP
>>> reference = ask_reference(judge, sources, queries)                  # doctest: +SKIP
>>> reference.agreement(judge.answer(received, queries)).kappa          # doctest: +SKIP

The paper judges with nanoLLaVA; here any Llava checkpoint in a local folder (:class:`LlavaJudge`), or
:class:`RecognitionJudge`, which needs no download. Every judge proves at the start that it answers a known
question about a known photo.
"""

from __future__ import annotations

from pathlib import Path

from semantic.judges.agreement import Agreement, Reference, ask_reference, kappa, matching
from semantic.judges.answers import Answer, Judge, JudgeError, SelfCheck, refuse_same_judge
from semantic.judges.llava import LlavaJudge
from semantic.judges.recognition import (
    RECOGNITION_JUDGES,
    SELF_CHECKS,
    RecognitionJudge,
    read_recognition_config,
)

__all__ = [
    "Agreement",
    "Answer",
    "Judge",
    "JudgeError",
    "LlavaJudge",
    "RecognitionJudge",
    "Reference",
    "SelfCheck",
    "ask_reference",
    "kappa",
    "load_judge",
    "matching",
    "refuse_same_judge",
]


def load_judge(name: str = "recognition", device: str = "cpu", *, self_check: bool = True) -> Judge:
    """Load a judge.

    Args:
        name: ``recognition``, which scores; ``recognition_lite0``, the same over the codecs' own tower; or
            the folder of a Llava checkpoint.
        device: where it computes.
        self_check: False skips the known question; for tests with random weights.

    Raises:
        JudgeError: a folder that is no checkpoint, or a failed self-check.
        WeightsError: an embedded tower that is missing or damaged.
    """
    if name in RECOGNITION_JUDGES:
        checks = SELF_CHECKS if self_check else ()
        return RecognitionJudge(read_recognition_config(name), device, checks, name)
    folder = Path(name)
    if not folder.is_dir():
        raise JudgeError(
            f"{name}: no such judge; expected {', '.join(RECOGNITION_JUDGES)} or the folder of a checkpoint"
        )
    return LlavaJudge(folder, device) if self_check else LlavaJudge(folder, device, self_check=())
