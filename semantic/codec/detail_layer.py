"""The detail layer: what the base layer's few bits leave out, at any rate.

A wavelet of what the base picture lacks, corrected by small networks whose last layers start at zero,
quantised in steps that a gain sets for every position, coded with a learned prior. Step 0 of training is a
wavelet codec on the base picture's residual.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from semantic.codec.detail_prior import Coded, DetailPrior
from semantic.codec.wavelet import (
    CHANNELS,
    COARSE_CHANNELS,
    GROUPS,
    STRIDE,
    bands_to_picture,
    picture_to_bands,
)

# Quantiser step of every channel at gain 1, in grey levels, before training.
_FIRST_STEP = 24.0
# How much of the base picture is taken off a photo's coefficients, per group, before training.
_FIRST_SHARE = (1.0, 1.0, 0.9, 0.8, 0.4, 0.4, 0.4, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class DetailConfig:
    """Sizes of the detail layer's networks.

    Args:
        transform_width: channels of the networks that correct the wavelet.
        prior_width: hidden channels of the prior.
        refine_width: channels of the network at half resolution that closes the decoder.
        token_width: hidden channels of the prior of the base layer's indices.
    """

    transform_width: int = 128
    prior_width: int = 192
    refine_width: int = 32
    token_width: int = 128


def _zero(layer: nn.Conv2d) -> None:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


class Correction(nn.Module):
    """Residual convolutions at stride 8 that start as zero.

    Args:
        inputs, outputs, width: channels.
        blocks: of a 3x3 and a 1x1 convolution each.
    """

    def __init__(self, inputs: int, outputs: int, width: int, blocks: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, width, 1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.GELU(),
                nn.Conv2d(width, width, 3, padding=1),
                nn.GELU(),
                nn.Conv2d(width, width, 1),
            )
            for _ in range(blocks)
        )
        self.last = nn.Conv2d(width, outputs, 1)
        _zero(self.last)

    @classmethod
    def of_decoder(cls, width: int, blocks: int) -> Correction:
        """What a decoder adds to received coefficients."""
        return cls(CHANNELS + COARSE_CHANNELS + 2, CHANNELS, width, blocks)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, inputs, h, w]`` -> ``[B, outputs, h, w]``."""
        hidden = self.first(x)
        for block in self.blocks:
            hidden = hidden + block(hidden)
        return self.last(hidden)


class Refinement(nn.Module):
    """Removes ringing and blocks at half resolution; starts as zero.

    Args:
        width: channels.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(25, width, 3, padding=1)
        self.block = nn.Sequential(
            nn.GELU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(width, width, 3, padding=1),
        )
        self.last = nn.Conv2d(width, 12, 3, padding=1)
        _zero(self.last)

    def forward(self, picture: Tensor, base: Tensor, log_gain: Tensor) -> Tensor:
        """Correction in grey levels at gain 1, ``[B, 3, H, W]``."""
        half = [functional.pixel_unshuffle(p / 128 - 1, 2) for p in (picture, base)]
        gain = functional.interpolate(log_gain, scale_factor=STRIDE // 2, mode="nearest")
        hidden = self.first(torch.cat([*half, gain], 1))
        hidden = hidden + self.block(hidden)
        return functional.pixel_shuffle(self.last(functional.gelu(hidden)), 2)


class Head(Protocol):
    """What makes a picture from coefficients: the layer's own networks, or others of the same form."""

    @property
    def decoder(self) -> nn.Module:
        """A :class:`Correction`."""

    @property
    def refine(self) -> nn.Module:
        """A :class:`Refinement`."""


class DetailLayer(nn.Module):
    """Transform, quantiser and prior.

    Args:
        codewords: of the base layer, int8 ``[M, K, d]``.
        config: sizes.
    """

    def __init__(self, codewords: Tensor, config: DetailConfig) -> None:
        super().__init__()
        self.config = config
        self.log_step = nn.Parameter(torch.full((1, CHANNELS, 1, 1), -math.log(_FIRST_STEP)))
        share = torch.repeat_interleave(torch.tensor(_FIRST_SHARE), torch.tensor(GROUPS))
        self.base_share = nn.Parameter(share.view(1, CHANNELS, 1, 1))
        inputs = CHANNELS + COARSE_CHANNELS + 2
        width = config.transform_width
        self.encoder = Correction(inputs, CHANNELS, width, 2)
        self.decoder = Correction.of_decoder(width, 3)
        self.refine = Refinement(config.refine_width)
        self.prior = DetailPrior(codewords, config.prior_width, config.token_width)

    def analyse(self, picture: Tensor, base: Tensor, log_gain: Tensor, inside: Tensor) -> Tensor:
        """What has to be quantised, in steps.

        Args:
            picture: float32 ``[B, 3, H, W]``, 0..255.
            base: likewise.
            log_gain: float32 ``[B, 1, H/8, W/8]``.
            inside: bool, likewise: positions that will be sent.

        Returns:
            float32 ``[B, 192, H/8, W/8]``.
        """
        return self.analyse_bands(self.bands(picture), self.bands(base), log_gain, inside)

    def bands(self, picture: Tensor) -> Tensor:
        """Wavelet coefficients of pictures in steps of gain 1: what the analysis of a picture begins with."""
        return picture_to_bands(picture) * self.log_step.exp()

    def analyse_bands(
        self, bands: Tensor, base_bands: Tensor, log_gain: Tensor, inside: Tensor
    ) -> Tensor:
        """As :meth:`analyse`, from the :meth:`bands` of picture and base."""
        left = bands - base_bands * self.base_share
        inputs = [left, base_bands[:, :COARSE_CHANNELS], log_gain, inside.to(left)]
        return left * log_gain.exp() + self.encoder(torch.cat(inputs, 1)).float()

    def synthesise(
        self,
        values: Tensor,
        base: Tensor,
        log_gain: Tensor,
        inside: Tensor,
        head: Head | None = None,
    ) -> Tensor:
        """Picture from quantised coefficients, not clipped.

        Args:
            values: float32 ``[B, 192, H/8, W/8]``.
            base: as for :meth:`analyse`.
            log_gain: likewise.
            inside: likewise.
            head: None: the layer's own networks.
        """
        head = head or self
        down = torch.exp(-log_gain)
        base_bands = self.bands(base)
        scaled = values * down
        inputs = [scaled, base_bands[:, :COARSE_CHANNELS], log_gain, inside.to(scaled)]
        corrected = scaled + head.decoder(torch.cat(inputs, 1)).float() * down
        bands = (corrected + base_bands * self.base_share) / self.log_step.exp()
        picture = bands_to_picture(bands)
        finest = functional.interpolate(down, scale_factor=STRIDE, mode="nearest")
        return picture + head.refine(picture, base, log_gain).float() * finest * 8

    def forward(
        self,
        picture: Tensor,
        base: Tensor,
        tokens: Tensor,
        log_gain: Tensor,
        inside: Tensor,
        *,
        noisy: bool,
    ) -> tuple[Tensor, Coded]:
        """Picture as the receiver sees it, and what was sent; arguments as above and for the prior."""
        exact = self.analyse(picture, base, log_gain, inside)
        coded = self.prior(exact, tokens, log_gain, inside, noisy=noisy)
        return self.synthesise(coded.values, base, log_gain, inside), coded
