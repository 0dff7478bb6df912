"""Parameters of one 5G NR LDPC code block (TS 38.212 clauses 5.2.2, 5.3.2, 7.2.2).

``get_code(info_bits, coded_bits)`` is the one door: it picks base graph and lifting size and keeps
the expanded tables that encoder and decoder share. No CRC is added here: ``info_bits`` counts it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from blocks.modem.base_graphs import BaseGraph, lifting_sizes, load_base_graph

# Limits of TS 38.212 7.2.2 (choice of base graph).
_BG2_ALWAYS_INFO_BITS = 292
_BG2_INFO_BITS = 3824
_BG2_RATE = 0.67
_BG2_ALWAYS_RATE = 0.25
# A bound on repetition, so that a wrong coded length is an error and not a huge allocation.
MAX_CODED_BITS = 1 << 20


class LdpcError(ValueError):
    """A code block that the 5G NR LDPC codes cannot carry, or data of the wrong shape."""


def choose_base_graph(info_bits: int, rate: float) -> int:
    """Base graph (1 or 2) for ``info_bits`` (CRC included) at code rate ``rate``, TS 38.212 7.2.2."""
    if info_bits <= _BG2_ALWAYS_INFO_BITS or rate <= _BG2_ALWAYS_RATE:
        return 2
    if info_bits <= _BG2_INFO_BITS and rate <= _BG2_RATE:
        return 2
    return 1


@dataclass(frozen=True, eq=False)
class LdpcCode:
    """One code: ``info_bits`` K in, ``coded_bits`` E out. Compared by identity: ``get_code`` caches.

    The codeword has ``columns * lifting_size`` bits: K information bits, ``filler_bits`` zeros up to
    ``info_columns * lifting_size``, then parity. ``row_start`` [rows + 1] delimits, per base-graph
    row, ``edge_column`` and ``edge_shift`` [edges] (int32, shifts reduced modulo the lifting size):
    check ``i`` of the row touches bit ``(i + shift) mod lifting_size`` of the column.
    """

    info_bits: int
    coded_bits: int
    base_graph: int
    lifting_size: int
    shift_set: int
    systematic_columns: int  # K_b of the clause: columns that can hold information bits
    info_columns: int
    columns: int
    rows: int
    filler_bits: int
    row_start: NDArray[np.int32]
    edge_column: NDArray[np.int32]
    edge_shift: NDArray[np.int32]

    @property
    def rate(self) -> float:
        """Information bits per coded bit."""
        return self.info_bits / self.coded_bits

    @property
    def codeword_bits(self) -> int:
        """Length of the full codeword, punctured and filler bits included."""
        return self.columns * self.lifting_size


def _systematic_columns(info_bits: int, base_graph: int) -> int:
    """K_b of TS 38.212 5.2.2."""
    if base_graph == 1:
        return 22
    if info_bits > 640:
        return 10
    if info_bits > 560:
        return 9
    return 8 if info_bits > 192 else 6


def _checked_graph(info_bits: int, coded_bits: int, base_graph: int | None) -> BaseGraph:
    if info_bits < 1:
        raise LdpcError(f"a code block needs at least 1 information bit, got {info_bits}")
    if not 1 <= coded_bits <= MAX_CODED_BITS:
        raise LdpcError(f"coded bits must be 1 to {MAX_CODED_BITS}, got {coded_bits}")
    if base_graph is None:
        base_graph = choose_base_graph(info_bits, info_bits / coded_bits)
    if base_graph not in (1, 2):
        raise LdpcError(f"base graph must be 1 or 2, got {base_graph}")
    graph = load_base_graph(base_graph)
    if info_bits > graph.max_info_bits:
        raise LdpcError(
            f"base graph {base_graph} (rate {info_bits / coded_bits:.3f}) carries at most "
            f"{graph.max_info_bits} information bits, got {info_bits}"
        )
    return graph


@lru_cache(maxsize=256)
def get_code(info_bits: int, coded_bits: int, base_graph: int | None = None) -> LdpcCode:
    """The code for ``info_bits`` (CRC included, fillers not) sent in ``coded_bits``.

    ``base_graph`` overrides the choice of :func:`choose_base_graph` at rate info/coded. Raises
    :class:`LdpcError` when the block is empty, too large for the base graph, or the length absurd.
    """
    graph = _checked_graph(info_bits, coded_bits, base_graph)
    systematic = _systematic_columns(info_bits, graph.number)
    lifting_size, shift_set = next(
        (size, index) for size, index in lifting_sizes().items() if systematic * size >= info_bits
    )
    return LdpcCode(
        info_bits=info_bits,
        coded_bits=coded_bits,
        base_graph=graph.number,
        lifting_size=lifting_size,
        shift_set=shift_set,
        systematic_columns=systematic,
        info_columns=graph.info_columns,
        columns=graph.columns,
        rows=graph.rows,
        filler_bits=graph.info_columns * lifting_size - info_bits,
        row_start=graph.row_start,
        edge_column=graph.entry_column,
        edge_shift=np.ascontiguousarray(graph.entry_shift[:, shift_set] % lifting_size),
    )
