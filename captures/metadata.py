"""What this project uses of a SigMF metadata file, and its own extension ``uoisc`` (docs/sigmf.md).

A metadata file may come from anywhere: sizes and counts are limited, types are strict, numbers are finite,
names of files are plain names. Keys that are not used here are left alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sigmf import keys

from captures.errors import CaptureError
from captures.files import read_bounded
from semantic.index_frame import MAX_FRAME_ID
from semantic.link_statistics import BurstRecord, Fate

NAMESPACE = "uoisc"
EXTENSION_VERSION = "1.0.0"

MAX_METADATA_BYTES = 64 * 1024 * 1024
MAX_SEGMENTS = 100_000
MAX_ANNOTATIONS = 200_000
MAX_SENT_FRAMES = 10_000

_Count = Annotated[int, Field(ge=0, lt=1 << 63)]
_Text = Annotated[str, Field(max_length=10_000)]
_Rate = Annotated[float, Field(gt=0, le=1e12)]
_Frequency = Annotated[float, Field(ge=-1e12, le=1e12)]
# No slash, no leading dot: a name can neither leave its folder nor hide in it.
_FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(
        extra="ignore", strict=True, frozen=True, allow_inf_nan=False, populate_by_name=True
    )


def _core(name: str, default: Any = ...) -> Any:
    return Field(default, alias=name)


def _ours(name: str, default: Any = ...) -> Any:
    return Field(default, alias=f"{NAMESPACE}:{name}")


class Extension(_Strict):
    """An entry of ``core:extensions``."""

    name: _Text
    version: _Text
    optional: bool


class SentFile(_Strict):
    """One frame that was sent while recording, in the folder beside the recording.

    ``file`` is an index frame (``.uoisc``) with its SHA-256; ``picture`` the photo it was made of, where
    there is one.
    """

    file: _FileName
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    picture: _FileName | None = None


class Transmission(_Strict):
    """What the transmitter sent, where it stood in the same process."""

    mcs: Annotated[int, Field(ge=0, le=255)]
    bursts: _Count
    code_blocks: _Count
    symbols: _Count
    payload_symbols: _Count


class ReceiverSettings(_Strict):
    """Settings of the receiver that decide what is counted, named as in a profile."""

    dc_block_length: Annotated[int, Field(ge=0, le=65_536)] | None = None
    max_iterations: Annotated[int, Field(ge=1, le=200)] | None = None


class GlobalInfo(_Strict):
    """Section ``global``."""

    datatype: Any = _core(keys.DATATYPE_KEY)
    version: _Text = _core(keys.VERSION_KEY)
    sample_rate_hz: _Rate | None = _core(keys.SAMPLE_RATE_KEY, None)
    channels: _Count = _core(keys.NUM_CHANNELS_KEY, 1)
    offset: _Count = _core(keys.OFFSET_KEY, 0)
    sha512: Annotated[str, Field(pattern=r"^[0-9a-fA-F]{128}$")] | None = _core(
        keys.SHA512_KEY, None
    )
    dataset: Annotated[str, Field(max_length=255)] | None = _core(keys.DATASET_KEY, None)
    metadata_only: bool = _core(keys.METADATA_ONLY_KEY, False)
    trailing_bytes: _Count = _core(keys.TRAILING_BYTES_KEY, 0)
    hardware: _Text | None = _core(keys.HW_KEY, None)
    author: _Text | None = _core(keys.AUTHOR_KEY, None)
    description: _Text | None = _core(keys.DESCRIPTION_KEY, None)
    recorder: _Text | None = _core(keys.RECORDER_KEY, None)
    extensions: Annotated[list[Extension], Field(max_length=100)] = _core(keys.EXTENSIONS_KEY, [])
    state: Literal["recording", "complete"] | None = _ours("state", None)
    samples: _Count | None = _ours("samples", None)
    symbol_rate_hz: _Rate | None = _ours("symbol_rate_hz", None)
    settle_s: Annotated[float, Field(ge=0, le=10)] = _ours("settle_s", 0.0)
    profile: _Text | None = _ours("profile", None)
    receiver: ReceiverSettings = _ours("receiver", ReceiverSettings())
    simulation: dict[str, Any] | None = _ours("simulation", None)
    transmission: Transmission | None = _ours("transmission", None)
    statistics: dict[str, Any] | None = _ours("statistics", None)
    annotations_left_out: _Count = _ours("annotations_left_out", 0)
    sent_frames: Annotated[list[SentFile], Field(max_length=MAX_SENT_FRAMES)] = _ours(
        "sent_frames", []
    )


class Segment(_Strict):
    """An entry of ``captures``: an unbroken stretch of samples."""

    sample_start: _Count = _core(keys.SAMPLE_START_KEY)
    global_index: _Count | None = _core(keys.GLOBAL_INDEX_KEY, None)
    frequency_hz: _Frequency | None = _core(keys.FREQUENCY_KEY, None)
    datetime: Annotated[str, Field(max_length=100)] | None = _core(keys.DATETIME_KEY, None)
    header_bytes: _Count = _core(keys.HEADER_BYTES_KEY, 0)
    unknown_loss: bool = _ours("unknown_loss", False)

    @property
    def stream_index(self) -> int:
        """Number of its first sample in the radio's stream, lost samples counted."""
        return self.sample_start if self.global_index is None else self.global_index


class Annotation(_Strict):
    """An entry of ``annotations``; with a fate it is about a burst that this project's receiver heard."""

    sample_start: _Count = _core(keys.SAMPLE_START_KEY)
    sample_count: _Count | None = _core(keys.SAMPLE_COUNT_KEY, None)
    fate: Annotated[Fate, Field(strict=False)] | None = _ours("fate", None)
    receiver_sample: Annotated[int, Field(ge=-(1 << 62), lt=1 << 63)] = _ours("receiver_sample", 0)
    snr_db: float = _ours("snr_db", 0.0)
    cfo_hz: float = _ours("cfo_hz", 0.0)
    level: float = _ours("level", 0.0)
    frame_id: Annotated[int, Field(ge=0, le=MAX_FRAME_ID)] | None = _ours("frame_id", None)
    burst_number: _Count | None = _ours("burst_number", None)
    mcs: Annotated[int, Field(ge=0, le=255)] | None = _ours("mcs", None)
    code_blocks: _Count = _ours("code_blocks", 0)
    code_blocks_ok: _Count = _ours("code_blocks_ok", 0)
    symbols: _Count = _ours("symbols", 0)
    sample_rate_offset_ppm: float | None = _ours("sample_rate_offset_ppm", None)

    def to_record(self) -> BurstRecord:
        """The statistics record that the annotation was made from; there must be a fate."""
        assert self.fate is not None
        values = {name: getattr(self, name) for name in _RECORD_FIELDS}
        return BurstRecord(fate=self.fate, start_sample=self.receiver_sample, **values)


_RECORD_FIELDS = [
    name for name in BurstRecord.__dataclass_fields__ if name not in ("fate", "start_sample")
]


def burst_annotation(
    record: BurstRecord,
    sample_start: int,
    sample_count: int,
    frequency_edges_hz: tuple[float, float],
) -> dict[str, Any]:
    """The annotation of one burst as it is written.

    Args:
        record: what the receiver measured.
        sample_start: first sample of the burst in the recording.
        sample_count: its length there.
        frequency_edges_hz: lower and upper edge of what it occupies.
    """
    name = "?" if record.frame_id is None else f"{record.frame_id}/{record.burst_number}"
    values = {field: getattr(record, field) for field in _RECORD_FIELDS}
    return {
        keys.SAMPLE_START_KEY: sample_start,
        keys.SAMPLE_COUNT_KEY: sample_count,
        keys.FREQ_LOWER_EDGE_KEY: frequency_edges_hz[0],
        keys.FREQ_UPPER_EDGE_KEY: frequency_edges_hz[1],
        keys.LABEL_KEY: f"{name} {record.fate.value}"[:20],
        keys.GENERATOR_KEY: NAMESPACE,
        f"{NAMESPACE}:fate": record.fate.value,
        f"{NAMESPACE}:receiver_sample": record.start_sample,
        **{f"{NAMESPACE}:{key}": value for key, value in values.items() if value is not None},
    }


class Metadata(_Strict):
    """A whole metadata file, as far as it is used."""

    info: GlobalInfo
    segments: tuple[Segment, ...]
    annotations: tuple[Annotation, ...]

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> Self:
        """Check the content of a metadata file.

        Raises:
            CaptureError: naming the key, what was found and what was expected.
        """
        sections = {
            "captures": _list_of(raw, "captures", MAX_SEGMENTS),
            "annotations": _list_of(raw, "annotations", MAX_ANNOTATIONS),
        }
        info = _checked(GlobalInfo, raw.get("global"), "global")
        _check_extensions(info)
        return cls(
            info=info,
            segments=tuple(
                _checked(Segment, item, f"captures[{number}]")
                for number, item in enumerate(sections["captures"])
            ),
            annotations=tuple(
                _checked(Annotation, item, f"annotations[{number}]")
                for number, item in enumerate(sections["annotations"])
            ),
        )


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a metadata file, bounded and without NaN or infinity.

    Raises:
        CaptureError: naming the file.
    """
    content = read_bounded(path, MAX_METADATA_BYTES)
    try:
        raw = json.loads(content, parse_constant=_no_constant)
    except RecursionError:
        raise CaptureError(f"{path}: not a metadata file: nested too deeply") from None
    except ValueError as error:
        raise CaptureError(f"{path}: not JSON: {error}") from None
    if not isinstance(raw, dict):
        raise CaptureError(f"{path}: expected a JSON object with global, captures and annotations")
    return raw


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number")


def _list_of(raw: Mapping[str, Any], section: str, most: int) -> list[Any]:
    items = raw.get(section, [])
    if not isinstance(items, list):
        raise CaptureError(f"{section}: expected a list")
    if len(items) > most:
        raise CaptureError(f"{section}: {len(items)} entries, expected at most {most}")
    return items


_Model = TypeVar("_Model", bound=_Strict)


def _checked(model: type[_Model], value: object, where: str) -> _Model:
    if not isinstance(value, dict):
        raise CaptureError(f"{where}: expected an object")
    try:
        return model.model_validate(value)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        key = ".".join(map(str, problem["loc"]))
        found = "" if problem["type"] == "missing" else f" is {str(problem['input'])[:40]!r}:"
        raise CaptureError(f"{where}: {key}{found} {problem['msg'].lower()}") from None


def _check_extensions(info: GlobalInfo) -> None:
    for extension in info.extensions:
        if extension.name == NAMESPACE:
            if extension.version.split(".")[0] != EXTENSION_VERSION.split(".")[0]:
                raise CaptureError(
                    f"core:extensions: {NAMESPACE} {extension.version[:20]}, expected {EXTENSION_VERSION}"
                )
        elif not extension.optional:
            raise CaptureError(
                f"core:extensions: the recording cannot be read without extension "
                f"{extension.name[:40]!r}, which is not known here"
            )
