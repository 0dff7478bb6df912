"""CRC of TS 38.212 5.1 against published check values and polynomial long division."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from blocks.modem import crc

Bits = NDArray[np.uint8]
Function = Callable[[Bits], Bits]

# Name, parity function, check function, append function, full generator polynomial, width,
# and the published remainder of the text "123456789" (catalogue of parametrised CRCs: CRC-24/LTE-B,
# CRC-16/XMODEM).
CODES = [
    pytest.param(
        crc.crc24b, crc.check_crc24b, crc.append_crc24b, 0x1800063, 24, 0x23EF52, id="24b"
    ),
    pytest.param(crc.crc16, crc.check_crc16, crc.append_crc16, 0x11021, 16, 0x31C3, id="16"),
]


def long_division(bits: Bits, polynomial: int, width: int) -> int:
    value = int("0" + "".join(map(str, bits)), 2) << width
    for shift in range(bits.size - 1, -1, -1):
        if value >> (shift + width) & 1:
            value ^= polynomial << shift
    return value


def as_int(bits: Bits) -> int:
    return int("".join(map(str, bits)), 2)


@pytest.mark.parametrize(("parity", "check", "append", "polynomial", "width", "published"), CODES)
class TestCrc:
    def test_published_value(self, parity, check, append, polynomial, width, published):
        bits = np.unpackbits(np.frombuffer(b"123456789", np.uint8))
        assert as_int(parity(bits)) == published

    def test_long_division(self, parity, check, append, polynomial, width, published):
        rng = np.random.default_rng(1)
        for length in (0, 1, 7, 8, 9, 23, 24, 25, 100, 1031):
            bits = rng.integers(0, 2, length).astype(np.uint8)
            assert parity(bits).dtype == np.uint8
            assert as_int(parity(bits)) == long_division(bits, polynomial, width)

    def test_right_bits_pass(self, parity, check, append, polynomial, width, published):
        bits = np.random.default_rng(2).integers(0, 2, 333).astype(np.uint8)
        whole = append(bits)
        assert whole.shape == (333 + width,)
        assert np.array_equal(whole[:333], bits)
        assert check(whole)

    def test_any_burst_of_errors_is_found(
        self, parity, check, append, polynomial, width, published
    ):
        rng = np.random.default_rng(3)
        whole = append(rng.integers(0, 2, 200).astype(np.uint8))
        for start in range(whole.size - width):
            burst = rng.integers(0, 2, width).astype(np.uint8)
            burst[0] = 1
            damaged = whole.copy()
            damaged[start : start + width] ^= burst
            assert not check(damaged)

    def test_too_short_fails(self, parity, check, append, polynomial, width, published):
        assert not check(np.zeros(width - 1, np.uint8))

    def test_bad_input(self, parity, check, append, polynomial, width, published):
        with pytest.raises(ValueError, match="value 0 or 1"):
            parity(np.array([0, 2, 1], np.uint8))
        with pytest.raises(ValueError, match="uint8 bits"):
            parity(np.zeros((2, 8), np.uint8))
        with pytest.raises(ValueError, match="uint8 bits"):
            parity(np.zeros(8, np.int64))
