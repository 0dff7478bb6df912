"""Users who may write nowhere of their own get a temporary folder for Numba and GNU Radio."""

from __future__ import annotations

from pathlib import Path

import pytest

from blocks import caches


@pytest.mark.parametrize("writable", [True, False])
def test_a_temporary_folder_where_nothing_else_is_writable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writable: bool
) -> None:
    monkeypatch.setenv(caches.NUMBA_VARIABLE, "")  # so that it is put back afterwards
    monkeypatch.delenv(caches.NUMBA_VARIABLE)
    monkeypatch.setenv("HOME", str(tmp_path / "none"))
    monkeypatch.setattr(caches, "is_writable", lambda _: writable)
    monkeypatch.setattr(caches.tempfile, "mkdtemp", lambda prefix: str(tmp_path / prefix))
    caches.provide_caches()
    found = caches.os.environ.get(caches.NUMBA_VARIABLE)
    assert found == (None if writable else str(tmp_path / "uoisc-cache-"))
    assert caches.os.environ["HOME"] == (str(tmp_path / "none") if writable else found)


def test_a_folder_that_has_to_be_made_first(tmp_path: Path) -> None:
    assert caches.is_writable(tmp_path / "a" / "b")
