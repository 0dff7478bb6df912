"""Reading a recording: what it is, what is wrong with it, and its samples piece by piece."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from sigmf.keys import SIGMF_DATASET_EXT, SIGMF_METADATA_EXT

from captures.archive import is_archive
from captures.datatypes import SampleType, parse_datatype
from captures.errors import CaptureError
from captures.metadata import Annotation, Metadata, Segment, read_json
from semantic.link_statistics import BurstRecord

_PIECE_BYTES = 1 << 20
# A rate that was measured, as against the nominal one; receivers follow clocks that are off by more.
RATE_TOLERANCE = 20e-6


@dataclass(frozen=True)
class Gap:
    """Samples that the radio lost.

    Args:
        sample_start: first sample behind the gap, in the recording.
        lost: samples missing there; 0 where nobody knows how many.
    """

    sample_start: int
    lost: int


@dataclass(frozen=True)
class Recording:
    """A recording on disk.

    Args:
        path: of the metadata file.
        data_path: of the samples.
        metadata: as far as it is used.
        sample_type: of the samples.
        sample_rate_hz: samples per second.
        first_byte: where the samples begin in the data file.
        samples: how many can be used. Of a recording that was cut off: those that its metadata knows of.
        spare_bytes: what the data file holds behind them.
        problems: what does not fit together, apart from the checksum; empty for a sound recording.
    """

    path: Path
    data_path: Path
    metadata: Metadata
    sample_type: SampleType
    sample_rate_hz: float
    first_byte: int
    samples: int
    spare_bytes: int
    problems: tuple[str, ...]

    @property
    def name(self) -> str:
        """The file name without its ending."""
        return self.path.name.removesuffix(SIGMF_METADATA_EXT)

    @property
    def duration_s(self) -> float:
        """Length of the samples in seconds; lost ones do not count."""
        return self.samples / self.sample_rate_hz

    @property
    def partial(self) -> bool:
        """True where recording did not end in order (or still goes on)."""
        return self.metadata.info.state == "recording"

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        """Unbroken stretches, the first from sample 0 on; starts count from the first sample in the file."""
        offset = self.metadata.info.offset
        moved = [
            segment.model_copy(
                update={
                    "sample_start": segment.sample_start - offset,
                    "global_index": segment.stream_index,
                }
            )
            for segment in self.metadata.segments
        ]
        first = moved[0].sample_start if moved else 1
        if first > 0:
            index = max(0, moved[0].stream_index - first) if moved else 0
            moved.insert(0, Segment(sample_start=0, global_index=index))
        return tuple(moved)

    @cached_property
    def gaps(self) -> tuple[Gap, ...]:
        """Where samples were lost."""
        gaps = []
        for before, after in zip(self.segments, self.segments[1:], strict=False):
            there = after.sample_start - before.sample_start
            lost = after.stream_index - before.stream_index - there
            known = lost > 0 or after.unknown_loss
            if known and after.sample_start < self.samples:
                gaps.append(Gap(after.sample_start, max(lost, 0)))
        return tuple(gaps)

    @property
    def bursts(self) -> list[Annotation]:
        """Annotations of bursts, in their order."""
        return [one for one in self.metadata.annotations if one.fate is not None]

    @property
    def records(self) -> list[BurstRecord]:
        """What the receiver said while recording, one record per burst."""
        return [burst.to_record() for burst in self.bursts]

    def pieces(self, most: int) -> Iterator[NDArray[np.complex64]]:
        """The samples in order, up to ``most`` at a time.

        Raises:
            CaptureError: the file cannot be read, or ends early.
        """
        size = self.sample_type.sample_bytes
        try:
            with self.data_path.open("rb") as file:
                file.seek(self.first_byte)
                for start in range(0, self.samples, most):
                    wanted = min(most, self.samples - start) * size
                    data = file.read(wanted)
                    if len(data) < wanted:
                        raise CaptureError(f"{self.data_path}: ended while it was read")
                    yield self.sample_type.decode(data)
        except OSError as error:
            raise CaptureError(f"{self.data_path}: cannot be read: {error.strerror}") from error

    def read_all(self) -> NDArray[np.complex64]:
        """All samples, ``complex64 [samples]``: for recordings that are known to be small."""
        parts = list(self.pieces(_PIECE_BYTES))
        return np.concatenate(parts) if parts else np.empty(0, np.complex64)

    def check_hash(self) -> str | None:
        """Compare the data file with ``core:sha512``; what is wrong, or None (also where there is none)."""
        expected = self.metadata.info.sha512
        if expected is None or sha512_of(self.data_path) == expected.lower():
            return None
        return f"{self.data_path}: the SHA-512 is not that of core:sha512, the samples were changed"


def metadata_path(name: Path) -> Path:
    """The metadata file behind a name with any SigMF ending, or none.

    Raises:
        CaptureError: the name of an archive.
    """
    text = name.name
    if is_archive(name):
        raise CaptureError(f"{name}: a SigMF archive, expected the name of a recording")
    for ending in (SIGMF_METADATA_EXT, SIGMF_DATASET_EXT):
        text = text.removesuffix(ending)
    return name.with_name(text + SIGMF_METADATA_EXT)


def load_recording(name: Path) -> Recording:
    """Read a recording's metadata and look at its data file.

    What does not fit together is listed in ``problems``; :func:`open_recording` refuses such a recording.

    Args:
        name: with or without its ending.

    Raises:
        CaptureError: no recording, or one that this project cannot use.
    """
    path = metadata_path(name)
    raw = read_json(path)
    try:
        return _load(path, Metadata.parse(raw))
    except CaptureError as error:
        text = str(error)
        raise CaptureError(
            text if text.startswith(str(path.parent)) else f"{path}: {text}"
        ) from None


def open_recording(name: Path, *, check_hash: bool = True) -> Recording:
    """A recording that is fit to be replayed.

    Args:
        name: with or without its ending.
        check_hash: compare the samples with their checksum, which reads the whole file.

    Raises:
        CaptureError: anything that :func:`load_recording` refuses or finds fault with, no samples, or a
            wrong checksum.
    """
    recording = load_recording(name)
    if recording.problems:
        raise CaptureError(f"{recording.path}: {'; '.join(recording.problems[:3])}")
    if recording.samples == 0:
        raise CaptureError(f"{recording.path}: no samples")
    if check_hash and (wrong := recording.check_hash()) is not None:
        raise CaptureError(wrong)
    return recording


def _load(path: Path, metadata: Metadata) -> Recording:
    info = metadata.info
    sample_type = parse_datatype(info.datatype)
    if info.channels != 1:
        raise CaptureError(
            f"core:num_channels is {info.channels}, expected one channel: split the recording first"
        )
    if info.sample_rate_hz is None:
        raise CaptureError(
            "core:sample_rate is missing (SigMF leaves it out where nobody knows it), expected samples per "
            "second: add it to section global"
        )
    data_path = _data_path(path, metadata)
    first_byte = _header_bytes(metadata)
    size = _size_of(data_path) - first_byte - info.trailing_bytes
    if size < 0:
        raise CaptureError(
            f"{data_path}: shorter than the {first_byte + info.trailing_bytes} bytes that "
            "core:header_bytes and core:trailing_bytes skip"
        )
    there = size // sample_type.sample_bytes
    samples = there
    if info.state == "recording":
        samples = min(there, info.samples or 0)
    problems = [
        *_size_problems(metadata, size, sample_type.sample_bytes),
        *_segment_problems(metadata, there),
        *_annotation_problems(metadata, there),
    ]
    return Recording(
        path=path,
        data_path=data_path,
        metadata=metadata,
        sample_type=sample_type,
        sample_rate_hz=float(info.sample_rate_hz),
        first_byte=first_byte,
        samples=samples,
        spare_bytes=size - samples * sample_type.sample_bytes,
        problems=tuple(problems),
    )


def _data_path(path: Path, metadata: Metadata) -> Path:
    name = metadata.info.dataset
    if name is None:
        data_path = path.with_name(path.name.removesuffix(SIGMF_METADATA_EXT) + SIGMF_DATASET_EXT)
    elif name in ("", ".", "..") or any(c in name for c in '/\\:*?"<>|') or not name.isprintable():
        raise CaptureError(
            f"core:dataset is {name[:60]!r}, expected the plain name of a file beside it"
        )
    else:
        data_path = path.with_name(name)
    if not data_path.exists():
        hint = " (core:metadata_only says so)" if metadata.info.metadata_only else ""
        raise CaptureError(
            f"{data_path}: no such file: the samples are missing{hint}; a recording is renamed "
            f"with its {SIGMF_DATASET_EXT} file and its .sent folder"
        )
    return data_path


def _size_of(path: Path) -> int:
    try:
        status = path.stat()
    except OSError as error:
        raise CaptureError(f"{path}: cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(status.st_mode):
        raise CaptureError(f"{path}: not an ordinary file")
    return status.st_size


def _header_bytes(metadata: Metadata) -> int:
    first, *others = [segment.header_bytes for segment in metadata.segments] or [0]
    if any(others):
        raise CaptureError(
            "core:header_bytes stands in a later segment: headers between samples are not supported"
        )
    return first


def _size_problems(metadata: Metadata, size: int, sample_bytes: int) -> list[str]:
    info = metadata.info
    problems = []
    there, rest = divmod(size, sample_bytes)
    if rest and info.state != "recording":
        problems.append(f"the data file ends inside a sample ({rest} of {sample_bytes} bytes)")
    if info.samples is not None and there < info.samples:
        problems.append(f"truncated: {there} samples, {info.samples} were recorded")
    if info.state == "complete" and info.samples is not None and there > info.samples:
        problems.append(f"the data file holds {there} samples, {info.samples} were recorded")
    return problems


def _segment_problems(metadata: Metadata, there: int) -> list[str]:
    problems = []
    offset = metadata.info.offset
    last_start, last_index = -1, -1
    for number, segment in enumerate(metadata.segments):
        start = segment.sample_start - offset
        if start < 0:
            problems.append(
                f"captures[{number}]: core:sample_start is {segment.sample_start}, before core:offset"
            )
        elif start <= last_start:
            problems.append(f"captures[{number}]: core:sample_start does not come after the last")
        elif start > there:
            problems.append(
                f"captures[{number}]: begins at sample {start} of {there}: truncated, or wrong"
            )
        if last_start >= 0 and segment.stream_index - last_index < start - last_start:
            problems.append(f"captures[{number}]: core:global_index goes back")
        last_start, last_index = start, segment.stream_index
    return problems


def _annotation_problems(metadata: Metadata, there: int) -> list[str]:
    offset = metadata.info.offset
    for number, annotation in enumerate(metadata.annotations):
        if annotation.sample_start < offset:
            return [f"annotations[{number}]: core:sample_start is before core:offset"]
        if annotation.sample_start - offset + (annotation.sample_count or 0) > there:
            return [
                f"annotations[{number}]: reaches beyond the {there} samples: truncated, or wrong"
            ]
    return []


def sha512_of(path: Path) -> str:
    """Checksum of a file, read piece by piece.

    Raises:
        CaptureError: it cannot be read.
    """
    digest = hashlib.sha512()
    try:
        with path.open("rb") as file:
            _update(digest, file)
    except OSError as error:
        raise CaptureError(f"{path}: cannot be read: {error.strerror}") from None
    return digest.hexdigest()


def _update(digest: hashlib._Hash, file: BinaryIO) -> None:
    while piece := file.read(_PIECE_BYTES):
        digest.update(piece)
