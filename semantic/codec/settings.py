"""What a user may ask of an encoder. NumPy-free, torch-free."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from semantic.index_frame import MAX_PAYLOAD_BITS, IndexFrameError

# What a decoded picture is for: near the photo in every pixel, or showing what is there.
DecodeFor = Literal["fidelity", "recognition"]


@dataclass(frozen=True)
class Box:
    """A rectangle somebody drew around what counts, in pixels of the picture that is sent.

    Args:
        x, y: of its upper left corner.
        width, height: at least 1.
    """

    x: int
    y: int
    width: int
    height: int

    @classmethod
    def parse(cls, text: str) -> Box:
        """Read ``x,y,w,h``.

        Raises:
            IndexFrameError: not four whole numbers, or an empty box.
        """
        try:
            x, y, width, height = (int(part) for part in text.split(","))
        except ValueError:
            raise IndexFrameError(
                f"box: expected four whole numbers x,y,w,h, got {text!r:.60}"
            ) from None
        if x < 0 or y < 0 or width < 1 or height < 1:
            raise IndexFrameError(f"box: {text}: expected x,y >= 0 and w,h >= 1")
        return cls(x, y, width, height)


@dataclass(frozen=True)
class EncoderSettings:
    """How a picture is encoded.

    Args:
        bits: payload bits there may be; None: what ``bits_per_pixel`` says.
        bits_per_pixel: of the picture that is sent; None: the codec's usual rate.
        focus: how far bits follow the question, 0 to 1; None: as measured best, and less where the two-layer
            codec is not sure what was asked about.
        boxes: where the bits go, instead of where the question points.
        search_steps: of a search for better indices; 0: none.
        search_likeness: perceptual weight of that search; None: as measured best.
        slice_bits: of a slice at most: what a code block carries; None: as at code rates above 1/4.
        base_copies: every slice repeats the base tokens of the next one, so that what a lost block takes away
            is still there coarsely; where there are several slices.
        max_side: longest side in pixels to which a larger photo is scaled down.

    Raises:
        IndexFrameError: a value out of range.
    """

    bits: int | None = None
    bits_per_pixel: float | None = None
    focus: float | None = None
    boxes: tuple[Box, ...] = ()
    search_steps: int = 0
    search_likeness: float | None = None
    slice_bits: int | None = None
    base_copies: bool = False
    max_side: int | None = None

    def __post_init__(self) -> None:
        if self.bits is not None and not 8 <= self.bits <= MAX_PAYLOAD_BITS:
            raise IndexFrameError(f"bits: expected 8..{MAX_PAYLOAD_BITS}, got {self.bits}")
        if self.boxes and self.focus is not None:
            raise IndexFrameError(
                "focus: decides nothing where boxes are given; expected one of them"
            )
        if self.bits_per_pixel is not None and not 0 < self.bits_per_pixel < math.inf:
            raise IndexFrameError(
                f"bits per pixel: expected more than 0, got {self.bits_per_pixel:g}"
            )
        if self.focus is not None and not 0 <= self.focus <= 1:
            raise IndexFrameError(f"focus: expected 0..1, got {self.focus:g}")
        if self.search_steps < 0:
            raise IndexFrameError(f"search_steps: expected 0 or more, got {self.search_steps}")
        if self.search_likeness is not None and not 0 <= self.search_likeness < math.inf:
            raise IndexFrameError(
                f"search_likeness: expected 0 or more, got {self.search_likeness:g}"
            )
        if self.slice_bits is not None and self.slice_bits < 8:
            raise IndexFrameError(f"slice_bits: expected 8 or more, got {self.slice_bits}")
        if self.max_side is not None and not 16 <= self.max_side <= 1024:
            raise IndexFrameError(f"max_side: expected 16..1024, got {self.max_side}")

    def payload_bits(self, width: int, height: int, usual: float) -> int:
        """Bits for a picture of this size, whole bytes.

        Args:
            width: in pixels.
            height: likewise.
            usual: bits per pixel where neither number is given.

        Raises:
            IndexFrameError: less than a byte.
        """
        bits = self.bits
        if bits is None:
            bits = int((self.bits_per_pixel or usual) * width * height + 1e-6)
            if bits < 8:
                raise IndexFrameError(
                    f"bits per pixel: {self.bits_per_pixel:g} of {width}x{height} pixels is not one byte"
                )
        return min(bits, MAX_PAYLOAD_BITS) // 8 * 8
