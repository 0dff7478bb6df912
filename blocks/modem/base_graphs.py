"""The two 5G NR base graphs and their lifting sizes (TS 38.212 clause 5.3.2, tables 5.3.2-1 to -3).

A base graph is a small matrix whose entries are cyclic shifts; each entry is expanded into a
``Z x Z`` permutation. The shifts are data, kept as published in ``tables/nr_base_graph_{1,2}.csv``.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_TABLES = Path(__file__).parent / "tables"

MAX_LIFTING_SIZE = 384
CORE_ROWS = (
    4  # rows whose parity columns form the 4 x 4 core; every later row adds one degree-1 column
)
PUNCTURED_COLUMNS = 2  # the first two information columns are never sent

# Table 5.3.2-1: set i holds a * 2^j for one odd a (a = 2 for set 0).
_SET_BASES = (2, 3, 5, 7, 9, 11, 13, 15)


@dataclass(frozen=True, eq=False)
class BaseGraph:
    """One base graph; entries sorted by row, then column.

    ``row_start`` [rows + 1] delimits the entries of each row in ``entry_column`` [entries] and
    ``entry_shift`` [entries, 8] (one column per shift set, before reduction modulo Z).
    """

    number: int
    rows: int
    columns: int
    info_columns: int
    max_info_bits: int
    row_start: NDArray[np.int32]
    entry_column: NDArray[np.int32]
    entry_shift: NDArray[np.int32]


@cache
def load_base_graph(number: int) -> BaseGraph:
    """Base graph 1 or 2. Raises ``ValueError`` for any other number."""
    if number not in (1, 2):
        raise ValueError(f"base graph must be 1 or 2, got {number}")
    with (_TABLES / f"nr_base_graph_{number}.csv").open(newline="", encoding="ascii") as lines:
        reader = csv.reader(lines)
        next(reader)  # column names
        table = np.array([[int(cell) for cell in line] for line in reader], np.int32)
    table = table[np.lexsort((table[:, 1], table[:, 0]))]
    rows, columns = int(table[:, 0].max()) + 1, int(table[:, 1].max()) + 1
    return BaseGraph(
        number=number,
        rows=rows,
        columns=columns,
        info_columns=columns - rows,
        max_info_bits=(columns - rows) * MAX_LIFTING_SIZE,
        row_start=np.searchsorted(table[:, 0], np.arange(rows + 1)).astype(np.int32),
        entry_column=np.ascontiguousarray(table[:, 1]),
        entry_shift=np.ascontiguousarray(table[:, 2:]),
    )


@cache
def lifting_sizes() -> dict[int, int]:
    """Every allowed lifting size, ascending, with the index of its shift set (table 5.3.2-1)."""
    sizes = {
        base << power: index
        for index, base in enumerate(_SET_BASES)
        for power in range(9)
        if base << power <= MAX_LIFTING_SIZE
    }
    return dict(sorted(sizes.items()))
