"""Files are written whole or not at all; JSON goes out whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import IO

import pytest

from cli.output import OutputError, atomic_write, make_console, make_folder, print_json


def test_atomic_write_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "result.bin"
    path.write_bytes(b"old")
    atomic_write(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_atomic_write_keeps_the_old_file_when_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "result.bin"
    path.write_bytes(b"old")

    def break_off(file: IO[bytes]) -> None:
        file.write(b"half")
        raise RuntimeError("broke off")

    with pytest.raises(RuntimeError, match="broke off"):
        atomic_write(path, break_off)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_atomic_write_gives_ordinary_permissions(tmp_path: Path) -> None:
    ordinary, atomic = tmp_path / "ordinary", tmp_path / "atomic"
    ordinary.write_bytes(b"")
    atomic_write(atomic, b"")
    assert atomic.stat().st_mode == ordinary.stat().st_mode


def test_atomic_write_goes_through_a_link(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"old")
    link.symlink_to(target)
    atomic_write(link, b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"


def test_atomic_write_refuses_what_is_not_a_file(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path in (tmp_path, fifo, tmp_path / "no_such_folder" / "x"):
        with pytest.raises(OutputError, match=str(path)):
            atomic_write(path, b"x")
    assert list(tmp_path.iterdir()) == [fifo]


def test_make_folder_refuses_a_file(tmp_path: Path) -> None:
    assert make_folder(tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot make"):
        make_folder(tmp_path / "file" / "b")


def test_print_json_prints_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": [1.5, None], "name": "Δ"})
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert json.loads(out) == {"a": [1.5, None], "name": "Δ"}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_print_json_prints_nothing_it_cannot_express(
    capsys: pytest.CaptureFixture[str], value: float
) -> None:
    with pytest.raises(ValueError, match="JSON"):
        print_json({"a": 1, "b": value})
    assert capsys.readouterr().out == ""


def test_console_has_no_colours_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    make_console().print("note", style="bold red")
    captured = capsys.readouterr()
    assert captured.err == "note\n"
    assert captured.out == ""
