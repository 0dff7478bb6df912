"""Projection into a shared space and query-dependent modulation, eq. (1) to (4).

Readings of what the paper leaves open: its N_t x D matrices of scale and shift do not fit N_l x D
features, so they come in one of these ways (``film`` of the codec's configuration):

- ``pooled``: one vector for the whole query, its scale and shift broadcast over the image tokens;
- ``cross_attention``: every image token attends to the words, and has a scale and shift of its own;
- ``gated``: one scale and shift, let through at each image token by how well it matches a word;
- ``none``: no query at all (the paper's "without text alignment").

The scale is ``1 + gamma`` with the last layer of both MLPs zero-initialised, so that training starts
from features that pass unchanged. The usual LayerNorm in front of the projection is replaced by a fixed
per-channel standardisation: a LayerNorm removes the level and the contrast of every token, which a
picture needs back.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from semantic.codec_config import FilmMode

TextForm = Literal["pooled", "tokens", "none"]
# What each way of modulation needs of the text tower.
TEXT_FORM: dict[FilmMode, TextForm] = {
    "pooled": "pooled",
    "cross_attention": "tokens",
    "gated": "tokens",
    "none": "none",
}
# Steepness of the gate at the start: cosines of unrelated directions are small.
GATE_SCALE = 4.0


@dataclass(frozen=True)
class TextFeatures:
    """Queries as the text tower sees them.

    Args:
        vectors: float32 ``[B, N_t, W]``: one per word piece, or the pooled one (N_t = 1), or none.
        mask: bool ``[B, N_t]``, False where a shorter query is padded.
    """

    vectors: Tensor
    mask: Tensor

    @classmethod
    def pooled(cls, vectors: Tensor) -> TextFeatures:
        """One vector per query, ``[B, W]``."""
        return cls(vectors[:, None], torch.ones_like(vectors[:, :1], dtype=torch.bool))

    @classmethod
    def nothing(cls, queries: int) -> TextFeatures:
        """For a codec that does not look at the query."""
        return cls(torch.empty(queries, 0, 0), torch.empty(queries, 0, dtype=torch.bool))

    def to(self, device: torch.device) -> TextFeatures:
        """The same on another device."""
        return TextFeatures(self.vectors.to(device), self.mask.to(device))


def to_tokens(maps: list[Tensor], grid: int | tuple[int, int]) -> Tensor:
    """Bring feature maps onto one grid and flatten them to tokens.

    A map finer than the grid is folded (space to depth: nothing is averaged away), so its sides must be
    the same multiple of the grid's.

    Args:
        maps: float ``[B, C_i, h_i, w_i]``.
        grid: rows and columns of the token grid, one number for a square.

    Returns:
        float ``[B, rows*columns, sum of C_i (h_i/rows)^2]``.
    """
    rows, columns = (grid, grid) if isinstance(grid, int) else grid
    folded = []
    for feature_map in maps:
        height, width = feature_map.shape[-2:]
        fold = height // rows
        if (height, width) != (fold * rows, fold * columns):
            raise ValueError(f"a {height}x{width} map does not fold onto a {rows}x{columns} grid")
        folded.append(functional.pixel_unshuffle(feature_map, fold))
    return torch.cat(folded, dim=1).flatten(2).transpose(1, 2)


class Standardize(nn.Module):
    """Fixed per-channel ``(x - mean) / std``, measured once on training photos.

    Args:
        channels: length of the last axis.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))

    @torch.no_grad()
    def measure(self, tokens: Tensor) -> None:
        """Set mean and spread from float ``[B, N, channels]``."""
        self.mean.copy_(tokens.mean(dim=(0, 1)))
        self.std.copy_(tokens.std(dim=(0, 1)).clamp_min(1e-3))

    def forward(self, tokens: Tensor) -> Tensor:
        """Float ``[B, N, channels]`` -> the same shape, zero mean and unit spread on training photos."""
        return (tokens - self.mean) / self.std


def two_layer_mlp(
    inputs: int, hidden: int, outputs: int, *, zero_last: bool = False
) -> nn.Sequential:
    """Linear, GELU, Linear; with ``zero_last`` the output starts at zero."""
    last = nn.Linear(hidden, outputs)
    if zero_last:
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(inputs, hidden), nn.GELU(), last)


class Film(nn.Module, ABC):
    """Feature-wise linear modulation by the query, eq. (3) and (4).

    Args:
        dim: D.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = two_layer_mlp(dim, dim, dim, zero_last=True)
        self.beta = two_layer_mlp(dim, dim, dim, zero_last=True)

    @abstractmethod
    def modulation(self, features: Tensor, text: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Eq. (3): scale and shift, each ``[B, N, D]`` or, the same everywhere, ``[B, 1, D]``."""

    def forward(self, features: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        """Eq. (4): ``(1 + gamma) * F + beta``.

        Args:
            features: F, float ``[B, N, D]``.
            text: T, float ``[B, N_t, D]``.
            mask: bool ``[B, N_t]``, False where ``text`` is padding.

        Returns:
            float ``[B, N, D]``.
        """
        gamma, beta = self.modulation(features, text, mask)
        return (1 + gamma) * features + beta


class PooledFilm(Film):
    """One scale and shift for all image tokens, from the one vector of the query (N_t = 1)."""

    def modulation(self, features: Tensor, text: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """``gamma(T)``, ``beta(T)``."""
        return self.gamma(text), self.beta(text)


class CrossAttentionFilm(Film):
    """A scale and shift per image token, from the words it attends to.

    One head of attention (Vaswani et al. 2017, eq. 1): ``C = softmax(Q(F) K(T)^T / sqrt(D)) V(T)``.
    """

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)

    def modulation(self, features: Tensor, text: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """``gamma(C)``, ``beta(C)``."""
        context = functional.scaled_dot_product_attention(
            self.query(features), self.key(text), self.value(text), attn_mask=mask[:, None]
        )
        return self.gamma(context), self.beta(context)


class GatedFilm(Film):
    """One scale and shift for the query, let through where an image token matches one of its words.

    The gate is ``g_n = sigmoid(a max_t cos(A F_n, T_t) + b)`` with trained A, a and b.
    """

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.match = nn.Linear(dim, dim)
        self.scale = nn.Parameter(torch.tensor(GATE_SCALE))
        self.offset = nn.Parameter(torch.tensor(0.0))

    def gate(self, features: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        """How relevant each image token is: float ``[B, N]``, 0..1."""
        places = functional.normalize(self.match(features), dim=-1)
        words = functional.normalize(text, dim=-1)
        cosine = places @ words.transpose(1, 2)
        best = cosine.masked_fill(~mask[:, None], -1.0).amax(-1)
        return torch.sigmoid(self.scale * best + self.offset)

    def modulation(self, features: Tensor, text: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """``g_n gamma(T')``, ``g_n beta(T')`` with T' the mean of the words."""
        known = mask[..., None].to(text)
        mean = (text * known).sum(1, keepdim=True) / known.sum(1, keepdim=True)
        gate = self.gate(features, text, mask)[..., None]
        return gate * self.gamma(mean), gate * self.beta(mean)


FILMS: dict[FilmMode, type[Film]] = {
    "pooled": PooledFilm,
    "cross_attention": CrossAttentionFilm,
    "gated": GatedFilm,
}


class AlignedLayer(nn.Module):
    """One transmitted layer up to its quantiser: eq. (1) to (4).

    Args:
        channels: channels of a token before projection.
        text_width: width of the text tower's vectors.
        dim: D.
        hidden: width of the projection's hidden layer.
        film: how the query modulates the features.
    """

    def __init__(
        self, channels: int, text_width: int, dim: int, hidden: int, film: FilmMode = "pooled"
    ) -> None:
        super().__init__()
        self.standardize = Standardize(channels)
        self.project_image = two_layer_mlp(channels, hidden, dim)  # eq. (1)
        self.project_text: nn.Sequential | None = None
        self.film: Film | None = None
        if film != "none":
            self.project_text = two_layer_mlp(text_width, dim, dim)  # eq. (2)
            self.film = FILMS[film](dim)  # eq. (3), (4)

    def forward(self, tokens: Tensor, text: TextFeatures) -> Tensor:
        """Tokens ``[B, N, channels]`` and queries ``[B, N_t, text_width]`` -> aligned ``[B, N, D]``."""
        features: Tensor = self.project_image(self.standardize(tokens))
        if self.film is None or self.project_text is None:
            return features
        aligned: Tensor = self.film(features, self.project_text(text.vectors), text.mask)
        return aligned
