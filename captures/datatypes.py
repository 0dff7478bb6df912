"""SigMF's sample types (``core:datatype``) and ``complex64``, which is what flowgraphs run on.

Integers are scaled to +-1 by a power of two, as the sigmf library does it, so that nothing is rounded on
the way; unsigned ones are centred first.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from captures.errors import CaptureError

# The types that recordings are written in; every complex type can be read.
WRITABLE = ("cf32_le", "ci16_le")
INT16_FULL_SCALE = 32768.0

_PATTERN = re.compile(
    r"(?P<domain>[cr])(?P<kind>[fiu])(?P<bits>8|16|32|64)(?:_(?P<order>le|be))?", re.ASCII
)
_BITS = {"f": (32, 64), "i": (8, 16, 32), "u": (8, 16, 32)}


@dataclass(frozen=True)
class SampleType:
    """How one complex sample lies in a file.

    Args:
        name: as in ``core:datatype``.
        kind: ``f`` floating point, ``i`` signed, ``u`` unsigned.
        bits: of the real part, and as many of the imaginary part.
        big_endian: byte order of each part.
    """

    name: str
    kind: str
    bits: int
    big_endian: bool

    @property
    def sample_bytes(self) -> int:
        """Bytes of one complex sample."""
        return 2 * self.bits // 8

    @cached_property
    def part(self) -> np.dtype[np.generic]:
        """NumPy's type of the real or imaginary part."""
        order = ">" if self.big_endian else "<"
        return np.dtype(f"{order}{self.kind}{self.bits // 8}")

    def decode(self, data: bytes | memoryview) -> NDArray[np.complex64]:
        """Samples from the bytes of a file, a whole number of them.

        Args:
            data: of any length that is a multiple of ``sample_bytes``.

        Returns:
            ``complex64 [n]``; integers scaled to +-1.
        """
        parts = np.frombuffer(data, self.part)
        if self.kind == "f":
            # What float32 cannot express becomes infinite; the receiver takes that for silence.
            with np.errstate(over="ignore", invalid="ignore"):
                return parts.astype(np.float32).view(np.complex64)
        half = np.float32(2.0 ** (self.bits - 1))
        scaled = parts.astype(np.float32)
        if self.kind == "u":
            scaled -= half
        scaled /= half
        return scaled.view(np.complex64)

    def encode(self, samples: NDArray[np.complex64]) -> bytes:
        """Inverse of :meth:`decode`; integers are rounded and saturate.

        Args:
            samples: ``complex64 [n]``, finite.
        """
        parts = samples.astype(np.complex64).view(np.float32)
        if self.kind != "f":
            half = 2.0 ** (self.bits - 1)
            low, high = (0.0, 2 * half - 1) if self.kind == "u" else (-half, half - 1)
            centre = half if self.kind == "u" else 0.0
            return (
                np.clip(np.rint(parts.astype(np.float64) * half + centre), low, high)
                .astype(self.part)
                .tobytes()
            )
        return parts.astype(self.part).tobytes()


def parse_datatype(name: object) -> SampleType:
    """The sample type behind ``core:datatype``.

    Raises:
        CaptureError: not a SigMF type, real-valued, or without the byte order that it needs.
    """
    match = _PATTERN.fullmatch(name) if isinstance(name, str) else None
    if match is None or int(match["bits"]) not in _BITS[match["kind"]]:
        raise CaptureError(
            f"core:datatype is {str(name)[:40]!r}, expected one of SigMF's, for instance cf32_le or ci16_le"
        )
    if match["domain"] == "r":
        raise CaptureError(
            f"core:datatype is {name}, real samples: expected complex ones (c...), a receiver needs both "
            "halves of the spectrum"
        )
    bits = int(match["bits"])
    if bits > 8 and match["order"] is None:
        raise CaptureError(f"core:datatype is {name}, expected {name}_le or {name}_be")
    return SampleType(str(name), match["kind"], bits, match["order"] == "be")
