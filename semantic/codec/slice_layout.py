"""Which positions belong to which slice, and who is whose neighbour: tables for the prior. NumPy only.

All slices of a picture pass the prior together. A neighbour in another slice, beyond the picture or not
received is row ``rows``, which always reads zero: contexts reach only into the own slice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from semantic.frame.slices import CELL, POSITION, position_order

FOLD = CELL // POSITION


@dataclass(frozen=True)
class SliceLayout:
    """Tables over the positions of some slices, called rows: slice by slice, each in sending order.

    Args:
        shape: rows and columns of the picture's positions.
        places: where a row lies, int64 ``[R]``, counted row by row over the picture.
        slice_of: number of the run it belongs to, int64 ``[R]``.
        near3, near5: neighbours in a square of 3x3 and 5x5, int64 ``[R, 9]`` and ``[R, 25]``.
        halves: rows of the first and of the second half of the checkerboard.
        cells: cell of every (slice, cell) pair, int64 ``[P]``, counted row by row.
        cells_near: neighbours of pairs, int64 ``[P, 9]``.
        pair_of: pair that a row lies in, int64 ``[R]``.
        inside_cell: place of a row within its cell, 0..15, int64 ``[R]``.
    """

    shape: tuple[int, int]
    places: NDArray[np.int64]
    slice_of: NDArray[np.int64]
    near3: NDArray[np.int64]
    near5: NDArray[np.int64]
    halves: tuple[NDArray[np.int64], NDArray[np.int64]]
    cells: NDArray[np.int64]
    cells_near: NDArray[np.int64]
    pair_of: NDArray[np.int64]
    inside_cell: NDArray[np.int64]

    @property
    def slices(self) -> int:
        """Number of runs."""
        return int(self.slice_of[-1]) + 1

    def cells_of_slice(self, number: int) -> NDArray[np.int64]:
        """Cells that a slice touches, in order: int64 ``[n]``."""
        rows = self.slice_of == number
        return self.cells[np.unique(self.pair_of[rows])]


def make_layout(rows: int, columns: int, runs: Sequence[tuple[int, int]]) -> SliceLayout:
    """Tables for runs of positions.

    Args:
        rows: of the picture's 32x32 cells.
        columns: likewise.
        runs: first position and number of positions of every slice, in sending order, not overlapping.
    """
    order = position_order(rows, columns)
    height, width = rows * FOLD, columns * FOLD
    sent = np.concatenate([np.arange(first, first + count) for first, count in runs])
    slice_of = np.repeat(np.arange(len(runs)), [count for _, count in runs])
    places = order[sent]
    row_of = np.full(height * width, -1, np.int64)
    row_of[places] = np.arange(len(places))
    down, across = np.divmod(places, width)
    near5 = _neighbours(down, across, slice_of, row_of.reshape(height, width), 2)
    inner = [5 * r + c for r in (1, 2, 3) for c in (1, 2, 3)]
    even = (down + across) % 2 == 0
    cell = (down // FOLD) * columns + across // FOLD
    # Rows of a slice come cell by cell, so pairs in the order of their first row are sorted by slice and
    # cell.
    keys = slice_of * (rows * columns) + cell
    pair_keys, pair_of = np.unique(keys, return_inverse=True)
    pair_slice, pair_cell = np.divmod(pair_keys, rows * columns)
    return SliceLayout(
        (height, width),
        places,
        slice_of,
        near5[:, inner],
        near5,
        (np.flatnonzero(even), np.flatnonzero(~even)),
        pair_cell,
        _pair_neighbours(pair_keys, pair_slice, pair_cell, rows, columns),
        pair_of.reshape(-1),
        (down % FOLD) * FOLD + across % FOLD,
    )


def _neighbours(
    down: NDArray[np.int64],
    across: NDArray[np.int64],
    slice_of: NDArray[np.int64],
    row_of: NDArray[np.int64],
    reach: int,
) -> NDArray[np.int64]:
    nothing = len(down)
    padded = np.pad(row_of, reach, constant_values=-1)
    owner = np.append(slice_of, -1)
    side = np.arange(2 * reach + 1)
    found = padded[down[:, None, None] + side[:, None], across[:, None, None] + side]
    found = found.reshape(nothing, -1)
    return np.where((found >= 0) & (owner[found] == slice_of[:, None]), found, nothing)


def _pair_neighbours(
    keys: NDArray[np.int64],
    pair_slice: NDArray[np.int64],
    pair_cell: NDArray[np.int64],
    rows: int,
    columns: int,
) -> NDArray[np.int64]:
    down, across = np.divmod(pair_cell, columns)
    steps = np.arange(-1, 2)
    r = (down[:, None, None] + steps[:, None] + 0 * steps).reshape(len(keys), 9)
    c = (across[:, None, None] + 0 * steps[:, None] + steps).reshape(len(keys), 9)
    wanted = pair_slice[:, None] * (rows * columns) + r * columns + c
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    inside = (r >= 0) & (r < rows) & (c >= 0) & (c < columns) & (keys[at] == wanted)
    return np.where(inside, at, len(keys))
