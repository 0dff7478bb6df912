"""The index frames that were sent while recording, beside the recording: what errors are counted against.

A recording ``name.sigmf-meta`` has them in the folder ``name.sent``, one ``.uoisc`` file each, in the
order in which they were sent, and beside a frame the photo it was made of (``.png``) where there is one.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sigmf.keys import SIGMF_METADATA_EXT

from captures.errors import CaptureError
from captures.files import read_bounded, replace_file
from captures.metadata import MAX_SENT_FRAMES, SentFile
from captures.recording import Recording
from semantic.geometries import GeometryTable, shipped_geometries
from semantic.index_frame import (
    MAX_HEADER_BYTES,
    MAX_PAYLOAD_BITS,
    FrameGeometry,
    IndexFrame,
    IndexFrameError,
)

FOLDER_EXT = ".sent"
FRAME_EXT = ".uoisc"
PICTURE_EXT = ".png"
_MAX_FRAME_BYTES = MAX_HEADER_BYTES + 4 * MAX_PAYLOAD_BITS
MAX_PICTURE_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class SentFrame:
    """One frame that was sent.

    Args:
        frame: its indices.
        picture: file of the photo it was made of; None where there is none.
    """

    frame: IndexFrame
    picture: Path | None = None


def sent_folder(metadata_path: Path) -> Path:
    """The folder of the sent frames of a recording."""
    return metadata_path.with_name(metadata_path.name.removesuffix(SIGMF_METADATA_EXT) + FOLDER_EXT)


def gather_sent(paths: Sequence[Path]) -> list[SentFrame]:
    """Frames from ``.uoisc`` files and folders of them, with the ``.png`` of the same name beside each.

    Raises:
        CaptureError: nothing there, or too many.
        IndexFrameError: a file that is no index frame.
    """
    files: list[Path] = []
    for path in paths:
        files += sorted(path.glob(f"*{FRAME_EXT}")) if path.is_dir() else [path]
    if not 0 < len(files) <= MAX_SENT_FRAMES:
        raise CaptureError(
            f"{', '.join(map(str, paths))}: {len(files)} index frames (*{FRAME_EXT}), expected 1 to "
            f"{MAX_SENT_FRAMES}"
        )
    return [SentFrame(IndexFrame.read(file), _picture_beside(file)) for file in files]


def _picture_beside(path: Path) -> Path | None:
    picture = path.with_suffix(PICTURE_EXT)
    return picture if picture.exists() else None


def store_sent(metadata_path: Path, frames: Sequence[SentFrame]) -> list[dict[str, Any]]:
    """Write frames beside a recording; returns the entries for its metadata.

    Raises:
        CaptureError: the folder exists with something in it, or cannot be written.
    """
    if not frames:
        return []
    folder = sent_folder(metadata_path)
    try:
        folder.mkdir(exist_ok=True)
        if any(folder.iterdir()):
            raise CaptureError(f"{folder}: exists and is not empty")
    except OSError as error:
        raise CaptureError(f"{folder}: cannot make this folder: {error.strerror}") from None
    entries = []
    for number, sent in enumerate(frames):
        stem = f"{number:04}-{sent.frame.frame_id:010}"
        content = sent.frame.to_bytes()
        replace_file(folder / f"{stem}{FRAME_EXT}", content)
        entry = {"file": f"{stem}{FRAME_EXT}", "sha256": hashlib.sha256(content).hexdigest()}
        if sent.picture is not None:
            content = read_bounded(sent.picture, MAX_PICTURE_BYTES)
            replace_file(folder / f"{stem}{PICTURE_EXT}", content)
            entry["picture"] = f"{stem}{PICTURE_EXT}"
        entries.append(entry)
    return entries


def sent_missing(recording: Recording) -> str | None:
    """What to do where frames were sent and their whole folder is gone (lost, or not renamed); or None."""
    folder = sent_folder(recording.path)
    if not recording.metadata.info.sent_frames or folder.exists():
        return None
    return (
        f"{folder}: no such folder: the frames sent are not known, so errors cannot be counted; a recording "
        f"is renamed with its {FOLDER_EXT} folder"
    )


def load_sent(recording: Recording) -> list[SentFrame]:
    """The frames that lie beside a recording; an empty list where there are none, or :func:`sent_missing`.

    Raises:
        CaptureError: a file that is missing, damaged or no index frame.
    """
    folder = sent_folder(recording.path)
    if sent_missing(recording) is not None:
        return []
    return [_load(folder, entry) for entry in recording.metadata.info.sent_frames]


def _load(folder: Path, entry: SentFile) -> SentFrame:
    path = folder / entry.file
    content = read_bounded(path, _MAX_FRAME_BYTES)
    if hashlib.sha256(content).hexdigest() != entry.sha256:
        raise CaptureError(f"{path}: not the file that was sent (its SHA-256 differs)")
    try:
        frame = IndexFrame.from_bytes(content)
    except IndexFrameError as error:
        raise CaptureError(f"{path}: {error}") from None
    return SentFrame(frame, None if entry.picture is None else folder / entry.picture)


def known_geometries(frames: Sequence[SentFrame]) -> list[FrameGeometry]:
    """Geometries of these frames and of the shipped codecs: what a receiver of them has to know.

    A shipped codec that a burst header cannot tell from one of theirs is left out.

    Raises:
        IndexFrameError: frames of two codecs that a burst header cannot tell apart.
    """
    known = GeometryTable(sent.frame.geometry for sent in frames)
    for geometry in shipped_geometries():
        with contextlib.suppress(IndexFrameError):
            known.add(geometry)
    return list(known.geometries)
