"""The encoder against independent vectors, the parity checks and the clauses written out."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from blocks.modem.base_graphs import lifting_sizes
from blocks.modem.ldpc_code import LdpcCode, LdpcError, get_code
from blocks.modem.ldpc_encoder import encode

Bits = NDArray[np.uint8]

HERE = Path(__file__).parent
FEW_VECTORS = HERE / "data" / "nr_ldpc_cases.npz"
ALL_VECTORS = HERE.parent.parent / "shared" / "phy" / "nr_ldpc_vectors.npz"
START_COLUMN = {1: (0, 17, 33, 56), 2: (0, 13, 25, 43)}


def random_bits(shape: int | tuple[int, ...], seed: int) -> Bits:
    return np.random.default_rng(seed).integers(0, 2, shape).astype(np.uint8)


def assert_vectors_match(path: Path) -> int:
    cases = 0
    with np.load(path, allow_pickle=False) as vectors:
        for key in vectors.files:
            match = re.fullmatch(r"k(\d+)_n(\d+)_q(\d+)_info", key)
            if match is None:
                continue
            info_bits, coded_bits, order = map(int, match.groups())
            info = np.unpackbits(vectors[key], axis=1)[:, :info_bits]
            packed = vectors[key.replace("_info", "_coded")]
            code = get_code(info_bits, coded_bits)
            coded = encode(code, info, 0, order)
            assert np.array_equal(np.packbits(coded, axis=1), packed), key
            cases += 1
    return cases


def test_stored_vectors() -> None:
    assert assert_vectors_match(FEW_VECTORS) == 4


@pytest.mark.skipif(not ALL_VECTORS.exists(), reason="needs the shared vectors beside the project")
def test_all_vectors() -> None:
    assert assert_vectors_match(ALL_VECTORS) == 10


def parity_checks_hold(code: LdpcCode, word: Bits) -> bool:
    columns = word.reshape(code.columns, code.lifting_size)
    for row in range(code.rows):
        edges = slice(code.row_start[row], code.row_start[row + 1])
        total = np.zeros(code.lifting_size, np.uint8)
        for column, shift in zip(code.edge_column[edges], code.edge_shift[edges], strict=True):
            total ^= np.roll(columns[column], -shift)
        if total.any():
            return False
    return True


def sent_word(code: LdpcCode, info: Bits, coded: Bits) -> Bits:
    """The codeword from the sent bits of a whole circular buffer, put back in place."""
    fillers = np.zeros(code.filler_bits, np.uint8)
    start = 2 * code.lifting_size
    assert np.array_equal(coded[: code.info_bits - start], info[start:])
    return np.concatenate((info, fillers, coded[max(code.info_bits - start, 0) :]))


@pytest.mark.parametrize("base_graph", [1, 2])
def test_parity_checks_for_every_lifting_size(base_graph: int) -> None:
    columns = {1: (22, 66), 2: (10, 50)}[base_graph]
    for size in lifting_sizes():
        # As many information bits as fill the columns that K_b gives this size.
        info_bits = size * (22 if base_graph == 1 else 10)
        if base_graph == 2 and info_bits <= 640:
            info_bits = size * (9 if size * 9 > 560 else 8 if size * 8 > 192 else 6)
        coded_bits = columns[1] * size - (columns[0] * size - info_bits)
        code = get_code(info_bits, coded_bits, base_graph)
        assert code.lifting_size == size
        info = random_bits(info_bits, size)
        assert parity_checks_hold(code, sent_word(code, info, encode(code, info)))


def by_the_clauses(code: LdpcCode, word: Bits, version: int, order: int) -> Bits:
    """TS 38.212 5.4.2.1 and 5.4.2.2, loop by loop, from the full codeword."""
    size = code.lifting_size
    is_filler = np.zeros(word.size, bool)
    is_filler[code.info_bits : code.info_columns * size] = True
    d, null = word[2 * size :], is_filler[2 * size :]
    selected: list[int] = []
    j = START_COLUMN[code.base_graph][version] * size
    while len(selected) < code.coded_bits:
        if not null[j % d.size]:
            selected.append(int(d[j % d.size]))
        j += 1
    out = np.empty(code.coded_bits, np.uint8)
    for column in range(code.coded_bits // order):
        for i in range(order):
            out[i + column * order] = selected[i * (code.coded_bits // order) + column]
    return out


@pytest.mark.parametrize("version", [0, 1, 2, 3])
@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize("info_bits", [150, 1000])
def test_rate_matching_by_the_clauses(info_bits: int, order: int, version: int) -> None:
    mother = get_code(info_bits, 50 * get_code(info_bits, 3000).lifting_size, 2)
    mother = get_code(info_bits, mother.coded_bits - mother.filler_bits, 2)
    info = random_bits(info_bits, 5)
    word = sent_word(mother, info, encode(mother, info))
    for coded_bits in (info_bits // 3 * 3 + 30, 3 * info_bits, 18 * info_bits):
        code = get_code(info_bits, coded_bits, 2)
        expected = by_the_clauses(code, word, version, order)
        assert np.array_equal(encode(code, info, version, order), expected)


def test_batch_equals_single_blocks() -> None:
    code = get_code(500, 999)
    info = random_bits((4, 500), 6)
    together = encode(code, info, 1, 3)
    assert together.shape == (4, 999)
    assert together.dtype == np.uint8
    assert all(np.array_equal(together[i], encode(code, info[i], 1, 3)) for i in range(4))


def test_no_interleaver_may_be_asked_for_as_zero_or_one() -> None:
    code = get_code(500, 1000)
    info = random_bits(500, 7)
    assert np.array_equal(encode(code, info, 0, 0), encode(code, info, 0, 1))


def test_bad_input() -> None:
    code = get_code(100, 300)
    with pytest.raises(LdpcError, match=r"\[100\]"):
        encode(code, np.zeros(99, np.uint8))
    with pytest.raises(LdpcError, match=r"\[100\]"):
        encode(code, np.zeros((1, 1, 100), np.uint8))
    with pytest.raises(LdpcError, match="value 0 or 1"):
        encode(code, np.full(100, 2, np.uint8))
    with pytest.raises(LdpcError, match="uint8"):
        encode(code, np.zeros(100, np.int64))
