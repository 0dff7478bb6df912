"""The prior in integers: the same probabilities on every device, thread count and batch.

The network of :mod:`semantic.codec.detail_prior` with its weights as the integers they stand for
(:mod:`semantic.codec.exact_products`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from semantic.codec import fixed_point as fp
from semantic.codec.detail_prior import (
    BASE_FEATURES,
    SCALE_LEVELS,
    SCALE_STEP,
    SMALLEST_LOG_SCALE,
    DetailPrior,
    GroupPrior,
)
from semantic.codec.exact_products import (
    Product,
    check_exact,
    clip_values,
    product,
    shift_values,
    whole_float32,
)
from semantic.codec.slice_layout import SliceLayout
from semantic.codec.token_prior import CODEWORD_UNIT
from semantic.codec.wavelet import CHANNELS, GROUPS

IntArray = NDArray[np.int64]

# Quantised residuals and means, in whole steps and in 1/16 of them: a coefficient fits into 16 bits.
MAX_RESIDUAL = 1023
_MAX_MEAN = 8191
_LARGEST = 1 << 15
_STATE = BASE_FEATURES + 2


@dataclass(frozen=True)
class Pass:
    """One of the 20 steps: a half of a group of channels.

    Args:
        group: its number.
        half: 0 or 1.
        channels: first channel and the one behind the last.
        rows: whose coefficients are coded, int64 ``[P]``.
    """

    group: int
    half: int
    channels: tuple[int, int]
    rows: IntArray


# Given a pass, means in 1/16 and levels of the scale, int64 ``[P, n]``: the pass's coefficients in 1/16.
Choose = Callable[[Pass, IntArray, IntArray], IntArray]


class IntegerPrior:
    """The prior as both ends of the link run it.

    Args:
        prior: trained.
        device: where to compute.

    Raises:
        PriorError: weights that could leave the range in which float32 is exact.
    """

    def __init__(self, prior: DetailPrior, device: torch.device) -> None:
        self.device = device
        self._groups = [_IntegerGroup(g, n, device) for n, g in enumerate(prior.groups)]
        self._codewords = prior.codewords.to(device)
        self._base = product(
            _by_offset(prior.base.weight),
            prior.base.bias,
            CODEWORD_UNIT,
            fp.INPUT_UNIT,
            fp.INPUT_LIMIT,
            device,
        )
        values = np.arange(-_LARGEST, _LARGEST) / fp.INPUT_UNIT
        table = np.rint(np.arcsinh(values) * fp.INPUT_UNIT)
        table = np.clip(table, -fp.INPUT_LIMIT, fp.INPUT_LIMIT)
        self._compand = torch.from_numpy(table.astype(np.int8)).to(device)

    @torch.inference_mode()
    def run(self, layout: SliceLayout, tokens: Tensor, gains: IntArray, choose: Choose) -> IntArray:
        """Pass over all coefficients of some slices.

        Args:
            layout: of the slices.
            tokens: base indices of every (slice, cell) pair, int64 ``[P, M]``.
            gains: log gain of every row in 1/16 neper, int ``[R]``.
            choose: gives the coefficients of every pass, a mean plus whole steps of at most
                :data:`MAX_RESIDUAL`: an encoder rounds, a decoder reads.

        Returns:
            coefficients in 1/16 steps, int64 ``[R, 192]``.
        """
        with whole_float32():
            return self._run(layout, tokens, gains, choose)

    def _run(
        self, layout: SliceLayout, tokens: Tensor, gains: IntArray, choose: Choose
    ) -> IntArray:
        rows = len(layout.places)
        context = torch.zeros(rows + 1, _STATE + CHANNELS, dtype=torch.int8, device=self.device)
        context[:rows, :BASE_FEATURES] = self._base_features(layout, tokens)
        context[:rows, BASE_FEATURES] = torch.from_numpy(gains.astype(np.int8)).to(self.device)
        context[:rows, BASE_FEATURES + 1] = fp.INPUT_UNIT
        values = torch.zeros(rows + 1, CHANNELS, device=self.device)
        near = {3: _to(layout.near3, self.device), 5: _to(layout.near5, self.device)}
        halves = [_to(half, self.device) for half in layout.halves]
        begin = 0
        for number, group in enumerate(self._groups):
            end = begin + GROUPS[number]
            for half in range(2):
                if not len(halves[half]):
                    continue
                around = near[group.kernel][halves[half]]
                own = values[:, begin:end]
                mean, level = group.parameters_of(context, around, _STATE + begin, own, half)
                step = Pass(number, half, (begin, end), layout.halves[half])
                found = choose(step, _to_integers(mean), _to_integers(level))
                chosen = torch.from_numpy(found.astype(np.float32)).to(self.device)
                values[halves[half], begin:end] = chosen
                context[halves[half], _STATE + begin : _STATE + end] = self._compand[
                    (chosen + _LARGEST).long()
                ]
            begin = end
        return _to_integers(values[:rows])

    def _base_features(self, layout: SliceLayout, tokens: Tensor) -> Tensor:
        """int8 ``[R, BASE_FEATURES]``."""
        segments = torch.arange(tokens.shape[1], device=self.device)
        vectors = self._codewords[segments, tokens.to(self.device)].flatten(1)
        vectors = torch.cat([vectors, vectors.new_zeros(1, vectors.shape[1])])
        around = vectors[_to(layout.cells_near, self.device)].flatten(1)
        cells = clip_values(self._base(around), fp.INPUT_LIMIT).to(torch.int8)
        cells = cells.unflatten(1, (BASE_FEATURES, -1))
        pair, inside = _to(layout.pair_of, self.device), _to(layout.inside_cell, self.device)
        return cells[pair, :, inside]


class _IntegerGroup:
    """Means and scales of one group; see :class:`semantic.codec.detail_prior.GroupPrior`."""

    def __init__(self, group: nn.Module, number: int, device: torch.device) -> None:
        assert isinstance(group, GroupPrior)
        known = sum(GROUPS[:number])
        weight = group.known.weight
        # Here the state comes first, so that what a group knows is the beginning of the context.
        weight = torch.cat([weight[:, known:], weight[:, :known]], 1)
        unit, hidden = fp.INPUT_UNIT, fp.HIDDEN_UNIT
        self.kernel = int(group.known.kernel_size[0])
        self._own_channels = GROUPS[number]
        self._known = product(
            _by_offset(weight), group.known.bias, unit, hidden, fp.INPUT_LIMIT, device
        )
        self._own = product(
            _by_offset(group.own.weight), None, unit, hidden, fp.INPUT_LIMIT, device
        )
        self._hidden = [
            product(one.weight, one.bias, hidden, hidden, fp.HIDDEN_LIMIT, device, shifted=True)
            for one in group.hidden
            if isinstance(one, nn.Linear)
        ]
        self._heads = [_head(one, self._own_channels, device) for one in group.heads]
        self._linear = None if group.linear is None else _linear(group.linear, device)

    def parameters_of(
        self, context: Tensor, around: Tensor, known: int, own: Tensor, half: int
    ) -> tuple[Tensor, Tensor]:
        """Means in 1/16 steps and scale levels, whole numbers in float32 ``[P, n]``."""
        hidden = self._known(context[:, :known][around].flatten(1))
        if half:
            first = context[:, known : known + self._own_channels][around].flatten(1)
            hidden = hidden + self._own(first)
        hidden = self._hidden[half](shift_values(clip_values(hidden, fp.HIDDEN_LIMIT)))
        hidden = shift_values(clip_values(hidden, fp.HIDDEN_LIMIT))
        mean, level = self._heads[half](hidden).chunk(2, 1)
        mean = torch.round(mean)
        if half and self._linear is not None:
            mean = torch.round(mean + own[around].flatten(1) @ self._linear / fp.LINEAR_UNIT)
        return mean.clamp(-_MAX_MEAN, _MAX_MEAN), torch.round(level).clamp(0, SCALE_LEVELS - 1)


def _to_integers(x: Tensor) -> IntArray:
    return x.cpu().numpy().astype(np.int64)


def _to(table: IntArray, device: torch.device) -> Tensor:
    return torch.from_numpy(table).to(device)


def _by_offset(weight: Tensor) -> Tensor:
    """``[out, in, k, k]`` -> ``[out, k k in]``: neighbours first, then channels."""
    return weight.detach().permute(0, 2, 3, 1).flatten(1)


def _head(layer: nn.Module, channels: int, device: torch.device) -> Product:
    """The last layer: means in 1/16 steps, then scales in levels of the table."""
    assert isinstance(layer, nn.Linear)
    bias = layer.bias.detach().clone()
    bias[channels:] -= SMALLEST_LOG_SCALE
    plain = product(layer.weight, bias, fp.HIDDEN_UNIT, 1, fp.HIDDEN_LIMIT, device, shifted=True)
    units = torch.tensor([float(fp.INPUT_UNIT), 1 / SCALE_STEP]).repeat_interleave(channels)
    return Product(plain.weight, plain.bias, plain.scale * units.to(device))


def _linear(layer: nn.Conv2d, device: torch.device) -> Tensor:
    """The linear path's weights in 1/256, ``[k k in, out]``."""
    whole = torch.round(_by_offset(layer.weight) * fp.LINEAR_UNIT)
    check_exact(whole.abs().sum(1) * (_MAX_MEAN + fp.INPUT_UNIT * MAX_RESIDUAL))
    return whole.T.contiguous().to(device)
