"""A Stable Diffusion of random numbers, small enough for a test, saved in the real format."""

from __future__ import annotations

import json
from pathlib import Path

import torch

# Pixels: the latent's 8 times the one halving of the autoencoder.
NATIVE_SIDE = 16
_WORDS = ("cat", "dog", "is", "this", "a")


def save_tiny_pipeline(folder: Path) -> None:
    """Write an image-to-image pipeline of a few thousand weights (seed 0) into a folder."""
    from diffusers import (
        AutoencoderKL,
        DDIMScheduler,
        StableDiffusionImg2ImgPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel

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
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)


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
