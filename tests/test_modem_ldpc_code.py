"""Base graphs, lifting sizes and the choice between them (TS 38.212 5.2.2, 5.3.2, 7.2.2)."""

from __future__ import annotations

import numpy as np
import pytest

from blocks.modem.base_graphs import lifting_sizes, load_base_graph
from blocks.modem.ldpc_code import LdpcError, choose_base_graph, get_code
from blocks.modem.ldpc_rate_matching import rows_reached, transmitted_bits


def test_base_graph_shapes() -> None:
    first, second = load_base_graph(1), load_base_graph(2)
    assert (first.rows, first.columns, first.info_columns) == (46, 68, 22)
    assert (second.rows, second.columns, second.info_columns) == (42, 52, 10)
    assert first.entry_column.size == 316
    assert second.entry_column.size == 197
    assert (first.max_info_bits, second.max_info_bits) == (8448, 3840)


@pytest.mark.parametrize("number", [1, 2])
def test_extension_rows_own_one_parity_column_each(number: int) -> None:
    """Dropping a row whose parity column was not sent is right only if nobody else uses it."""
    graph = load_base_graph(number)
    for row in range(4, graph.rows):
        (edges,) = np.nonzero(graph.entry_column == graph.info_columns + row)
        assert edges.tolist() == [graph.row_start[row + 1] - 1]


def test_lifting_sizes() -> None:
    sizes = lifting_sizes()
    assert len(sizes) == 51
    assert list(sizes)[:8] == [2, 3, 4, 5, 6, 7, 8, 9]
    assert max(sizes) == 384
    assert [sizes[z] for z in (256, 384, 320, 224, 288, 352, 208, 240)] == list(range(8))


@pytest.mark.parametrize(
    ("info_bits", "rate", "base_graph"),
    [
        (292, 0.9, 2), (293, 0.9, 1), (293, 0.67, 2), (3824, 0.67, 2), (3824, 0.671, 1),
        (3825, 0.67, 1), (3825, 0.25, 2), (8448, 0.26, 1),
    ],
)  # fmt: skip
def test_choice_of_base_graph(info_bits: int, rate: float, base_graph: int) -> None:
    assert choose_base_graph(info_bits, rate) == base_graph


@pytest.mark.parametrize(
    ("info_bits", "coded_bits", "base_graph", "lifting_size", "systematic_columns"),
    [
        (8448, 16896, 1, 384, 22), (3840, 19200, 2, 384, 10), (640, 2559, 2, 72, 9),
        (641, 2559, 2, 72, 10), (560, 2240, 2, 72, 8), (192, 800, 2, 32, 6), (193, 800, 2, 26, 8),
        (1, 100, 2, 2, 6), (5280, 6336, 1, 240, 22),
    ],
)  # fmt: skip
def test_lifting_size_of_a_code(
    info_bits: int, coded_bits: int, base_graph: int, lifting_size: int, systematic_columns: int
) -> None:
    code = get_code(info_bits, coded_bits)
    assert code.base_graph == base_graph
    assert code.lifting_size == lifting_size
    assert code.systematic_columns == systematic_columns
    assert code.filler_bits == code.info_columns * lifting_size - info_bits
    assert code.edge_shift.max() < lifting_size


def test_codes_are_cached_and_the_graph_can_be_forced() -> None:
    assert get_code(1056, 2112) is get_code(1056, 2112)
    assert get_code(1056, 2112, base_graph=1).base_graph == 1


@pytest.mark.parametrize(
    ("info_bits", "coded_bits", "base_graph", "message"),
    [
        (0, 100, None, "at least 1"), (-5, 100, None, "at least 1"), (100, 0, None, "coded bits"),
        (100, 1 << 30, None, "coded bits"), (8449, 16896, None, "at most 8448"),
        (8448, 8448 * 5, None, "at most 3840"), (100, 300, 3, "1 or 2"),
    ],
)  # fmt: skip
def test_impossible_codes(
    info_bits: int, coded_bits: int, base_graph: int | None, message: str
) -> None:
    with pytest.raises(LdpcError, match=message):
        get_code(info_bits, coded_bits, base_graph)


def test_only_reached_rows_count() -> None:
    assert rows_reached(get_code(8448, 9504)).tolist() == [0, 1, 2, 3, 4]  # 26.75 columns sent
    assert rows_reached(get_code(8448, 16896)).size == 24
    assert rows_reached(get_code(3840, 19200)).size == 42
    # Redundancy version 2 starts in the middle: core rows and the rows whose columns were sent.
    assert rows_reached(get_code(8448, 3840), 2).tolist() == [0, 1, 2, 3, *range(13, 23)]


def test_bad_rate_matching_arguments() -> None:
    code = get_code(100, 200)
    with pytest.raises(LdpcError, match="redundancy version"):
        transmitted_bits(code, 4)
    with pytest.raises(LdpcError, match="multiples"):
        transmitted_bits(code, 0, 3)
    with pytest.raises(LdpcError, match="multiples"):
        transmitted_bits(code, 0, -1)
