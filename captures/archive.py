"""SigMF archives (``.sigmf``, ``.sigmf.gz``): one recording, unpacked into a temporary folder.

An archive may come from anywhere. Only ordinary files with plain names are written, each only once and only
below the new folder; their number and sizes are limited, and so is what the tar reader holds in memory.
"""

from __future__ import annotations

import atexit
import gzip
import shutil
import tarfile
import tempfile
import zlib
from pathlib import Path
from typing import IO, Any

from sigmf.keys import SIGMF_ARCHIVE_EXT, SIGMF_METADATA_EXT

from captures.errors import CaptureError
from captures.metadata import MAX_SENT_FRAMES

ARCHIVE_EXTS = (SIGMF_ARCHIVE_EXT, f"{SIGMF_ARCHIVE_EXT}.gz")
MAX_BYTES = 8 << 30
# A frame sent is two files.
_MAX_FILES = 2 * MAX_SENT_FRAMES + 100
_MAX_DEPTH = 3
_READ_BYTES = 1 << 20
_DAMAGED = (tarfile.TarError, EOFError, zlib.error, ValueError, OverflowError, RecursionError)


def is_archive(name: Path) -> bool:
    """Whether a file is called a SigMF archive."""
    return name.name.endswith(ARCHIVE_EXTS)


def unpack(path: Path) -> Path:
    """The metadata file of an archive's only recording, in a new folder that goes when the process ends.

    Raises:
        CaptureError: not an archive, not exactly one recording in it, anything but plain files, or too much.
    """
    if not path.is_file():
        raise CaptureError(f"{path}: {'not an ordinary file' if path.exists() else 'no such file'}")
    folder = Path(tempfile.mkdtemp(prefix="uoisc-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    try:
        opened: Any = gzip.GzipFile(path) if path.name.endswith(".gz") else path.open("rb")
        with opened as file, tarfile.TarFile(fileobj=_BoundedReads(file)) as archive:  # type: ignore[arg-type]
            _write_files(archive, folder)
    except CaptureError as error:
        raise CaptureError(f"{path}: {error}") from None
    except OSError as error:
        raise CaptureError(f"{path}: cannot be unpacked: {error.strerror or error}") from None
    except _DAMAGED as error:
        raise CaptureError(f"{path}: not a SigMF archive, or damaged: {error}") from None
    found = sorted(folder.rglob(f"*{SIGMF_METADATA_EXT}"))
    if len(found) != 1:
        raise CaptureError(
            f"{path}: {len(found)} recordings (*{SIGMF_METADATA_EXT}), expected one: unpack it (tar xf) "
            "and name one of them"
        )
    return found[0]


class _BoundedReads:
    """A file for the tar reader, which would read a header of any length in one piece."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, count: int) -> bytes:
        if not 0 <= count <= _READ_BYTES:
            raise CaptureError("an unusually long header")
        return self._file.read(count)


def _is_plain(name: str) -> bool:
    return 0 < len(name) <= 200 and name[0] != "." and "\\" not in name and name.isprintable()


def _write_files(archive: tarfile.TarFile, folder: Path) -> None:
    left = min(MAX_BYTES, shutil.disk_usage(folder).free // 2)
    for number, member in enumerate(archive):
        if number >= _MAX_FILES:
            raise CaptureError(f"more than {_MAX_FILES} files")
        if member.isdir():
            continue
        if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
            raise CaptureError(f"{member.name[:60]!r} is a link or a device, expected plain files")
        parts = member.name.removeprefix("./").split("/")
        if len(parts) > _MAX_DEPTH or not all(map(_is_plain, parts)):
            raise CaptureError(f"{member.name[:60]!r}: expected plain names, folder/file at most")
        left -= member.size
        if left < 0:
            raise CaptureError(f"more than {MAX_BYTES >> 30} GiB, or half of what is free here")
        target = folder.joinpath(*parts)
        target.parent.mkdir(parents=True, exist_ok=True)
        content = archive.extractfile(member)
        assert content is not None
        with content, target.open("xb") as file:
            shutil.copyfileobj(content, file, _READ_BYTES)
        if target.stat().st_size != member.size:
            raise CaptureError(f"{member.name[:60]!r} ends early")
