"""Range coding of quantised residuals, with the probabilities that the prior gives.

The coder is constriction's (Bamler 2022). A residual's probability hangs on one of 64 scales; the tables are
integers that come with the weights, so that no end computes a logarithm or an exponential that could differ.
"""

from __future__ import annotations

import binascii
import itertools
import math

import constriction
import numpy as np
from numpy.typing import NDArray

from semantic.codec.detail_prior import SCALE_LEVELS, SCALE_STEP, SMALLEST_LOG_SCALE

IntArray = NDArray[np.int64]

# Residuals up to here have a probability of their own; the last one stands for all beyond, whose excess
# follows.
TABLE_WIDTH = 256
_TOTAL = 1 << 24
_EXCESS_BITS = 11
_REACH_SCALES = 12
# What a coder's last words may take beyond the ideal length, bits.
SEAL_BITS = 40
_MAX_STEP = 31


class EntropyError(ValueError):
    """Bits that no encoder made."""


def logistic_table() -> NDArray[np.int32]:
    """Frequencies of ``abs(residual)``, int32 ``[64, 256]``: a discretised logistic distribution per scale.

    A row holds what one sign gets; sum over both signs is 2**24. Zero behind a row's reach.
    """
    table = np.zeros((SCALE_LEVELS, TABLE_WIDTH), np.int32)
    for level in range(SCALE_LEVELS):
        scale = math.exp(SMALLEST_LOG_SCALE + SCALE_STEP * level)
        reach = min(TABLE_WIDTH - 1, max(2, math.ceil(_REACH_SCALES * scale)))
        edges = 0.5 * (1 + np.tanh((np.arange(reach + 1) - 0.5) / (2 * scale)))
        inside = np.diff(np.append(edges, 1.0))
        inside[0] = 2 * (edges[1] - 0.5)
        counts = np.maximum(np.rint(inside * _TOTAL), 1)
        counts[0] = _TOTAL - 2 * counts[1:].sum()
        table[level, : reach + 1] = counts
    return table


class ResidualModels:
    """Probabilities of residuals at every scale.

    Args:
        table: as of :func:`logistic_table`.

    Raises:
        EntropyError: a table of another shape, with negative or missing frequencies.
    """

    def __init__(self, table: NDArray[np.int32]) -> None:
        if (
            table.shape != (SCALE_LEVELS, TABLE_WIDTH)
            or (table < 0).any()
            or (table[:, :3] < 1).any()
        ):
            raise EntropyError(f"table of residuals: malformed, {list(table.shape)}")
        self.reach = (table > 0).sum(1).astype(np.int64) - 1
        totals = table[:, 0] + 2.0 * table[:, 1:].sum(1, dtype=np.float64)
        with np.errstate(divide="ignore"):
            bits = -np.log2(table / totals[:, None])
        for level, reach in enumerate(self.reach):
            bits[level, reach:] = bits[level, reach] + _EXCESS_BITS
        self.bits = bits.astype(np.float32)
        self.models = []
        for level, reach in enumerate(self.reach):
            side = table[level, 1 : reach + 1].astype(np.float64)
            row = np.concatenate([side[::-1], table[level, :1], side])
            self.models.append(_categorical(row))
        self.excess = constriction.stream.model.Uniform(1 << _EXCESS_BITS)

    def lengths(self, residuals: IntArray, levels: IntArray) -> NDArray[np.float32]:
        """Ideal bits of residuals of the given scales, elementwise."""
        return self.bits[levels, np.minimum(np.abs(residuals), TABLE_WIDTH - 1)]


def _categorical(frequencies: NDArray[np.float64]) -> constriction.stream.model.Categorical:
    return constriction.stream.model.Categorical(frequencies / _TOTAL, perfect=False)


def _gain_step_models() -> list[constriction.stream.model.Categorical]:
    """Steps of the gain map, for calm, lively and unknown neighbours."""
    steps = np.abs(np.arange(-_MAX_STEP, _MAX_STEP + 1))
    return [_categorical(_TOTAL * 0.5 ** (steps / width)) for width in (0.25, 0.5, 1.0)]


class SliceWriter:
    """Range coder of one slice."""

    def __init__(self, models: ResidualModels) -> None:
        self._models = models
        self._coder = constriction.stream.queue.RangeEncoder()
        self._check = _Check()

    def write(self, residuals: IntArray, levels: IntArray) -> None:
        """Append residuals ``[n]`` whose scales both ends know."""
        self._check.add(residuals)
        order, groups = _by_level(levels)
        reach = self._models.reach[levels[order]]
        rising = residuals[order]
        clipped = np.minimum(np.maximum(rising, -reach), reach)
        symbols = (clipped + reach).astype(np.int32)
        far = np.abs(clipped) == reach
        excess = (np.abs(rising) - reach).astype(np.int32)
        for level, begin, end in groups:
            self._coder.encode(symbols[begin:end], self._models.models[level])
            if far[begin:end].any():
                self._coder.encode(excess[begin:end][far[begin:end]], self._models.excess)

    def write_indices(self, indices: IntArray, weights: NDArray[np.float64]) -> None:
        """Append indices ``[n]``, whose weights ``[n, K]`` both ends know."""
        self._check.add(indices)
        self._coder.encode(indices.astype(np.int32), _ANY, weights)

    def write_step(self, step: int, context: int) -> None:
        """Append a step of the gain map, -31 to 31."""
        self._check.add(np.array([step]))
        self._coder.encode(step + _MAX_STEP, GAIN_STEP_MODELS[context])

    @property
    def check(self) -> int:
        """CRC-16 over everything written."""
        return self._check.value

    def bits(self) -> NDArray[np.uint8]:
        """What was written, ``uint8 [n]``; zeros at the end are left out, a reader takes them as read."""
        words = self._coder.get_compressed().astype(">u4")
        bits = np.unpackbits(np.frombuffer(words.tobytes(), np.uint8))
        ones = np.flatnonzero(bits)
        return bits[: ones[-1] + 1] if len(ones) else bits[:0]


class SliceReader:
    """Inverse of :class:`SliceWriter`.

    Args:
        models: as at the other end.
        bits: ``uint8 [n]``, with anything behind them.

    Raises:
        EntropyError: from every method, where the bits cannot come from an encoder.
    """

    def __init__(self, models: ResidualModels, bits: NDArray[np.uint8]) -> None:
        self._models = models
        padded = np.zeros(-(-len(bits) // 32) * 32, np.uint8)
        padded[: len(bits)] = bits
        words = np.frombuffer(np.packbits(padded).tobytes(), ">u4").astype(np.uint32)
        self._coder = constriction.stream.queue.RangeDecoder(words)
        self._check = _Check()

    def read(self, levels: IntArray) -> IntArray:
        """The next residuals, int64 ``[n]``, for scales ``[n]``."""
        order, groups = _by_level(levels)
        reach = self._models.reach[levels[order]]
        rising = np.zeros(len(levels), np.int64)
        for level, begin, end in groups:
            some = self._decode(self._models.models[level], end - begin) - reach[begin]
            far = np.abs(some) == reach[begin]
            if far.any():
                excess = self._decode(self._models.excess, int(far.sum()))
                some[far] += np.sign(some[far]) * excess
            rising[begin:end] = some
        residuals = np.empty(len(levels), np.int64)
        residuals[order] = rising
        self._check.add(residuals)
        return residuals

    def read_indices(self, weights: NDArray[np.float64]) -> IntArray:
        """The next indices, int64 ``[n]``, given their weights ``[n, K]``."""
        indices = self._decode(_ANY, weights)
        self._check.add(indices)
        return indices

    def read_step(self, context: int) -> int:
        """The next step of the gain map."""
        step = int(self._decode(GAIN_STEP_MODELS[context], 1)[0]) - _MAX_STEP
        self._check.add(np.array([step]))
        return step

    @property
    def check(self) -> int:
        """CRC-16 over everything read."""
        return self._check.value

    def _decode(self, model: object, count: int | NDArray[np.float64]) -> IntArray:
        """So many symbols, or as many as there are rows of weights."""
        try:
            found = self._coder.decode(model, count)
        except AssertionError as error:  # constriction's way to say so
            raise EntropyError(f"a slice does not decode: {error}") from None
        return np.asarray(found, np.int64)


class _Check:
    def __init__(self) -> None:
        self.value = 0xFFFF

    def add(self, numbers: IntArray) -> None:
        self.value = binascii.crc_hqx(numbers.astype("<i2").tobytes(), self.value)


def _by_level(levels: IntArray) -> tuple[IntArray, list[tuple[int, int, int]]]:
    """Order by rising scale, stable, and of every scale that occurs its number and its part of that order."""
    order = np.argsort(levels, kind="stable")
    rising = levels[order]
    edges = np.flatnonzero(np.diff(rising, prepend=-1, append=-1)).tolist() if len(levels) else []
    return order, [(int(rising[a]), a, b) for a, b in itertools.pairwise(edges)]


GAIN_STEP_MODELS = _gain_step_models()
# Weights come with every symbol.
_ANY = constriction.stream.model.Categorical(perfect=False)
