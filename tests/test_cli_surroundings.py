"""The command in surroundings that are not what it would choose: work is kept, messages are one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import pytest
import zmq

from blocks.zmq_messages import SocketLimits, bound_address, open_socket
from sdr_config.load import ConfigError, load_profile
from semantic.demo_photos import photo_path
from semantic.plain_yaml import read_plain_yaml
from tests.conftest import REPOSITORY


def uoisc(
    folder: Path,
    arguments: Sequence[str | bytes],
    stdout: IO[Any] | int = subprocess.PIPE,
    **variables: str,
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "cli.main", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **variables},
        stdout=stdout,
        stderr=subprocess.PIPE,
        timeout=200,
        check=False,
    )


def test_figures_do_not_decide_about_results(tmp_path: Path) -> None:
    """A notebook's backend, a LaTeX that is not there, and a photo whose name is not UTF-8."""
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\n")
    photo = os.fsencode(tmp_path) + b"/cat\xff.png"
    os.symlink(os.fsencode(photo_path("chelsea")), photo)
    done = uoisc(
        tmp_path,
        ["loopback", photo, "-q", "a cat?", "-o", "out", "--json"],
        MPLBACKEND="module://matplotlib_inline.backend_inline",
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert os.fsencode(report["image"]) == photo
    assert json.loads(done.stdout)["image"] == report["image"]
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"received.png", "side_by_side.png", "constellation.png"} <= names


@pytest.mark.parametrize(
    "arguments", [["--help"], ["captures", "list"], ["captures", "list", "--json"]]
)
def test_a_full_standard_output_is_one_line(tmp_path: Path, arguments: list[str]) -> None:
    with open("/dev/full", "w") as full:
        done = uoisc(tmp_path, arguments, stdout=full)
    assert done.returncode == 1
    assert done.stderr == b"error: standard output: cannot write: No space left on device\n"


def test_a_closed_standard_output_stops_nothing(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "cli.main", "captures", "list", "--json"]
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stderr=subprocess.PIPE,
        timeout=100,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_terminal_that_is_latin_1(tmp_path: Path) -> None:
    """What it cannot show is escaped."""
    done = uoisc(tmp_path, ["captures", "show", "\u732b"], PYTHONIOENCODING="latin-1")
    assert done.returncode == 1
    assert done.stderr.startswith(b"error: ")
    assert b"\\u732b" in done.stderr
    assert b"fault" not in done.stderr


@pytest.mark.parametrize("text", ["010", "-0_7", "1:30", "1:30.5"])
def test_numbers_that_are_not_what_they_look_like_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="not the number it looks like"):
        load_profile("loopback", [f"channel.seed={text}"])
    file = tmp_path / "a.yaml"
    file.write_text(f"a: {text}\n")
    with pytest.raises(ValueError, match=r"line 1.*not the number it looks like"):
        read_plain_yaml(file)
    file.write_text(f"a: '{text}'\nb: 0\nc: 0.5\nd: 0x10\n")
    assert read_plain_yaml(file) == {"a": text, "b": 0, "c": 0.5, "d": 16}


def test_localhost_is_an_address() -> None:
    context = zmq.Context[zmq.Socket[bytes]]()
    limits = SocketLimits(10, 5000)
    try:
        pull = open_socket(context, zmq.PULL, bind="tcp://localhost:*", limits=limits)
        address = bound_address(pull).replace("127.0.0.1", "localhost")
        push = open_socket(context, zmq.PUSH, connect=address, limits=limits)
        push.send(b"x")
        assert pull.poll(5000)
    finally:
        context.destroy(linger=0)
