"""The receiver's network: from token grids to a picture, eq. (10).

Coarsest grid first: ``o_1 = g_1(F_L)``, ``o_l = g_l(fuse(o_{l-1}, U_l(F_l)))``, where g is two 3x3
convolutions, each with normalisation and LeakyReLU, and a transposed convolution. The CLIP ViT's layers
share one grid, so U_l enlarges each to the size that o has reached; a pyramid's layers fit already. The
head brings the last output to full resolution.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from semantic.codec_config import CodecConfig, DecoderConfig

SLOPE = 0.1


def _norm(kind: Literal["group", "instance", "none"], channels: int) -> nn.Module:
    """Normalisation layer; "instance" is the paper's."""
    if kind == "group":
        return nn.GroupNorm(math.gcd(8, channels), channels)
    if kind == "instance":
        return nn.InstanceNorm2d(channels, affine=True)
    return nn.Identity()


class Enlarge(nn.Module):
    """U_l: learnable upsampling of token features ``[B, D, grid, grid]`` to ``[B, C, side, side]``.

    A 1x1 convolution to C channels; where the side differs also interpolation to it and a depthwise
    3x3 convolution on top.
    """

    def __init__(self, dim: int, channels: int, grid: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.widen = nn.Conv2d(dim, channels, 1)
        self.smooth: nn.Conv2d | None = None
        if side != grid:
            self.smooth = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)

    def forward(self, features: Tensor) -> Tensor:
        """``[B, D, grid, grid]`` -> ``[B, C, side, side]``."""
        wide: Tensor = self.widen(features)
        if self.smooth is None:
            return wide
        size = (self.side, self.side)
        larger = functional.interpolate(wide, size=size, mode="bilinear", align_corners=False)
        smoothed: Tensor = larger + self.smooth(larger)
        return smoothed


class DecoderBlock(nn.Module):
    """g_l: two convolutions (norm, LeakyReLU) and a transposed convolution that doubles the side.

    With ``residual`` the two convolutions add to their input. It carries the absolute level of the
    features past the normalisation, which would remove it.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        channels = config.channels
        self.residual = config.residual
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            _norm(config.norm, channels),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(channels, channels, 3, padding=1),
            _norm(config.norm, channels),
            nn.LeakyReLU(SLOPE),
        )
        # Kernel 4 at stride 2: every output pixel sees the same number of taps, no checkerboard.
        self.grow = nn.ConvTranspose2d(channels, channels, 4, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, h, h]`` -> ``[B, C, 2h, 2h]``."""
        y = self.body(x)
        if self.residual:
            y = y + x
        grown: Tensor = self.grow(y)
        return grown


class Fuse(nn.Module):
    """Feature fusion MLP: 1x1 over both inputs, ``2 x [B, C, h, h]`` -> ``[B, C, h, h]``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = nn.Sequential(
            nn.Conv2d(2 * channels, channels, 1),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(channels, channels, 1),
        )

    def forward(self, before: Tensor, layer: Tensor) -> Tensor:
        """Mix ``o_{l-1}`` with ``U_l(F_l)``; both also pass unchanged."""
        mixed: Tensor = self.mix(torch.cat([before, layer], dim=1))
        return mixed + before + layer


class Head(nn.Module):
    """``[B, C, h, h]`` -> ``[B, 3, scale h, scale h]``: convolutions, sub-pixel shuffle, refinement.

    The shuffle paints each cell from its 3x3 neighbourhood; the two convolutions at full resolution
    after it smooth what is left of the seams between cells.
    """

    def __init__(self, config: DecoderConfig, scale: int) -> None:
        super().__init__()
        width = config.head_channels
        self.paint = nn.Sequential(
            nn.Conv2d(config.channels, width, 3, padding=1),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(width, width, 3, padding=1),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(width, 3 * scale**2, 3, padding=1),
            nn.PixelShuffle(scale),
        )
        self.refine = nn.Sequential(
            nn.Conv2d(3, config.refine_channels, 3, padding=1),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(config.refine_channels, 3, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Paint and refine."""
        picture = self.paint(x)
        refined: Tensor = picture + self.refine(picture)
        return refined


class PictureDecoder(nn.Module):
    """Token features of every layer -> picture.

    Args:
        config: the codec; ``config.layers`` finest first.
    """

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.grids = [layer.grid for layer in config.layers]
        channels = config.decoder.channels
        self.sides = decoder_sides(config)
        self.enlarge = nn.ModuleList(
            Enlarge(layer.dim, channels, layer.grid, side)
            for layer, side in zip(config.layers, reversed(self.sides), strict=True)
        )
        self.fuse = nn.ModuleList(Fuse(channels) for _ in config.layers[1:])
        self.blocks = nn.ModuleList(DecoderBlock(config.decoder) for _ in self.sides)
        scale = config.image_size // (2 * self.sides[-1])
        self.head = Head(config.decoder, scale)

    def forward(self, layers: list[Tensor], coarsest: tuple[int, int] | None = None) -> Tensor:
        """Reconstruct.

        Args:
            layers: per layer float ``[B, N_l, D_l]``, finest grid first.
            coarsest: rows and columns of the last layer's grid, where the picture is not the codec's square;
                only for layers whose grids need no enlarging.

        Returns:
            float ``[B, 3, side, side]``, nominally 0..1, not clipped.
        """
        rows, columns = coarsest or (self.grids[-1], self.grids[-1])
        maps = [
            tokens.transpose(1, 2).unflatten(
                2, (rows * grid // self.grids[-1], columns * grid // self.grids[-1])
            )
            for tokens, grid in zip(layers, self.grids, strict=True)
        ]
        output: Tensor | None = None
        for step in range(len(maps)):
            number = len(maps) - 1 - step  # F_L first
            layer = self.enlarge[number](maps[number])
            fused = layer if output is None else self.fuse[number](output, layer)
            output = self.blocks[step](fused)
        picture: Tensor = self.head(output)
        # Centred on mid-grey so that small initial weights start from a grey picture.
        return picture + 0.5


def decoder_sides(config: CodecConfig) -> list[int]:
    """Side of the map each block g_1, g_2, ... works on, coarsest layer first.

    The side doubles from block to block, but never past the point from which the last doubling and the
    head still reach the picture's side in whole steps.

    Raises:
        ValueError: grids that no sequence of doublings joins.
    """
    grids = [layer.grid for layer in reversed(config.layers)]
    sides = [grids[0]]
    for grid in grids[1:]:
        doubled = sides[-1] * 2
        if grid > doubled:
            raise ValueError(f"decoder: a {grid}x{grid} grid cannot follow {sides[-1]}x{sides[-1]}")
        sides.append(doubled)
    if config.image_size % (2 * sides[-1]):
        raise ValueError(
            f"decoder: image_size {config.image_size} is no multiple of {2 * sides[-1]}, the side reached"
        )
    return sides
