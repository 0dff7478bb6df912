"""``uoisc benchmark per``: the options as a user types them."""

from __future__ import annotations

import pytest
import typer

from cli.benchmark_common import parse_grid, parse_mcs


def test_grids() -> None:
    assert parse_grid("3:5:0.5") == [3.0, 3.5, 4.0, 4.5, 5.0]
    assert parse_grid("0:0.3:0.1") == [0.0, 0.1, 0.2, 0.3]
    assert parse_grid("-1.5") == [-1.5]


@pytest.mark.parametrize("text", ["", "a", "1:2", "2:1:0.1", "1:2:0", "nan", "0:1:1e-9", "1:2:3:4"])
def test_grids_that_are_none(text: str) -> None:
    with pytest.raises(typer.BadParameter, match=r"expected|at most"):
        parse_grid(text)


def test_code_rates() -> None:
    assert parse_mcs("4") == [4]
    assert parse_mcs("0,1,4") == [0, 1, 4]
    assert parse_mcs("7-9,2") == [2, 7, 8, 9]


@pytest.mark.parametrize("text", ["", "10", "x", "3-", "-1", "1,,2"])
def test_code_rates_that_are_none(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        parse_mcs(text)
