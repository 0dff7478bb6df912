"""A Stable Diffusion of random numbers, small enough for a test, saved in the real format."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from semantic.torchvision_operators import declare_missing_operators

# Pixels: the latent's 8 times the one halving of the autoencoder.
NATIVE_SIDE = 16
# What its safety checker scales pictures to.
_SEEN = 16
_WORDS = ("cat", "dog", "is", "this", "a")


def save_tiny_pipeline(folder: Path, *, refusing: bool = False) -> None:
    """Write an image-to-image pipeline of a few thousand weights (seed 0) into a folder.

    Args:
        folder: where to.
        refusing: with a safety checker that refuses every picture.
    """
    declare_missing_operators()
    from diffusers import (
        AutoencoderKL,
        DDIMScheduler,
        StableDiffusionImg2ImgPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPImageProcessor, CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    tokenizer = _tokenizer(folder.parent / f"{folder.name}-words")
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=24,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    StableDiffusionImg2ImgPipeline(
        vae=AutoencoderKL(
            block_out_channels=(8, 8),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=4,
            norm_num_groups=4,
            sample_size=NATIVE_SIDE,
        ),
        unet=UNet2DConditionModel(
            sample_size=NATIVE_SIDE // 2,
            block_out_channels=(8, 16),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            layers_per_block=1,
            norm_num_groups=4,
            attention_head_dim=4,
            cross_attention_dim=16,
        ),
        text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer,
        scheduler=DDIMScheduler(steps_offset=1, clip_sample=False),
        safety_checker=_refusing_checker() if refusing else None,
        feature_extractor=CLIPImageProcessor(size=_SEEN, crop_size=_SEEN) if refusing else None,
        requires_safety_checker=refusing,
    ).save_pretrained(folder)


def _refusing_checker() -> object:
    """A concept counts where its similarity is above a threshold; no cosine is below -2."""
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPConfig

    sees = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": _SEEN,
        "patch_size": 8,
    }
    checker = StableDiffusionSafetyChecker(CLIPConfig(vision_config=sees, projection_dim=16))
    torch.nn.init.constant_(checker.concept_embeds_weights, -2)
    return checker


def _tokenizer(folder: Path) -> object:
    """CLIP's tokenizer with single letters, a few words and no others."""
    from transformers import CLIPTokenizer

    letters = "abcdefghijklmnopqrstuvwxyz.,?"
    merges: list[str] = []
    pieces = [*letters, *(f"{c}</w>" for c in letters)]
    for word in _WORDS:
        left = list(word[:-1]) + [f"{word[-1]}</w>"]
        while len(left) > 1:
            merge = f"{left[0]} {left[1]}"
            left[:2] = [left[0] + left[1]]
            if merge not in merges:
                merges.append(merge)
                pieces.append(left[0])
    pieces += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps(vocabulary), "utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", "utf-8")
    return CLIPTokenizer.from_pretrained(folder, local_files_only=True, model_max_length=24)
