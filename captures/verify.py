"""What is wrong with a recording, as far as a machine can tell."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import sigmf.validate
from jsonschema.exceptions import ValidationError

from captures.errors import CaptureError
from captures.metadata import MAX_ANNOTATIONS, read_json
from captures.recording import Recording, load_recording, metadata_path
from captures.sent_frames import load_sent, sent_missing
from semantic.link_statistics import Fate

_PIECE_SAMPLES = 1 << 18
# Of a radio's samples at full scale: more than a stray peak means that the gain is too high.
_CLIPPED_SHARE = 1e-4


def verify_recording(name: Path) -> list[str]:
    """Everything that is wrong with a recording, in plain words; an empty list for a sound one.

    Reads the whole data file.

    Args:
        name: with or without its ending.
    """
    try:
        return list(_problems(name))
    except CaptureError as error:
        return [str(error)]


def _problems(name: Path) -> Iterator[str]:
    path = metadata_path(name)
    yield from _schema_problems(path)
    recording = load_recording(path)
    yield from recording.problems
    if recording.partial:
        size = recording.sample_type.sample_bytes
        yield (
            f"not ended in order (or still going on): readable up to sample {recording.samples}, "
            f"{recording.spare_bytes // size} more samples lie behind without metadata"
        )
    if (wrong := recording.check_hash()) is not None:
        yield wrong
    yield from _statistics_problems(recording)
    yield from _sample_problems(recording)
    if (missing := sent_missing(recording)) is not None:
        yield missing
    try:
        load_sent(recording)
    except CaptureError as error:
        yield str(error)


def _schema_problems(path: Path) -> Iterator[str]:
    """SigMF's own rules, by its own library."""
    raw = read_json(path)
    if len(raw.get("annotations") or []) > MAX_ANNOTATIONS:
        return  # the schema would take minutes; reading refuses it with a word
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)
            sigmf.validate.validate(raw)
    except ValidationError as error:
        where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.path)
        yield f"{path}: not valid SigMF: {where.lstrip('.')}: {_short(error.message)}"
    except DeprecationWarning as warning:
        yield f"{path}: not valid SigMF: {_short(str(warning))}"
    except (TypeError, KeyError, AttributeError, RecursionError) as error:
        yield f"{path}: not valid SigMF: {type(error).__name__}"


def _statistics_problems(recording: Recording) -> Iterator[str]:
    """The annotations are the receiver's own account of every burst: they must add up to its totals."""
    info = recording.metadata.info
    statistics = info.statistics or {}
    detected = statistics.get("bursts_detected")
    noted = len(recording.bursts) + info.annotations_left_out
    if isinstance(detected, int) and noted != detected:
        yield f"{noted} bursts are annotated, the receiver counted {detected}"
    fates = statistics.get("fates")
    # A burst whose picture nobody took, or of an unknown codec, changes its fate after it was noted.
    late = (Fate.QUEUE_FULL, Fate.UNKNOWN_CODEC)
    if not isinstance(fates, dict) or info.annotations_left_out or any(map(fates.get, late)):
        return
    counted = Counter(burst.fate for burst in recording.bursts)
    for fate in Fate:
        if fates.get(fate.value, 0) != counted[fate]:
            yield (
                f"{counted[fate]} bursts are annotated as {fate.value}, the receiver counted "
                f"{fates.get(fate.value, 0)}"
            )


def _sample_problems(recording: Recording) -> Iterator[str]:
    if recording.sample_type.kind == "f":
        bad = sum(int((~np.isfinite(piece)).sum()) for piece in recording.pieces(_PIECE_SAMPLES))
        if bad:
            yield f"{bad} samples are not numbers (NaN or infinity)"
        return
    highest = 1 - 2.0 ** (1 - recording.sample_type.bits)
    clipped = 0
    for piece in recording.pieces(_PIECE_SAMPLES):
        parts = np.abs(piece.view(np.float32).reshape(-1, 2))
        clipped += int((parts >= highest).any(axis=1).sum())
    if clipped > _CLIPPED_SHARE * recording.samples:
        yield (
            f"clipped: {clipped} of {recording.samples} samples at full scale, the gain was too high"
        )


def _short(text: str) -> str:
    return " ".join(text.split())[:200]
