"""``uoisc plot``: files, summary and report from a folder of results, and what it says of a bad one."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from cli.main import run
from semantic.evaluation.summary import summarise
from tests.evaluation_table import made_table, write_results


@pytest.fixture(scope="module")
def small() -> pl.DataFrame:
    """Two systems over one channel: everything is there, and little to draw."""
    return made_table().filter(
        pl.col("system").is_in(["UO-ISC", "JPEG 2000", "blank picture", "wrong picture"]),
        pl.col("channel") != "rayleigh",
        pl.col("policy") == "fixed",
    )


def test_figures_summary_and_report(
    small: pl.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_results(tmp_path / "results", small)
    report = tmp_path / "results.md"
    assert run(["plot", str(folder), "--report", str(report), "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    names = {Path(file).name for file in data["files"]}
    stems = {"fig3-animals-awgn", "fig4a-animals-awgn", "fig4b-animals-awgn", "fig6-animals"}
    stems |= {"quality-animals-awgn", "rates-animals-awgn"}
    assert names == {f"{stem}.{kind}" for stem in stems for kind in ("png", "svg")} | {"results.md"}
    assert all(Path(file).is_file() for file in data["files"])
    assert [line.split(":")[0] for line in data["left_out"]] == ["fig5-animals-awgn"]
    assert data["summary"] == summarise(small).to_dicts()
    page = report.read_text()
    assert "](images/results/fig4a-animals-awgn.png)" in page
    beside = {file.name for file in (tmp_path / "images/results").iterdir()}
    # Photos of a data set stay where they are.
    assert beside == {f"{stem}.png" for stem in stems - {"fig3-animals-awgn"}}
    assert not list(tmp_path.rglob("*.part"))

    first = {Path(file): Path(file).read_bytes() for file in data["files"]}
    assert run(["plot", str(folder), "--report", str(report)]) == 0
    assert {file: file.read_bytes() for file in first} == first
    out = capsys.readouterr().out
    assert "left out: fig5-animals-awgn" in out
    for system in ("UO-ISC", "JPEG 2000", "blank picture"):
        assert system in out


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ("gone", "no such folder"),
        ("no table", "holds no results.parquet; uoisc evaluate PLAN.yaml --output"),
        ("damaged", "not a table in Parquet"),
        ("empty", "a table without rows"),
        ("no notes", "notes.json: is missing"),
        ("bad notes", "notes.json: cannot be read as JSON"),
        ("odd notes", "notes.json: expected a JSON object, found list"),
    ],
)
def test_bad_folders(
    small: pl.DataFrame,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    spoil: str,
    message: str,
) -> None:
    folder = tmp_path / "results"
    if spoil != "gone":
        write_results(folder, small.head(0) if spoil == "empty" else small)
    notes, table = folder / "notes.json", folder / "results.parquet"
    match spoil:
        case "no table":
            table.unlink()
        case "damaged":
            table.write_bytes(table.read_bytes()[:100])
        case "no notes":
            notes.unlink()
        case "bad notes":
            notes.write_text("{")
        case "odd notes":
            notes.write_text("[]")
    assert run(["plot", str(folder)]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error
    assert not (folder / "figures").exists()


def test_a_report_that_cannot_be_written_is_said_first(
    small: pl.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_results(tmp_path / "results", small)
    assert run(["plot", str(folder), "--report", str(tmp_path / "gone" / "r.md")]) == 1
    assert "its folder does not exist" in capsys.readouterr().err
    assert not (folder / "figures").exists()
