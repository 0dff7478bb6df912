"""The detail layer as bits: slices of exactly the length that the air has room for, and back.

The encoder looks for the gain at which a slice just fits: bits grow steadily with it. Slices share a picture
so that all are equally full.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from semantic.codec import gain_map as gm
from semantic.codec.detail_layer import DetailLayer
from semantic.codec.entropy import (
    SEAL_BITS,
    EntropyError,
    ResidualModels,
    SliceReader,
    SliceWriter,
)
from semantic.codec.fixed_point import INPUT_UNIT
from semantic.codec.integer_prior import MAX_RESIDUAL, IntegerPrior, Pass
from semantic.codec.slice_layout import SliceLayout, make_layout
from semantic.codec.wavelet import CHANNELS
from semantic.frame.slices import (
    POSITION,
    BitReader,
    BitWriter,
    SliceError,
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
RATE_WEIGHT = 0.12
# Where the search for the gain starts, and how bits grow with it: ln(bits) per unit of log gain.
_FIRST_GAIN = 512
_BITS_SLOPE = 0.8
_SEARCH_ROUNDS = 3
_FITTING_ROUNDS = 8
# A slice may be this much shorter than its room before another round is spent on it.
_CLOSE_ENOUGH = 0.004


@dataclass(frozen=True)
class CodedSource:
    """A picture as the detail layer's encoder takes it.

    Args:
        picture, base: float32 ``[1, 3, H, W]``, 0..255, padded to whole cells.
        tokens: base indices, int64 ``[rows, columns, M]``.
        size: width and height of the picture in pixels.
        levels: of the gain map, int64 ``[rows, columns]``; None: the same everywhere.
    """

    picture: Tensor
    base: Tensor
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
    """One pass over all slices at given gains."""

    layout: SliceLayout
    gains: IntArray
    steps: list[tuple[Pass, IntArray, IntArray]]
    row_bits: NDArray[np.float64]

    def bits(self) -> NDArray[np.float64]:
        """Of every slice."""
        sums = np.zeros(self.layout.slices)
        np.add.at(sums, self.layout.slice_of, self.row_bits)
        return sums


class DetailCoder:
    """Detail layer, integer prior and range coder on one device.

    Args:
        layer: trained.
        models: probabilities of residuals.
        bits_per_token: of the base layer's indices.
        device: where to compute.
    """

    def __init__(
        self, layer: DetailLayer, models: ResidualModels, bits_per_token: int, device: torch.device
    ) -> None:
        self.layer = layer
        self.device = device
        self._models = models
        self._bits_per_token = bits_per_token
        self._prior = IntegerPrior(layer.prior, device)
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
        # A map is left out where it would leave no room for anything that could follow it.
        for some in (source, replace(source, levels=None)):
            runs = self._cut(some, np.ones(total), rooms, copies)
            if (self._overhead(some, runs, copies) <= rooms).all():
                gains, trial = self._search(some, rooms, copies)
                return self._fit(some, rooms, gains, trial, copies)
        layout = make_layout(*cells_of(*source.size), runs)
        alone = [self._base_only(source, layout, runs, k, copies) for k in range(slices)]
        return _fill(alone, rooms)

    def _search(
        self, source: CodedSource, rooms: IntArray, copies: bool
    ) -> tuple[IntArray, _Trial]:
        """Runs and gains that fill the slices nearly."""
        rows, columns = cells_of(*source.size)
        runs = [(0, positions_of(*source.size))]
        layout = make_layout(rows, columns, runs)
        gain, trial = _FIRST_GAIN, None
        steps: list[tuple[int, float]] = []
        target = rooms.sum() - self._overhead(source, runs, copies)[0]
        for _ in range(_SEARCH_ROUNDS):
            trial = self._try(source, layout, np.array([gain]))
            steps.append((gain, float(trial.bits()[0])))
            if abs(steps[-1][1] / max(target, 1) - 1) < (0.02 if len(rooms) > 1 else _CLOSE_ENOUGH):
                break
            gain = _next_gain(steps, target)
        assert trial is not None
        if len(rooms) == 1:
            return np.array([gain]), trial
        for _ in range(2):
            runs = self._cut(source, trial.row_bits[_row_order(trial.layout)], rooms, copies)
            layout = make_layout(rows, columns, runs)
            trial = self._try(source, layout, np.full(len(rooms), gain))
            wanted = rooms - self._overhead(source, runs, copies)
            steps.append((gain, float(trial.bits().sum())))
            gain = _next_gain(steps[-1:], float(wanted.sum()))
        return np.full(len(rooms), gain), trial

    def _fit(
        self,
        source: CodedSource,
        rooms: IntArray,
        gains: IntArray,
        trial: _Trial,
        copies: bool,
    ) -> NDArray[np.uint8]:
        """Slices that fit, each as full as its own gain allows."""
        runs = _runs_of(trial.layout)
        wanted = rooms - self._overhead(source, runs, copies)
        best: list[NDArray[np.uint8] | None] = [None] * len(rooms)
        fill = np.zeros(len(rooms))
        history: list[list[tuple[int, float]]] = [[] for _ in rooms]
        for attempt in range(_FITTING_ROUNDS + 1):
            if attempt or not np.array_equal(trial.gains, gains):
                trial = self._try(source, trial.layout, gains)
            coded = self._write(source, trial, runs, rooms, copies)
            for k, bits in enumerate(coded):
                history[k].append((int(gains[k]), float(trial.bits()[k])))
                if len(bits) <= rooms[k] and len(bits) > fill[k]:
                    best[k], fill[k] = bits, len(bits)
            open_ones = [
                k
                for k in range(len(rooms))
                if best[k] is None or (attempt < 2 and fill[k] < rooms[k] * (1 - _CLOSE_ENOUGH))
            ]
            if not open_ones or attempt == _FITTING_ROUNDS:
                break
            gains = gains.copy()
            for k in open_ones:
                step = _next_gain(history[k], max(float(wanted[k]), 1.0))
                if best[k] is None:
                    # Never stand still above the room.
                    low = min(g for g, _ in history[k])
                    step = min(step, low - 1 - attempt**2)
                gains[k] = max(0, min(gm.HIGHEST_GAIN, step))
                if gains[k] == 0 and (0, float(trial.bits()[k])) in history[k]:
                    best[k] = self._base_only(source, trial.layout, runs, k, copies)
        out = []
        for k, found in enumerate(best):
            bits = (
                self._base_only(source, trial.layout, runs, k, copies) if found is None else found
            )
            out.append(bits)
        return _fill(out, rooms)

    def _try(self, source: CodedSource, layout: SliceLayout, gains: IntArray) -> _Trial:
        per_row = self._row_gains(source, layout, gains)
        inside = np.zeros(layout.shape, np.bool_)
        inside.reshape(-1)[layout.places] = True
        exact = self.layer.analyse(
            source.picture, source.base, _plane(gm.log_gains(per_row), layout, self.device),
            torch.from_numpy(inside)[None, None].to(self.device),
        )  # fmt: skip
        wanted = exact[0].flatten(1).T.cpu().numpy()[layout.places] * INPUT_UNIT
        steps: list[tuple[Pass, IntArray, IntArray]] = []
        row_bits = np.zeros(len(layout.places))

        def choose(step: Pass, mean: IntArray, level: IntArray) -> IntArray:
            begin, end = step.channels
            error = (wanted[step.rows, begin:end] - mean) / INPUT_UNIT
            residual, bits = self._quantise(error, level)
            steps.append((step, residual, level))
            row_bits[step.rows] += bits.sum(1)
            return mean + INPUT_UNIT * residual

        tokens = _tokens_of_pairs(source.tokens, layout)
        self._prior.run(layout, tokens, gm.prior_gains(per_row), choose)
        return _Trial(layout, gains, steps, row_bits)

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
        self,
        source: CodedSource,
        trial: _Trial,
        runs: Sequence[tuple[int, int]],
        rooms: IntArray,
        copies: bool,
    ) -> list[NDArray[np.uint8]]:
        writers = [SliceWriter(self._models) for _ in runs]
        if source.levels is not None:
            cells = gm.map_cells(trial.layout, *source.size)
            for k, writer in enumerate(writers):
                touched = np.unique(cells[trial.layout.slice_of == k])
                columns = source.levels.shape[1]
                gm.write_levels(writer, touched, source.levels.reshape(-1), columns)
        for step, residual, level in trial.steps:
            for k, part in _by_slice(trial.layout, step.rows):
                writers[k].write(residual[part].reshape(-1), level[part].reshape(-1))
        out = []
        for k, writer in enumerate(writers):
            head = self._head(
                source, trial.layout, runs, k, int(trial.gains[k]), writer.check, copies
            )
            out.append(np.concatenate([head, writer.bits()]))
        return out

    def _head(
        self,
        source: CodedSource,
        layout: SliceLayout,
        runs: Sequence[tuple[int, int]],
        number: int,
        gain: int,
        check: int,
        copies: bool,
    ) -> NDArray[np.uint8]:
        """Header and base tokens of a slice."""
        first, count = runs[number]
        own = layout.cells_of_slice(number)
        copied = own[:0]
        if copies and len(runs) > 1:
            following = layout.cells_of_slice((number + 1) % len(runs))
            copied = following[~np.isin(following, own)]
        detail = gain != gm.NO_DETAIL
        header = SliceHeader(
            len(runs), number, *source.size, gain, check,
            detail and source.levels is not None, first, count, len(copied),
        )  # fmt: skip
        writer = BitWriter()
        write_header(writer, header)
        flat = source.tokens.reshape(-1, source.tokens.shape[-1]).cpu().numpy()
        tokens = flat[np.concatenate([own, copied])].reshape(-1)
        shifts = np.arange(self._bits_per_token - 1, -1, -1)
        writer.write_bits(((tokens[:, None] >> shifts) & 1).astype(np.uint8).reshape(-1))
        return writer.bits()

    def _base_only(
        self,
        source: CodedSource,
        layout: SliceLayout,
        runs: Sequence[tuple[int, int]],
        number: int,
        copies: bool,
    ) -> NDArray[np.uint8]:
        check = SliceWriter(self._models).check
        return self._head(source, layout, runs, number, gm.NO_DETAIL, check, copies)

    def _overhead(
        self, source: CodedSource, runs: Sequence[tuple[int, int]], copies: bool
    ) -> IntArray:
        """Bits of every slice beside its residuals; those of the map are an estimate."""
        rows, columns = cells_of(*source.size)
        layout = make_layout(rows, columns, runs)
        zeros = np.zeros(len(runs), np.int64)
        for k in range(len(runs)):
            zeros[k] = len(self._base_only(source, layout, runs, k, copies)) + SEAL_BITS
        if source.levels is not None:
            cells = gm.map_cells(layout, *source.size)
            for k in range(len(runs)):
                writer = SliceWriter(self._models)
                touched = np.unique(cells[layout.slice_of == k])
                gm.write_levels(writer, touched, source.levels.reshape(-1), source.levels.shape[1])
                zeros[k] += len(writer.bits())
        return zeros

    def _cut(
        self,
        source: CodedSource,
        position_bits: NDArray[np.float64],
        rooms: IntArray,
        copies: bool,
    ) -> list[tuple[int, int]]:
        """Runs that fill their rooms alike, given the bits of every position in sending order."""
        rows, columns = cells_of(*source.size)
        per_position = self._bits_per_token * source.tokens.shape[-1] * (1 + copies) / 16
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
        bounds = [0, *ends.tolist(), rows * columns * 16]
        return [(a, b - a) for a, b in itertools.pairwise(bounds)]

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
        tokens = np.zeros((rows * columns, segments), np.int64)
        known = np.zeros(rows * columns, np.bool_)
        taken = np.zeros(positions_of(*size), np.bool_)
        usable: list[tuple[SliceHeader, BitReader]] = []
        damaged = 0
        for header, bits in found:
            run = slice(header.first, header.first + header.count)
            if (header.width, header.height) != size or taken[run].any():
                damaged += 1
                continue
            try:
                reader = BitReader(bits)
                self._read_tokens(reader, header, tokens, known, rows, columns)
            except SliceError:
                damaged += 1
                continue
            taken[run] = True
            usable.append((header, reader))
        if not usable:
            return None
        detailed = [one for one in usable if one[0].gain != gm.NO_DETAIL]
        values, gains, inside, failed = self._read_detail(detailed, size, tokens)
        return ReceivedDetail(
            size,
            torch.from_numpy(tokens).reshape(rows, columns, segments),
            torch.from_numpy(known).reshape(rows, columns),
            values,
            gains,
            inside,
            slices,
            damaged + failed,
        )

    def _read_tokens(
        self,
        reader: BitReader,
        header: SliceHeader,
        tokens: IntArray,
        known: NDArray[np.bool_],
        rows: int,
        columns: int,
    ) -> None:
        run = (header.first, header.count)
        own = make_layout(rows, columns, [run]).cells_of_slice(0)
        cells = rows * columns
        after = (int(own[-1]) + 1 + np.arange(header.copied_cells)) % cells
        both = np.concatenate([own, after])
        count = len(both) * tokens.shape[1]
        bits = reader.take(count * self._bits_per_token).reshape(count, -1)
        weights = 1 << np.arange(self._bits_per_token - 1, -1, -1)
        tokens[both] = (bits @ weights).reshape(-1, tokens.shape[1])
        known[both] = True

    def _read_detail(
        self,
        usable: Sequence[tuple[SliceHeader, BitReader]],
        size: tuple[int, int],
        tokens: IntArray,
    ) -> tuple[Tensor, Tensor, Tensor, int]:
        rows, columns = cells_of(*size)
        shape = rows * 4, columns * 4
        planes = torch.zeros(1, CHANNELS, *shape), torch.zeros(1, 1, *shape)
        inside = torch.zeros(1, 1, *shape, dtype=torch.bool)
        if not usable:
            return planes[0], planes[1] + gm.LOWEST_LOG_GAIN, inside, 0
        layout = make_layout(rows, columns, [(h.first, h.count) for h, _ in usable])
        readers = [SliceReader(self._models, reader.rest()) for _, reader in usable]
        failed: set[int] = set()
        levels = np.zeros(len(layout.places), np.int64)
        cells = gm.map_cells(layout, *size)
        for k, (header, _) in enumerate(usable):
            if not header.has_map:
                continue
            mine = layout.slice_of == k
            touched, at = np.unique(cells[mine], return_inverse=True)
            try:
                levels[mine] = gm.read_levels(readers[k], touched, gm.map_shape(*size)[1])[at]
            except EntropyError:
                failed.add(k)
        per_slice = np.array([header.gain for header, _ in usable])
        gains = gm.total_gains(per_slice[layout.slice_of], levels)

        def choose(step: Pass, mean: IntArray, level: IntArray) -> IntArray:
            residual = np.zeros_like(mean)
            for k, part in _by_slice(layout, step.rows):
                if k in failed:
                    continue
                try:
                    read = readers[k].read(level[part].reshape(-1))
                except EntropyError:
                    failed.add(k)
                    continue
                residual[part] = np.clip(read, -MAX_RESIDUAL, MAX_RESIDUAL).reshape(
                    residual[part].shape
                )
            return mean + INPUT_UNIT * residual

        pairs = torch.from_numpy(tokens[layout.cells])
        found = self._prior.run(layout, pairs, gm.prior_gains(gains), choose)
        wrong = [readers[k].check != header.check for k, (header, _) in enumerate(usable)]
        failed |= set(np.flatnonzero(wrong).tolist())
        good = ~np.isin(layout.slice_of, list(failed))
        flat = planes[0].flatten(2)[0]
        flat[:, layout.places[good]] = torch.from_numpy(found[good] / INPUT_UNIT).float().T
        planes[1][:] = float(gm.log_gains(per_slice).mean())
        planes[1].view(-1)[layout.places] = torch.from_numpy(gm.log_gains(gains))
        inside.view(-1)[layout.places[good]] = True
        return planes[0], planes[1], inside, len(failed)


def _fill(slices: Sequence[NDArray[np.uint8]], rooms: IntArray) -> NDArray[np.uint8]:
    """Slices one after the other, each filled up with zeros."""
    lengths = np.array([len(bits) for bits in slices])
    if (lengths > rooms).any():
        raise IndexFrameError(
            f"{rooms.sum()} bits in {len(rooms)} slices: the base layer alone takes {lengths.sum()}"
        )
    parts = [
        np.concatenate([bits, np.zeros(room - len(bits), np.uint8)])
        for bits, room in zip(slices, rooms, strict=True)
    ]
    return np.concatenate(parts)


def _next_gain(steps: Sequence[tuple[int, float]], target: float) -> int:
    """The gain at which ln(bits), as a straight line through the last two trials, meets the target."""
    gain, bits = steps[-1]
    slope = _BITS_SLOPE / gm.GAIN_UNIT
    if len(steps) > 1 and steps[-2][0] != gain:
        other, other_bits = steps[-2]
        measured = np.log(max(bits, 1) / max(other_bits, 1)) / (gain - other)
        if 0.3 * slope < measured < 4 * slope:
            slope = float(measured)
    step = np.log(max(target, 1) / max(bits, 1)) / slope
    return int(np.clip(np.floor(gain + step), 0, gm.HIGHEST_GAIN))


def _runs_of(layout: SliceLayout) -> list[tuple[int, int]]:
    counts = np.bincount(layout.slice_of, minlength=layout.slices)
    starts = np.cumsum(counts) - counts
    return list(zip(starts.tolist(), counts.tolist(), strict=True))


def _row_order(layout: SliceLayout) -> IntArray:
    """Rows in sending order: they are, where all positions are there."""
    return np.arange(len(layout.places))


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
