"""Slices: the independently decodable parts of a coded picture, one per code block on the air.

A payload of N bits in C slices is cut as the air interface cuts it: slice k has the bits from ``k P`` to
``min((k + 1) P, N)`` with ``P = ceil(N / C)``. Every slice stands on its own: its header says how large the
picture is, how finely it is quantised and which positions of it follow, so whatever arrives can be decoded.

Positions are the 8x8 pixels of one column of coefficients. They are counted cell by cell (32x32 pixels, a
token of the base layer), cells row by row, and inside a cell row by row. A slice has a run of them, the
next one goes on where it ends: the first begins at 0, the last ends with the picture.
NumPy only, for a radio machine asks how large a picture is. docs/waveform.md says the same in prose.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from semantic.frame_geometry import IndexFrameError

POSITION = 8  # pixels
CELL = 32  # pixels
MAX_SIDE = 1024
MAX_SLICES = 512

# Widths of the header's fields.
_SIDE_BITS = 10
_GAIN_BITS = 11
_CHECK_BITS = 16
_POSITION_BITS = 14
_CELL_BITS = 11

# Payload bits of the largest code block (TS 38.212 clause 5.2.2: 8448 with the CRC of 24).
USUAL_SLICE_BITS = 8424


class SliceError(IndexFrameError):
    """Bits that are no slice of a picture."""


@dataclass(frozen=True)
class SliceHeader:
    """What a slice says before its data.

    Args:
        slices: of the picture, 1..512.
        number: of this slice, from 0.
        width: of the picture in pixels, 1..1024.
        height: likewise.
        gain: how finely the picture is quantised, 0..2047 in steps of 1/256 neper from -3.
        check: CRC-16 over the decoded values.
        has_map: a map of gains follows.
        first: first position; with one slice it has all.
        count: of positions, at least 1.
        copied_cells: cells behind its own whose base tokens it repeats; they belong to the slice that
            follows, the first follows the last.
    """

    slices: int
    number: int
    width: int
    height: int
    gain: int
    check: int
    has_map: bool
    first: int = 0
    count: int = 0
    copied_cells: int = 0


class BitWriter:
    """Collects fields, most significant bit first."""

    def __init__(self) -> None:
        self._parts: list[NDArray[np.uint8]] = []

    def write(self, value: int, width: int) -> None:
        """Append ``width`` bits; the value must fit."""
        if not 0 <= value < 1 << width:
            raise SliceError(f"{value} does not go into {width} bits")
        shifts = np.arange(width - 1, -1, -1)
        self._parts.append(((value >> shifts) & 1).astype(np.uint8))

    def write_bits(self, bits: NDArray[np.uint8]) -> None:
        """Append bits, ``uint8 [n]`` of 0 and 1."""
        self._parts.append(bits)

    def bits(self) -> NDArray[np.uint8]:
        """Everything so far, ``uint8 [n]``."""
        return np.concatenate([np.zeros(0, np.uint8), *self._parts])


class BitReader:
    """Takes fields from ``uint8 [n]`` bits.

    Raises:
        SliceError: from every method, where the bits end too early.
    """

    def __init__(self, bits: NDArray[np.uint8]) -> None:
        self._bits = bits
        self.at = 0

    def read(self, width: int) -> int:
        """The next ``width`` bits as a number."""
        value = 0
        for bit in self.take(width).tolist():
            value = value << 1 | bit
        return value

    def take(self, count: int) -> NDArray[np.uint8]:
        """The next ``count`` bits."""
        if self.at + count > len(self._bits):
            raise SliceError("a slice ends within its header")
        self.at += count
        return self._bits[self.at - count : self.at]

    def rest(self) -> NDArray[np.uint8]:
        """What has not been read."""
        return self._bits[self.at :]


def slice_bounds(payload_bits: int, slices: int) -> list[tuple[int, int]]:
    """First bit and the one behind the last, of every slice.

    Raises:
        SliceError: more slices than bits, or so many that the last ones are empty.
    """
    if not 1 <= slices <= MAX_SLICES or slices > payload_bits:
        raise SliceError(f"{payload_bits} bits in {slices} slices")
    part = -(-payload_bits // slices)
    if part * (slices - 1) >= payload_bits:
        raise SliceError(f"{payload_bits} bits leave the last of {slices} slices empty")
    return [(k * part, min((k + 1) * part, payload_bits)) for k in range(slices)]


def usual_slices(payload_bits: int, slice_bits: int | None = None) -> int:
    """As many slices as there are code blocks.

    Args:
        payload_bits: of the picture.
        slice_bits: payload of a code block at most; None: at code rates above 1/4.
    """
    return -(-payload_bits // (slice_bits or USUAL_SLICE_BITS))


def cells_of(width: int, height: int) -> tuple[int, int]:
    """Rows and columns of 32x32 cells that cover a picture."""
    return -(-height // CELL), -(-width // CELL)


def positions_of(width: int, height: int) -> int:
    """Number of positions, those in the margin of the last cells included."""
    rows, columns = cells_of(width, height)
    return rows * columns * (CELL // POSITION) ** 2


def position_order(rows: int, columns: int) -> NDArray[np.int64]:
    """Where positions lie: ``int64 [n]``, numbers row by row over the whole picture, in sending order.

    Args:
        rows: of cells.
        columns: of cells.
    """
    fold = CELL // POSITION
    places = np.arange(rows * columns * fold**2).reshape(rows, fold, columns, fold)
    return places.transpose(0, 2, 1, 3).reshape(-1)


def write_header(writer: BitWriter, header: SliceHeader) -> None:
    """Append a header.

    Raises:
        SliceError: a field out of range, or positions that such a slice cannot have.
    """
    if header.slices > MAX_SLICES or not 0 <= header.number < header.slices:
        raise SliceError(f"slice {header.number} of {header.slices}")
    if header.slices > 1:
        _check_run(header)
    extra = header.slices.bit_length() - 1
    # Elias gamma: one bit says "one slice".
    writer.write(0, extra)
    writer.write(header.slices, extra + 1)
    writer.write(header.number, (header.slices - 1).bit_length())
    writer.write(header.width - 1, _SIDE_BITS)
    writer.write(header.height - 1, _SIDE_BITS)
    writer.write(header.gain, _GAIN_BITS)
    writer.write(int(header.has_map), 1)
    if header.slices > 1:
        writer.write(header.first, _POSITION_BITS)
        writer.write(header.count - 1, _POSITION_BITS)
        writer.write(int(header.copied_cells > 0), 1)
        if header.copied_cells:
            writer.write(header.copied_cells, _CELL_BITS)
    writer.write(header.check, _CHECK_BITS)


def read_header(reader: BitReader) -> SliceHeader:
    """Inverse of :func:`write_header`.

    Raises:
        SliceError: bits that end too early, or say what cannot be.
    """
    extra = 0
    while reader.read(1) == 0:
        extra += 1
        if 1 << extra > MAX_SLICES:
            raise SliceError("too many slices announced")
    slices = 1 << extra | reader.read(extra)
    if slices > MAX_SLICES:
        raise SliceError(f"{slices} slices announced")
    number = reader.read((slices - 1).bit_length())
    width, height = reader.read(_SIDE_BITS) + 1, reader.read(_SIDE_BITS) + 1
    gain, has_map = reader.read(_GAIN_BITS), bool(reader.read(1))
    header = SliceHeader(slices, number, width, height, gain, 0, has_map)
    first, count, copied = 0, positions_of(width, height), 0
    if slices > 1:
        first, count = reader.read(_POSITION_BITS), reader.read(_POSITION_BITS) + 1
        if reader.read(1):
            copied = reader.read(_CELL_BITS)
    check = reader.read(_CHECK_BITS)
    header = replace(header, first=first, count=count, copied_cells=copied, check=check)
    _check_run(header)
    return header


def _check_run(header: SliceHeader) -> None:
    """Raise SliceError where a slice of this number cannot have these positions of such a picture."""
    total = positions_of(header.width, header.height)
    rows, columns = cells_of(header.width, header.height)
    end = header.first + header.count
    is_first, is_last = header.number == 0, header.number == header.slices - 1
    if (
        header.number >= header.slices
        or header.count < 1
        or end > total
        or (header.first == 0) != is_first
        or (end == total) != is_last
        or header.copied_cells > rows * columns
    ):
        raise SliceError(
            f"slice {header.number} of {header.slices} with positions {header.first}..{end - 1} of "
            f"{total} and {header.copied_cells} copied cells"
        )


def find_slices(
    payload: bytes, lost: NDArray[np.bool_], likely: int | None = None
) -> list[tuple[SliceHeader, NDArray[np.uint8]]]:
    """Headers and bits of the slices that arrived whole.

    How many slices there are stands in each of them; where they lie follows from it. The likely numbers are
    tried first, then every other one, until all slices that would have arrived whole agree on it. Where they
    never do, the number that most of its slices agree on.

    Args:
        payload: as received, lost bytes are 0.
        lost: bool ``[len(payload)]``.
        likely: number of code blocks on the air, where known.

    Returns:
        for every slice its header and the bits behind it, in order, all of a picture of one size and of
        positions in order; an empty list where none was found.

    Raises:
        SliceError: another number of ``lost`` than of bytes.
    """
    if lost.shape != (len(payload),):
        raise SliceError(f"{len(payload)} bytes, of which {list(lost.shape)} may be lost")
    received = _Received.of(payload, lost)
    guesses = [usual_slices(len(received.bits))]
    if likely is not None:
        guesses.insert(0, likely)
    first = None if lost[:1].any() else _read_slice(received.bits)
    if first is not None:
        guesses.insert(0, first[0].slices)
    best: list[tuple[SliceHeader, NDArray[np.uint8]]] = []
    best_score = 0
    for slices in dict.fromkeys([*guesses, *range(1, MAX_SLICES + 1)]):
        found, against = received.slices_of(slices)
        if found and not against:
            return found
        if len(found) - against > best_score:
            best, best_score = found, len(found) - against
    return best


@dataclass(frozen=True)
class _Received:
    """A payload as received.

    Args:
        bits: uint8 ``[n]`` of 0 and 1.
        text: the same as characters, in which a number is found quickly.
        lost_before: how many bits before each are lost, int64 ``[n + 1]``.
    """

    bits: NDArray[np.uint8]
    text: bytes
    lost_before: NDArray[np.int64]

    @classmethod
    def of(cls, payload: bytes, lost: NDArray[np.bool_]) -> _Received:
        bits = np.unpackbits(np.frombuffer(payload, np.uint8))
        lost_before = np.concatenate([[0], np.cumsum(np.repeat(lost, 8))])
        return cls(bits, (bits + ord("0")).tobytes(), lost_before)

    def slices_of(self, slices: int) -> tuple[list[tuple[SliceHeader, NDArray[np.uint8]]], int]:
        """Slices of so many that are whole and agree, and the number of those whole that do not."""
        try:
            bounds = slice_bounds(len(self.bits), slices)
        except SliceError:
            return [], 0
        lost = self.lost_before[np.array(bounds)]
        width = 2 * slices.bit_length() - 1
        number_width = (slices - 1).bit_length()
        found: list[tuple[SliceHeader, NDArray[np.uint8]]] = []
        against = 0
        for number in np.flatnonzero(lost[:, 0] == lost[:, 1]).tolist():
            begin, end = bounds[number]
            # What every header begins with, see write_header: most bits that are no header fail here.
            expected = f"{slices << number_width | number:0{width + number_width}b}".encode()
            one = None
            if self.text.startswith(expected, begin):
                one = _read_slice(self.bits[begin:end])
            if one is not None and (not found or _follows(one[0], found[-1][0])):
                found.append(one)
            else:
                against += 1
        return found, against


def _follows(later: SliceHeader, earlier: SliceHeader) -> bool:
    """Whether two slices can be of one picture."""
    skipped = later.number - earlier.number - 1
    gap = later.first - (earlier.first + earlier.count)
    # A slice that is not here has one position at least.
    fits = gap >= skipped if skipped else gap == 0
    return fits and (later.width, later.height) == (earlier.width, earlier.height)


def _read_slice(bits: NDArray[np.uint8]) -> tuple[SliceHeader, NDArray[np.uint8]] | None:
    """Header of a slice and the bits behind it; None where there is none."""
    reader = BitReader(bits)
    try:
        return read_header(reader), reader.rest()
    except SliceError:
        return None


def read_picture_size(payload: bytes, lost: NDArray[np.bool_]) -> tuple[int, int] | None:
    """Width and height of a picture in pixels; None where no slice arrived.

    Args:
        payload: bytes as received.
        lost: bool ``[len(payload)]``.
    """
    found = find_slices(payload, lost)
    return (found[0][0].width, found[0][0].height) if found else None
