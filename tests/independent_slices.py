"""The slices of stream frames once more, written from docs/waveform.md and nothing else.

Plain Python, bit by bit. Only what the prior network would say is left out: distributions come from outside.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

WORD, STATE, TOTAL = 1 << 32, 1 << 64, 1 << 24


class BadSliceError(ValueError):
    """Bits that the page does not allow."""


# --- header --------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Slice:
    slices: int
    number: int
    width: int
    height: int
    gain: int
    has_map: int
    first: int
    count: int
    copied: int
    check: int
    rest: list[int]


def bounds(payload_bits: int, slices: int) -> list[tuple[int, int]]:
    part = math.ceil(payload_bits / slices)
    return [(k * part, min((k + 1) * part, payload_bits)) for k in range(slices)]


def cells(width: int, height: int) -> tuple[int, int]:
    return math.ceil(height / 32), math.ceil(width / 32)


def read_slice(bits: list[int]) -> Slice:
    at = 0

    def take(width: int) -> int:
        nonlocal at
        if at + width > len(bits):
            raise BadSliceError("too short")
        at += width
        return int("0" + "".join(map(str, bits[at - width : at])), 2)

    zeros = 0
    while take(1) == 0:
        zeros += 1
    slices = (1 << zeros) + take(zeros)
    if slices > 512:
        raise BadSliceError("too many")
    number = take(math.ceil(math.log2(slices)))
    width, height = take(10) + 1, take(10) + 1
    gain, has_map = take(11), take(1)
    rows, columns = cells(width, height)
    first, count, copied = 0, 16 * rows * columns, 0
    if slices > 1:
        first, count = take(14), take(14) + 1
        copied = take(11) if take(1) else 0
    check = take(16)
    end = first + count
    if number >= slices or end > 16 * rows * columns or copied > rows * columns:
        raise BadSliceError("out of range")
    if (first == 0) != (number == 0) or (end == 16 * rows * columns) != (number == slices - 1):
        raise BadSliceError("such a slice has no such run")
    rest = bits[at:]
    return Slice(slices, number, width, height, gain, has_map, first, count, copied, check, rest)


def find(bits: list[int], lost: list[bool]) -> list[Slice]:
    """The page's search, without its short cuts."""
    for slices in range(1, 513):
        if len(bits) < slices or math.ceil(len(bits) / slices) * (slices - 1) >= len(bits):
            continue
        found: list[Slice] = []
        for number, (begin, end) in enumerate(bounds(len(bits), slices)):
            if any(lost[begin:end]):
                continue
            try:
                one = read_slice(bits[begin:end])
            except BadSliceError:
                break
            if (one.slices, one.number) != (slices, number):
                break
            if found:
                last = found[-1]
                gap = one.first - last.first - last.count
                skipped = number - last.number - 1
                size = (one.width, one.height) == (last.width, last.height)
                if not size or gap < skipped or (gap and not skipped):
                    break
            found.append(one)
        else:
            if found:
                return found
    return []


# --- where things lie ----------------------------------------------------------------------------
def places(one: Slice) -> list[tuple[int, int]]:
    """Row and column, in positions of 8x8 pixels, of every position of the run."""
    columns = cells(one.width, one.height)[1]
    found = []
    for n in range(one.first, one.first + one.count):
        cell, inside = divmod(n, 16)
        found.append((4 * (cell // columns) + inside // 4, 4 * (cell % columns) + inside % 4))
    return found


def token_cells(one: Slice) -> list[int]:
    rows, columns = cells(one.width, one.height)
    last = (one.first + one.count - 1) // 16
    own = list(range(one.first // 16, last + 1))
    return own + [(last + 1 + n) % (rows * columns) for n in range(one.copied)]


# --- range coder ---------------------------------------------------------------------------------
def frequencies(weights: list[float]) -> list[int]:
    total = 0.0
    for weight in weights:
        total += weight
    factor = (TOTAL - len(weights)) / total
    before, found = 0.0, []
    for i, weight in enumerate(weights):
        found.append(int(before * factor) + i)
        before += weight
    return [*found, TOTAL]


class RangeDecoder:
    def __init__(self, bits: list[int]) -> None:
        self.bits, self.at = bits, 0
        self.low, self.range = 0, STATE - 1
        self.value = self.word() * WORD + self.word()

    def word(self) -> int:
        text = "".join(map(str, self.bits[self.at : self.at + 32])).ljust(32, "0")
        self.at += 32
        return int(text, 2)

    def read(self, cumulative: list[int]) -> int:
        scale = self.range // TOTAL
        point = (self.value - self.low) % STATE // scale
        if point >= TOTAL:
            raise BadSliceError("no symbol")
        i = next(i for i in range(len(cumulative) - 1) if cumulative[i + 1] > point)
        self.low = (self.low + scale * cumulative[i]) % STATE
        self.range = scale * (cumulative[i + 1] - cumulative[i])
        if self.range < WORD:
            self.low, self.range = self.low * WORD % STATE, self.range * WORD
            self.value = (self.value * WORD + self.word()) % STATE
        return i


def read_tokens(
    one: Slice, coder: RangeDecoder, per_cell: int, weights: dict[tuple[int, int], list[float]]
) -> tuple[dict[int, list[int]], list[int]]:
    """Indices of every cell, and all of them as they were read; weights by cell and segment."""
    columns = cells(one.width, one.height)[1]
    mine = sorted(set(token_cells(one)))
    found: dict[int, list[int]] = {cell: [] for cell in mine}
    read = []
    waves = sorted({2 * (cell // columns) + cell % columns for cell in mine})
    for wave in waves:
        for segment in range(per_cell):
            for cell in mine:
                if 2 * (cell // columns) + cell % columns == wave:
                    read.append(coder.read(frequencies(weights[cell, segment])))
                    found[cell].append(read[-1])
    return found, read


def read_map(one: Slice, coder: RangeDecoder) -> tuple[dict[int, int], list[int]]:
    """Levels of the map's cells, and the steps as they were read."""
    side = 2 if max(one.width, one.height) <= 320 else 4  # in positions
    columns = cells(one.width, one.height)[1] * 4 // side
    touched = sorted({(row // side) * columns + column // side for row, column in places(one)})
    levels: dict[int, int] = {}
    steps = []
    for cell in touched:
        at_left_edge = cell % columns == 0
        left = None if at_left_edge else levels.get(cell - 1)
        above = levels.get(cell - columns)
        if left is None and above is None:
            expected, c = 0, 1.0
        elif left is None or above is None:
            expected, c = (left if above is None else above), 0.5  # type: ignore[assignment]
        else:
            corner = levels.get(cell - columns - 1, above)
            low, high = min(left, above), max(left, above)
            expected = max(low, min(high, left + above - corner))
            c = 0.25 if left == above == corner else 0.5
        weights = [2.0 ** (-abs(step) / c) for step in range(-31, 32)]
        steps.append(coder.read(frequencies(weights)) - 31)
        levels[cell] = max(-12, min(12, expected + steps[-1]))
    return levels, steps


def read_residuals(
    coder: RangeDecoder, distributions: list[int], table: list[list[int]]
) -> list[int]:
    """One pass."""
    found = [0] * len(distributions)
    for number in sorted(set(distributions)):
        row = table[number]
        reach = max(value for value in range(256) if row[value])
        cumulative = frequencies([row[abs(s)] / TOTAL for s in range(-reach, reach + 1)])
        mine = [n for n, one in enumerate(distributions) if one == number]
        for n in mine:
            found[n] = coder.read(cumulative) - reach
        for n in mine:
            if abs(found[n]) == reach:
                beyond = coder.read([TOTAL // 2048 * i for i in range(2049)])
                found[n] += beyond if found[n] > 0 else -beyond
    return found


def check(numbers: list[int]) -> int:
    register = 0xFFFF
    for number in numbers:
        for octet in (number % 65536 % 256, number % 65536 // 256):
            register ^= octet << 8
            for _ in range(8):
                register = (register << 1) ^ (0x11021 if register & 0x8000 else 0)
    return register
