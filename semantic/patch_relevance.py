"""Where in a photo is what the query asks about, for codecs with a CLIP: patches beside the text.

A patch's own vector in the space of the text tower: in the last block of the image tower every patch
attends to itself alone, which leaves it what it shows (MaskCLIP, Zhou et al., ECCV 2022). Its cosine with the
query, less that with a text that asks for nothing, is the evidence. No training.

**Not measured with real weights**: none were at hand. For the packaged towers, which share no space with
their text tower, there is :mod:`semantic.relevance`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from semantic.backbone import Backbone
from semantic.question import is_english
from semantic.relevance import Found, Grid, enlarge, map_on_grid, word_test

# What all patches of a photo have in common with any text is no evidence.
NEUTRAL_TEXT = "a photo."
# Least spread of the evidence over a photo to which it is scaled: cosines of CLIP's patches with one text
# differ by about a hundredth; a blank picture's map stays flat.
LEAST_SPREAD = 0.005


class PatchTextMapper(nn.Module):
    """Photos and queries -> relevance maps, from the likeness of patches and text. Frozen.

    Args:
        backbone: a CLIP whose image tower is open_clip's ``VisionTransformer``.

    Raises:
        ValueError: other towers, or trainable ones.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        if not has_patch_vectors(backbone):
            raise ValueError(
                "patch-text relevance needs a CLIP's frozen vision transformer, without attention pooling"
            )
        self.backbone = backbone
        self.knows_word = word_test(backbone)

    @torch.inference_mode()
    def forward(self, pictures: Tensor, queries: Sequence[str], grid: Grid) -> Tensor:
        """Relevance of every token to its picture's query.

        Args:
            pictures: float32 ``[B, 3, h, w]``, 0..1. The tower knows one square alone: others are squeezed
                into it (open_clip's resize mode ``squash``), which it was not trained for.
            queries: one per picture.
            grid: side of a square token grid, or rows and columns.

        Returns:
            float32 ``[B, rows, columns]``, 0..1, each map with mean
            :data:`semantic.relevance.MEAN_RELEVANCE`.

        Raises:
            ValueError: not one query per picture.
        """
        if len(queries) != len(pictures):
            raise ValueError(f"{len(pictures)} pictures, {len(queries)} queries")
        patches = self.patch_vectors(pictures)
        wanted = self.backbone.text_features([*queries, NEUTRAL_TEXT])
        towards = wanted[:-1] - wanted[-1]
        evidence = torch.einsum("bnc,bc->bn", patches, towards)
        evidence = evidence - evidence.mean(1, keepdim=True)
        evidence = evidence / evidence.std(1, keepdim=True).clamp_min(LEAST_SPREAD)
        side = round(patches.shape[1] ** 0.5)
        return map_on_grid(evidence.unflatten(1, (side, side)), grid)

    def find(self, pictures: Tensor, queries: Sequence[str], grid: Grid) -> Found:
        """Maps as :meth:`forward` gives them. Confidence is not measured here: 1, or 0 where not English.

        Raises:
            ValueError: not one query per picture.
        """
        maps = self(pictures, queries, grid)
        known = tuple(self.language_known(query) for query in queries)
        return Found(maps, torch.tensor(known).to(maps), known)

    def language_known(self, query: str) -> bool:
        """Whether a query reads as English."""
        return is_english(query, self.knows_word)

    @torch.inference_mode()
    def patch_vectors(self, pictures: Tensor) -> Tensor:
        """Every patch in the space of the text tower: unit length, float32 ``[B, N, W]``."""
        visual = self.backbone.towers.visual
        side = self.backbone.image_size
        pictures = pictures.to(self.backbone.mean.device)
        if pictures.shape[2:] != (side, side):
            pictures = enlarge(pictures, side)
        normalised = (pictures - self.backbone.mean) / self.backbone.std
        blocks = visual.transformer.resblocks
        # Without the class token: nothing looks at it any more.
        (before,) = visual.forward_intermediates(
            normalised, indices=[len(blocks) - 2], output_fmt="NLC", intermediates_only=True
        )["image_intermediates"]
        count = before.shape[1]
        alone = torch.full((count, count), -torch.inf, device=before.device, dtype=before.dtype)
        alone.fill_diagonal_(0)
        last = visual.ln_post(blocks[-1](before, attn_mask=alone))
        return functional.normalize((last @ visual.proj).float(), dim=-1)


def has_patch_vectors(backbone: Backbone) -> bool:
    """Whether the towers are frozen ones that :class:`PatchTextMapper` can read."""
    from open_clip.transformer import VisionTransformer

    visual = backbone.towers.visual
    return (
        not backbone.trainable
        and isinstance(visual, VisionTransformer)
        and visual.attn_pool is None
        and visual.proj is not None
        and len(visual.transformer.resblocks) > 1
    )
