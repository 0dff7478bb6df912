"""Writing a recording that survives whatever ends it.

The samples themselves are written by the flowgraph, in C++, straight to the data file. This writer keeps
the metadata: it is there before the first sample, is rewritten as a whole (beside its name, then renamed)
every now and then, and says up to which sample it speaks. After a kill the recording is readable up to the
last rewrite.
"""

from __future__ import annotations

import bisect
import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import sigmf
from sigmf import keys

from captures.datatypes import WRITABLE, parse_datatype
from captures.errors import CaptureError
from captures.files import replace_file
from captures.metadata import (
    EXTENSION_VERSION,
    MAX_ANNOTATIONS,
    MAX_SEGMENTS,
    NAMESPACE,
    ReceiverSettings,
    burst_annotation,
)
from captures.recording import metadata_path, sha512_of
from captures.sent_frames import SentFrame, sent_folder, store_sent
from semantic.link_statistics import BurstRecord

# Not more often than this, and never for more than 2 % of the time: with thousands of annotations a
# rewrite takes a while, and the receiver waits for Python's lock meanwhile.
_REFRESH_S = 1.0
_REFRESH_SHARE = 0.02


@dataclass(frozen=True)
class RecordingHeader:
    """What is known before the first sample.

    Args:
        datatype: ``cf32_le`` or ``ci16_le``.
        sample_rate_hz: samples per second.
        symbol_rate_hz: of the waveform.
        frequency_hz: carrier, 0 where there is none.
        started: time of the first sample.
        hardware: what heard it.
        profile: name of the profile.
        description: one sentence.
        author: who recorded it, None where nobody says.
        simulation: settings of the simulated channel, None with a radio.
        settle_s: seconds at the start that the receiver passed over.
        receiver: settings that decide what it counts, None where nobody says.
    """

    datatype: str
    sample_rate_hz: float
    symbol_rate_hz: float
    frequency_hz: float
    started: datetime
    hardware: str
    profile: str
    description: str = ""
    author: str | None = None
    simulation: Mapping[str, Any] | None = None
    settle_s: float = 0.0
    receiver: ReceiverSettings | None = None


@dataclass
class _Segments:
    entries: list[dict[str, Any]] = field(default_factory=list)
    lost: int = 0


class RecordingWriter:
    """Keeps the metadata of one recording while it is made.

    Args:
        name: of the recording, with or without ending; its folder must exist.
        header: what is known before the first sample.
        sent: frames that are sent meanwhile, stored beside the recording.

    Raises:
        CaptureError: a recording of this name exists, or the folder cannot be written.
    """

    def __init__(self, name: Path, header: RecordingHeader, sent: Sequence[SentFrame] = ()) -> None:
        if header.datatype not in WRITABLE:
            raise CaptureError(f"{header.datatype}: expected one of {', '.join(WRITABLE)}")
        self.path = metadata_path(name)
        self.data_path = metadata_path(name).with_suffix(keys.SIGMF_DATASET_EXT)
        self.header = header
        self._sample_bytes = parse_datatype(header.datatype).sample_bytes
        self._claim()
        self._segments = _Segments()
        # Serialised once each, because the whole file is written again and again.
        self._starts: list[int] = []
        self._annotations: list[str] = []
        self._left_out = 0
        self._last_refresh_s = 0.0
        self._refresh_took_s = 0.0
        self._sent: Any = sent
        try:
            self._sent = store_sent(self.path, sent)
            self.add_gap(0, 0)
            self._write({"state": "recording", "samples": 0})
        except BaseException:
            self.discard()  # a disk that is full keeps no empty recording
            raise

    def _claim(self) -> None:
        """Take the names; nobody's recording is written over."""
        if not self.path.name.removesuffix(keys.SIGMF_METADATA_EXT):
            raise CaptureError(f"{self.path}: expected a name for the recording")
        if not self.path.resolve().parent.is_dir():
            raise CaptureError(f"{self.path}: its folder does not exist")
        for path in (self.path, self.data_path, sent_folder(self.path)):
            if os.path.lexists(path):
                raise CaptureError(f"{path}: exists already, expected a new name")
        try:
            self.data_path.open("xb").close()
        except OSError as error:
            raise CaptureError(f"{self.data_path}: cannot write: {error.strerror}") from None

    def begin(self, started: datetime) -> None:
        """The first sample comes now; before any gap."""
        self.header = replace(self.header, started=started)
        self._segments = _Segments()
        self.add_gap(0, 0)

    def discard(self) -> None:
        """Take everything away again: nothing was recorded."""
        for path in (self.path, self.data_path):
            path.unlink(missing_ok=True)
        if self._sent:  # claimed with the names: nobody else's
            shutil.rmtree(sent_folder(self.path), ignore_errors=True)

    def add_gap(self, sample_start: int, lost: int) -> None:
        """Begin a segment.

        Args:
            sample_start: its first sample in the recording.
            lost: samples missing before it; 0 where nobody knows how many.
        """
        if len(self._segments.entries) >= MAX_SEGMENTS:
            # The sum of what was lost goes to the next reader all the same, with the last segment.
            return
        self._segments.lost += lost
        index = sample_start + self._segments.lost
        since_start = timedelta(seconds=index / self.header.sample_rate_hz)
        self._segments.entries.append(
            {
                keys.SAMPLE_START_KEY: sample_start,
                keys.GLOBAL_INDEX_KEY: index,
                keys.FREQUENCY_KEY: self.header.frequency_hz,
                keys.DATETIME_KEY: _iso(self.header.started + since_start),
            }
        )
        if not lost and sample_start:
            self._segments.entries[-1][f"{NAMESPACE}:unknown_loss"] = True

    def file_sample(self, stream_index: float) -> int:
        """Where a sample of the radio's stream, lost ones counted, lies in the recording.

        Of one that was lost: the first that was not.
        """
        entries = self._segments.entries
        number = bisect.bisect_right(
            entries, stream_index, key=lambda entry: entry[keys.GLOBAL_INDEX_KEY]
        )
        entry = entries[max(number - 1, 0)]
        place = round(stream_index) - entry[keys.GLOBAL_INDEX_KEY] + entry[keys.SAMPLE_START_KEY]
        if number < len(entries):
            place = min(place, entries[number][keys.SAMPLE_START_KEY])
        return int(max(place, 0))

    def add_burst(self, record: BurstRecord, sample_start: int, sample_count: int) -> None:
        """Annotate a burst.

        Args:
            record: what the receiver measured.
            sample_start: first sample of the burst in the recording.
            sample_count: its length there.
        """
        if len(self._annotations) >= MAX_ANNOTATIONS:
            self._left_out += 1
            return
        middle = self.header.frequency_hz + record.cfo_hz
        half = 0.625 * self.header.symbol_rate_hz
        note = burst_annotation(record, sample_start, sample_count, (middle - half, middle + half))
        place = bisect.bisect_right(self._starts, sample_start)
        self._starts.insert(place, sample_start)
        self._annotations.insert(place, json.dumps(note, allow_nan=False))

    @property
    def refresh_due(self) -> bool:
        """True where it is time for :meth:`refresh`."""
        pause = max(_REFRESH_S, self._refresh_took_s / _REFRESH_SHARE)
        return time.monotonic() - self._last_refresh_s >= pause

    def refresh(self, samples: int) -> None:
        """Rewrite the metadata: the recording is now readable up to ``samples``."""
        started = time.monotonic()
        self._write({"state": "recording", "samples": samples})
        self._last_refresh_s = time.monotonic()
        self._refresh_took_s = self._last_refresh_s - started

    def finish(
        self,
        samples: int,
        statistics: Mapping[str, Any],
        transmission: Mapping[str, Any] | None = None,
    ) -> None:
        """Close the recording in order: cut it to ``samples``, take the checksum, write the metadata.

        Args:
            samples: how many belong to it; annotations beyond are shortened or dropped.
            statistics: the receiver's totals.
            transmission: what was sent, where that is known.

        Raises:
            CaptureError: the data file is shorter, or cannot be written.
        """
        size = samples * self._sample_bytes
        try:
            with self.data_path.open("r+b") as file:
                there = file.seek(0, os.SEEK_END)
                if there < size:
                    raise CaptureError(
                        f"{self.data_path}: {there} bytes written, expected {size}: is the disk full?"
                    )
                file.truncate(size)
                os.fsync(file.fileno())
        except OSError as error:
            raise CaptureError(f"{self.data_path}: cannot write: {error.strerror}") from None
        self._cut_annotations(samples)
        ours = {"state": "complete", "samples": samples, "statistics": dict(statistics)}
        if transmission is not None:
            ours["transmission"] = dict(transmission)
        self._write(ours, {keys.SHA512_KEY: sha512_of(self.data_path)}, durable=True)

    def _cut_annotations(self, samples: int) -> None:
        kept = bisect.bisect_left(self._starts, samples)
        del self._starts[kept:], self._annotations[kept:]
        for number, start in enumerate(self._starts):
            note = json.loads(self._annotations[number])
            if start + note[keys.SAMPLE_COUNT_KEY] > samples:
                note[keys.SAMPLE_COUNT_KEY] = samples - start
                self._annotations[number] = json.dumps(note, allow_nan=False)
        self._segments.entries = [
            entry
            for entry in self._segments.entries
            if entry[keys.SAMPLE_START_KEY] < max(samples, 1)
        ]

    def _write(
        self,
        ours: Mapping[str, Any],
        core: Mapping[str, Any] | None = None,
        *,
        durable: bool = False,
    ) -> None:
        info = {**self._core_fields(), **(core or {}), **self._own_fields(ours)}
        lines = ",\n".join(f"        {note}" for note in self._annotations)
        text = "".join(
            [
                '{\n    "global": ',
                _indented(info),
                ',\n    "captures": ',
                _indented(self._segments.entries),
                ',\n    "annotations": [',
                f"\n{lines}\n    " if lines else "",
                "]\n}\n",
            ]
        )
        replace_file(self.path, text.encode(), durable=durable)

    def _core_fields(self) -> dict[str, Any]:
        header = self.header
        fields = {
            keys.DATATYPE_KEY: header.datatype,
            keys.SAMPLE_RATE_KEY: header.sample_rate_hz,
            keys.VERSION_KEY: sigmf.__specification__,
            keys.HW_KEY: header.hardware,
            keys.RECORDER_KEY: f"uoisc-air {_own_version()}",
            keys.EXTENSIONS_KEY: [
                {"name": NAMESPACE, "version": EXTENSION_VERSION, "optional": True}
            ],
        }
        if header.description:
            fields[keys.DESCRIPTION_KEY] = header.description
        if header.author is not None:
            fields[keys.AUTHOR_KEY] = header.author
        return fields

    def _own_fields(self, ours: Mapping[str, Any]) -> dict[str, Any]:
        header = self.header
        fields: dict[str, Any] = {
            **ours,
            "symbol_rate_hz": header.symbol_rate_hz,
            "profile": header.profile,
        }
        if header.settle_s:
            fields["settle_s"] = header.settle_s
        if header.receiver is not None:
            fields["receiver"] = header.receiver.model_dump(exclude_none=True)
        if header.simulation is not None:
            fields["simulation"] = dict(header.simulation)
        if self._left_out:
            fields["annotations_left_out"] = self._left_out
        if self._sent:
            fields["sent_frames"] = self._sent
        return {f"{NAMESPACE}:{key}": value for key, value in fields.items()}


def _indented(value: object) -> str:
    return json.dumps(value, indent=4, allow_nan=False, ensure_ascii=False).replace("\n", "\n    ")


def _iso(moment: datetime) -> str:
    """RFC 3339 in UTC, as SigMF wants it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _own_version() -> str:
    try:
        return version("uoisc-air")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "0"
