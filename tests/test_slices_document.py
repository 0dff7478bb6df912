"""The slices of docs/waveform.md are complete and right: a reader written from the page reads ours."""

from __future__ import annotations

import independent_slices as other
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semantic.codec import gain_map
from semantic.codec.entropy import ResidualModels, SliceWriter, logistic_table
from semantic.codec.slice_layout import SliceLayout, make_layout
from semantic.codec.token_prior import wavefronts
from semantic.frame.slices import (
    BitReader,
    BitWriter,
    SliceError,
    SliceHeader,
    cells_of,
    find_slices,
    positions_of,
    read_header,
    slice_bounds,
    write_header,
)

TABLE = logistic_table()
MODELS = ResidualModels(TABLE)
PER_CELL, CODEWORDS = 5, 7
# Width, height, slices, number, first position, positions, copied cells; small and large cells of the map.
CASES = [
    (160, 160, 1, 0, 0, 400, 0),
    (150, 90, 3, 1, 37, 90, 4),
    (150, 90, 3, 2, 127, 113, 3),
    (640, 100, 9, 0, 0, 200, 11),
    (321, 33, 300, 100, 101, 1, 22),
]


def layout_of(header: SliceHeader) -> SliceLayout:
    rows, columns = cells_of(header.width, header.height)
    return make_layout(rows, columns, [(header.first, header.count)])


@pytest.mark.parametrize("case", CASES)
def test_a_whole_slice(case: tuple[int, ...]) -> None:
    width, height, slices, number, first, count, copied = case
    generator = np.random.default_rng(list(case))
    draft = SliceHeader(slices, number, width, height, 800, 0, True, first, count, copied)
    layout = layout_of(draft)
    levels = generator.integers(-12, 13, gain_map.map_shape(width, height))
    levels[: levels.shape[0] // 2] //= 6
    touched = np.unique(gain_map.map_cells(layout, width, height))
    writer = SliceWriter(MODELS)
    columns = cells_of(width, height)[1]
    cells = np.unique(
        np.concatenate([layout.cells, layout.cells[-1] + 1 + np.arange(copied)])
        % (positions_of(width, height) // 16)
    )
    sent = generator.integers(0, CODEWORDS, (len(cells), PER_CELL))
    weights = generator.integers(1, 1000, (*sent.shape, CODEWORDS)).astype(np.float64)
    for rows in wavefronts(cells, columns):
        for segment in range(PER_CELL):
            writer.write_indices(sent[rows, segment], weights[rows, segment])
    gain_map.write_levels(writer, touched, levels.reshape(-1), levels.shape[1])
    passes = []
    for size in (2, 6):
        scales = generator.integers(0, 64, (count, size)).reshape(-1)
        spread = np.exp(scales / 8 - 3.25)
        residuals = np.rint(generator.standard_normal(scales.size) * spread).astype(np.int64)
        residuals[::37] = generator.integers(-1023, 1024, len(residuals[::37]))
        writer.write(residuals, scales)
        passes.append((residuals, scales))
    header = SliceHeader(
        slices, number, width, height, 800, writer.check, True, first, count, copied
    )
    bits = BitWriter()
    write_header(bits, header)
    bits.write_bits(writer.bits())
    bits.write_bits(np.zeros(50, np.uint8))

    one = other.read_slice(bits.bits().tolist())
    assert (one.slices, one.number, one.gain, one.has_map) == (slices, number, 800, 1)
    assert (one.width, one.height) == (width, height)
    assert (one.first, one.count, one.copied) == (first, count, copied)
    across = layout.shape[1]
    assert [row * across + column for row, column in other.places(one)] == layout.places.tolist()
    coder = other.RangeDecoder(one.rest)
    given = {
        (cell, segment): weights[row, segment].tolist()
        for row, cell in enumerate(cells.tolist())
        for segment in range(PER_CELL)
    }
    found, indices = other.read_tokens(one, coder, PER_CELL, given)
    assert found == dict(zip(cells.tolist(), sent.tolist(), strict=True))
    read_levels, steps = other.read_map(one, coder)
    assert read_levels == {cell: levels.reshape(-1)[cell] for cell in touched.tolist()}
    read = [other.read_residuals(coder, scales.tolist(), TABLE.tolist()) for _, scales in passes]
    assert read == [residuals.tolist() for residuals, _ in passes]
    assert other.check(indices + steps + [n for part in read for n in part]) == one.check


@given(st.lists(st.integers(0, 1), max_size=120), st.integers(0, 10))
@settings(max_examples=300, deadline=None)
def test_both_refuse_the_same_headers(bits: list[int], zeros: int) -> None:
    bits = [0] * zeros + bits
    try:
        ours = read_header(BitReader(np.array(bits, np.uint8)))
    except SliceError:
        with pytest.raises(other.BadSliceError):
            other.read_slice(bits)
        return
    theirs = other.read_slice(bits)
    assert (theirs.slices, theirs.number, theirs.first, theirs.count, theirs.check) == (
        ours.slices,
        ours.number,
        ours.first,
        ours.count,
        ours.check,
    )


@pytest.mark.parametrize("seed", range(25))
def test_both_find_the_same_slices(seed: int) -> None:
    """Of payloads with lost blocks, and of blocks lost and payloads cut that nobody would expect."""
    generator = np.random.default_rng(seed)
    slices, size = int(generator.integers(1, 12)), int(generator.integers(200, 900))
    bits = generator.integers(0, 2, 8 * size).astype(np.uint8)
    cut = slice_bounds(8 * size, slices)
    total = positions_of(100, 200)
    for number, (begin, _) in enumerate(cut):
        first, end = number * total // slices, (number + 1) * total // slices
        writer = BitWriter()
        write_header(writer, SliceHeader(slices, number, 100, 200, 3, 4, False, first, end - first))
        bits[begin : begin + len(writer.bits())] = writer.bits()
    lost = np.zeros(8 * size, np.bool_)
    for number in np.flatnonzero(generator.random(slices) < 0.4):
        lost[slice(*cut[number])] = True
    whole_bytes = lost.reshape(-1, 8).all(axis=1)
    bits[lost] = 0
    ours = find_slices(np.packbits(bits).tobytes(), whole_bytes)
    theirs = other.find(bits.tolist(), lost.tolist())
    assert [header.number for header, _ in ours] == [one.number for one in theirs]
    assert [rest.tolist() for _, rest in ours] == [one.rest for one in theirs]
