"""Frame geometries of the shipped codecs, readable without torch.

A receiver learns from the burst header which codec a frame belongs to (``codec_tag``); this module
tells it how to cut the bits. A stream codec's frames have any length: wherever geometries are listed, one
of its geometries, of whatever length, stands for all. NumPy only.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from semantic.index_frame import MAX_PAYLOAD_BITS, FrameGeometry, IndexFrameError

CHECKPOINT_FOLDER = Path(__file__).parent / "checkpoints"
# The shipped codec that is used where nobody names one.
DEFAULT_CODEC = "two_layer"


class GeometryTable:
    """Geometries by what a burst header says of a frame: codec tag and number of payload bits.

    Args:
        geometries: a stream stands for all lengths of its codec. The same one may come several times.

    Raises:
        IndexFrameError: two that a burst header cannot tell apart: the same codec tag, and the same number
            of bits or any number of them.
    """

    def __init__(self, geometries: Iterable[FrameGeometry] = ()) -> None:
        # By codec tag, then by number of bits; None is a stream's.
        self._known: dict[int, dict[int | None, FrameGeometry]] = {}
        for geometry in geometries:
            self.add(geometry)

    @property
    def geometries(self) -> tuple[FrameGeometry, ...]:
        """Each once, in the order of their codecs' first; streams one byte long."""
        return tuple(one for of_tag in self._known.values() for one in of_tag.values())

    def add(self, geometry: FrameGeometry) -> None:
        """Take one more; raises IndexFrameError as the constructor does, and stays as it was."""
        tag, bits = geometry.codec_tag, None if geometry.is_stream else geometry.payload_bits
        one = _any_length(geometry.codec_id) if geometry.is_stream else geometry
        of_tag = self._known.setdefault(tag, {})
        mixed = any((other is None) != (bits is None) for other in of_tag)
        if mixed or of_tag.setdefault(bits, one) != one:
            taken = next(iter(of_tag.values())) if mixed else of_tag[bits]
            raise IndexFrameError(
                f"codec tag {tag:04x} with {'any number of' if bits is None else bits} bits is taken "
                f"already: codecs {taken.codec_id} and {geometry.codec_id} cannot be told apart"
            )

    def find(self, codec_tag: int, payload_bits: int) -> FrameGeometry | None:
        """Geometry of a frame with this tag and length, a stream's made to measure; None if unknown."""
        of_tag = self._known.get(codec_tag, {})
        stream = of_tag.get(None)
        if stream is None:
            return of_tag.get(payload_bits)
        whole_bytes, rest = divmod(payload_bits, 8)
        if rest or not 8 <= payload_bits <= MAX_PAYLOAD_BITS:
            return None
        return FrameGeometry.of_stream(stream.codec_id, whole_bytes)


def _any_length(codec_id: str) -> FrameGeometry:
    return FrameGeometry.of_stream(codec_id, 1)


def read_geometries(path: Path) -> tuple[FrameGeometry, ...]:
    """Read the geometry file of one codec: all its rates, the full one last; of a stream codec just one.

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
        if isinstance(data, dict) and "stream" in data:
            if data["stream"] is not True or set(data) != {"codec_id", "stream"}:
                raise IndexFrameError("stream: expected true, with a codec_id and nothing else")
            return (_any_length(data["codec_id"]),)
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
    if geometries[-1].is_stream:
        return {"codec_id": geometries[-1].codec_id, "stream": True}
    *lower, full = (geometry.to_json() for geometry in geometries)
    return {**full, "rungs": [geometry["rung"] for geometry in lower]} if lower else full


def shipped_geometries() -> tuple[FrameGeometry, ...]:
    """Every rate of every codec in ``semantic/checkpoints``.

    Raises:
        IndexFrameError: a malformed file, or two that a burst header cannot tell apart
            (:class:`GeometryTable`).
    """
    table = GeometryTable()
    for path in sorted(CHECKPOINT_FOLDER.glob("*.json")):
        for geometry in read_geometries(path):
            try:
                table.add(geometry)
            except IndexFrameError as error:
                raise IndexFrameError(f"{path}: {error}") from None
    return table.geometries
