"""The learned prior of the detail layer: how likely is every quantised coefficient, given those before it.

Coefficients come in :data:`~semantic.codec.wavelet.GROUPS`, coarse to fine, luma before chroma, each in
two checkerboard halves (He et al. 2021): 20 passes. A pass sees all groups before its own, in its second
half also the first, the base layer's codewords, and how fine a cell is quantised. What lies outside the
slice reads zero.

A quantised coefficient is ``mean + q`` with an integer q, which follows a discretised logistic distribution
of the predicted scale: where nothing surprising happens q is 0 and costs next to nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from semantic.codec import fixed_point as fp
from semantic.codec.token_prior import CODEWORD_UNIT, TokenPrior
from semantic.codec.wavelet import GROUPS

# Scales are told apart in steps of an eighth of a neper, about 12 %; the smallest is 0.04 steps of the
# quantiser.
SCALE_LEVELS = 64
SCALE_STEP = 0.125
SMALLEST_LOG_SCALE = -3.25

BASE_FEATURES = 16
_BASE_FOLD = 4  # positions of the detail layer per token of the base layer, a side
# The gain and whether a position belongs to the slice.
_STATE = 2
# Groups with little before them look further around, and pass values on as they are: smooth regions are
# predicted well by a weighted mean.
_WIDE_GROUPS = 4
_LINEAR_GROUPS = 2


@dataclass(frozen=True)
class Coded:
    """What one pass of the prior over a batch gives.

    Args:
        values: quantised coefficients, float32 ``[B, 192, h, w]``; 0 outside the slice.
        bits: ideal length, float32 ``[B]``, of the slice.
    """

    values: Tensor
    bits: Tensor


def logistic_bits(q: Tensor, log_scale: Tensor) -> Tensor:
    """Bits of ``q`` under the discretised logistic distribution, elementwise."""
    inverse = torch.exp(-log_scale)
    d = q.abs()
    share = torch.sigmoid((0.5 - d) * inverse) - torch.sigmoid((-0.5 - d) * inverse)
    return -torch.log2(share.clamp_min(1e-7))


def checkerboard(height: int, width: int, device: torch.device | None = None) -> Tensor:
    """True where a position belongs to the first half: bool ``[height, width]``."""
    rows = torch.arange(height, device=device)[:, None]
    return (rows + torch.arange(width, device=device)) % 2 == 0


class GroupPrior(nn.Module):
    """Means and scales of one group of channels.

    Args:
        number: of the group.
        width: hidden channels.
    """

    def __init__(self, number: int, width: int) -> None:
        super().__init__()
        own, known = GROUPS[number], sum(GROUPS[:number])
        kernel = 5 if number < _WIDE_GROUPS else 3
        self.known = nn.Conv2d(known + BASE_FEATURES + _STATE, width, kernel, padding=kernel // 2)
        self.own = nn.Conv2d(own, width, kernel, padding=kernel // 2, bias=False)
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.heads = nn.ModuleList(nn.Linear(width, 2 * own) for _ in range(2))
        for parameter in self.heads.parameters():
            nn.init.zeros_(parameter)
        self.linear = None
        if number < _LINEAR_GROUPS:
            self.linear = nn.Conv2d(own, own, 5, padding=2, bias=False)
            nn.init.zeros_(self.linear.weight)

    def parameters_of(self, hidden: Tensor, half: int) -> tuple[Tensor, Tensor]:
        """Mean and log scale ``[..., own]`` from what the convolutions made, ``[..., width]``."""
        hidden = clip_hidden(hidden, fp.HIDDEN_UNIT, fp.HIDDEN_LIMIT)
        hidden = clip_hidden(_linear(self.hidden[half], hidden), fp.HIDDEN_UNIT, fp.HIDDEN_LIMIT)
        with torch.autocast(hidden.device.type, enabled=False):  # means may be in the hundreds
            mean, log_scale = _linear(self.heads[half], hidden).chunk(2, -1)
        return fp.round_value(mean, fp.INPUT_UNIT), to_log_scale(log_scale)


def _linear(layer: nn.Module, x: Tensor) -> Tensor:
    assert isinstance(layer, nn.Linear)
    return functional.linear(x, fp.round_weight(layer.weight), layer.bias)


def _convolve(layer: nn.Conv2d, x: Tensor) -> Tensor:
    return functional.conv2d(x, fp.round_weight(layer.weight), layer.bias, padding=layer.padding)


def clip_hidden(x: Tensor, unit: int, limit: int) -> Tensor:
    """The activation: 0 to ``limit / unit`` in whole ``1 / unit``."""
    return fp.round_value(x.float(), unit).clamp(0, limit / unit)


def to_log_scale(x: Tensor) -> Tensor:
    """Natural logarithm of the scale from a head's output: one of the table's."""
    level = ((x - SMALLEST_LOG_SCALE) / SCALE_STEP).clamp(0, SCALE_LEVELS - 1)
    return fp.round_value(level, 1) * SCALE_STEP + SMALLEST_LOG_SCALE


class DetailPrior(nn.Module):
    """Prior over all groups.

    Args:
        codewords: integers that stand for the base layer's codewords, int8 ``[M, K, d]``.
        width: hidden channels of every group's network.
        token_width: of the prior of the base layer's indices.
    """

    codewords: Tensor

    def __init__(self, codewords: Tensor, width: int, token_width: int) -> None:
        super().__init__()
        self.register_buffer("codewords", codewords)
        segments, count, length = codewords.shape
        self.tokens = TokenPrior(segments, count, length, token_width)
        self.base = nn.Conv2d(segments * length, BASE_FEATURES * _BASE_FOLD**2, 3, padding=1)
        self.groups = nn.ModuleList(GroupPrior(n, width) for n in range(len(GROUPS)))

    def base_features(self, tokens: Tensor, inside: Tensor) -> Tensor:
        """What the base layer's indices say.

        Args:
            tokens: int64 ``[B, h/4, w/4, M]``.
            inside: bool ``[B, 1, h, w]``, positions of the slice; a token counts where it has any.

        Returns:
            float ``[B, BASE_FEATURES, h, w]``.
        """
        segments = torch.arange(tokens.shape[-1], device=tokens.device)
        vectors = self.codewords[segments, tokens].flatten(3).permute(0, 3, 1, 2) / CODEWORD_UNIT
        vectors = vectors * functional.max_pool2d(inside.float(), _BASE_FOLD)
        return functional.pixel_shuffle(
            clip_hidden(_convolve(self.base, vectors), fp.INPUT_UNIT, fp.INPUT_LIMIT), _BASE_FOLD
        )

    def forward(
        self, exact: Tensor, tokens: Tensor, log_gain: Tensor, inside: Tensor, *, noisy: bool
    ) -> Coded:
        """Quantise a batch of training photos, differentiably.

        Args:
            exact: coefficients in steps, float32 ``[B, 192, h, w]``.
            tokens: int64 ``[B, h/4, w/4, M]``.
            log_gain: float32 ``[B, 1, h, w]``.
            inside: bool ``[B, 1, h, w]``.
            noisy: estimate bits with uniform noise in the place of rounding.
        """
        batch, _, height, width = exact.shape
        board = checkerboard(height, width, exact.device).flatten()
        places = [torch.nonzero(half)[:, 0] for half in (board, ~board)]
        mask = inside.float()
        state = torch.cat(
            [self.base_features(tokens, inside), log_gain, torch.ones_like(log_gain)], 1
        )
        state = state * mask
        counted = mask.flatten(2).transpose(1, 2)  # [B, h*w, 1]
        known: list[Tensor] = []
        bits = exact.new_zeros(batch)
        for group, target in zip(self.groups, exact.split(GROUPS, 1), strict=True):
            assert isinstance(group, GroupPrior)
            flat = target.flatten(2).transpose(1, 2)
            context = torch.cat([*(fp.compand(values) for values in known), state], 1)
            before = _convolve(group.known, context)
            chosen = torch.zeros_like(flat)
            for half in range(2):
                total = before
                mean_shift = None
                if half:
                    first = chosen.transpose(1, 2).unflatten(2, (height, width))
                    total = before + _convolve(group.own, fp.compand(first))
                    if group.linear is not None:
                        weight = fp.round_value(group.linear.weight, fp.LINEAR_UNIT)
                        with torch.autocast(exact.device.type, enabled=False):
                            moved = functional.conv2d(first, weight, padding=2)
                        mean_shift = moved.flatten(2).transpose(1, 2)[:, places[1]]
                rows = total.flatten(2).transpose(1, 2)[:, places[half]]
                mean, log_scale = group.parameters_of(rows, half)
                if mean_shift is not None:
                    mean = fp.round_value(mean + mean_shift, fp.INPUT_UNIT)
                residual = flat[:, places[half]] - mean
                rounded = residual + (torch.round(residual) - residual).detach()
                at = counted[:, places[half]]
                q = residual + torch.rand_like(residual) - 0.5 if noisy else rounded
                bits = bits + (logistic_bits(q, log_scale) * at).flatten(1).sum(1)
                chosen = chosen.index_add(1, places[half], (mean + rounded) * at)
            known.append(chosen.transpose(1, 2).unflatten(2, (height, width)))
        return Coded(torch.cat(known, 1), bits)
