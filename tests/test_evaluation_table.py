"""The table: its columns and no others, null and infinity kept, files whole or not there."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from semantic.evaluation.files import atomic_write
from semantic.evaluation.table import (
    KEYS,
    SCHEMA,
    TableError,
    make_table,
    read_table,
    sort_table,
    write_csv,
    write_parquet,
)


def row(**values: Any) -> dict[str, Any]:
    return dict.fromkeys(SCHEMA) | {"set": "a", "system": "s", "row": 0} | values


def test_round_trip_keeps_null_and_infinity(tmp_path: Path) -> None:
    table = make_table([row(psnr_db=math.inf, match=True), row(row=1, snr_db=-1.5)])
    write_parquet(table, tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet").equals(table)
    assert table["psnr_db"].to_list() == [math.inf, None]
    assert table["match"].to_list() == [True, None]
    write_csv(table, tmp_path / "t.csv")
    text = pl.read_csv(tmp_path / "t.csv")
    assert text["psnr_db"].to_list() == [math.inf, None]
    assert text.columns == list(SCHEMA)


def test_order_is_that_of_the_keys(tmp_path: Path) -> None:
    rows = [row(row=n, snr_db=snr) for n in (1, 0) for snr in (20.0, None, 4.0)]
    one, other = sort_table(make_table(rows)), sort_table(make_table(rows[::-1]))
    assert one.equals(other)
    assert list(one.select("snr_db", "row").iter_rows()) == [
        (4.0, 0), (4.0, 1), (20.0, 0), (20.0, 1), (None, 0), (None, 1),
    ]  # fmt: skip
    assert set(KEYS) <= SCHEMA.keys()


@pytest.mark.parametrize("change", [{"more": 1}, {"psnr": 1.0}])
def test_other_columns_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(TableError, match=next(iter(change))):
        make_table([row() | change])
    with pytest.raises(TableError, match="match"):
        make_table([{key: value for key, value in row().items() if key != "match"}])


def test_files_that_are_no_table(tmp_path: Path) -> None:
    file = tmp_path / "t.parquet"
    with pytest.raises(TableError, match=r"t\.parquet: no such file"):
        read_table(file)
    file.write_bytes(b"PAR1 and then nothing")
    with pytest.raises(TableError, match=r"t\.parquet: not a table"):
        read_table(file)
    make_table([row()]).with_columns(pl.col("row").cast(pl.Int32)).write_parquet(file)
    with pytest.raises(TableError, match=r"t\.parquet: columns differ .*: row$"):
        read_table(file)


def test_a_file_is_whole_or_not_there(tmp_path: Path) -> None:
    file = tmp_path / "f"
    atomic_write(file, b"old")

    def fails(opened: Any) -> None:
        opened.write(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        atomic_write(file, fails)
    assert [one.name for one in tmp_path.iterdir()] == ["f"]
    assert file.read_bytes() == b"old"
