"""Llava checkpoints from folders on this machine.

Weights are safetensors, no code that comes with a checkpoint is run, nothing is fetched, and a checkpoint
that lacks a tensor is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from semantic.backbone import quiet_offline
from semantic.judges.answers import JudgeError
from semantic.judges.llava_parts import LlavaParts, read_config
from semantic.judges.nanollava import MODEL_TYPES, load_nanollava
from semantic.torchvision_operators import declare_missing_operators

# LLaVA-1.5's prompt, for checkpoints that bring no chat template.
_PLAIN_PROMPT = "USER: {text} ASSISTANT:"
_PROBE = "what the user says"


def fill_template(parts: LlavaParts, text: str) -> str:
    """A prompt that ends where the answer begins."""
    template = parts.chat_template
    if template is None:
        return _PLAIN_PROMPT.format(text=text)
    # Templates of multimodal processors want a list of typed parts, those of plain tokenizers a string.
    # Everything goes in as one text, so that the order of question and picture is ours.
    content: Any = [{"type": "text", "text": text}] if "type" in template else text
    message = [{"role": "user", "content": content}]
    filled: str = parts.tokenizer.apply_chat_template(
        message, chat_template=template, tokenize=False, add_generation_prompt=True
    )
    return filled


def load_llava(folder: Path, dtype: torch.dtype) -> LlavaParts:
    """Load a checkpoint folder.

    Raises:
        JudgeError: naming what is missing or wrong.
    """
    kind = read_config(folder).get("model_type")
    if not any(folder.glob("*.safetensors")):
        raise JudgeError(f"{folder}: no *.safetensors; weights in other formats are not read")
    declare_missing_operators()
    if kind != "llava" and kind not in MODEL_TYPES:
        raise JudgeError(f"{folder}: model_type is {kind!r}, expected llava or nanoLLaVA")
    load = _load_native if kind == "llava" else load_nanollava
    try:
        with quiet_offline():
            parts = load(folder, dtype)
    except JudgeError:
        raise
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        # What transformers answers to an incomplete or damaged checkpoint.
        raise JudgeError(f"{folder}: cannot be loaded ({error})") from None
    if _PROBE not in fill_template(parts, _PROBE):
        raise JudgeError(f"{folder}: its chat template does not take a question as text")
    return parts


def _load_native(folder: Path, dtype: torch.dtype) -> LlavaParts:
    """A checkpoint in transformers' own Llava format."""
    from transformers import AutoProcessor, LlavaForConditionalGeneration

    processor = AutoProcessor.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False
    )
    model, report = LlavaForConditionalGeneration.from_pretrained(
        folder,
        dtype=dtype,
        local_files_only=True,
        use_safetensors=True,
        output_loading_info=True,
    )
    # transformers fills what is missing with random numbers and goes on; a judge must not.
    lacking = sorted(report["missing_keys"]) + sorted(map(str, report["mismatched_keys"]))
    if lacking:
        raise JudgeError(
            f"{folder}: {len(lacking)} tensors are missing or misshapen: {lacking[0]}, ..."
        )
    images = processor.image_processor
    return LlavaParts(
        model,
        processor.tokenizer,
        processor.image_token,
        tuple(images.image_mean),
        tuple(images.image_std),
        processor.chat_template or processor.tokenizer.chat_template,
    )
