"""Frame geometries of the shipped codecs, readable without torch.

A receiver learns from the burst header which codec a frame belongs to (``codec_tag``); this module
tells it how to cut the bits. NumPy only.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from semantic.index_frame import FrameGeometry, IndexFrameError

CHECKPOINT_FOLDER = Path(__file__).parent / "checkpoints"


def read_geometries(path: Path) -> tuple[FrameGeometry, ...]:
    """Read the geometry file of one codec: all its rates, the full one last.

    Raises:
        IndexFrameError: naming the file, when it is missing or malformed.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise IndexFrameError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise IndexFrameError(f"{path}: not JSON ({error})") from None
    try:
        full = FrameGeometry.from_json(data)
        rungs = data.get("rungs", [])
        if not isinstance(rungs, list):
            raise IndexFrameError("rungs: expected a list")
        return tuple(
            FrameGeometry.from_json({**full.to_json(), "rung": rung}) for rung in [*rungs, None]
        )
    except IndexFrameError as error:
        raise IndexFrameError(f"{path}: {error}") from None


def geometries_to_json(geometries: Sequence[FrameGeometry]) -> dict[str, Any]:
    """What :func:`read_geometries` reads: the rates of one codec, the full one last."""
    *lower, full = (geometry.to_json() for geometry in geometries)
    return {**full, "rungs": [geometry["rung"] for geometry in lower]} if lower else full


def shipped_geometries() -> tuple[FrameGeometry, ...]:
    """Every rate of every codec in ``semantic/checkpoints``.

    Raises:
        IndexFrameError: a malformed file, or two that a burst header cannot tell apart: the same 16-bit
            codec tag and number of bits.
    """
    found: dict[tuple[int, int], FrameGeometry] = {}
    for path in sorted(CHECKPOINT_FOLDER.glob("*.json")):
        for geometry in read_geometries(path):
            key = geometry.codec_tag, geometry.payload_bits
            if key in found:
                raise IndexFrameError(
                    f"{path}: codec tag {key[0]:04x} with {key[1]} bits is taken already"
                )
            found[key] = geometry
    return tuple(found.values())
