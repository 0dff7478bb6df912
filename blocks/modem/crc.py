"""Cyclic redundancy checks of TS 38.212 clause 5.1: CRC-24B and CRC-16.

Bits go in first-transmitted first, the register starts at zero and nothing is reflected or inverted,
so a sequence with its own parity bits appended always has remainder zero.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

BitArray = NDArray[np.uint8]

# Generator polynomials without their leading term (TS 38.212 5.1).
CRC24B_POLYNOMIAL = 0x800063
CRC16_POLYNOMIAL = 0x1021


def _byte_table(polynomial: int, width: int) -> NDArray[np.int64]:
    """Remainders of the 256 possible leading bytes, for one table look-up per eight bits."""
    top, mask = 1 << (width - 1), (1 << width) - 1
    table = np.empty(256, np.int64)
    for byte in range(256):
        remainder = byte << (width - 8)
        for _ in range(8):
            remainder = ((remainder << 1) ^ (polynomial if remainder & top else 0)) & mask
        table[byte] = remainder
    return table


_TABLE_24B = _byte_table(CRC24B_POLYNOMIAL, 24)
_TABLE_16 = _byte_table(CRC16_POLYNOMIAL, 16)


@njit(nogil=True, cache=True)
def _packed(bits: BitArray, start: int, stop: int) -> np.int64:
    byte = np.int64(0)
    for i in range(start, stop):
        byte = (byte << 1) | np.int64(bits[i])
    return byte


@njit(nogil=True, cache=True)
def _remainder(bits: BitArray, table: NDArray[np.int64], width: int) -> np.int64:
    # Leading zeros leave a zero register at zero, so the odd bits may form a short first byte.
    mask = (1 << width) - 1
    head = bits.size % 8
    register = table[_packed(bits, 0, head)]
    for start in range(head, bits.size, 8):
        byte = _packed(bits, start, start + 8)
        register = ((register << 8) & mask) ^ table[(register >> (width - 8)) ^ byte]
    return register


def _as_bits(bits: BitArray) -> BitArray:
    array = np.ascontiguousarray(bits)
    if array.ndim != 1 or array.dtype != np.uint8:
        raise ValueError(f"a CRC takes uint8 bits [n], got {array.dtype} {list(array.shape)}")
    if array.size and array.max() > 1:
        raise ValueError(f"a CRC takes bits of value 0 or 1, got {int(array.max())}")
    return array


def _parity(bits: BitArray, table: NDArray[np.int64], width: int) -> BitArray:
    value = _remainder(_as_bits(bits), table, width)
    return ((value >> np.arange(width - 1, -1, -1)) & 1).astype(np.uint8)


def crc24b(bits: BitArray) -> BitArray:
    """CRC-24B parity (code blocks) of ``bits`` (uint8 0/1 [n]): uint8 [24], most significant first."""
    return _parity(bits, _TABLE_24B, 24)


def crc16(bits: BitArray) -> BitArray:
    """CRC-16 parity of ``bits`` (uint8 0/1 [n]): uint8 [16], most significant first."""
    return _parity(bits, _TABLE_16, 16)


def append_crc24b(bits: BitArray) -> BitArray:
    """``bits`` (uint8 0/1 [n]) followed by their CRC-24B: uint8 [n + 24]."""
    return np.concatenate((bits, crc24b(bits)))


def append_crc16(bits: BitArray) -> BitArray:
    """``bits`` (uint8 0/1 [n]) followed by their CRC-16: uint8 [n + 16]."""
    return np.concatenate((bits, crc16(bits)))


def _holds(bits_with_crc: BitArray, table: NDArray[np.int64], width: int) -> bool:
    bits = _as_bits(bits_with_crc)
    return bits.size >= width and _remainder(bits, table, width) == 0


def check_crc24b(bits_with_crc: BitArray) -> bool:
    """Whether the last 24 of ``bits_with_crc`` (uint8 0/1 [n + 24]) are the CRC-24B of the others.

    All zeros pass, as for every CRC that starts from zero: scrambling is what keeps silence from passing.
    """
    return _holds(bits_with_crc, _TABLE_24B, 24)


def check_crc16(bits_with_crc: BitArray) -> bool:
    """Whether the last 16 of ``bits_with_crc`` (uint8 0/1 [n + 16]) are the CRC-16 of the others."""
    return _holds(bits_with_crc, _TABLE_16, 16)
