"""5G NR LDPC encoder with rate matching (TS 38.212 clauses 5.3.2 and 5.4.2).

Every parity row is a XOR of cyclically shifted columns. The four core rows are summed first: the
double-diagonal parity columns cancel and leave the first parity column alone; the others follow by
substitution. Each later row gives its own parity column directly.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numba import njit
from numpy.typing import NDArray

from blocks.modem.base_graphs import CORE_ROWS
from blocks.modem.ldpc_code import LdpcCode, LdpcError
from blocks.modem.ldpc_rate_matching import rows_reached, transmitted_bits

BitArray = NDArray[np.uint8]
IntArray = NDArray[np.int32]


@njit(nogil=True, cache=True)
def _xor_rotated(target: BitArray, source: BitArray, shift: int) -> None:
    """target[i] ^= source[(i + shift) mod Z], as two straight runs that vectorise."""
    tail = source.size - shift
    for i in range(tail):
        target[i] ^= source[i + shift]
    for i in range(shift):
        target[tail + i] ^= source[i]


@njit(nogil=True, cache=True)
def _xor_known(
    target: BitArray, word: BitArray, row: int, known: int, start: IntArray, column: IntArray,
    shift: IntArray,
) -> None:  # fmt: skip
    """Add to ``target`` the entries of ``row`` whose columns are below ``known``."""
    for edge in range(start[row], start[row + 1]):
        if column[edge] < known:
            _xor_rotated(target, word[column[edge]], shift[edge])


@njit(nogil=True, cache=True)
def _fill_parity(
    word: BitArray, info_columns: int, rows: int, first_shift: int, start: IntArray,
    column: IntArray, shift: IntArray,
) -> None:  # fmt: skip
    """Parity columns of ``word`` [columns, Z] for base-graph rows below ``rows`` (at least the core)."""
    total = np.zeros(word.shape[1], np.uint8)
    for row in range(CORE_ROWS):
        _xor_known(total, word, row, info_columns, start, column, shift)
    # The sum over the core is the first parity column, rotated: turn it back.
    _xor_rotated(word[info_columns], total, (total.size - first_shift) % total.size)
    for row in range(CORE_ROWS - 1):
        parity = info_columns + row + 1
        _xor_known(word[parity], word, row, parity, start, column, shift)
    for row in range(CORE_ROWS, rows):
        parity = info_columns + row
        _xor_known(word[parity], word, row, parity, start, column, shift)


@njit(nogil=True, cache=True)
def _encode_blocks(
    info: BitArray, index: IntArray, columns: int, size: int, info_columns: int, rows: int,
    first_shift: int, start: IntArray, column: IntArray, shift: IntArray, coded: BitArray,
) -> None:  # fmt: skip
    word = np.empty((columns, size), np.uint8)
    flat = word.reshape(-1)
    for block in range(info.shape[0]):
        word[:] = 0
        flat[: info.shape[1]] = info[block]
        _fill_parity(word, info_columns, rows, first_shift, start, column, shift)
        for t in range(index.size):
            coded[block, t] = flat[index[t]]


@lru_cache(maxsize=256)
def _first_parity_shift(code: LdpcCode) -> int:
    """Shift left on the first parity column when the core rows are summed: pairs cancel, one stays."""
    edges = range(code.row_start[0], code.row_start[CORE_ROWS])
    left: set[int] = set()
    for edge in edges:
        if code.edge_column[edge] == code.info_columns:
            left ^= {int(code.edge_shift[edge])}
    (shift,) = left
    return shift


def encode(
    code: LdpcCode,
    info_bits: BitArray,
    redundancy_version: int = 0,
    bits_per_symbol: int = 1,
) -> BitArray:
    """Encode one code block [K] into uint8 [E], or several [n, K] into [n, E].

    ``info_bits`` are uint8 0/1, their CRC included. ``bits_per_symbol`` is Q of the interleaver (3 for
    8-PSK; 0 or 1: none). Raises :class:`LdpcError` for a wrong shape, type or value.
    """
    blocks = np.ascontiguousarray(np.atleast_2d(info_bits))
    if info_bits.ndim not in (1, 2) or blocks.shape[1] != code.info_bits:
        raise LdpcError(
            f"expected information bits [{code.info_bits}] or [n, {code.info_bits}], "
            f"got {list(info_bits.shape)}"
        )
    if blocks.dtype != np.uint8 or (blocks.size and blocks.max() > 1):
        raise LdpcError(f"information bits must be uint8 of value 0 or 1, got {blocks.dtype}")
    index = transmitted_bits(code, redundancy_version, bits_per_symbol)
    coded = np.empty((blocks.shape[0], code.coded_bits), np.uint8)
    _encode_blocks(
        blocks, index, code.columns, code.lifting_size, code.info_columns,
        int(rows_reached(code, redundancy_version)[-1]) + 1, _first_parity_shift(code),
        code.row_start, code.edge_column, code.edge_shift, coded,
    )  # fmt: skip
    return coded[0] if info_bits.ndim == 1 else coded
