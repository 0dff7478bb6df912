"""The index frame: the one data type that crosses from the codec to the radio and back.

A picture leaves the encoder as a few small integer arrays (DESIGN eq. (7)): for every selected layer of
the backbone a ``[tokens, segments]`` array of codeword indices. This module turns them into a bit
string for the modem, into a message for ZMQ, into a file, and back, and refuses everything that is not
exactly one of those. NumPy only, so that a machine with a radio and no torch can use it.

Bit order on the air: layer, then segment, then token, each index most significant bit first. A lost
stretch of bits thus costs one segment of many tokens (a little of the picture everywhere) and not all
segments of a few tokens (a hole).
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FORMAT_VERSION = 1
FILE_MAGIC = b"UOISCIDX"
MAX_QUERY_CHARACTERS = 1000
MAX_HEADER_BYTES = 64 * 1024
# 20 bits of the burst header carry the number of payload bits (blocks/modem/waveform.py).
MAX_PAYLOAD_BITS = (1 << 20) - 1
MAX_BITS_PER_INDEX = 16
MAX_LAYERS = 64
MAX_FRAME_ID = (1 << 32) - 1

_FILE_PREFIX = struct.Struct("<8sHII")  # magic, version, header bytes, payload bytes
_FILE_CHECK = struct.Struct("<I")


class IndexFrameError(ValueError):
    """An index frame, message or file that is malformed, truncated, corrupted or out of range."""


@dataclass(frozen=True)
class LayerGeometry:
    """Shape of one layer's index array: ``tokens`` spatial positions times ``segments`` codebooks."""

    tokens: int
    segments: int

    @property
    def indices(self) -> int:
        """Number of indices in this layer."""
        return self.tokens * self.segments


@dataclass(frozen=True)
class FrameGeometry:
    """Everything a receiver must know to cut a bit string into index arrays.

    Args:
        codec_id: 8 hexadecimal digits, short hash of the codec's configuration and weights.
        image_size: side of the square picture in pixels.
        bits_per_index: log2 of the number of codewords per codebook, 1..16.
        layers: shape of each layer's index array, in transmission order.

    Raises:
        IndexFrameError: a value out of range, or more payload bits than a burst header can announce.
    """

    codec_id: str
    image_size: int
    bits_per_index: int
    layers: tuple[LayerGeometry, ...]

    def __post_init__(self) -> None:
        if not (
            isinstance(self.codec_id, str)
            and len(self.codec_id) == 8
            and all(c in "0123456789abcdef" for c in self.codec_id)
        ):
            raise IndexFrameError(
                f"codec_id must be 8 lower-case hexadecimal digits, got {self.codec_id!r:.40}"
            )
        _require_int("image_size", self.image_size, 1, 16384)
        _require_int("bits_per_index", self.bits_per_index, 1, MAX_BITS_PER_INDEX)
        if not 1 <= len(self.layers) <= MAX_LAYERS:
            raise IndexFrameError(f"layers: expected 1 to {MAX_LAYERS}, got {len(self.layers)}")
        for number, layer in enumerate(self.layers):
            _require_int(f"layers[{number}].tokens", layer.tokens, 1, 1 << 20)
            _require_int(f"layers[{number}].segments", layer.segments, 1, 1 << 12)
        if self.payload_bits > MAX_PAYLOAD_BITS:
            raise IndexFrameError(
                f"frame of {self.payload_bits} bits is longer than the {MAX_PAYLOAD_BITS} "
                "a burst header can announce"
            )

    @property
    def indices(self) -> int:
        """Number of indices in one picture."""
        return sum(layer.indices for layer in self.layers)

    @property
    def payload_bits(self) -> int:
        """Number of bits of one picture, without any protection."""
        return self.indices * self.bits_per_index

    @property
    def bits_per_pixel(self) -> float:
        """Payload bits divided by the number of pixels."""
        return self.payload_bits / self.image_size**2

    @property
    def codec_tag(self) -> int:
        """First 16 bits of ``codec_id``: what the burst header carries to name the geometry."""
        return int(self.codec_id[:4], 16)

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary for a JSON header; :meth:`from_json` is the inverse."""
        return {
            "codec_id": self.codec_id,
            "image_size": self.image_size,
            "bits_per_index": self.bits_per_index,
            "layers": [[layer.tokens, layer.segments] for layer in self.layers],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> FrameGeometry:
        """Build from the dictionary of :meth:`to_json`; raises IndexFrameError on anything else."""
        try:
            codec_id, image_size = data["codec_id"], data["image_size"]
            bits_per_index, raw_layers = data["bits_per_index"], data["layers"]
        except (KeyError, TypeError) as error:
            raise IndexFrameError(f"frame geometry lacks {error}") from None
        if not isinstance(raw_layers, list) or len(raw_layers) > MAX_LAYERS:
            raise IndexFrameError(f"layers: expected a list of at most {MAX_LAYERS} pairs")
        layers = []
        for number, pair in enumerate(raw_layers):
            if not (
                isinstance(pair, list) and len(pair) == 2 and all(type(v) is int for v in pair)
            ):
                raise IndexFrameError(f"layers[{number}]: expected [tokens, segments]")
            layers.append(LayerGeometry(pair[0], pair[1]))
        return cls(codec_id, image_size, bits_per_index, tuple(layers))


@dataclass(frozen=True, eq=False)
class IndexFrame:
    """The indices of one picture, and on the receive side what is known about their reliability.

    Args:
        frame_id: 0..2**32-1.
        geometry: shapes and codec.
        indices: per layer ``uint16 [tokens, segments]``.
        query: the user's question; carried along where it is known, never needed to decode.
        erased: per layer ``bool [tokens, segments]``, True where the index was not received; None
            means that everything is there. Erased indices read 0 and mean nothing.
        bit_llrs: ``int8 [payload_bits]`` log-likelihood ratios ln P(0)/P(1) in steps of
            :data:`LLR_STEP`, in the order of :meth:`to_bits`; None where not known.

    Raises:
        IndexFrameError: shapes, types or values that do not fit the geometry.
    """

    frame_id: int
    geometry: FrameGeometry
    indices: tuple[NDArray[np.uint16], ...]
    query: str | None = None
    erased: tuple[NDArray[np.bool_], ...] | None = field(default=None)
    bit_llrs: NDArray[np.int8] | None = field(default=None)

    def __post_init__(self) -> None:
        _require_int("frame_id", self.frame_id, 0, MAX_FRAME_ID)
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

    @property
    def complete(self) -> bool:
        """True when no index is erased."""
        return self.erased is None or not any(bool(mask.any()) for mask in self.erased)

    @property
    def erased_fraction(self) -> float:
        """Share of the indices that were not received, 0..1."""
        if self.erased is None:
            return 0.0
        return sum(int(mask.sum()) for mask in self.erased) / self.geometry.indices

    def to_bits(self) -> NDArray[np.uint8]:
        """The payload as ``uint8 [payload_bits]`` of 0 and 1 (layer, segment, token, MSB first)."""
        flat = np.concatenate([array.T.reshape(-1) for array in self.indices])
        shifts = np.arange(self.geometry.bits_per_index - 1, -1, -1, dtype=np.uint16)
        return ((flat[:, None] >> shifts) & 1).astype(np.uint8).reshape(-1)

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
                unknown bit is erased (and reads 0).
            bit_llrs: ``int8 [payload_bits]``, kept as it is.

        Raises:
            IndexFrameError: a length that does not fit the geometry, or a bit that is not 0 or 1.
        """
        expected = (geometry.payload_bits,)
        if bits.shape != expected:
            raise IndexFrameError(f"expected {expected[0]} bits, got {list(bits.shape)}")
        if int(bits.max()) > 1:
            raise IndexFrameError("bits must be 0 or 1")
        width = geometry.bits_per_index
        weights = (1 << np.arange(width - 1, -1, -1)).astype(np.uint32)
        flat = (bits.reshape(-1, width).astype(np.uint32) @ weights).astype(np.uint16)
        flat_erased = None
        if erased_bits is not None:
            if erased_bits.shape != expected:
                raise IndexFrameError(
                    f"expected {expected[0]} erasure flags, got {list(erased_bits.shape)}"
                )
            flat_erased = np.asarray(erased_bits.reshape(-1, width).any(axis=1))
            flat[flat_erased] = 0
        return cls(
            frame_id=frame_id,
            geometry=geometry,
            indices=_unflatten(flat, geometry),
            query=query,
            erased=None if flat_erased is None else _unflatten(flat_erased, geometry),
            bit_llrs=bit_llrs,
        )

    def to_message(self) -> tuple[bytes, bytes]:
        """JSON header and little-endian payload of a ZMQ message or a file.

        The payload is every index as ``uint16`` (transmission order), then the erasure flags packed
        eight to a byte where there are any, then the LLRs where there are any.
        """
        header = {
            "format": FORMAT_VERSION,
            "frame_id": self.frame_id,
            "geometry": self.geometry.to_json(),
            "query": self.query,
            "erased": self.erased is not None,
            "bit_llrs": self.bit_llrs is not None,
        }
        parts = [np.concatenate([a.T.reshape(-1) for a in self.indices]).astype("<u2").tobytes()]
        if self.erased is not None:
            parts.append(
                np.packbits(np.concatenate([a.T.reshape(-1) for a in self.erased])).tobytes()
            )
        if self.bit_llrs is not None:
            parts.append(self.bit_llrs.tobytes())
        return json.dumps(header, separators=(",", ":")).encode(), b"".join(parts)

    @classmethod
    def from_message(cls, header_bytes: bytes, payload: bytes) -> IndexFrame:
        """Inverse of :meth:`to_message`; raises IndexFrameError on anything malformed."""
        header = _parse_header(header_bytes)
        geometry = FrameGeometry.from_json(header["geometry"])
        count = geometry.indices
        has_erased, has_llrs = header["erased"], header["bit_llrs"]
        mask_bytes = (count + 7) // 8 if has_erased else 0
        expected = 2 * count + mask_bytes + (geometry.payload_bits if has_llrs else 0)
        if len(payload) != expected:
            raise IndexFrameError(f"payload: expected {expected} bytes, got {len(payload)}")
        flat = np.frombuffer(payload, "<u2", count).astype(np.uint16)
        erased = None
        if has_erased:
            packed = np.frombuffer(payload, np.uint8, mask_bytes, 2 * count)
            erased = _unflatten(np.unpackbits(packed, count=count).astype(np.bool_), geometry)
        llrs = None
        if has_llrs:
            llrs = np.frombuffer(
                payload, np.int8, geometry.payload_bits, 2 * count + mask_bytes
            ).copy()
        return cls(
            header["frame_id"], geometry, _unflatten(flat, geometry), header["query"], erased, llrs
        )

    def to_bytes(self) -> bytes:
        """The frame as the content of a ``.uoisc`` file, closed by a CRC-32."""
        header, payload = self.to_message()
        body = (
            _FILE_PREFIX.pack(FILE_MAGIC, FORMAT_VERSION, len(header), len(payload))
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
        if version != FORMAT_VERSION:
            raise IndexFrameError(f"format version {version}, expected {FORMAT_VERSION}")
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


def _require_int(name: str, value: object, low: int, high: int) -> None:
    if type(value) is not int or not low <= value <= high:
        raise IndexFrameError(f"{name}: expected an integer {low}..{high}, got {value!r:.40}")


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
        part = flat[start : start + layer.indices].reshape(layer.segments, layer.tokens)
        arrays.append(np.ascontiguousarray(part.T))
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
    expected: dict[str, type | tuple[type, ...]] = {
        "format": int,
        "frame_id": int,
        "geometry": dict,
        "query": (str, type(None)),
        "erased": bool,
        "bit_llrs": bool,
    }
    for key, kind in expected.items():
        if key not in header or not isinstance(header[key], kind):
            raise IndexFrameError(f"header: {key} is missing or of the wrong type")
    if header["format"] != FORMAT_VERSION:
        raise IndexFrameError(f"format version {header['format']}, expected {FORMAT_VERSION}")
    return header
