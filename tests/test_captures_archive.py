"""SigMF archives: what anybody's tar makes is read, and nothing in one can reach beyond its folder."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from captures import archive
from captures.errors import CaptureError
from captures.library import find_recording
from captures.recording import open_recording
from tests.recordings import write_foreign

SAMPLES = np.arange(1, 101).astype(np.complex64)


def member(
    name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size, info.type = len(content), kind
    info.linkname = "/etc/passwd" if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
    return info, content


def pack(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    mode = "w:gz" if path.name.endswith(".gz") else "w"
    with tarfile.open(path, mode) as file:  # type: ignore[call-overload]
        for info, content in members:
            file.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("name", ["packed.sigmf", "packed.sigmf.gz"])
@pytest.mark.parametrize("folder", ["", "./", "foreign/"])
def test_an_archive_is_read_as_what_is_in_it(tmp_path: Path, name: str, folder: str) -> None:
    plain = write_foreign(tmp_path, SAMPLES)
    files = [plain, plain.with_suffix(".sigmf-data")]
    pack(tmp_path / name, *(member(folder + file.name, file.read_bytes()) for file in files))
    for file in files:
        file.unlink()
    recording = open_recording(find_recording(tmp_path / name))
    np.testing.assert_array_equal(recording.read_all(), SAMPLES)


META = member("a.sigmf-meta", b"{}")


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ([], "0 recordings"),
        ([META, member("b/b.sigmf-meta", b"{}")], "2 recordings"),
        ([META, member("../b.sigmf-data")], "plain names"),
        ([META, member("/tmp/b.sigmf-data")], "plain names"),
        ([META, member("a/../../b")], "plain names"),
        ([META, member("a/b/c/d")], "plain names"),
        ([META, member(".hidden")], "plain names"),
        ([META, member("a\x1b[2J")], "plain names"),
        ([META, member("a.sigmf-data", kind=tarfile.SYMTYPE)], "a link or a device"),
        ([META, member("a.sigmf-data", kind=tarfile.LNKTYPE)], "a link or a device"),
        ([META, member("a.sigmf-data", kind=tarfile.FIFOTYPE)], "a link or a device"),
        ([META, member("a.sigmf-data", kind=tarfile.CHRTYPE)], "a link or a device"),
        ([META, META], "cannot be unpacked: File exists"),
        ([META, member("a.sigmf-data", bytes(2000))], "more than"),
    ],
)  # fmt: skip
def test_archives_that_will_not_do(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    members: list[tuple[tarfile.TarInfo, bytes]],
    expected: str,
) -> None:
    monkeypatch.setattr(archive, "MAX_BYTES", 1000)
    path = pack(tmp_path / "packed.sigmf", *members)
    with pytest.raises(CaptureError, match=expected) as error:
        find_recording(path)
    assert str(error.value).startswith(str(path))
    assert "\x1b" not in str(error.value)
    assert [file.name for file in tmp_path.iterdir()] == ["packed.sigmf"]


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def long_header(content: bytes) -> bytes:
    """A pax header of 4 GiB, which a reader would take in one piece."""
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 1 << 32
    return info.tobuf(tarfile.GNU_FORMAT) + bytes(10_000)


@pytest.mark.parametrize("spoil", [cut, long_header, lambda _: b"", lambda _: b"\xff" * 5000])
@pytest.mark.parametrize("name", ["packed.sigmf", "packed.sigmf.gz"])
def test_damaged_archives_end_in_one_named_error(
    tmp_path: Path, name: str, spoil: Callable[[bytes], bytes]
) -> None:
    whole = pack(tmp_path / "whole.sigmf", member("a.sigmf-meta", bytes(5000))).read_bytes()
    spoilt = spoil(whole[:6000])
    path = tmp_path / name
    path.write_bytes(gzip.compress(spoilt) if name.endswith(".gz") else spoilt)
    with pytest.raises(CaptureError, match=name):
        find_recording(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CaptureError, match=name):
        find_recording(path)


def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="no such file"):
        find_recording(tmp_path / "a.sigmf")
    (tmp_path / "a.sigmf").mkdir()
    with pytest.raises(CaptureError, match="not an ordinary file"):
        find_recording(tmp_path / "a.sigmf")
