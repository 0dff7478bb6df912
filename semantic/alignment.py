"""Projection into a shared space and query-dependent modulation, eq. (1) to (4).

Readings of what the paper leaves open: the query is one pooled text vector, so that its scale and
shift are broadcast over the image tokens (the paper's N_t x D matrices do not fit N_l x D features);
the scale is ``1 + gamma`` with the last layer of both MLPs zero-initialised, so that training starts
from features that pass unchanged. The usual LayerNorm in front of the projection is replaced by a fixed
per-channel standardisation: a LayerNorm removes the level and the contrast of every token, which a
picture needs back.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def to_tokens(maps: list[Tensor], grid: int) -> Tensor:
    """Bring feature maps onto one grid and flatten them to tokens.

    A map finer than the grid is folded (space to depth: nothing is averaged away), so its side must be a
    multiple of the grid's.

    Args:
        maps: float ``[B, C_i, h_i, h_i]``.
        grid: side of the token grid.

    Returns:
        float ``[B, grid*grid, sum of C_i (h_i/grid)^2]``.
    """
    folded = []
    for feature_map in maps:
        side = feature_map.shape[-1]
        if side % grid:
            raise ValueError(f"a {side}x{side} map does not fold onto a {grid}x{grid} grid")
        folded.append(functional.pixel_unshuffle(feature_map, side // grid))
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


class Film(nn.Module):
    """Feature-wise linear modulation by the query, eq. (3) and (4).

    Args:
        dim: D.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = two_layer_mlp(dim, dim, dim, zero_last=True)
        self.beta = two_layer_mlp(dim, dim, dim, zero_last=True)

    def forward(self, features: Tensor, text: Tensor) -> Tensor:
        """``(1 + gamma(T)) * F + beta(T)``.

        Args:
            features: float ``[B, N, D]``.
            text: float ``[B, D]``.

        Returns:
            float ``[B, N, D]``.
        """
        gamma, beta = self.gamma(text)[:, None], self.beta(text)[:, None]
        return (1 + gamma) * features + beta


class AlignedLayer(nn.Module):
    """One transmitted layer up to its quantiser: eq. (1) to (4).

    Args:
        channels: channels of a token before projection.
        text_width: width of the text tower's vector.
        dim: D.
        hidden: width of the projection's hidden layer.
    """

    def __init__(self, channels: int, text_width: int, dim: int, hidden: int) -> None:
        super().__init__()
        self.standardize = Standardize(channels)
        self.project_image = two_layer_mlp(channels, hidden, dim)  # eq. (1)
        self.project_text = two_layer_mlp(text_width, dim, dim)  # eq. (2)
        self.film = Film(dim)  # eq. (3), (4)

    def forward(self, tokens: Tensor, text: Tensor) -> Tensor:
        """Tokens ``[B, N, channels]`` and query ``[B, text_width]`` -> aligned ``[B, N, D]``."""
        features = self.project_image(self.standardize(tokens))
        return self.film(features, self.project_text(text))
