"""``uoisc benchmark acquisition``: options, counts that add up, nothing that depends on the processes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from benchmarks import acquisition as bench
from cli.benchmark_acquisition import parse_dc, parse_inputs
from cli.main import app


def test_dc_lines() -> None:
    assert parse_dc("none,-10, 0,10") == [None, -10.0, 0.0, 10.0]


@pytest.mark.parametrize("text", ["", "x", "nan", "inf", "1,,2", "61"])
def test_dc_lines_that_are_none(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="expected none or a number"):
        parse_dc(text)


def test_inputs() -> None:
    assert parse_inputs("all") == list(bench.INPUTS)
    assert parse_inputs("noise, pulsed noise") == ["noise", "pulsed noise"]
    with pytest.raises(typer.BadParameter, match="expected all or some of noise"):
        parse_inputs("noise,music")


def test_every_burst_is_found_where_that_is_easy_and_none_where_it_is_impossible() -> None:
    easy = bench.detect_all(bench.DetectionConditions(6.0, 0.0), range(8))
    assert easy == bench.Detections(trials=8)
    hopeless = bench.detect_all(bench.DetectionConditions(-25.0), range(4))
    assert hopeless == bench.Detections(trials=4, missed=4)


def test_headers_fail_first() -> None:
    """At -6.5 dB the preamble of 256 symbols is mostly heard, the header of rate 1/4 mostly is not."""
    counts = bench.detect_all(bench.DetectionConditions(-6.5), range(30))
    assert counts.missed < 15
    assert counts.headers_failed > 5
    assert counts.headers_wrong == 0


@pytest.mark.parametrize("kind", bench.INPUTS)
def test_inputs_without_bursts(kind: str) -> None:
    """Two million samples of each kind: finite, with noise everywhere, and nothing heard."""
    samples = bench.INPUTS[kind](np.random.default_rng(1), 5000)
    assert samples.dtype == np.complex64
    assert samples.shape == (5000,)
    assert np.isfinite(samples.view(np.float32)).all()
    assert np.mean(np.abs(samples) ** 2) > 0.9
    assert np.unique(samples).size > 4900
    assert bench.listen(kind, 0, 0) == bench.FalseAlarms(samples=bench.PIECE_SAMPLES)


def test_the_command_and_its_file(tmp_path: Path) -> None:
    """The figures, and that they do not depend on the number of processes."""
    found = []
    for jobs in ("1", "2"):
        file = tmp_path / f"{jobs}.json"
        arguments = ["--snr-db", "0", "--trials", "55", "--dc-db", "10", "--noise-samples", "0"]
        result = CliRunner().invoke(
            app, ["benchmark", "acquisition", *arguments, "--jobs", jobs, "--json", str(file)]
        )
        assert result.exit_code == 0, result.output
        found.append(json.loads(file.read_text()))
    assert found[0]["detection"] == found[1]["detection"]
    (row,) = found[0]["detection"]
    assert (row["snr_db"], row["dc_db"], row["trials"]) == (0.0, 10.0, 55)
    assert row["missed"] <= 1
    assert row["detected_ci95"][0] < row["detected"] <= row["detected_ci95"][1]
    assert found[0]["false_alarms"] == []


def test_false_alarms_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    result = CliRunner().invoke(
        app,
        [
            *("benchmark", "acquisition", "--trials", "0", "--noise-samples", "1"),
            *("--inputs", "noise,words", "--json", str(file)),
        ],
    )
    assert result.exit_code == 0, result.output
    rows = json.loads(file.read_text())["false_alarms"]
    assert [row["input"] for row in rows] == ["noise", "words"]
    assert all(row["samples"] >= 1 and row["headers"] == 0 for row in rows)
    assert all(row["msym_per_s"] >= row["slowest_msym_per_s"] > 0 for row in rows)
