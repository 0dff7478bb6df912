"""The set-up script where it cannot do its work: one clear sentence, and nothing is touched."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A copy of what the script reads, so that no test can harm the environment it runs in."""
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(REPOSITORY / name, tmp_path)
    shutil.copytree(REPOSITORY / "scripts", tmp_path / "scripts")
    return tmp_path


def set_up(clone: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", str(clone / "scripts/setup.sh")],
        env={"PATH": "/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def assert_stopped(result: subprocess.CompletedProcess[str], clone: Path, *words: str) -> None:
    assert result.returncode == 1, result.stdout
    assert result.stdout == ""
    last = result.stderr.splitlines()[-1]
    assert last.startswith("setup: ")
    for word in words:
        assert word in last
    assert not (clone / ".venv").exists()


def commands(folder: Path, **scripts: str) -> str:
    """A PATH that holds the commands the script needs and these scripts, and nothing else."""
    folder.mkdir()
    for name in ("dirname", "id", "grep", "sh", "env"):
        found = shutil.which(name)
        assert found
        (folder / name).symlink_to(found)
    for name, text in scripts.items():
        path = folder / name.replace("_", "-")
        path.unlink(missing_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
    return str(folder)


def test_without_apt(clone: Path) -> None:
    result = set_up(clone, PATH=commands(clone / "bin"))
    assert_stopped(result, clone, "no apt", "UOISC_PYTHON", "docs/install.md")


def test_missing_packages_without_the_right_to_install_them(clone: Path) -> None:
    path = commands(
        clone / "bin",
        apt_get="echo must not run >&2; exit 9",
        dpkg_query='case "$*" in *uhd-host*) exit 1;; esac; echo install ok installed',
        id="echo 1000",
    )
    result = set_up(clone, PATH=path)
    assert_stopped(result, clone, "run as root", "apt-get install", "uhd-host")
    assert "gnuradio" not in result.stderr
    assert "must not run" not in result.stderr


def test_only_missing_packages_are_installed(clone: Path) -> None:
    log = clone / "apt.log"
    path = commands(
        clone / "bin",
        apt_get=f'echo "$@" >>{log}; case "$*" in *install*) exit 9;; esac',
        dpkg_query='case "$*" in *uhd-host*) exit 1;; esac; echo install ok installed',
        id="echo 0",
    )
    result = set_up(clone, PATH=path)
    assert result.returncode == 9
    calls = log.read_text().splitlines()
    assert calls[-1].split()[-1] == "uhd-host"
    assert "--no-install-recommends" in calls[-1]
    assert "gnuradio" not in log.read_text()


def test_python_that_is_not_there(clone: Path) -> None:
    result = set_up(clone, UOISC_PYTHON="/no/such/python")
    assert_stopped(result, clone, "/no/such/python does not exist")


def test_python_without_gnuradio(clone: Path) -> None:
    """This environment's own Python, told to look at nothing but itself."""
    isolated = clone / "isolated-python"
    isolated.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
    isolated.chmod(0o755)
    result = set_up(clone, UOISC_PYTHON=str(isolated))
    assert_stopped(result, clone, "cannot import GNU Radio", "docs/install.md")


def test_python_that_is_too_old(clone: Path) -> None:
    old = clone / "old-python"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.10.12\nexit 1\n')
    old.chmod(0o755)
    result = set_up(clone, UOISC_PYTHON=str(old))
    assert_stopped(result, clone, "Python 3.10.12", "too old", "3.11")
