"""The detail layer as bits: slices of exactly the length that the air has room for, and back.

The encoder looks for the gain at which a slice just fits: bits grow steadily with it. Slices share a picture
so that all are equally full.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from semantic.codec import gain_map as gm
from semantic.codec.detail_layer import DetailLayer
from semantic.codec.detail_prior import SCALE_LEVELS, SCALE_STEP
from semantic.codec.entropy import (
    SEAL_BITS,
    TABLE_WIDTH,
    EntropyError,
    ResidualModels,
    SliceReader,
    SliceWriter,
)
from semantic.codec.fixed_point import INPUT_UNIT
from semantic.codec.integer_prior import MAX_RESIDUAL, IntegerPrior, Pass
from semantic.codec.slice_layout import SliceLayout, make_layout
from semantic.codec.token_prior import IntegerTokenPrior, wavefronts
from semantic.codec.wavelet import CHANNELS
from semantic.frame.slices import (
    CELL,
    POSITION,
    BitWriter,
    SliceHeader,
    cells_of,
    find_slices,
    positions_of,
    slice_bounds,
    write_header,
)
from semantic.index_frame import IndexFrameError

IntArray = NDArray[np.int64]

# A residual moves towards zero where the bits saved are worth the error, in squared steps per bit. Chosen on
# photos of the training set.
RATE_WEIGHT = 0.03
# How many coefficients are not 0 where so many bits are spent, both as logarithms per pixel: a parabola
# through 30 photos of the training set, off by a tenth.
_NONZERO = (-0.0472, 0.7664, -1.2543)
# How bits grow with the gain at first: ln(bits) per neper.
_BITS_SLOPE = 1.2
_SOLVING_ROUNDS, _FITTING_ROUNDS = 6, 10
# A slice may be this much shorter than its room, as a share or in bits, before another round is spent on it.
_CLOSE_ENOUGH, _CLOSE_BITS = 0.004, 16
_SPARE_BITS = 4
_FORECAST_ROWS = 800


@dataclass(frozen=True)
class CodedSource:
    """A picture as the detail layer's encoder takes it.

    Args:
        bands: of the picture padded to whole cells, float32 ``[1, 192, h, w]``
            (:meth:`semantic.codec.detail_layer.DetailLayer.bands`).
        base_bands: of the base picture.
        tokens: base indices, int64 ``[rows, columns, M]``.
        size: width and height of the picture in pixels.
        levels: of the gain map, int64 ``[rows, columns]``; None: the same everywhere.
    """

    bands: Tensor
    base_bands: Tensor
    tokens: Tensor
    size: tuple[int, int]
    levels: IntArray | None


@dataclass(frozen=True)
class ReceivedDetail:
    """What the slices that arrived say.

    Args:
        size: width and height in pixels.
        tokens: base indices, int64 ``[rows, columns, M]``, 0 where unknown.
        tokens_known: bool ``[rows, columns]``.
        values: coefficients in steps, float32 ``[1, 192, h, w]``, 0 where unknown.
        log_gain: float32 ``[1, 1, h, w]``.
        inside: bool ``[1, 1, h, w]``, positions whose slice arrived and has detail.
        slices: of the picture.
        damaged: slices that arrived and whose check failed; they count as lost.
    """

    size: tuple[int, int]
    tokens: Tensor
    tokens_known: Tensor
    values: Tensor
    log_gain: Tensor
    inside: Tensor
    slices: int
    damaged: int


@dataclass
class _Trial:
    """One pass over all slices at given gains.

    Args:
        layout: of the slices.
        gains: of every slice.
        row_gains: of every row, with the map.
        steps: per pass its residuals and levels of scales.
        errors: per pass what the prior's means left, in steps.
        bits: of every slice's residuals.
    """

    layout: SliceLayout
    gains: IntArray
    row_gains: IntArray
    steps: list[tuple[Pass, IntArray, IntArray]]
    errors: list[NDArray[np.float32]]
    bits: NDArray[np.float64]


class _Forecast:
    """What a trial would have cost at other gains: errors grow with them, and so do the scales expected.

    Of large pictures every few rows one stands for its neighbours.

    Args:
        trial: of which every row is in a pass.
        models: probabilities of residuals.
    """

    def __init__(self, trial: _Trial, models: ResidualModels) -> None:
        self._trial, self._table = trial, models.bits.reshape(-1)
        stride = max(1, len(trial.row_gains) // _FORECAST_ROWS)
        rows, errors, levels = [], [], []
        for (step, _, level), error in zip(trial.steps, trial.errors, strict=True):
            some = step.rows % stride == 0
            rows.append(np.repeat(step.rows[some], np.ptp(step.channels)))
            errors.append(np.abs(error[some]).reshape(-1))
            levels.append(level[some].reshape(-1))
        self._rows, self._errors = np.concatenate(rows), np.concatenate(errors)
        self._levels = np.concatenate(levels).astype(np.float32)
        # Rounding to save bits is in the trial and not in the forecast.
        as_is = self._of_slices(self._row_bits(trial.row_gains))
        self._factor = trial.bits / np.maximum(as_is, 1)

    def row_bits(self, row_gains: IntArray) -> NDArray[np.float64]:
        """Bits of every row's residuals at these gains."""
        return self._row_bits(row_gains) * self._factor[self._trial.layout.slice_of]

    def bits(self, row_gains: IntArray) -> NDArray[np.float64]:
        """The same of every slice."""
        return self._of_slices(self.row_bits(row_gains))

    def _row_bits(self, row_gains: IntArray) -> NDArray[np.float64]:
        change = ((row_gains - self._trial.row_gains) / gm.GAIN_UNIT).astype(np.float32)
        residuals = np.rint(self._errors * np.exp(change)[self._rows])
        np.minimum(residuals, TABLE_WIDTH - 1, out=residuals)
        levels = self._levels + (change / np.float32(SCALE_STEP))[self._rows]
        np.minimum(np.maximum(levels, 0, out=levels), SCALE_LEVELS - 1.001, out=levels)
        whole = np.floor(levels)
        place = (whole * TABLE_WIDTH + residuals).astype(np.int32)
        low, high = self._table.take(place), self._table.take(place + TABLE_WIDTH)
        found = low + (levels - whole) * (high - low)
        sums: NDArray[np.float64] = np.bincount(self._rows, found, len(row_gains)).astype(
            np.float64
        )
        return sums

    def _of_slices(self, row_bits: NDArray[np.float64]) -> NDArray[np.float64]:
        layout = self._trial.layout
        sums: NDArray[np.float64] = np.bincount(layout.slice_of, row_bits, layout.slices).astype(
            np.float64
        )
        return sums


class DetailCoder:
    """Detail layer, integer prior and range coder on one device.

    Args:
        layer: trained.
        models: probabilities of residuals.
        device: where to compute.
    """

    def __init__(self, layer: DetailLayer, models: ResidualModels, device: torch.device) -> None:
        self.layer = layer
        self.device = device
        self._models = models
        self._prior = IntegerPrior(layer.prior, device)
        self._tokens = IntegerTokenPrior(layer.prior.tokens, layer.prior.codewords, device)
        self.rate_weight = RATE_WEIGHT

    # --- encoder -----------------------------------------------------------------------------

    @torch.inference_mode()
    def encode(
        self, source: CodedSource, payload_bits: int, slices: int, *, copies: bool = False
    ) -> NDArray[np.uint8]:
        """Bits of a picture, ``uint8 [payload_bits]``.

        Args:
            source: the picture.
            payload_bits: how many there must be; zeros fill what is left.
            slices: into how many parts.
            copies: every slice repeats the base tokens of the one that follows.

        Raises:
            IndexFrameError: fewer bits than the base layer needs.
        """
        rooms = np.array([end - begin for begin, end in slice_bounds(payload_bits, slices)])
        total = positions_of(*source.size)
        slices = len(rooms)
        if slices > total:
            raise IndexFrameError(f"{slices} slices of a picture of {total} positions")
        whole = self._base_parts(source.tokens, [(0, total)], copies)
        runs = _cut(np.ones(total), whole, rooms, copies)
        base = self._base_parts(source.tokens, runs, copies)
        # A map is left out where it would leave no room for anything that could follow it.
        for some in (source, replace(source, levels=None)):
            if (self._overhead(some, base) <= rooms).all():
                return _fill(self._search(some, whole, rooms, copies), rooms)
        return _fill([self._base_only(source, base, k) for k in range(slices)], rooms)

    def _search(
        self, source: CodedSource, whole: _BaseParts, rooms: IntArray, copies: bool
    ) -> list[NDArray[np.uint8]]:
        """Slices as full as their rooms allow; ``whole`` is the base layer in one slice."""
        room = float(rooms.sum() - self._overhead(source, whole).sum())
        gain, nonzero = self._first_gain(source, whole.layout, room)
        gains = np.full(len(rooms), gain)
        base = whole
        if len(rooms) > 1:
            # Cut where the coefficients suggest it, and again where a trial of that says.
            base = self._base_parts(source.tokens, _cut(nonzero, whole, rooms, copies), copies)
            forecast = _Forecast(self._try(source, base.layout, gains), self._models)
            left = np.maximum(rooms - self._overhead(source, base), 1).sum()
            gains[:] = self._solve_alike(source, base.layout, forecast, float(left))
            wanted = forecast.row_bits(self._row_gains(source, base.layout, gains))
            base = self._base_parts(source.tokens, _cut(wanted, whole, rooms, copies), copies)
        return self._fit(source, base, rooms, gains)

    def _first_gain(
        self, source: CodedSource, layout: SliceLayout, bits: float
    ) -> tuple[int, NDArray[np.float64]]:
        """Gain at which about as many coefficients are not 0 as the bits usually buy, and in which rows."""
        zero = self._row_gains(source, layout, np.array([-int(gm.LOWEST_LOG_GAIN * gm.GAIN_UNIT)]))
        left = source.bands - source.base_bands * self.layer.base_share
        sizes = left[0].flatten(1).abs().T.cpu().numpy()[layout.places]
        sizes = sizes * np.exp(gm.log_gains(zero))[:, None]
        pixels = source.size[0] * source.size[1]
        wanted = np.exp(np.polyval(_NONZERO, np.log(max(bits, 1) / pixels))) * pixels
        rank = sizes.size - int(np.clip(wanted, 1, sizes.size - 1))
        size = float(np.partition(sizes.reshape(-1), rank)[rank])
        gain = (np.log(0.5 / max(size, 1e-6)) - gm.LOWEST_LOG_GAIN) * gm.GAIN_UNIT
        return int(np.clip(gain, 0, gm.HIGHEST_GAIN)), (sizes >= size).sum(1) + 0.5

    def _solve_alike(
        self, source: CodedSource, layout: SliceLayout, forecast: _Forecast, target: float
    ) -> int:
        """The one gain at which all slices together would have so many bits."""
        low, high = 0, gm.HIGHEST_GAIN
        while high - low > 1:
            middle = (low + high) // 2
            gains = np.full(layout.slices, middle)
            bits = forecast.bits(self._row_gains(source, layout, gains)).sum()
            low, high = (middle, high) if bits <= target else (low, middle)
        return low

    def _fit(
        self, source: CodedSource, base: _BaseParts, rooms: IntArray, gains: IntArray
    ) -> list[NDArray[np.uint8]]:
        """Slices of these runs, each as full as its own gain allows."""
        best = [self._base_only(source, base, k) for k in range(len(rooms))]
        done = np.zeros(len(rooms), np.bool_)
        around = self._overhead(source, base)
        for attempt in range(_FITTING_ROUNDS):
            trial = self._try(source, base.layout, gains)
            forecast = _Forecast(trial, self._models)
            target = np.maximum(rooms - around, 1) * (1 - _CLOSE_ENOUGH / 4)
            found = self._solve(source, trial, forecast, target)
            # Above the room never stand still, but step down ever faster: the last resort is the base alone.
            lower = np.minimum(found, gains - 2**attempt)
            found = np.where(trial.bits + around > rooms, lower, found)
            found = np.clip(found, 0, gm.HIGHEST_GAIN)
            # Later rounds are for slices that do not fit yet, not for the last bits.
            close = np.maximum(_CLOSE_BITS, _CLOSE_ENOUGH * rooms) * 2**attempt
            length = trial.bits + around
            promising = (length < rooms + SEAL_BITS) & (
                (length > rooms - 2 * close) | (found == gains) | (attempt == _FITTING_ROUNDS - 1)
            )
            for k in np.flatnonzero(promising & ~done):
                bits = self._write(source, trial, base, k)
                around[k] = len(bits) - int(trial.bits[k]) + _SPARE_BITS
                if len(best[k]) < len(bits) <= rooms[k]:
                    best[k] = bits
                done[k] = 0 <= rooms[k] - len(bits) <= close[k]
            done |= found == gains
            if done.all():
                break
            gains = np.where(done, gains, found)
        return best

    def _solve(
        self,
        source: CodedSource,
        trial: _Trial,
        forecast: _Forecast,
        target: NDArray[np.float64],
    ) -> IntArray:
        """Gains at which slices would have their target's bits; bits grow steadily with them."""
        low, high = np.zeros(len(target), np.int64), np.full(len(target), gm.HIGHEST_GAIN)
        gains = trial.gains.copy()
        slope = np.full(len(target), _BITS_SLOPE / gm.GAIN_UNIT)
        bits = trial.bits
        for _ in range(_SOLVING_ROUNDS):
            low = np.where(bits <= target, gains, low)
            high = np.where(bits > target, gains, high)
            step = np.log(target / np.maximum(bits, 1)) / slope
            following = np.clip(np.floor(gains + step).astype(np.int64), low, high)
            if np.abs(following - gains).max() <= 1:
                return following
            now = forecast.bits(self._row_gains(source, trial.layout, following))
            moved = following != gains
            measured = np.log(np.maximum(now, 1) / np.maximum(bits, 1)) / np.where(
                moved, following - gains, 1
            )
            usable = moved & (measured > 0.2 * slope) & (measured < 5 * slope)
            slope = np.where(usable, measured, slope)
            gains, bits = following, now
        return gains

    def _try(self, source: CodedSource, layout: SliceLayout, gains: IntArray) -> _Trial:
        per_row = self._row_gains(source, layout, gains)
        inside = torch.ones(1, 1, *layout.shape, dtype=torch.bool, device=self.device)
        log_gain = _plane(gm.log_gains(per_row), layout, self.device)
        exact = self.layer.analyse_bands(source.bands, source.base_bands, log_gain, inside)
        wanted = exact[0].flatten(1).T.cpu().numpy()[layout.places] * INPUT_UNIT
        steps: list[tuple[Pass, IntArray, IntArray]] = []
        errors: list[NDArray[np.float32]] = []
        bits = np.zeros(layout.slices)

        def choose(step: Pass, mean: IntArray, level: IntArray) -> IntArray:
            begin, end = step.channels
            error = (wanted[step.rows, begin:end] - mean.astype(np.float32)) / INPUT_UNIT
            residual, lengths = self._quantise(error, level)
            steps.append((step, residual, level))
            errors.append(error)
            np.add.at(bits, layout.slice_of[step.rows], lengths.sum(1))
            return mean + INPUT_UNIT * residual

        tokens = _tokens_of_pairs(source.tokens, layout)
        self._prior.run(layout, tokens, gm.prior_gains(per_row), choose)
        return _Trial(layout, gains, per_row, steps, errors, bits)

    def _quantise(
        self, error: NDArray[np.float32], level: IntArray
    ) -> tuple[IntArray, NDArray[np.float32]]:
        """Residuals of least error plus rate, and their bits."""
        nearest = np.clip(np.rint(error), -MAX_RESIDUAL, MAX_RESIDUAL).astype(np.int64)
        bits = self._models.lengths(nearest, level)
        if not self.rate_weight:
            return nearest, bits
        smaller = nearest - np.sign(nearest)
        fewer = self._models.lengths(smaller, level)
        # (e - s)^2 - (e - n)^2 with s = n - sign(n)
        loss = (error - smaller) ** 2 - (error - nearest) ** 2
        move = (nearest != 0) & (loss < self.rate_weight * (bits - fewer))
        return np.where(move, smaller, nearest), np.where(move, fewer, bits)

    def _row_gains(self, source: CodedSource, layout: SliceLayout, gains: IntArray) -> IntArray:
        per_row = gains[layout.slice_of]
        if source.levels is None:
            return gm.total_gains(per_row, np.zeros_like(per_row))
        return gm.total_gains(
            per_row, source.levels.reshape(-1)[gm.map_cells(layout, *source.size)]
        )

    def _write(
        self, source: CodedSource, trial: _Trial, base: _BaseParts, number: int
    ) -> NDArray[np.uint8]:
        """One slice of a trial, header and all."""
        layout = trial.layout
        writer = base.writer(number, self._models)
        if source.levels is not None:
            cells = gm.map_cells(layout, *source.size)
            touched = np.unique(cells[layout.slice_of == number])
            gm.write_levels(writer, touched, source.levels.reshape(-1), source.levels.shape[1])
        for step, residual, level in trial.steps:
            own = layout.slice_of[step.rows]
            begin, end = np.searchsorted(own, (number, number + 1))
            if begin < end:
                writer.write(residual[begin:end].reshape(-1), level[begin:end].reshape(-1))
        gain = int(trial.gains[number])
        return base.with_header(source, number, gain, writer)

    def base_bits(self, tokens: Tensor) -> float:
        """Ideal length of a picture's base indices in one slice, int64 ``[rows, columns, M]``."""
        positions = tokens[..., 0].numel() * (CELL // POSITION) ** 2
        return float(self._base_parts(tokens, [(0, positions)], copies=False).bits[0])

    def _base_parts(
        self, tokens: Tensor, runs: Sequence[tuple[int, int]], copies: bool
    ) -> _BaseParts:
        """The base layer in slices of these runs."""
        rows, columns, _ = tokens.shape
        layout = make_layout(rows, columns, runs)
        cells, copied = [], []
        for number in range(len(runs)):
            own = layout.cells_of_slice(number)
            extra = own[:0]
            if copies and len(runs) > 1:
                following = layout.cells_of_slice((number + 1) % len(runs))
                extra = following[~np.isin(following, own)]
            cells.append(np.sort(np.concatenate([own, extra])))
            copied.append(len(extra))
        flat = tokens.reshape(rows * columns, -1).cpu().numpy()[np.concatenate(cells)]
        counts = self._tokens.counts(flat, cells, columns)
        return _BaseParts(runs, layout, cells, copied, flat, counts, columns)

    def _base_only(self, source: CodedSource, base: _BaseParts, number: int) -> NDArray[np.uint8]:
        writer = base.writer(number, self._models)
        return base.with_header(source, number, gm.NO_DETAIL, writer)

    def _overhead(self, source: CodedSource, base: _BaseParts) -> IntArray:
        """Bits of every slice beside its residuals, as an estimate."""
        layout = base.layout
        found = np.zeros(layout.slices, np.int64)
        nothing = SliceWriter(self._models)
        for k in range(layout.slices):
            found[k] = len(base.with_header(source, k, gm.NO_DETAIL, nothing)) + SEAL_BITS
        found += np.ceil(base.bits).astype(np.int64)
        if source.levels is not None:
            cells = gm.map_cells(layout, *source.size)
            for k in range(layout.slices):
                writer = SliceWriter(self._models)
                touched = np.unique(cells[layout.slice_of == k])
                gm.write_levels(writer, touched, source.levels.reshape(-1), source.levels.shape[1])
                found[k] += len(writer.bits())
        return found

    # --- decoder -----------------------------------------------------------------------------

    @torch.inference_mode()
    def decode(
        self, payload: bytes, lost: NDArray[np.bool_], segments: int, likely: int | None = None
    ) -> ReceivedDetail | None:
        """Everything that the slices of a payload say.

        Args:
            payload: bytes, 0 where lost.
            lost: bool ``[len(payload)]``.
            segments: base indices per cell.
            likely: number of code blocks on the air.

        Returns:
            None where no slice is of any use.
        """
        found = find_slices(payload, lost, likely)
        if not found:
            return None
        size = found[0][0].width, found[0][0].height
        slices = found[0][0].slices
        rows, columns = cells_of(*size)
        taken = np.zeros(positions_of(*size), np.bool_)
        usable: list[_Arrived] = []
        damaged = 0
        for header, bits in found:
            run = slice(header.first, header.first + header.count)
            if (header.width, header.height) != size or taken[run].any():
                damaged += 1
                continue
            taken[run] = True
            reader = SliceReader(self._models, bits)
            usable.append(_Arrived(header, reader, _cells_of_slice(header, rows, columns)))
        if usable:
            self._read_tokens(usable, columns, segments)
        values, gains, inside = self._read_detail(usable, size)
        tokens = np.zeros((rows * columns, segments), np.int64)
        known = np.zeros(rows * columns, np.bool_)
        for one in usable:
            if one.good:
                tokens[one.cells], known[one.cells] = one.tokens, True
        return ReceivedDetail(
            size,
            torch.from_numpy(tokens).reshape(rows, columns, segments),
            torch.from_numpy(known).reshape(rows, columns),
            values,
            gains,
            inside,
            slices,
            damaged + sum(not one.good for one in usable),
        )

    def _read_tokens(self, arrived: Sequence[_Arrived], columns: int, segments: int) -> None:
        """Base tokens of slices; what does not decode is no longer good."""
        starts = np.cumsum([0, *(len(one.cells) for one in arrived)])

        def choose(rows: IntArray, segment: int, weights: NDArray[np.float64]) -> IntArray:
            indices = np.zeros(len(rows), np.int64)
            edges = np.searchsorted(rows, starts)
            for one, begin, end in zip(arrived, edges, edges[1:], strict=False):
                if begin < end and one.good:
                    try:
                        indices[begin:end] = one.reader.read_indices(weights[begin:end])
                    except EntropyError:
                        one.good = False
            return indices

        found = self._tokens.run([one.cells for one in arrived], columns, choose)
        for one, begin, end in zip(arrived, starts, starts[1:], strict=False):
            one.tokens = found[begin:end]

    def _read_detail(
        self, arrived: Sequence[_Arrived], size: tuple[int, int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Coefficients, log gains and where they are known; slices whose check fails are no longer good."""
        rows, columns = cells_of(*size)
        shape = rows * 4, columns * 4
        values, gain_plane = torch.zeros(1, CHANNELS, *shape), torch.zeros(1, 1, *shape)
        inside = torch.zeros(1, 1, *shape, dtype=torch.bool)
        detailed = [one for one in arrived if one.good and one.header.gain != gm.NO_DETAIL]
        if detailed:
            layout = make_layout(
                rows, columns, [(one.header.first, one.header.count) for one in detailed]
            )
            per_slice = np.array([one.header.gain for one in detailed])
            levels = self._read_levels(detailed, layout, size)
            gains = gm.total_gains(per_slice[layout.slice_of], levels)
            found = self._read_coefficients(detailed, layout, gains)
        for one in arrived:
            one.good = one.good and one.reader.check == one.header.check
        if not detailed:
            return values, gain_plane + gm.LOWEST_LOG_GAIN, inside
        good = np.array([one.good for one in detailed])[layout.slice_of]
        flat = values.flatten(2)[0]
        flat[:, layout.places[good]] = torch.from_numpy(found[good] / INPUT_UNIT).float().T
        gain_plane[:] = float(gm.log_gains(per_slice).mean())
        gain_plane.view(-1)[layout.places] = torch.from_numpy(gm.log_gains(gains))
        inside.view(-1)[layout.places[good]] = True
        return values, gain_plane, inside

    def _read_levels(
        self, detailed: Sequence[_Arrived], layout: SliceLayout, size: tuple[int, int]
    ) -> IntArray:
        """Levels of the gain map of every row."""
        levels = np.zeros(len(layout.places), np.int64)
        cells = gm.map_cells(layout, *size)
        for k, one in enumerate(detailed):
            if not one.header.has_map:
                continue
            mine = layout.slice_of == k
            touched, at = np.unique(cells[mine], return_inverse=True)
            try:
                levels[mine] = gm.read_levels(one.reader, touched, gm.map_shape(*size)[1])[at]
            except EntropyError:
                one.good = False
        return levels

    def _read_coefficients(
        self, detailed: Sequence[_Arrived], layout: SliceLayout, gains: IntArray
    ) -> IntArray:
        """Coefficients of every row in 1/16 steps."""

        def choose(step: Pass, mean: IntArray, level: IntArray) -> IntArray:
            residual = np.zeros_like(mean)
            for k, part in _by_slice(layout, step.rows):
                if not detailed[k].good:
                    continue
                try:
                    read = detailed[k].reader.read(level[part].reshape(-1))
                except EntropyError:
                    detailed[k].good = False
                    continue
                residual[part] = np.clip(read, -MAX_RESIDUAL, MAX_RESIDUAL).reshape(
                    residual[part].shape
                )
            return mean + INPUT_UNIT * residual

        tokens = [
            one.tokens[np.isin(one.cells, layout.cells_of_slice(k))]
            for k, one in enumerate(detailed)
        ]
        pairs = torch.from_numpy(np.concatenate(tokens))
        return self._prior.run(layout, pairs, gm.prior_gains(gains), choose)


@dataclass(frozen=True)
class _BaseParts:
    """The base layer in slices: which tokens each brings, and how likely they are.

    Args:
        runs: of positions, a slice each.
        layout: of these.
        cells: of every slice, copies of the next one's included, rising.
        copied: how many of them are copies.
        tokens: of all of them, slice by slice, int64 ``[n, M]``.
        counts: how likely every codeword is there, float64 ``[n, M, K]``.
        columns: of the picture's cells.
    """

    runs: Sequence[tuple[int, int]]
    layout: SliceLayout
    cells: list[IntArray]
    copied: list[int]
    tokens: IntArray
    counts: NDArray[np.float64]
    columns: int

    @property
    def cell_bits(self) -> NDArray[np.float64]:
        """Ideal length of every token, ``[n]``."""
        own = np.take_along_axis(self.counts, self.tokens[..., None], 2)[..., 0]
        bits: NDArray[np.float64] = np.log2(self.counts.sum(2) / own).sum(1)
        return bits

    @property
    def bits(self) -> NDArray[np.float64]:
        """Ideal length of every slice's tokens."""
        owners = np.repeat(np.arange(len(self.cells)), [len(some) for some in self.cells])
        return np.bincount(owners, self.cell_bits, len(self.cells)).astype(np.float64)

    def writer(self, number: int, models: ResidualModels) -> SliceWriter:
        """The stream of a slice, which begins with its tokens."""
        first = sum(len(some) for some in self.cells[:number])
        writer = SliceWriter(models)
        for rows in wavefronts(self.cells[number], self.columns):
            for segment in range(self.tokens.shape[1]):
                writer.write_indices(
                    self.tokens[first + rows, segment], self.counts[first + rows, segment]
                )
        return writer

    def with_header(
        self, source: CodedSource, number: int, gain: int, stream: SliceWriter
    ) -> NDArray[np.uint8]:
        """A slice: its header and its stream."""
        first, count = self.runs[number]
        has_map = gain != gm.NO_DETAIL and source.levels is not None
        writer = BitWriter()
        write_header(
            writer,
            SliceHeader(
                len(self.runs), number, *source.size, gain, stream.check, has_map, first, count,
                self.copied[number],
            ),
        )  # fmt: skip
        return np.concatenate([writer.bits(), stream.bits()])


def _cut(
    position_bits: NDArray[np.float64], whole: _BaseParts, rooms: IntArray, copies: bool
) -> list[tuple[int, int]]:
    """Runs that fill their rooms alike, given the bits of every position in sending order."""
    per_position = np.repeat(whole.cell_bits, 16) * (1 + copies) / 16
    share = np.cumsum(position_bits / position_bits.sum() * rooms.sum() + per_position)
    edges = np.cumsum(rooms) / rooms.sum() * share[-1]
    ends = np.searchsorted(share, edges[:-1]) + 1
    # Every run has at least one position.
    least = np.arange(1, len(rooms))
    ends = np.clip(
        np.maximum.accumulate(np.maximum(ends, least)), least, len(share) - len(rooms) + least
    )
    for k in range(1, len(ends)):
        ends[k] = max(ends[k], ends[k - 1] + 1)
    bounds = [0, *ends.tolist(), len(position_bits)]
    return [(a, b - a) for a, b in itertools.pairwise(bounds)]


@dataclass
class _Arrived:
    """A slice that arrived.

    Args:
        header: its header.
        reader: of its stream.
        cells: whose base tokens it brings, rising.
        tokens: of these, int64 ``[n, M]``.
        good: nothing has been wrong with it so far.
    """

    header: SliceHeader
    reader: SliceReader
    cells: IntArray
    tokens: IntArray = field(default_factory=lambda: np.zeros((0, 0), np.int64))
    good: bool = True


def _cells_of_slice(header: SliceHeader, rows: int, columns: int) -> IntArray:
    """Cells whose base tokens a slice brings, copies of the next one's included, rising."""
    own = make_layout(rows, columns, [(header.first, header.count)]).cells_of_slice(0)
    after = (int(own[-1]) + 1 + np.arange(header.copied_cells)) % (rows * columns)
    return np.unique(np.concatenate([own, after]))


def _fill(slices: Sequence[NDArray[np.uint8]], rooms: IntArray) -> NDArray[np.uint8]:
    """Slices one after the other, each filled up with zeros."""
    lengths = np.array([len(bits) for bits in slices])
    if (lengths > rooms).any():
        least = 8 * -(-int(lengths.max() * len(rooms)) // 8)
        cut = "" if len(rooms) == 1 else f" in {len(rooms)} code blocks"
        raise IndexFrameError(
            f"{rooms.sum()} bits{cut} are too few: the base layer alone takes {least}"
        )
    parts = [
        np.concatenate([bits, np.zeros(room - len(bits), np.uint8)])
        for bits, room in zip(slices, rooms, strict=True)
    ]
    return np.concatenate(parts)


def _by_slice(layout: SliceLayout, rows: IntArray) -> list[tuple[int, slice]]:
    """Part of a pass's rows that belongs to every slice; rows are ordered by slice."""
    numbers = layout.slice_of[rows]
    found, starts = np.unique(numbers, return_index=True)
    ends = [*starts[1:].tolist(), len(rows)]
    return [(int(k), slice(a, b)) for k, a, b in zip(found, starts.tolist(), ends, strict=True)]


def _tokens_of_pairs(tokens: Tensor, layout: SliceLayout) -> Tensor:
    return tokens.reshape(-1, tokens.shape[-1])[torch.from_numpy(layout.cells)]


def _plane(values: NDArray[np.float32], layout: SliceLayout, device: torch.device) -> Tensor:
    """Values of rows as ``[1, 1, h, w]``; rows must cover the picture."""
    plane = np.zeros(layout.shape, np.float32)
    plane.reshape(-1)[layout.places] = values
    return torch.from_numpy(plane)[None, None].to(device)


assert POSITION == 8  # the wavelet's stride
