"""nanoLLaVA (huggingface.co/qnguyen3/nanoLLaVA) in transformers' native Llava classes.

The checkpoint comes with Python code of its own, which is not run here. Its tensors are renamed instead.

NOT RUN WITH REAL WEIGHTS: the weights were not at hand. Tested on synthetic checkpoints of the same layout.

Where the layout is known from:

- tensor names: ``sanitize`` in github.com/Blaizzy/mlx-vlm, ``mlx_vlm/models/llava_bunny/llava_bunny.py``
  (``model.vision_tower.vision_tower.vision_model.*`` with an attention-pooling head, ``model.mm_projector.0``
  and ``.2``, ``model.{embed_tokens,layers,norm}``, ``lm_head``);
- sizes: ``llava_bunny/config.py`` there (SigLIP so400m, 27 layers of 1152, 384 pixels, patches of 14);
  language model Qwen1.5-0.5B, whose values stand in the top level of ``config.json``;
- last but one layer of the vision tower: OpenVINO's notebook ``nano-llava-multimodal-chatbot`` counts 159
  weight matrices in the image encoder that it converts: 26 layers of 6, the projector's 2 and the patch
  embedding; its 2.10 GB of weights hold 27 layers and the head;
- ChatML prompts with the text ``<image>`` as the picture's place: the same notebook.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from semantic.judges.answers import JudgeError
from semantic.judges.llava_parts import LlavaParts, read_config

MODEL_TYPES = ("llava-qwen2", "llava_qwen2")
IMAGE_TOKEN = "<image>"
VISION_FEATURE_LAYER = -2
# What the checkpoint's code expands to a picture; no row of the embedding belongs to it.
MEAN = STD = (0.5, 0.5, 0.5)

# Order matters: the first pattern that fits.
KEY_MAP = (
    (r"model\.vision_tower\.vision_tower\.vision_model\.", "model.vision_tower."),
    (r"model\.mm_projector\.0\.", "model.multi_modal_projector.linear_1."),
    (r"model\.mm_projector\.2\.", "model.multi_modal_projector.linear_2."),
    (r"model\.(?=embed_tokens\.|layers\.|norm\.)", "model.language_model."),
    (r"lm_head\.", "lm_head."),
)
# The pooling head of SigLIP, which LLaVA does not use, and tables that are computed, not stored.
UNUSED = re.compile(r".*\.vision_model\.head\..*|.*\.position_ids|.*\.rotary_emb\.inv_freq")

# SigLIP so400m/14 at 384, for a config.json that does not say.
_SIGLIP = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "image_size": 384,
    "patch_size": 14,
    "layer_norm_eps": 1e-6,
    "hidden_act": "gelu_pytorch_tanh",
}
_QWEN_KEYS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "hidden_act",
    "max_position_embeddings",
    "rms_norm_eps",
    "tie_word_embeddings",
    "bos_token_id",
    "eos_token_id",
)


def remap_names(names: Iterable[str]) -> dict[str, str]:
    """Old tensor name -> name in ``LlavaForConditionalGeneration``; unused tensors are left out.

    Raises:
        JudgeError: a name that no rule covers, so nothing is dropped by accident.
    """
    found = {}
    for name in names:
        if UNUSED.fullmatch(name):
            continue
        for pattern, replacement in KEY_MAP:
            renamed, count = re.subn(f"^{pattern}", replacement, name)
            if count:
                found[name] = renamed
                break
        else:
            raise JudgeError(f"{name}: not a tensor of nanoLLaVA")
    return found


def native_config(config: dict[str, Any], image_token_id: int) -> Any:
    """``LlavaConfig`` from the checkpoint's ``config.json``.

    Args:
        config: as stored.
        image_token_id: a row of the embedding that no text uses.
    """
    from transformers import LlavaConfig, Qwen2Config, SiglipVisionConfig

    if config.get("mm_projector_type") != "mlp2x_gelu":
        raise JudgeError(
            f"mm_projector_type is {config.get('mm_projector_type')!r}, not mlp2x_gelu"
        )
    stored = config.get("vision_config") or {}
    vision = {key: stored.get(key, value) for key, value in _SIGLIP.items()}
    text = {key: config[key] for key in _QWEN_KEYS if config.get(key) is not None}
    return LlavaConfig(
        vision_config=SiglipVisionConfig(**vision, vision_use_head=False),
        text_config=Qwen2Config(
            **text,
            # Plain attention over the whole prompt; the stored sliding_window is not always a number.
            use_sliding_window=False,
            rope_parameters={"rope_type": "default", "rope_theta": config.get("rope_theta", 1e6)},
        ),
        image_token_index=image_token_id,
        projector_hidden_act="gelu",
        vision_feature_layer=VISION_FEATURE_LAYER,
        vision_feature_select_strategy="full",  # SigLIP has no class token
        tie_word_embeddings=bool(config.get("tie_word_embeddings", False)),
    )


def load_nanollava(folder: Path, dtype: torch.dtype) -> LlavaParts:
    """Load the checkpoint's folder as it was downloaded.

    Raises:
        JudgeError: tensors that lack, are misshapen or have no place.
    """
    from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    # The checkpoint's code writes -200 where the picture goes. Here a special token of its own does; its
    # row of the embedding is one of those beyond the tokenizer's last, and is never read.
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE_TOKEN]})
    image_token_id = int(tokenizer.convert_tokens_to_ids(IMAGE_TOKEN))
    stored = read_config(folder)
    config = native_config(stored, image_token_id)
    if image_token_id >= config.text_config.vocab_size:
        raise JudgeError(f"{folder}: no free row in the embedding for {IMAGE_TOKEN}")
    with torch.device("meta"):
        expected = LlavaForConditionalGeneration(config).state_dict()
    state = _read_tensors(folder)
    if config.tie_word_embeddings and "lm_head.weight" not in state:
        state["lm_head.weight"] = state["model.language_model.embed_tokens.weight"]
    _compare(folder, state, expected)
    model = LlavaForConditionalGeneration.from_pretrained(
        None, config=config, state_dict=state, dtype=dtype
    )
    eos = config.text_config.eos_token_id
    model.generation_config.eos_token_id = _end_marks(tokenizer, eos)
    return LlavaParts(model, tokenizer, IMAGE_TOKEN, MEAN, STD, tokenizer.chat_template)


def _end_marks(tokenizer: Any, configured: int | None) -> list[int]:
    """Ids that end an answer: the configured one and ChatML's."""
    chat_end = tokenizer.get_vocab().get("<|im_end|>")
    return sorted(
        {mark for mark in (configured, tokenizer.eos_token_id, chat_end) if mark is not None}
    )


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors of all weight files, under their native names."""
    state: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt", device="cpu") as opened:
            for old, new in remap_names(opened.keys()).items():
                state[new] = opened.get_tensor(old)
    return state


def _compare(folder: Path, state: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Raise JudgeError unless names and shapes are exactly those of the model."""
    missing, foreign = sorted(set(expected) - set(state)), sorted(set(state) - set(expected))
    if missing or foreign:
        first = f"lacks {missing[0]}" if missing else f"has {foreign[0]}, which has no place"
        raise JudgeError(f"{folder}: {first} ({len(missing)} lacking, {len(foreign)} too many)")
    for name, tensor in expected.items():
        if state[name].shape != tensor.shape:
            raise JudgeError(
                f"{folder}: {name} is {list(state[name].shape)}, expected {list(tensor.shape)}"
            )
