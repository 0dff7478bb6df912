"""``uoisc benchmark radio``: its counts add up, and nothing that it started outlives it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmarks.radio import SustainedRate, largest_geometry, random_frame, search
from benchmarks.radio_processes import Usage
from tests.conftest import REPOSITORY, RunCommand
from tests.link_parts import same_indices
from tests.virtual_radio import build

# Two processes start on a machine that others use as well.
_PATIENCE_S = 600


def check_books(report: dict[str, Any], due: int) -> None:
    """Whatever was lost on a busy machine, every picture and burst is in exactly one place."""
    (run,) = report["runs"]
    assert run["due"] == due
    assert run["sent"] <= due
    assert run["whole"] + run["damaged"] + run["missing"] == run["sent"]
    assert min(run["whole"], run["damaged"], run["missing"]) >= 0
    assert run["bursts_decoded"] <= run["bursts_heard"]
    assert run["bursts_sent"] >= run["sent"] > 0
    if run["overflows"] == run["samples_lost"] == run["samples_dropped"] == 0:
        assert run["bursts_heard"] <= run["bursts_sent"]
    if run["whole"]:
        assert 0 < run["delay_s"] <= run["longest_delay_s"]
    for side in ("tx", "rx"):
        assert 0 < run[side]["cores"] <= os.cpu_count()  # type: ignore[operator]
        # GNU Radio, NumPy and Numba are loaded in both.
        assert 50 < run[side]["peak_mib"] < 5000
    lost = run["overflows"] + run["samples_lost"] + run["samples_dropped"]
    failed = (run["underflows"] or 0) + (run["late"] or 0)
    assert run["sustained"] == (run["whole"] == due and lost + failed == 0)
    assert report["sustained_pictures_per_s"] == (
        run["pictures_per_s"] if run["sustained"] else None
    )


def test_over_the_virtual_air(uoisc: RunCommand, tmp_path: Path) -> None:
    words = ["--rate", "2", "--duration", "3", "--json", "found.json", "--set", "transmitter.mcs=2"]
    done = uoisc("benchmark", "radio", *words, timeout_s=_PATIENCE_S)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "found.json").read_text())
    check_books(report, 6)
    assert (report["profile"], report["radio"], report["mcs"]) == ("virtual", "zmq", 2)
    assert report["sample_rate_hz"] == 4e6
    (run,) = report["runs"]
    # An air that waits loses nothing, and no radio tells of bursts.
    assert run["whole"] == run["sent"]
    assert run["underflows"] is run["late"] is run["air_share"] is None
    # 37,000 bits at rate 1/3 fill three bursts of at most 20,000 symbols.
    assert run["bursts_decoded"] == run["bursts_sent"] == 3 * run["sent"]
    # With --json standard output is kept free, as in every command.
    assert "pictures whole" in done.stderr
    assert "rx, MiB at most" in done.stderr


@pytest.mark.parametrize("kind", ["uhd", "soapy"])
def test_over_the_virtual_radio(uoisc: RunCommand, tmp_path: Path, kind: str) -> None:
    if (missing := build.why_not()) is not None:
        pytest.skip(f"{missing}: the virtual radio cannot be built")
    before = {path.name for path in Path("/dev/shm").glob("uoisc-air-benchmark-*")}
    words = ["--virtual-radio", kind, "--rate", "0.5", "--duration", "4", "--json", "found.json"]
    # A rate for which a busy machine has the time.
    words += ["--set", "waveform.symbol_rate_hz=62.5e3", "--set", "radio.tx.lo_offset_hz=0"]
    words += ["--set", "radio.rx.lo_offset_hz=0"]
    done = uoisc("benchmark", "radio", *words, timeout_s=_PATIENCE_S)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "found.json").read_text())
    check_books(report, 2)
    assert (report["radio"], report["virtual_radio"]) == (kind, True)
    (run,) = report["runs"]
    assert (run["late"] is None) == (kind == "soapy")
    # Two pictures of about 40,000 symbols each in four seconds.
    assert run["air_share"] == pytest.approx(run["sent"] * 42_000 / 62_500 / 4, rel=0.1)
    left = {path.name for path in Path("/dev/shm").glob("uoisc-air-benchmark-*")}
    assert left <= before


def test_a_radio_that_is_not_there(uoisc: RunCommand) -> None:
    nothing = "radio.device_args=type=soapy,driver=nothing"
    done = uoisc("benchmark", "radio", "-p", "usrp", "--set", nothing, timeout_s=_PATIENCE_S)
    assert done.returncode == 1
    assert "error: uoisc rx ended: no USRP for radio.device_args" in done.stderr


def test_a_virtual_radio_has_a_profile_of_its_own(uoisc: RunCommand) -> None:
    done = uoisc("benchmark", "radio", "-p", "usrp", "--virtual-radio", "uhd")
    assert done.returncode == 2
    assert "profile of its own" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_nothing_outlives_it(tmp_path: Path, number: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "cli.main", "benchmark", "radio", "--duration", "900"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "TMPDIR": str(tmp_path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        deadline_s = time.monotonic() + _PATIENCE_S
        watched = psutil.Process(process.pid)
        while len(children := watched.children()) < 2 and time.monotonic() < deadline_s:
            assert process.poll() is None
            time.sleep(0.1)
        process.send_signal(number)
        _, errors = process.communicate(timeout=_PATIENCE_S)
    finally:
        process.kill()
    assert process.returncode == 130, errors
    assert len(children) == 2
    assert not [one for one in children if one.is_running()]
    assert not list(tmp_path.iterdir())


def result(pictures_per_s: float, **values: Any) -> SustainedRate:
    good: dict[str, Any] = {
        **{"pictures_per_s": pictures_per_s, "seconds": 1.0, "due": 5, "sent": 5, "whole": 5},
        **{"damaged": 0, "bursts_sent": 5, "bursts_heard": 5, "bursts_decoded": 5, "overflows": 0},
        **{"samples_lost": 0, "samples_dropped": 0, "underflows": 0, "late": None},
        **{"air_share": 0.1, "delay_s": 0.1, "longest_delay_s": 0.1},
        **{"tx": Usage(0.1, 100.0), "rx": Usage(0.1, 100.0)},
    }
    return SustainedRate(**{**good, **values})


def test_what_is_sustained() -> None:
    assert result(1).sustained
    for name in ("overflows", "samples_lost", "samples_dropped", "underflows", "late"):
        assert not result(1, **{name: 1}).sustained
    assert not result(1, due=6).sustained
    assert not result(1, whole=4).sustained
    assert result(1, whole=3, damaged=1).missing == 1


@pytest.mark.parametrize("limit", [0, 1, 2.5, 7, 8, 100])
def test_search_finds_the_highest(limit: float) -> None:
    rates = [1.0, 2.0, 3.0, 5.0, 8.0]
    tried = []

    def try_rate(rate: float) -> SustainedRate:
        tried.append(rate)
        return result(rate, overflows=int(rate > limit))

    fitting = [rate for rate in rates if rate <= limit]
    assert search(rates, try_rate) == (max(fitting) if fitting else None)
    assert len(tried) == len(set(tried)) <= 3


def test_frames_are_random_and_repeatable() -> None:
    geometry = largest_geometry()
    assert geometry.payload_bits == 37_000
    assert same_indices(random_frame(3, geometry), random_frame(3, geometry))
    assert not same_indices(random_frame(3, geometry), random_frame(4, geometry))
