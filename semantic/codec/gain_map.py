"""How finely every part of a picture is quantised: one number for the picture, and a coarse map. NumPy only.

Quality follows the gain: squared errors fall with its square. A map cell is 16 pixels wide in small pictures
and 32 in others, and its level moves the gain in steps of 1/4 neper (2.2 dB).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from semantic.codec.entropy import SliceReader, SliceWriter
from semantic.codec.slice_layout import SliceLayout
from semantic.frame.slices import CELL, POSITION, cells_of

IntArray = NDArray[np.int64]

# A gain is this many steps per neper, counted from the lowest.
GAIN_UNIT = 256
LOWEST_LOG_GAIN = -3.0
# A map lowers no gain further than this: below, what the networks add in the dark shows as grain.
LEAST_GAIN = int((-2.4 - LOWEST_LOG_GAIN) * GAIN_UNIT)
# Above this they were not trained.
HIGHEST_GAIN = int((1.6 - LOWEST_LOG_GAIN) * GAIN_UNIT)
NO_DETAIL = (1 << 11) - 1
_LEVEL_STEP = GAIN_UNIT // 4
MAX_LEVEL = 12
_SMALL_PICTURE = 320


def map_cell_side(width: int, height: int) -> int:
    """Pixels of a map cell's side."""
    return 16 if max(width, height) <= _SMALL_PICTURE else CELL


def map_shape(width: int, height: int) -> tuple[int, int]:
    """Rows and columns of the map, over the picture padded to whole cells of 32."""
    rows, columns = cells_of(width, height)
    fold = CELL // map_cell_side(width, height)
    return rows * fold, columns * fold


def levels_from_weights(weights: NDArray[np.float64]) -> IntArray:
    """Levels of a map from how much squared errors count: gains go with the square root of the weight.

    Args:
        weights: positive, ``[rows, columns]``.
    """
    wanted = 0.5 * np.log(weights) * GAIN_UNIT / _LEVEL_STEP
    return np.clip(np.rint(wanted), -MAX_LEVEL, MAX_LEVEL).astype(np.int64)


def total_gains(gain: IntArray, levels: IntArray) -> IntArray:
    """Gain of every position from that of its slice and its level in the map, within what was trained."""
    least = np.minimum(gain, LEAST_GAIN)
    return np.minimum(np.maximum(gain + _LEVEL_STEP * levels, least), HIGHEST_GAIN)


def log_gains(gains: IntArray) -> NDArray[np.float32]:
    """Natural logarithm of the gain, exact in float32."""
    return (gains / GAIN_UNIT + LOWEST_LOG_GAIN).astype(np.float32)


def prior_gains(gains: IntArray) -> IntArray:
    """The same in whole 1/16 neper, as the prior has it."""
    fold = GAIN_UNIT // 16
    return (gains + fold // 2) // fold + int(LOWEST_LOG_GAIN * 16)


def map_cells(layout: SliceLayout, width: int, height: int) -> IntArray:
    """Map cell of every row of a layout, counted row by row."""
    fold = map_cell_side(width, height) // POSITION
    down, across = np.divmod(layout.places, layout.shape[1])
    return (down // fold) * (layout.shape[1] // fold) + across // fold


def write_levels(writer: SliceWriter, cells: IntArray, levels: IntArray, columns: int) -> None:
    """Append the levels of the cells that a slice touches.

    Args:
        writer: of the slice.
        cells: numbers of the cells, rising.
        levels: of the whole map, flat.
        columns: of the map.
    """
    known: dict[int, int] = {}
    for cell in cells.tolist():
        expected, context = _predict(known, cell, columns)
        known[cell] = int(levels[cell])
        writer.write_step(known[cell] - expected, context)


def read_levels(reader: SliceReader, cells: IntArray, columns: int) -> IntArray:
    """Inverse of :func:`write_levels`: levels of these cells.

    Raises:
        EntropyError: bits that no encoder made.
    """
    known: dict[int, int] = {}
    for cell in cells.tolist():
        expected, context = _predict(known, cell, columns)
        known[cell] = max(-MAX_LEVEL, min(MAX_LEVEL, expected + reader.read_step(context)))
    return np.array([known[cell] for cell in cells.tolist()], np.int64)


def _predict(known: dict[int, int], cell: int, columns: int) -> tuple[int, int]:
    """What a level is expected to be, and which table codes its step from there."""
    left = known.get(cell - 1) if cell % columns else None
    above = known.get(cell - columns)
    if left is None or above is None:
        return (above if left is None else left) or 0, 2 if left is None and above is None else 1
    # As in lossless JPEG-LS: what continues a straight edge.
    corner = known.get(cell - columns - 1, above)
    expected = max(min(left, above), min(max(left, above), left + above - corner))
    return expected, 0 if left == above == corner else 1
