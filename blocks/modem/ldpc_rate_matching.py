"""Bit selection and interleaving of LDPC code blocks (TS 38.212 clauses 5.4.2.1 and 5.4.2.2).

Both are one permutation with repetition, so one index table serves encoder and decoder: transmitted
bit ``t`` is codeword bit ``index[t]``. The circular buffer is never limited (no LBRM).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from blocks.modem.base_graphs import CORE_ROWS, PUNCTURED_COLUMNS
from blocks.modem.ldpc_code import LdpcCode, LdpcError

# Table 5.4.2.1-2 with N_cb = N: start of each redundancy version, in columns of the buffer.
_START_COLUMN = {1: (0, 17, 33, 56), 2: (0, 13, 25, 43)}


def _selected_bits(code: LdpcCode, redundancy_version: int) -> NDArray[np.int32]:
    """Codeword index of each selected bit, in order of selection: int32 [coded_bits]."""
    if redundancy_version not in (0, 1, 2, 3):
        raise LdpcError(f"redundancy version must be 0 to 3, got {redundancy_version}")
    size = code.lifting_size
    buffer: NDArray[np.int32] = np.arange(
        PUNCTURED_COLUMNS * size, code.codeword_bits, dtype=np.int32
    )
    start = _START_COLUMN[code.base_graph][redundancy_version] * size
    buffer = np.roll(buffer, -start)
    is_filler = (buffer >= code.info_bits) & (buffer < code.info_columns * size)
    return np.resize(buffer[~is_filler], code.coded_bits)


def _interleaved(bits: NDArray[np.int32], bits_per_symbol: int) -> NDArray[np.int32]:
    """Rows written, columns read: the first bits land on the first label bit of the symbols."""
    return np.ascontiguousarray(bits.reshape(bits_per_symbol, -1).T).reshape(-1)


def check_interleaver(code: LdpcCode, bits_per_symbol: int) -> int:
    """Q of the interleaver as a factor: ``bits_per_symbol`` with 0 (none) read as 1.

    Raises :class:`LdpcError` when it does not divide the coded bits.
    """
    if bits_per_symbol < 0 or (bits_per_symbol > 1 and code.coded_bits % bits_per_symbol):
        raise LdpcError(
            f"the interleaver needs coded bits in multiples of bits_per_symbol, "
            f"got {code.coded_bits} and {bits_per_symbol}"
        )
    return max(bits_per_symbol, 1)


@lru_cache(maxsize=512)
def transmitted_bits(
    code: LdpcCode, redundancy_version: int = 0, bits_per_symbol: int = 1
) -> NDArray[np.int32]:
    """Codeword index of every transmitted bit: int32 [coded_bits], read-only.

    ``redundancy_version`` 0..3; ``bits_per_symbol`` is Q of the interleaver, 0 and 1 mean none.
    Raises :class:`LdpcError` for another version or a length that Q does not divide.
    """
    order = check_interleaver(code, bits_per_symbol)
    selected = _interleaved(_selected_bits(code, redundancy_version), order)
    selected.flags.writeable = False
    return selected


@lru_cache(maxsize=512)
def rows_reached(code: LdpcCode, redundancy_version: int = 0) -> NDArray[np.int32]:
    """Base-graph rows that the transmitted bits make useful: int32 [n], ascending.

    The core rows always count. A later row owns one parity column of degree one: as long as none of
    that column is sent, the row says nothing about any other bit.
    """
    columns = np.unique(_selected_bits(code, redundancy_version) // code.lifting_size)
    rows = columns - code.info_columns
    extension = rows[rows >= CORE_ROWS]
    return np.concatenate((np.arange(CORE_ROWS), extension)).astype(np.int32)
