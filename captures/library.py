"""Finding recordings: in a folder, and the few small ones that come with the project."""

from __future__ import annotations

from pathlib import Path

from sigmf.keys import SIGMF_METADATA_EXT

from captures.archive import is_archive, unpack
from captures.errors import CaptureError
from captures.recording import metadata_path

SHIPPED_FOLDER = Path(__file__).parent / "shipped"
_MAX_LISTED = 10_000


def recordings_in(folder: Path) -> list[Path]:
    """Metadata files in a folder, by name.

    Raises:
        CaptureError: no such folder, or more of them than anybody could read.
    """
    if not folder.is_dir():
        raise CaptureError(f"{folder}: no such folder")
    try:
        found = sorted(folder.glob(f"*{SIGMF_METADATA_EXT}"))
    except OSError as error:
        raise CaptureError(f"{folder}: cannot be read: {error.strerror}") from None
    if len(found) > _MAX_LISTED:
        raise CaptureError(
            f"{folder}: {len(found)} recordings, expected at most {_MAX_LISTED} in one folder"
        )
    return found


def shipped_recordings() -> list[str]:
    """Names of the recordings that come with the project."""
    return [
        path.name.removesuffix(SIGMF_METADATA_EXT)
        for path in sorted(SHIPPED_FOLDER.glob(f"*{SIGMF_METADATA_EXT}"))
    ]


def find_recording(name: str | Path) -> Path:
    """The metadata file that a name means: a file, an archive, or else one that comes with the project.

    Raises:
        CaptureError: none of them, or an archive that cannot be unpacked.
    """
    if is_archive(Path(name)):
        return unpack(Path(name))
    path = metadata_path(Path(name))
    if path.exists():
        return path
    shipped = shipped_recordings()
    if str(name) in shipped:
        return SHIPPED_FOLDER / f"{name}{SIGMF_METADATA_EXT}"
    hint = f", and none of {', '.join(shipped)}" if shipped and "/" not in str(name) else ""
    raise CaptureError(f"{path}: no such file{hint}")
