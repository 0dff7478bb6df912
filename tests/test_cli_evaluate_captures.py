"""Recordings as rows of an evaluation's table: the counts are the replay's, the quality is the photo's."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import polars as pl
import pytest

from captures.errors import CaptureError
from captures.library import SHIPPED_FOLDER
from cli.evaluate_captures import captured_table
from cli.main import run
from semantic.codec.vq_codec import load_vq_codec
from semantic.demo_photos import photo_path
from semantic.evaluation.table import SCHEMA, read_table
from semantic.judge import load_judge
from tests.evaluation_plan import SMALL, write_plan
from tests.recordings import burst_samples, write_foreign

NAME = "fading_gap"


def copy_recording(folder: Path) -> None:
    for file in SHIPPED_FOLDER.glob(f"{NAME}.*"):
        if file.is_dir():
            shutil.copytree(file, folder / file.name)
        else:
            shutil.copy(file, folder)


def test_rows_of_a_recording(tmp_path: Path) -> None:
    folder = tmp_path / "monday"
    folder.mkdir()
    copy_recording(folder)
    # One that nobody knows the frames of has nothing to say.
    write_foreign(folder, burst_samples(1))
    sources = tmp_path / "photos"
    sources.mkdir()
    shutil.copy(photo_path("coffee"), sources / f"2{photo_path('coffee').suffix}")
    codec = load_vq_codec(None, "cpu", towers=False)
    table = captured_table(folder, codec, load_judge(), system="ours", sources=sources)
    assert dict(table.schema) == SCHEMA
    expected = json.loads((SHIPPED_FOLDER / f"{NAME}.expected.json").read_text())
    rows = table.to_dicts()
    assert [row["row"] for row in rows] == [0, 1, 2, 3]
    for row, picture in zip(rows, expected["pictures"], strict=True):
        assert (row["set"], row["system"], row["channel"]) == ("monday", "ours", "captured")
        assert (row["policy"], row["mcs"], row["query"]) == ("recorded", 2, picture["query"])
        assert row["status"] == picture["status"]
        assert row["code_blocks_ok"] == picture["code_blocks_ok"]
        assert row["code_blocks"] == picture["code_blocks"]
        assert row["snr_db"] == pytest.approx(expected["snr_db_estimated"], abs=0.05)
        assert row["payload_symbols"] == 3 * row["bits"] / 3  # rate 1/3, three bits a symbol
        assert row["energy"] == pytest.approx(row["symbols"] * 10 ** (row["snr_db"] / 10))
        assert row["match"] == (row["answer"] == row["answer_source"])
    # Every burst was heard.
    assert sum(row["symbols"] for row in rows) == expected["symbols"]
    assert sum(row["bursts"] for row in rows) == expected["bursts_sent"]
    # Of three the reference is what the indices decode to, of one the photo.
    whole = [row for row in rows if row["status"] == "ok"]
    assert whole
    assert all(math.isinf(row["psnr_db"]) for row in whole)
    coffee = rows[1]
    assert coffee["photo"] == f"2{photo_path('coffee').suffix}"
    assert coffee["psnr_db"] < 28
    assert 0 < coffee["ms_ssim"] < 1


def test_nothing_to_evaluate(tmp_path: Path) -> None:
    codec = load_vq_codec(None, "cpu", towers=False)
    write_foreign(tmp_path, burst_samples(1))
    with pytest.raises(CaptureError, match=r"no recording .* with sent frames"):
        captured_table(tmp_path, codec, load_judge())
    with pytest.raises(CaptureError, match="expected a folder of photos"):
        captured_table(tmp_path, codec, load_judge(), sources=tmp_path / "none")


def test_the_command_alone_and_beside_a_plan(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Recordings alone make a table that plot takes; beside a plan the rows of both stand in one."""
    folder = tmp_path / "monday"
    folder.mkdir()
    copy_recording(folder)
    words = ["evaluate", "--captures", str(folder), "--device", "cpu"]
    assert run([*words, "-o", str(tmp_path / "alone"), "--json"]) == 0
    table = read_table(tmp_path / "alone/results.parquet")
    assert set(table["channel"]) == {"captured"}
    assert json.loads(capsys.readouterr().out)["rows"] == table.height == 4
    assert run(["plot", str(tmp_path / "alone"), "--report", str(tmp_path / "report.md")]) == 0
    assert "captured" in (tmp_path / "report.md").read_text()
    plan = write_plan(tmp_path, **SMALL)
    assert run([*words, str(plan), "--jobs", "1", "-o", str(tmp_path / "both")]) == 0
    joined = read_table(tmp_path / "both/results.parquet")
    assert joined.filter(pl.col("channel") == "captured").equals(table)
    assert set(joined["channel"]) == {"captured", "awgn", "none"}
    assert "channel captured" in json.loads((tmp_path / "both/notes.json").read_text())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "give a plan, --captures, or both"),
        (["--captures", "DIR", "--limit", "3"], "only with a plan"),
        (["PLAN", "--sources", "DIR"], "only with --captures"),
    ],
)
def test_options_that_do_nothing(
    words: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["evaluate", *words, "-o", str(tmp_path / "out")]) == 2
    assert expected in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()
