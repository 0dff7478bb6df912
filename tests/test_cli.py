"""The real command, in a process of its own: answers, and one line for every mistake."""

from __future__ import annotations

import importlib
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

from cli import errors
from cli.doctor import Check, print_table
from cli.main import run
from tests.conftest import REPOSITORY, RunCommand

DOCTOR_CHECKS = [
    "Python",
    "GNU Radio",
    "UHD",
    "SoapySDR",
    "NumPy",
    "torch",
    "CUDA",
    "weights",
    "caches",
    "ports",
]
VECTORS = REPOSITORY / "tests/data/nr_ldpc_cases.npz"


def assert_one_line_error(result: subprocess.CompletedProcess[str], code: int, text: str) -> None:
    assert result.returncode == code, result.stderr
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    assert text in lines[0]


def test_help_answers_at_once(uoisc: RunCommand) -> None:
    times = []
    for _ in range(2):  # the first may have to compile the modules
        started = time.monotonic()
        result = uoisc("--help")
        times.append(time.monotonic() - started)
        assert result.returncode == 0
        for command in ("demo", "loopback", "encode", "decode", "tx", "rx", "doctor", "config"):
            assert command in result.stdout
    assert min(times) < 2.0  # 0.3 s on an idle machine


def test_help_loads_nothing_heavy() -> None:
    probe = (
        "import sys\n"
        "from cli.main import run\n"
        "run([])\n"
        "print(sorted({'torch', 'gnuradio', 'numba', 'numpy', 'matplotlib'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", probe], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert result.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["nope"], "nope"),
        (["config"], "Missing command"),
        (["encode"], "IMAGE"),
        (["encode", "a.png", "-o", "b"], "--query"),
        (["encode", "a.png", "-q", "x", "-o", "b", "--frame-id", "x"], "--frame-id"),
        (["encode", "a.png", "-q", "x", "-o", "b", "--search-steps", "-1"], "--search-steps"),
        (["doctor", "--colour"], "--colour"),
    ],
)
def test_wrong_usage(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == errors.EXIT_USAGE
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.fullmatch(r"error: [^\n]+ --help\)\n", captured.err)
    assert expected in captured.err


def test_wrong_usage_with_json_leaves_standard_output_empty(uoisc: RunCommand) -> None:
    assert_one_line_error(uoisc("doctor", "--json", "--colour"), errors.EXIT_USAGE, "--colour")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["config", "show", "nope"], "profile 'nope': unknown, expected one of loopback"),
        (["config", "show", "nope.yaml"], "nope.yaml: cannot be read: No such file"),
        (["config", "show", "loopback", "--set", "transmitter.mcs=99"], "integer from 0 to 9"),
        (["config", "show", "loopback", "--set", "channel.snr_db=nan"], "channel.snr_db"),
        (["config", "show", "loopback", "--set", "codec.search_steps=-1"], "codec.search_steps"),
        (["config", "show", "loopback", "--set", "codec.search_likeness=-1"], "search_likeness"),
        (["encode", "a.png", "-q", "", "-o", "f.uoisc"], "query: is empty"),
        (["encode", "a.png", "-q", " \t ", "-o", "f.uoisc"], "query: is empty"),
        (["encode", "a.png", "-q", "word " * 10_000, "-o", "f.uoisc"], "at most 1000"),
        (["encode", "a.png", "-q", "a\nb", "-o", "f.uoisc"], "control characters"),
        (["encode", "a.png", "-q", "x", "-o", "none/f.uoisc"], "its folder does not exist"),
        (["encode", "a.png", "-q", "x", "-o", "."], "not an ordinary file"),
        (["decode", "none.uoisc", "-o", "p.png"], "none.uoisc: No such file"),
        (["decode", str(VECTORS), "-o", "p.png"], "not an index frame"),
        (["decode", ".", "-o", "p.png"], "directory"),
        (["benchmark", "ldpc", "--vectors", "none.npz"], "none.npz"),
        (["benchmark", "ldpc", "--point", "8448,1/2"], "expected K,RATE,SNR_DB"),
        (["benchmark", "ldpc", "--point", "9000,1/2,4"], "at most 8448 information bits"),
        (["tx", "-p", "usrp", "--set", "radio.device_args=type=b200,serial=NONE"], "no USRP for"),
        (["rx", "-p", "usrp", "--set", "radio.device_args=addr=127.0.0.1"], "no USRP for"),
        (["tx", "-p", "soapy", "--set", "radio.driver=nosuch"], "no SoapySDR device for"),
        (["rx", "-p", "loopback"], "which is no radio"),
        (["rx", "-p", "nope"], "profile 'nope': unknown"),
        (["benchmark", "ldpc", "--vectors", str(Path(__file__))], "test_cli.py"),
    ],
)
def test_mistakes(
    arguments: list[str],
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(arguments) == errors.EXIT_ERROR
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.fullmatch(r"error: [^\n]+\n", captured.err)
    assert expected in captured.err
    assert "fault in the program" not in captured.err
    assert list(tmp_path.iterdir()) == []


def test_a_mistake_in_the_real_command(uoisc: RunCommand) -> None:
    result = uoisc("benchmark", "ldpc", "--vectors", "none.npz", "--json")
    assert_one_line_error(result, errors.EXIT_ERROR, "none.npz")


def test_a_fault_says_so_and_shows_where_on_request(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fault = KeyError("left\nright")
    assert errors.report_error(fault) == errors.EXIT_ERROR
    assert capsys.readouterr().err.count("\n") == 1
    monkeypatch.setenv(errors.TRACEBACK_VARIABLE, "1")
    errors.report_error(fault)
    captured = capsys.readouterr().err
    assert "KeyError" in captured.splitlines()[0]
    assert captured.splitlines()[-1].startswith("error: fault in the program: KeyError")


@pytest.mark.parametrize("name", sorted(errors.USER_ERRORS))
def test_the_named_errors_exist(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    kind = getattr(importlib.import_module(module), attribute)
    assert errors.is_user_error(kind.__new__(kind))


def test_config_show_prints_what_can_be_read_again(uoisc: RunCommand, tmp_path: Path) -> None:
    shown = uoisc("config", "show", "usrp", "--set", "transmitter.mcs=1")
    assert shown.returncode == 0, shown.stderr
    (tmp_path / "again.yaml").write_text(shown.stdout)
    again = uoisc("config", "show", "again.yaml", "--json")
    assert json.loads(again.stdout) == yaml.safe_load(shown.stdout)
    assert json.loads(again.stdout)["transmitter"]["mcs"] == 1


def test_benchmark_ldpc(uoisc: RunCommand) -> None:
    result = uoisc("benchmark", "ldpc", "--vectors", VECTORS, "--json")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["all_ok"] is True
    assert len(report["cases"]) >= 2
    assert set(report["cases"][0]) == {
        "name",
        "base_graph",
        "lifting_size",
        "encode_ok",
        "decode_ok",
    }


def test_benchmark_ldpc_notices_a_wrong_vector(uoisc: RunCommand, tmp_path: Path) -> None:
    with np.load(VECTORS) as archive:
        arrays = dict(archive)
    name = next(name for name in arrays if name.endswith("_coded"))
    arrays[name] = arrays[name].copy()
    arrays[name][0, 0] ^= 0x80
    wrong = tmp_path / "wrong.npz"
    np.savez(wrong, **arrays)
    result = uoisc("benchmark", "ldpc", "--vectors", wrong, "--json")
    assert result.returncode == 1
    report = json.loads(result.stdout)
    assert report["all_ok"] is False
    failed = [case["name"] for case in report["cases"] if not case["encode_ok"]]
    assert failed == [name.removesuffix("_coded")]


def test_benchmark_ldpc_measures(uoisc: RunCommand) -> None:
    counts = ["--errors", "5", "--max-blocks", "100", "--latency-blocks", "4"]
    peers = ["--reference-blocks", "10", "--peer-blocks", "3"]
    result = uoisc("benchmark", "ldpc", "--point", "120,1/4,0.5", *counts, *peers, "--json")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert set(report) == {"machine", "results", "ratios", "latency"}
    assert set(report["results"][0]) == {
        "decoder", "mcs", "rate", "info_bits", "coded_bits", "snr_db",
        "snr_above_normal_approximation_db", "max_iterations", "mean_iterations", "seed", "blocks",
        "block_errors", "per", "information_bits", "cores", "cpu_s", "wall_s", "mbps_cpu", "mbps_wall",
    }  # fmt: skip
    ours, *others = report["results"]
    assert ours["mcs"] == 1
    assert ours["information_bits"] == 120 * ours["blocks"]
    assert ours["block_errors"] >= 5 or ours["blocks"] == 100
    assert [row["blocks"] for row in others] == [10, 10, 3]
    assert [row["peer"] for row in report["ratios"]] == [row["decoder"] for row in others]
    assert [row["blocks"] for row in report["latency"]] == [4, 4]
    assert all(0 < row["p50_ms"] <= row["p95_ms"] for row in report["latency"])


@pytest.fixture
def taken_port() -> Iterator[int]:
    """Port 5552 taken, by this test or already by somebody else."""
    with socket.socket() as other:
        try:
            other.bind(("127.0.0.1", 5552))
            other.listen()
        except OSError:
            pass
        yield 5552


def test_doctor_notices_a_taken_port(taken_port: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert set(report) == {"checks", "all_ok"}
    assert report["all_ok"] is False
    checks = {check["name"]: check for check in report["checks"]}
    assert list(checks) == DOCTOR_CHECKS
    for check in checks.values():
        assert set(check) == {"name", "ok", "found", "mend"}
        assert check["found"]
        assert check["ok"] == (not check["mend"])
    assert str(taken_port) in checks["ports"]["found"]
    assert [name for name, check in checks.items() if not check["ok"]] == ["ports"]


def test_doctor_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    print_table([Check("left", True, "found it"), Check("right", False, "nothing", "mend it")])
    lines = capsys.readouterr().out.splitlines()
    assert "\x1b" not in "".join(lines)
    assert any("left" in line and "ok" in line and "found it" in line for line in lines)
    assert any("right" in line and "FAILED" in line and "mend it" in line for line in lines)


def test_standard_output_is_for_json_alone(uoisc: RunCommand, tmp_path: Path) -> None:
    """Even what C code prints (GNU Radio's logger does) does not reach it."""
    script = tmp_path / "noisy.py"
    script.write_text(
        "import ctypes, os\n"
        "from cli.output import print_json, reserve_stdout\n"
        "reserve_stdout()\n"
        "print('from Python')\n"
        "ctypes.CDLL(None).puts(b'from C')\n"
        "os.write(1, b'from the system\\n')\n"
        "print_json({'a': 1})\n"
    )
    result = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout == '{"a": 1}\n'
    for words in ("from Python", "from C", "from the system"):
        assert words in result.stderr
