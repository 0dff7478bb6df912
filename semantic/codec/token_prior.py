"""The learned prior of the base layer's indices: how likely is every codeword, given those before it.

Cells are coded in wavefronts, so that the cells left, above, above left and above right of one are known;
within a cell segment by segment. Segments of one token say much about each other, which indices of fixed
length pay for again and again. Computed in whole numbers, as :mod:`semantic.codec.integer_prior`.
"""

from __future__ import annotations

import decimal
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from semantic.codec import fixed_point as fp
from semantic.codec.exact_products import (
    Product,
    clip_values,
    product,
    shift_values,
    whole_float32,
)

IntArray = NDArray[np.int64]

CODEWORD_UNIT = 32
# Logits come in sixteenths of a neper, and no codeword is less likely than the best by more than 15.9.
LOGIT_UNIT = 16
_REACH = 255
# Left, above, above left, above right: rows and columns from a cell.
_BEFORE = ((0, -1), (-1, 0), (-1, -1), (-1, 1))
_DROPPED = 0.1

# Given rows of the cells and a segment, how likely codewords are, in whole numbers, float64 ``[n, K]``: the
# indices, int64 ``[n]``.
Choose = Callable[[IntArray, int, NDArray[np.float64]], IntArray]


class TokenPrior(nn.Module):
    """Logits of a token's segments, one after the other.

    Args:
        segments, codewords, length: M, K and d of the base layer's codebooks.
        width: hidden channels.
    """

    def __init__(self, segments: int, codewords: int, length: int, width: int) -> None:
        super().__init__()
        self.context = nn.Linear(len(_BEFORE) * (segments * length + 1), width)
        self.own = nn.ModuleList(
            nn.Linear(k * length, width, bias=False) for k in range(1, segments)
        )
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(segments))
        self.heads = nn.ModuleList(nn.Linear(width, codewords) for _ in range(segments))

    def bits(self, tokens: Tensor, codewords: Tensor) -> Tensor:
        """Ideal length of pictures' indices, differentiable in the weights.

        Args:
            tokens: int64 ``[B, rows, columns, M]``.
            codewords: int8 ``[M, K, d]``.

        Returns:
            float32 ``[B]``.
        """
        segments = torch.arange(tokens.shape[-1], device=tokens.device)
        vectors = codewords[segments, tokens].flatten(3).float() / CODEWORD_UNIT
        known = torch.cat([vectors, torch.ones_like(vectors[..., :1])], -1)
        around = []
        for down, across in _BEFORE:
            shifted = functional.pad(known, (0, 0, 1, 1, 1, 0))
            shifted = shifted[:, 1 + down :, 1 + across :][:, : known.shape[1], : known.shape[2]]
            # A slice's border, where nothing is known: now and then.
            there = torch.rand_like(shifted[..., :1]) >= _DROPPED
            around.append(shifted * there)
        base = _linear(self.context, torch.cat(around, -1))
        length = codewords.shape[-1]
        total = base.new_zeros(len(tokens))
        for k, (layer, head) in enumerate(zip(self.hidden, self.heads, strict=True)):
            hidden = base
            if k:
                hidden = hidden + _linear(self.own[k - 1], vectors[..., : k * length])
            hidden = _clip(_linear(layer, _clip(hidden)))
            logits = fp.round_value(_linear(head, hidden).float(), LOGIT_UNIT)
            nats = functional.cross_entropy(logits.movedim(-1, 1), tokens[..., k], reduction="none")
            total = total + nats.sum((1, 2)) / np.log(2)
        return total


def _linear(layer: nn.Module, x: Tensor) -> Tensor:
    assert isinstance(layer, nn.Linear)
    return functional.linear(x, fp.round_weight(layer.weight), layer.bias)


def _clip(x: Tensor) -> Tensor:
    return fp.round_value(x.float(), fp.HIDDEN_UNIT).clamp(0, fp.HIDDEN_LIMIT / fp.HIDDEN_UNIT)


def _frequencies() -> NDArray[np.float64]:
    """Whole multiples of ``2**-24`` near ``exp(-k / 16)``: the same on every machine."""
    with decimal.localcontext() as context:
        context.prec = 40
        exact = [(decimal.Decimal(-k) / LOGIT_UNIT).exp() * 2**24 for k in range(_REACH + 1)]
        return np.array([int(value.to_integral_value()) for value in exact], np.float64)


class IntegerTokenPrior:
    """The prior of indices as both ends of the link run it.

    Args:
        prior: trained.
        codewords: int8 ``[M, K, d]``.
        device: where to compute.

    Raises:
        PriorError: weights that could leave the range in which float32 is exact.
    """

    def __init__(self, prior: TokenPrior, codewords: Tensor, device: torch.device) -> None:
        hidden, limit = fp.HIDDEN_UNIT, fp.HIDDEN_LIMIT
        self._device = device
        self._vectors_of = codewords.to(device)
        self.segments, self.codewords, _ = codewords.shape

        def first(layer: nn.Module) -> Product:
            assert isinstance(layer, nn.Linear)
            return product(layer.weight, layer.bias, CODEWORD_UNIT, hidden, fp.INPUT_LIMIT, device)

        def further(layer: nn.Module, unit: int) -> Product:
            assert isinstance(layer, nn.Linear)
            return product(layer.weight, layer.bias, hidden, unit, limit, device, shifted=True)

        self._context = first(prior.context)
        self._own = [first(layer) for layer in prior.own]
        self._hidden = [further(layer, hidden) for layer in prior.hidden]
        self._heads = [further(layer, LOGIT_UNIT) for layer in prior.heads]
        self._frequencies = _frequencies()

    @torch.inference_mode()
    def counts(
        self, tokens: IntArray, cells: Sequence[IntArray], columns: int
    ) -> NDArray[np.float64]:
        """How likely all codewords are where the tokens are known: whole numbers, float64 ``[n, M, K]``.

        Args:
            tokens: int64 ``[n, M]``, of the cells slice by slice.
            cells: as for :meth:`run`.
            columns: likewise.
        """
        vectors = self._no_vectors(len(tokens))
        vectors[:-1] = self._vectors(tokens)
        with whole_float32():
            context = self._look_around(vectors, _rows_before(cells, columns))
            return np.stack([self._count(context, tokens, k) for k in range(self.segments)], 1)

    @torch.inference_mode()
    def run(self, cells: Sequence[IntArray], columns: int, choose: Choose) -> IntArray:
        """Pass over the cells of some slices, whose contexts stay within each.

        Args:
            cells: of every slice, numbers counted row by row, rising.
            columns: of the picture's cells.
            choose: gives the indices of some rows (cells, slice by slice), called wavefront by wavefront;
                the rows of a call rise.

        Returns:
            indices of all rows, int64 ``[n, M]``.
        """
        numbers = np.concatenate(cells)
        before = _rows_before(cells, columns)
        found = np.zeros((len(numbers), self.segments), np.int64)
        vectors = self._no_vectors(len(numbers))
        with whole_float32():
            for rows in wavefronts(numbers, columns):
                context = self._look_around(vectors, before[rows])
                for k in range(self.segments):
                    found[rows, k] = choose(rows, k, self._count(context, found[rows], k))
                vectors[torch.from_numpy(rows)] = self._vectors(found[rows])
        return found

    def _no_vectors(self, rows: int) -> Tensor:
        """Of so many cells, none of them known, and of the one that never is."""
        width = self.segments * self._vectors_of.shape[-1] + 1
        return torch.zeros(rows + 1, width, dtype=torch.int8, device=self._device)

    def _vectors(self, tokens: IntArray) -> Tensor:
        """Codewords of whole tokens, and that they are known: int8 ``[n, M d + 1]``."""
        own = self._own_vectors(tokens, self.segments)
        return torch.cat([own, torch.full_like(own[:, :1], CODEWORD_UNIT)], 1)

    def _own_vectors(self, tokens: IntArray, segments: int) -> Tensor:
        numbers = torch.arange(segments, device=self._device)
        places = torch.from_numpy(tokens[:, :segments]).to(self._device)
        return self._vectors_of[numbers, places].flatten(1)

    def _look_around(self, vectors: Tensor, before: IntArray) -> Tensor:
        """What the cells before some cells say: float32 ``[n, width]``."""
        return self._context(vectors[torch.from_numpy(before).to(self._device)].flatten(1))

    def _count(self, context: Tensor, tokens: IntArray, segment: int) -> NDArray[np.float64]:
        """How likely all codewords of a segment are, given those before it in ``tokens``."""
        hidden = context
        if segment:
            hidden = hidden + self._own[segment - 1](self._own_vectors(tokens, segment))
        hidden = self._hidden[segment](shift_values(clip_values(hidden, fp.HIDDEN_LIMIT)))
        logits = self._heads[segment](shift_values(clip_values(hidden, fp.HIDDEN_LIMIT))).round()
        below = (logits.amax(1, keepdim=True) - logits).clamp(0, _REACH)
        return self._frequencies[below.cpu().numpy().astype(np.int64)]


def wavefronts(cells: IntArray, columns: int) -> list[IntArray]:
    """Rows of cells that are coded together, wavefront by wavefront, each rising.

    Args:
        cells: numbers counted row by row, of a slice or of several one after the other.
        columns: of the picture's cells.
    """
    down, across = np.divmod(cells, columns)
    waves = 2 * down + across
    order = np.argsort(waves, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(waves[order])) + 1)


def _rows_before(cells: Sequence[IntArray], columns: int) -> IntArray:
    """Rows of the cells before every cell in its own slice, ``[n, 4]``; n where there is none."""
    total = sum(len(some) for some in cells)
    found = []
    first = 0
    for some in cells:
        down, across = np.divmod(some, columns)
        for_slice = []
        for rows, steps in _BEFORE:
            wanted = some + rows * columns + steps
            there = (across + steps >= 0) & (across + steps < columns) & (down + rows >= 0)
            at = np.minimum(np.searchsorted(some, wanted), len(some) - 1)
            there &= some[at] == wanted
            for_slice.append(np.where(there, first + at, total))
        found.append(np.stack(for_slice, 1))
        first += len(some)
    return np.concatenate(found)
