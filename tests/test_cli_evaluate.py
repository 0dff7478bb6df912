"""``uoisc evaluate``: one table, one line about it, and errors that name what and where."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from cli.main import run
from tests.evaluation_plan import ROWS, SMALL, write_plan


def test_a_plan_becomes_a_table_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan, output = write_plan(tmp_path, **SMALL), tmp_path / "out"
    arguments = ["evaluate", str(plan), "-o", str(output), "--jobs", "1", "--device", "cpu"]
    assert run([*arguments, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["cells"], printed["cells_run"]) == (2, 2)
    assert printed["rows"] == 2 * len(ROWS)
    assert printed["status"] == {"ok": 2 * len(ROWS)}
    table = pl.read_parquet(output / "results.parquet")
    assert table.height == printed["rows"]
    assert (output / "results.csv").exists()
    assert run(arguments) == 0
    assert "6 rows of 2 cells, 0 of them run now" in capsys.readouterr().out
    # With fewer rows it is another plan.
    assert run([*arguments, "--limit", "2"]) == 1
    error = capsys.readouterr().err
    assert "another plan: sets.0.limit: None there, 2 here" in error


def test_photos_from_elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = write_plan(tmp_path, **SMALL)
    moved = tmp_path / "moved"
    (tmp_path / "photos").rename(moved)
    arguments = [
        "evaluate",
        str(plan),
        "-o",
        str(tmp_path / "out"),
        "--device",
        "cpu",
        "--limit",
        "1",
    ]
    assert run(arguments) == 1
    assert "photos: no such folder" in capsys.readouterr().err
    assert run([*arguments, "--jobs", "1", "--data", f"demo={moved}", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 2


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["nowhere.yaml"], 1, "nowhere.yaml: No such file"),
        (["PLAN", "--data", "birds=x"], 1, "--data birds: "),
        (["PLAN", "--data", "demo"], 2, "'demo': expected NAME=FOLDER"),
        (["PLAN", "--ray-address", "auto"], 2, "only with --backend ray"),
        (["PLAN", "--backend", "threads"], 2, "threads"),
        (["PLAN", "--jobs", "0"], 2, "--jobs"),
    ],
)
def test_mistakes(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    expected: str,
) -> None:
    plan = tmp_path / "plan.yaml"
    plan.write_text(
        "{sets: [{label: demo, folder: x}], systems: [{kind: blank, label: b}], snr_db: [0]}"
    )
    filled = [str(plan) if one == "PLAN" else one for one in arguments]
    assert run(["evaluate", *filled, "-o", str(tmp_path / "out")]) == code
    error = capsys.readouterr().err
    assert expected in error
    assert not (tmp_path / "out").exists()
