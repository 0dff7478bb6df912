"""What a loaded Llava checkpoint consists of."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semantic.judges.answers import JudgeError


@dataclass(frozen=True)
class LlavaParts:
    """A loaded checkpoint.

    Args:
        model: transformers' ``LlavaForConditionalGeneration``.
        tokenizer: with the image token among its special tokens.
        image_token: its text.
        mean: per-channel mean that pictures in 0..1 are normalised with.
        std: per-channel spread, likewise.
        chat_template: jinja text; None means LLaVA-1.5's ``USER: ... ASSISTANT:``.
    """

    model: Any
    tokenizer: Any
    image_token: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    chat_template: str | None


def read_config(folder: Path) -> dict[str, Any]:
    """``config.json`` of a checkpoint.

    Raises:
        JudgeError: it is not there or not a JSON object.
    """
    file = folder / "config.json"
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise JudgeError(f"{file}: {error.strerror}; expected the folder of a checkpoint") from None
    except ValueError as error:
        raise JudgeError(f"{file}: not JSON ({error})") from None
    if not isinstance(found, dict):
        raise JudgeError(f"{file}: expected a JSON object")
    return found
