"""Frame geometries of the shipped codecs, readable without torch.

A receiver learns from the burst header which codec a frame belongs to (``codec_tag``); this module
tells it how to cut the bits. NumPy only.
"""

from __future__ import annotations

import json
from pathlib import Path

from semantic.index_frame import FrameGeometry, IndexFrameError

CHECKPOINT_FOLDER = Path(__file__).parent / "checkpoints"


def read_geometry(path: Path) -> FrameGeometry:
    """Read one geometry file.

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
        return FrameGeometry.from_json(data)
    except IndexFrameError as error:
        raise IndexFrameError(f"{path}: {error}") from None


def shipped_geometries() -> dict[int, FrameGeometry]:
    """``codec_tag`` -> geometry of every codec in ``semantic/checkpoints``.

    Raises:
        IndexFrameError: a malformed file, or two codecs with the same 16-bit tag.
    """
    found: dict[int, FrameGeometry] = {}
    for path in sorted(CHECKPOINT_FOLDER.glob("*.json")):
        geometry = read_geometry(path)
        if geometry.codec_tag in found:
            raise IndexFrameError(f"{path}: codec tag {geometry.codec_tag:04x} is taken already")
        found[geometry.codec_tag] = geometry
    return found
