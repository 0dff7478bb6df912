"""The index frame: the one data type that crosses from the codec to the radio and back.

A picture leaves the encoder as a few small integer arrays (DESIGN eq. (7)): for every selected layer of
the backbone a ``[tokens, segments]`` array of codeword indices. This module turns them into a bit
string for the modem, into a message for ZMQ, into a file, and back, and refuses everything that is not
exactly one of those. NumPy only, so that a machine with a radio and no torch can use it.

Bit order on the air: layer, then segment, then token, each index most significant bit first. A lost
stretch of bits thus costs one segment of many tokens (a little of the picture everywhere) and not all
segments of a few tokens (a hole). Below the full rate only some are sent (:mod:`semantic.frame_geometry`).

A stream codec's frame is a byte string, each byte an index. What it means stands in
:mod:`semantic.frame.slices`, of which this module asks the picture's size.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semantic.frame.slices import read_picture_size
from semantic.frame_geometry import (
    MAX_BITS_PER_INDEX,
    MAX_LAYERS,
    MAX_PAYLOAD_BITS,
    FrameGeometry,
    IndexFrameError,
    LayerGeometry,
    Rung,
    require_int,
)

__all__ = [
    "MAX_BITS_PER_INDEX",
    "MAX_LAYERS",
    "MAX_PAYLOAD_BITS",
    "FrameGeometry",
    "IndexFrame",
    "IndexFrameError",
    "LayerGeometry",
    "NothingReceivedError",
    "Rung",
    "check_query",
]

# 2 is 1 with a rung and perhaps a map of levels; a frame at the full rate is still written as 1. 3 is 1 of
# a stream, its bytes written as bytes.
FORMAT_VERSION = 1
RUNG_FORMAT_VERSION = 2
STREAM_FORMAT_VERSION = 3
_VERSIONS = (FORMAT_VERSION, RUNG_FORMAT_VERSION, STREAM_FORMAT_VERSION)
FILE_MAGIC = b"UOISCIDX"
MAX_QUERY_CHARACTERS = 1000
MAX_HEADER_BYTES = 64 * 1024
MAX_FRAME_ID = (1 << 32) - 1

_FILE_PREFIX = struct.Struct("<8sHII")  # magic, version, header bytes, payload bytes
_FILE_CHECK = struct.Struct("<I")


class NothingReceivedError(IndexFrameError):
    """A frame of which too little arrived to make any picture."""


@dataclass(frozen=True, eq=False)
class IndexFrame:
    """The indices of one picture, and on the receive side what is known about their reliability.

    Args:
        frame_id: 0..2**32-1.
        geometry: shapes and codec.
        indices: per layer ``uint16 [tokens, segments]``.
        query: the user's question; carried along where it is known, never needed to decode.
        erased: per layer ``bool [tokens, segments]``, True where the index was not received; None
            means that everything sent is there. Indices that are erased or were not sent read 0 and
            mean nothing. Of a stream see :meth:`from_bits`.
        bit_llrs: ``int8 [payload_bits]`` log-likelihood ratios ln P(0)/P(1) in steps of
            :data:`LLR_STEP`, in the order of :meth:`to_bits`; None where not known.
        levels: ``uint8 [grid * grid]``, level of every cell, where the geometry has a map. None there
            means that the map was lost, and with it what it would have placed.

    Raises:
        IndexFrameError: shapes, types or values that do not fit the geometry.
    """

    frame_id: int
    geometry: FrameGeometry
    indices: tuple[NDArray[np.uint16], ...]
    query: str | None = None
    erased: tuple[NDArray[np.bool_], ...] | None = field(default=None)
    bit_llrs: NDArray[np.int8] | None = field(default=None)
    levels: NDArray[np.uint8] | None = field(default=None)

    def __post_init__(self) -> None:
        require_int("frame_id", self.frame_id, 0, MAX_FRAME_ID)
        if self.query is not None:
            check_query(self.query)
        _check_arrays("indices", self.indices, np.dtype(np.uint16), self.geometry)
        limit = 1 << self.geometry.bits_per_index
        for number, array in enumerate(self.indices):
            if int(array.max()) >= limit:
                raise IndexFrameError(
                    f"indices of layer {number}: {int(array.max())} is not below {limit}"
                )
        if self.erased is not None:
            _check_arrays("erased", self.erased, np.dtype(np.bool_), self.geometry)
        if self.bit_llrs is not None and (
            self.bit_llrs.dtype != np.int8 or self.bit_llrs.shape != (self.geometry.payload_bits,)
        ):
            raise IndexFrameError(
                f"bit_llrs: expected int8 [{self.geometry.payload_bits}], "
                f"got {self.bit_llrs.dtype} {list(self.bit_llrs.shape)}"
            )
        if self.levels is not None:
            _check_levels(self.levels, self.geometry)
        if self.geometry.rung is not None:
            self.geometry.order(self.levels)  # there is room for what the map asks for
            for number, mask in enumerate(self.sent):
                if self.indices[number][~mask].any():
                    raise IndexFrameError(
                        f"indices of layer {number}: not 0 where nothing was sent"
                    )
                if self.erased is not None and self.erased[number][~mask].any():
                    raise IndexFrameError(f"erased of layer {number}: set where nothing was sent")

    @classmethod
    def of_rate(
        cls,
        frame_id: int,
        geometry: FrameGeometry,
        indices: Sequence[NDArray[np.uint16]],
        query: str | None,
        levels: NDArray[np.uint8] | None,
    ) -> IndexFrame:
        """A frame from all indices of a picture, of which the geometry and its map say what is sent."""
        if levels is not None:
            _check_levels(levels, geometry)
        sent = _unflatten(geometry.sent(levels), geometry)
        kept = tuple(
            np.where(mask, array, 0).astype(np.uint16)
            for array, mask in zip(indices, sent, strict=True)
        )
        return cls(frame_id, geometry, kept, query, levels=levels)

    @cached_property
    def sent(self) -> tuple[NDArray[np.bool_], ...]:
        """Which indices the picture has at its rate, per layer ``bool [tokens, segments]``.

        Where the map was lost: those that are known to be sent without it.
        """
        return _unflatten(self.geometry.sent(self.levels), self.geometry)

    @property
    def map_lost(self) -> bool:
        """True where the geometry has a map and none was received."""
        return self.geometry.has_map and self.levels is None

    @property
    def unknown(self) -> tuple[NDArray[np.bool_], ...] | None:
        """What a decoder has to do without, per layer ``bool [tokens, segments]``; None: nothing.

        Erased, or not sent: it makes no difference to it.
        """
        if self.geometry.rung is None:
            return self.erased
        absent = tuple(~mask for mask in self.sent)
        if self.erased is None:
            return absent
        return tuple(a | b for a, b in zip(absent, self.erased, strict=True))

    @property
    def complete(self) -> bool:
        """True when everything sent was received."""
        some_erased = self.erased is not None and any(bool(mask.any()) for mask in self.erased)
        return not self.map_lost and not some_erased

    @property
    def erased_fraction(self) -> float:
        """Share of the indices sent that were not received, 0..1."""
        erased = sum(int(mask.sum()) for mask in self.erased) if self.erased is not None else 0
        sent = sum(int(mask.sum()) for mask in self.sent)
        return 1 - (sent - erased) / (self.geometry.indices if self.map_lost else sent)

    @cached_property
    def picture_size(self) -> tuple[int, int] | None:
        """Width and height of the picture in pixels; None for a stream of which no slice arrived."""
        side = self.geometry.image_size
        if side is not None:
            return side, side
        data = self.indices[0].astype(np.uint8).reshape(-1)
        lost = np.zeros(data.shape, np.bool_) if self.erased is None else self.erased[0].reshape(-1)
        return read_picture_size(data.tobytes(), lost)

    @property
    def bits_per_pixel(self) -> float | None:
        """Payload bits divided by the number of pixels; None where :attr:`picture_size` is."""
        size = self.picture_size
        return None if size is None else self.geometry.payload_bits / (size[0] * size[1])

    def to_bits(self) -> NDArray[np.uint8]:
        """The payload as ``uint8 [payload_bits]`` of 0 and 1 (layer, segment, token, MSB first).

        Raises:
            IndexFrameError: a received frame whose map was lost.
        """
        geometry = self.geometry
        flat = np.concatenate([array.T.reshape(-1) for array in self.indices])
        if geometry.rung is None:
            return _to_bits(flat, geometry.bits_per_index).reshape(-1)
        if self.map_lost:
            raise IndexFrameError("the map of levels was lost, the picture cannot be sent again")
        order = geometry.order(self.levels)
        bits = np.zeros(geometry.payload_bits, np.uint8)
        bits[geometry.index_places[: len(order)]] = _to_bits(flat[order], geometry.bits_per_index)
        if self.levels is not None:
            bits[geometry.map_places] = _to_bits(self.levels, geometry.rung.level_bits).reshape(-1)
        return bits

    @classmethod
    def from_bits(
        cls,
        geometry: FrameGeometry,
        bits: NDArray[np.uint8],
        *,
        frame_id: int,
        query: str | None = None,
        erased_bits: NDArray[np.bool_] | None = None,
        bit_llrs: NDArray[np.int8] | None = None,
    ) -> IndexFrame:
        """Inverse of :meth:`to_bits`.

        Args:
            geometry: shapes and codec.
            bits: ``uint8 [payload_bits]`` of 0 and 1.
            frame_id: 0..2**32-1.
            query: carried along.
            erased_bits: ``bool [payload_bits]``, True where the bit is not known; an index with any
                unknown bit is erased (and reads 0). Not so a byte of a stream in which a longer stretch
                of unknown bits begins or ends: it keeps the bits that are known, the others read 0.
                Code blocks end anywhere in a byte, and the slice next to a lost one needs all its bits.
            bit_llrs: ``int8 [payload_bits]``, kept as it is.

        Raises:
            IndexFrameError: a length that does not fit the geometry, or a bit that is not 0 or 1.
        """
        expected = (geometry.payload_bits,)
        if bits.shape != expected:
            raise IndexFrameError(f"expected {expected[0]} bits, got {list(bits.shape)}")
        if int(bits.max()) > 1:
            raise IndexFrameError("bits must be 0 or 1")
        if erased_bits is not None and erased_bits.shape != expected:
            raise IndexFrameError(
                f"expected {expected[0]} erasure flags, got {list(erased_bits.shape)}"
            )
        levels = _read_map(geometry, bits, erased_bits)
        order = geometry.order(levels)
        known = bits if erased_bits is None else np.where(erased_bits, 0, bits).astype(np.uint8)
        flat = np.zeros(geometry.all_indices, np.uint16)
        flat[order] = _from_bits(_rows(geometry, known, len(order)))
        flat_erased = None
        if erased_bits is not None:
            flat_erased = np.zeros(geometry.all_indices, np.bool_)
            flat_erased[order] = _erased_rows(geometry, _rows(geometry, erased_bits, len(order)))
            flat[flat_erased] = 0
        return cls(
            frame_id=frame_id,
            geometry=geometry,
            indices=_unflatten(flat, geometry),
            query=query,
            erased=None if flat_erased is None else _unflatten(flat_erased, geometry),
            bit_llrs=bit_llrs,
            levels=levels,
        )

    def index_llrs(self) -> tuple[NDArray[np.float32], ...] | None:
        """``bit_llrs`` per index, in nats: per layer ``float32 [tokens, segments, bits_per_index]``.

        Zero (nothing is known) where nothing was sent. None without LLRs.
        """
        if self.bit_llrs is None:
            return None
        geometry = self.geometry
        order = geometry.order(self.levels)
        flat = np.zeros((geometry.all_indices, geometry.bits_per_index), np.float32)
        flat[order] = _rows(geometry, self.bit_llrs, len(order))
        return _unflatten(flat * np.float32(LLR_STEP), geometry)

    def to_message(self) -> tuple[bytes, bytes]:
        """JSON header and little-endian payload of a ZMQ message or a file.

        The payload is every index as ``uint16``, a stream's as ``uint8`` (transmission order, 0 where it was
        not sent), then, where there are any, the erasure flags packed eight to a byte, the LLRs, and the
        levels.
        """
        header = {
            "format": _version(self.geometry),
            "frame_id": self.frame_id,
            "geometry": self.geometry.to_json(),
            "query": self.query,
            "erased": self.erased is not None,
            "bit_llrs": self.bit_llrs is not None,
        }
        if self.geometry.rung is not None:
            header["levels"] = self.levels is not None
        flat = np.concatenate([a.T.reshape(-1) for a in self.indices])
        parts = [flat.astype(_stored_type(self.geometry)).tobytes()]
        if self.erased is not None:
            parts.append(
                np.packbits(np.concatenate([a.T.reshape(-1) for a in self.erased])).tobytes()
            )
        if self.bit_llrs is not None:
            parts.append(self.bit_llrs.tobytes())
        if self.levels is not None:
            parts.append(self.levels.tobytes())
        return json.dumps(header, separators=(",", ":")).encode(), b"".join(parts)

    @classmethod
    def from_message(cls, header_bytes: bytes, payload: bytes) -> IndexFrame:
        """Inverse of :meth:`to_message`; raises IndexFrameError on anything malformed."""
        header = _parse_header(header_bytes)
        geometry = FrameGeometry.from_json(header["geometry"])
        if header["format"] != _version(geometry):
            raise IndexFrameError(
                f"format version {header['format']}, expected {_version(geometry)} for such a geometry"
            )
        count, stored = geometry.all_indices, _stored_type(geometry)
        has_erased, has_llrs, has_levels = header["erased"], header["bit_llrs"], header["levels"]
        sizes = (
            stored.itemsize * count,
            (count + 7) // 8 if has_erased else 0,
            geometry.payload_bits if has_llrs else 0,
            geometry.rung.grid**2 if has_levels and geometry.rung is not None else 0,
        )
        if len(payload) != sum(sizes):
            raise IndexFrameError(f"payload: expected {sum(sizes)} bytes, got {len(payload)}")
        ends = np.cumsum(sizes)
        indices, packed, llrs, levels = (
            payload[end - size : end] for end, size in zip(ends, sizes, strict=True)
        )
        flat = np.frombuffer(indices, stored).astype(np.uint16)
        erased = None
        if has_erased:
            flags = np.unpackbits(np.frombuffer(packed, np.uint8), count=count)
            erased = _unflatten(flags.astype(np.bool_), geometry)
        return cls(
            header["frame_id"],
            geometry,
            _unflatten(flat, geometry),
            header["query"],
            erased,
            np.frombuffer(llrs, np.int8).copy() if has_llrs else None,
            np.frombuffer(levels, np.uint8).copy() if has_levels else None,
        )

    def to_bytes(self) -> bytes:
        """The frame as the content of a ``.uoisc`` file, closed by a CRC-32."""
        header, payload = self.to_message()
        body = (
            _FILE_PREFIX.pack(FILE_MAGIC, _version(self.geometry), len(header), len(payload))
            + header
            + payload
        )
        return body + _FILE_CHECK.pack(zlib.crc32(body))

    @classmethod
    def from_bytes(cls, data: bytes) -> IndexFrame:
        """Inverse of :meth:`to_bytes`; raises IndexFrameError on a damaged or foreign file."""
        if len(data) < _FILE_PREFIX.size + _FILE_CHECK.size:
            raise IndexFrameError(f"{len(data)} bytes are too short for an index frame")
        magic, version, header_size, payload_size = _FILE_PREFIX.unpack_from(data)
        if magic != FILE_MAGIC:
            raise IndexFrameError("not an index frame (wrong first bytes)")
        _check_version(version)
        expected = _FILE_PREFIX.size + header_size + payload_size + _FILE_CHECK.size
        if len(data) != expected:
            raise IndexFrameError(
                f"truncated or extended: {len(data)} bytes, the header announces {expected}"
            )
        (check,) = _FILE_CHECK.unpack_from(data, expected - _FILE_CHECK.size)
        if check != zlib.crc32(data[: -_FILE_CHECK.size]):
            raise IndexFrameError("corrupted: the checksum does not match")
        start = _FILE_PREFIX.size
        return cls.from_message(
            data[start : start + header_size],
            data[start + header_size : start + header_size + payload_size],
        )

    @classmethod
    def read(cls, path: Path) -> IndexFrame:
        """Read a ``.uoisc`` file; raises IndexFrameError naming the file."""
        try:
            # One byte more than the largest frame: a huge file is refused without being read whole.
            with path.open("rb") as file:
                data = file.read(MAX_HEADER_BYTES + 4 * MAX_PAYLOAD_BITS)
        except OSError as error:
            raise IndexFrameError(f"{path}: {error.strerror}") from None
        try:
            return cls.from_bytes(data)
        except IndexFrameError as error:
            raise IndexFrameError(f"{path}: {error}") from None


# One step of an int8 LLR, in nats: +-127 steps reach +-31.75, far beyond any useful reliability.
LLR_STEP = 0.25


def quantise_llrs(llrs: NDArray[np.float32]) -> NDArray[np.int8]:
    """LLRs in nats to int8 steps of ``LLR_STEP``, saturating at +-127."""
    steps = np.rint(llrs / LLR_STEP)
    return np.minimum(np.maximum(steps, -127), 127).astype(np.int8)


def check_query(query: str) -> str:
    """Return the query stripped of outer white space.

    Raises:
        IndexFrameError: empty, too long, or with control characters.
    """
    if not isinstance(query, str):
        raise IndexFrameError(f"query: expected text, got {type(query).__name__}")
    stripped = query.strip()
    if not stripped:
        raise IndexFrameError("query: is empty, expected a question or a few words")
    if len(stripped) > MAX_QUERY_CHARACTERS:
        raise IndexFrameError(
            f"query: {len(stripped)} characters, expected at most {MAX_QUERY_CHARACTERS}"
        )
    if not stripped.isprintable():
        raise IndexFrameError("query: holds control characters, expected one line of text")
    return stripped


def _check_arrays(
    name: str, arrays: Sequence[NDArray[Any]], dtype: np.dtype[Any], geometry: FrameGeometry
) -> None:
    if len(arrays) != len(geometry.layers):
        raise IndexFrameError(f"{name}: expected {len(geometry.layers)} layers, got {len(arrays)}")
    for number, (array, layer) in enumerate(zip(arrays, geometry.layers, strict=True)):
        if array.dtype != dtype or array.shape != (layer.tokens, layer.segments):
            raise IndexFrameError(
                f"{name} of layer {number}: expected {dtype} [{layer.tokens}, {layer.segments}], "
                f"got {array.dtype} {list(array.shape)}"
            )


def _unflatten(flat: NDArray[Any], geometry: FrameGeometry) -> tuple[NDArray[Any], ...]:
    arrays = []
    start = 0
    for layer in geometry.layers:
        part = flat[start : start + layer.indices]
        part = part.reshape(layer.segments, layer.tokens, *flat.shape[1:])
        arrays.append(np.ascontiguousarray(part.swapaxes(0, 1)))
        start += layer.indices
    return tuple(arrays)


def _parse_header(header_bytes: bytes) -> dict[str, Any]:
    if len(header_bytes) > MAX_HEADER_BYTES:
        raise IndexFrameError(f"header of {len(header_bytes)} bytes, at most {MAX_HEADER_BYTES}")
    try:
        header = json.loads(header_bytes)
    except (ValueError, RecursionError):
        raise IndexFrameError("header is not JSON") from None
    if not isinstance(header, dict):
        raise IndexFrameError("header is not a JSON object")
    header.setdefault("levels", False)
    expected: dict[str, type | tuple[type, ...]] = {
        "format": int,
        "frame_id": int,
        "geometry": dict,
        "query": (str, type(None)),
        "erased": bool,
        "bit_llrs": bool,
        "levels": bool,
    }
    for key, kind in expected.items():
        if key not in header or not isinstance(header[key], kind):
            raise IndexFrameError(f"header: {key} is missing or of the wrong type")
    _check_version(header["format"])
    return header


def _check_version(version: int) -> None:
    if type(version) is not int or version not in _VERSIONS:
        raise IndexFrameError(f"format version {version}, expected {FORMAT_VERSION}, 2 or 3")


def _version(geometry: FrameGeometry) -> int:
    """Format version of messages and files with this geometry."""
    if geometry.is_stream:
        return STREAM_FORMAT_VERSION
    return FORMAT_VERSION if geometry.rung is None else RUNG_FORMAT_VERSION


def _stored_type(geometry: FrameGeometry) -> np.dtype[Any]:
    """How an index is written in messages and files."""
    return np.dtype(np.uint8 if geometry.is_stream else "<u2")


def _rows(geometry: FrameGeometry, values: NDArray[Any], count: int) -> NDArray[Any]:
    """Of values per payload bit those of the first indices in sending order: ``[count, bits_per_index]``."""
    if geometry.has_map:
        return values[geometry.index_places[:count]]
    # The same without the table: every frame of a stream has a geometry of its own.
    return values[: count * geometry.bits_per_index].reshape(count, geometry.bits_per_index)


def _erased_rows(geometry: FrameGeometry, unknown: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which indices are erased, given which of their bits are unknown; see ``IndexFrame.from_bits``."""
    some = unknown.any(axis=1)
    if not geometry.is_stream:
        return some
    whole = unknown.all(axis=1)
    padded = np.pad(whole, 1)
    at_an_end = padded[:-2] | padded[2:]
    return whole | (some & ~at_an_end)


def _to_bits(values: NDArray[Any], width: int) -> NDArray[np.uint8]:
    """``[n]`` -> ``[n, width]`` of 0 and 1, most significant bit first."""
    shifts = np.arange(width - 1, -1, -1, dtype=np.uint16)
    return ((values[:, None] >> shifts) & 1).astype(np.uint8)


def _from_bits(bits: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """``[n, width]`` -> ``[n]``."""
    weights = (1 << np.arange(bits.shape[1] - 1, -1, -1)).astype(np.uint32)
    return (bits.astype(np.uint32) @ weights).astype(np.uint16)


def _read_map(
    geometry: FrameGeometry, bits: NDArray[np.uint8], erased_bits: NDArray[np.bool_] | None
) -> NDArray[np.uint8] | None:
    """The map of levels from whichever copies arrived; None where there is none, or none that is valid."""
    if geometry.rung is None or not geometry.has_map:
        return None
    copies = bits[geometry.map_places]
    known = np.ones(copies.shape, np.bool_)
    if erased_bits is not None:
        known = ~erased_bits[geometry.map_places]
    if not known.any(axis=0).all():
        return None
    one = np.take_along_axis(copies, known.argmax(axis=0)[None], axis=0)[0]
    levels = _from_bits(one.reshape(-1, geometry.rung.level_bits)).astype(np.uint8)
    try:
        _check_levels(levels, geometry)
        geometry.order(levels)
    except IndexFrameError:
        return None
    return levels


def _check_levels(levels: NDArray[np.uint8], geometry: FrameGeometry) -> None:
    rung = geometry.rung
    if rung is None or not rung.has_map:
        raise IndexFrameError("levels: this geometry has no map")
    if levels.dtype != np.uint8 or levels.shape != (rung.grid**2,):
        raise IndexFrameError(
            f"levels: expected uint8 [{rung.grid**2}], got {levels.dtype} {list(levels.shape)}"
        )
    if int(levels.max()) >= len(rung.levels):
        raise IndexFrameError(f"levels: {int(levels.max())} is not below {len(rung.levels)}")
