"""Pseudo-random sequence of TS 38.211 clause 5.2.1: a length-31 Gold sequence, used for scrambling.

Two 31-bit shift registers run side by side, the first 1,600 outputs are thrown away.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numba import njit
from numpy.typing import NDArray

_DISCARDED = 1600  # N_c of the clause
_CHUNK = 28  # outputs computable at once: no tap reaches across fewer than 31 - 3 positions
_REGISTER = (1 << 31) - 1


@njit(nogil=True, cache=True)
def _gold(c_init: int, length: int) -> NDArray[np.uint8]:
    """Bit n of a register is x(n); one step advances _CHUNK positions with word operations."""
    mask = (1 << _CHUNK) - 1
    first, second = 1, c_init
    out = np.empty(length, np.uint8)
    position = -_DISCARDED
    while position < length:
        word = (first ^ second) & mask
        for i in range(max(0, -position), min(_CHUNK, length - position)):
            out[position + i] = (word >> i) & 1
        new_first = ((first >> 3) ^ first) & mask
        new_second = ((second >> 3) ^ (second >> 2) ^ (second >> 1) ^ second) & mask
        first = (first >> _CHUNK) | (new_first << (31 - _CHUNK))
        second = (second >> _CHUNK) | (new_second << (31 - _CHUNK))
        position += _CHUNK
    return out


@lru_cache(maxsize=256)
def gold_sequence(c_init: int, length: int) -> NDArray[np.uint8]:
    """Scrambling bits c(0) .. c(length - 1): uint8 0/1 [length], read-only and cached.

    ``c_init`` is the 31-bit start of the second register. Raises ``ValueError`` outside 0 .. 2^31 - 1
    or for a negative length.
    """
    if not 0 <= c_init <= _REGISTER:
        raise ValueError(f"c_init must be 0 to {_REGISTER}, got {c_init}")
    if length < 0:
        raise ValueError(f"length must not be negative, got {length}")
    sequence = _gold(c_init, length)
    sequence.flags.writeable = False
    return sequence


def descramble(llrs: NDArray[np.float32], c_init: int) -> None:
    """Undo the scrambling of log-likelihood ratios in place: a scrambling bit of 1 turns the sign.

    Args:
        llrs: ``float32 [n]``.
        c_init: of the sequence the bits were scrambled with.
    """
    _turn_signs(llrs, gold_sequence(c_init, llrs.size))


@njit(nogil=True, cache=True)
def _turn_signs(llrs, sequence):  # type: ignore[no-untyped-def]
    for n in range(llrs.size):
        llrs[n] *= np.float32(1.0) - np.float32(2.0) * np.float32(sequence[n])
