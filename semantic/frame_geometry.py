"""Which bits of a picture are sent, in which order: what sender and receiver must agree on. NumPy only.

A codec's picture is a ``[tokens, segments]`` array of indices per layer. At the codec's full rate all of
them are sent. On a lower rung of its rate ladder every token has only its first segments; how many may
depend on the cell of the picture it lies in, and then a small map of the cells' levels is sent as well.

Bits of a rung, in order: what even the poorest level has, whose place is known without the map; then what
the map adds; each as layer, segment, token, most significant bit first. Copies of the map stand at the
start of equal parts of the whole, at least one per :data:`MAP_PERIOD_BITS`: if a code block is lost, another
one has it.

A picture of a stream codec is a byte string of any length instead, which itself says how large the picture
is: one layer with one segment, a token for each byte.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

# 20 bits of the burst header carry the number of payload bits (blocks/modem/waveform.py).
MAX_PAYLOAD_BITS = (1 << 20) - 1
MAX_BITS_PER_INDEX = 16
MAX_LAYERS = 64
MAX_LEVELS = 64
STREAM_BITS_PER_INDEX = 8
MAX_MAP_GRID = 64
# About a code block (8448 bits at the most): a picture of several has a copy of the map in most.
MAP_PERIOD_BITS = 8192


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
class Rung:
    """A rate below a codec's full one.

    Args:
        grid: cells per side of the map.
        levels: per level the number of segments of every layer, poorest first; with a single level
            there is no map.
        payload_bits: length of a picture with several levels, map and padding included; 0 with one.
    """

    grid: int
    levels: tuple[tuple[int, ...], ...]
    payload_bits: int = 0

    @property
    def has_map(self) -> bool:
        """True where cells may differ."""
        return len(self.levels) > 1

    @property
    def level_bits(self) -> int:
        """Bits of one cell's level in the map."""
        return (len(self.levels) - 1).bit_length()

    @property
    def map_bits(self) -> int:
        """Bits of one copy of the map."""
        return self.grid**2 * self.level_bits

    @property
    def map_copies(self) -> int:
        """How often the map is sent."""
        return math.ceil(self.payload_bits / MAP_PERIOD_BITS) if self.has_map else 0


@dataclass(frozen=True)
class FrameGeometry:
    """Everything a receiver must know to cut a bit string into index arrays.

    Args:
        codec_id: 8 hexadecimal digits, short hash of the codec's configuration and weights.
        image_size: side of the square picture in pixels; None for a stream.
        bits_per_index: log2 of the number of codewords per codebook, 1..16.
        layers: shape of each layer's index array, in transmission order.
        rung: which of the indices are sent; None means all.

    Raises:
        IndexFrameError: a value out of range, a rung that does not fit the layers, a stream that is not
            bytes in one layer of one segment, or more payload bits than a burst header can announce.
    """

    codec_id: str
    image_size: int | None
    bits_per_index: int
    layers: tuple[LayerGeometry, ...]
    rung: Rung | None = None

    def __post_init__(self) -> None:
        if not (
            isinstance(self.codec_id, str)
            and len(self.codec_id) == 8
            and all(c in "0123456789abcdef" for c in self.codec_id)
        ):
            raise IndexFrameError(
                f"codec_id must be 8 lower-case hexadecimal digits, got {self.codec_id!r:.40}"
            )
        if self.image_size is not None:
            require_int("image_size", self.image_size, 1, 16384)
        require_int("bits_per_index", self.bits_per_index, 1, MAX_BITS_PER_INDEX)
        if not 1 <= len(self.layers) <= MAX_LAYERS:
            raise IndexFrameError(f"layers: expected 1 to {MAX_LAYERS}, got {len(self.layers)}")
        for number, layer in enumerate(self.layers):
            require_int(f"layers[{number}].tokens", layer.tokens, 1, 1 << 20)
            require_int(f"layers[{number}].segments", layer.segments, 1, 1 << 12)
        if self.all_indices * self.bits_per_index > MAX_PAYLOAD_BITS:
            raise IndexFrameError(
                f"frame of {self.all_indices * self.bits_per_index} bits is longer than the "
                f"{MAX_PAYLOAD_BITS} a burst header can announce"
            )
        if self.is_stream:
            segments = [layer.segments for layer in self.layers]
            if (
                self.bits_per_index != STREAM_BITS_PER_INDEX
                or segments != [1]
                or self.rung is not None
            ):
                raise IndexFrameError(
                    "stream (no image_size): expected 8 bits per index, one layer of one segment and no rung"
                )
        if self.rung is not None:
            self._check_rung(self.rung)

    @classmethod
    def of_stream(cls, codec_id: str, payload_bytes: int) -> FrameGeometry:
        """Geometry of a picture that a stream codec made so many bytes of.

        Raises:
            IndexFrameError: no bytes at all, or more than a burst header can announce.
        """
        return cls(codec_id, None, STREAM_BITS_PER_INDEX, (LayerGeometry(payload_bytes, 1),))

    @property
    def is_stream(self) -> bool:
        """True where a picture is a byte string, in which its size stands."""
        return self.image_size is None

    def _check_rung(self, rung: Rung) -> None:
        require_int("rung.grid", rung.grid, 1, MAX_MAP_GRID)
        if not 1 <= len(rung.levels) <= MAX_LEVELS:
            raise IndexFrameError(f"rung.levels: expected 1 to {MAX_LEVELS}")
        for level in rung.levels:
            if len(level) != len(self.layers):
                raise IndexFrameError(f"rung.levels: expected {len(self.layers)} numbers per level")
            for sent, layer in zip(level, self.layers, strict=True):
                require_int("rung.levels", sent, 0, layer.segments)
        for low, high in pairwise(rung.levels):
            if low == high or any(a > b for a, b in zip(low, high, strict=True)):
                raise IndexFrameError(f"rung.levels: {high} does not add segments to {low}")
        if not rung.has_map:
            require_int("rung.payload_bits", rung.payload_bits, 0, 0)
            if not any(rung.levels[0]):
                raise IndexFrameError("rung.levels: nothing is sent")
            return
        for number, layer in enumerate(self.layers):
            side = math.isqrt(layer.tokens)
            varies = len({level[number] for level in rung.levels}) > 1
            if varies and (side**2 != layer.tokens or side % rung.grid):
                raise IndexFrameError(
                    f"rung: {layer.tokens} tokens of layer {number} are no cells of a "
                    f"{rung.grid}x{rung.grid} map"
                )
        require_int("rung.payload_bits", rung.payload_bits, 1, MAX_PAYLOAD_BITS)
        if self.indices < max(1, int(self.always_sent.sum())):
            raise IndexFrameError(
                f"rung.payload_bits: {rung.payload_bits} bits do not hold the map and the poorest level"
            )

    @property
    def all_indices(self) -> int:
        """Number of indices of a picture at the full rate."""
        return sum(layer.indices for layer in self.layers)

    @cached_property
    def indices(self) -> int:
        """Number of indices that are sent; with a map, for how many there is room."""
        if self.rung is None:
            return self.all_indices
        if not self.rung.has_map:
            return int(self.always_sent.sum())
        maps = self.rung.map_copies * self.rung.map_bits
        return max(0, self.rung.payload_bits - maps) // self.bits_per_index

    @property
    def payload_bits(self) -> int:
        """Number of bits of one picture, without any protection."""
        if self.rung is not None and self.rung.has_map:
            return self.rung.payload_bits
        return self.indices * self.bits_per_index

    @property
    def bits_per_pixel(self) -> float:
        """Payload bits divided by the number of pixels.

        Raises:
            IndexFrameError: a stream, of which only the frame knows (``IndexFrame.bits_per_pixel``).
        """
        if self.image_size is None:
            raise IndexFrameError(
                f"bits per pixel: of stream codec {self.codec_id} only frames have any"
            )
        return self.payload_bits / self.image_size**2

    @property
    def codec_tag(self) -> int:
        """First 16 bits of ``codec_id``: what the burst header carries to name the codec.

        The header's number of payload bits tells the codec's rungs apart, and is the length of a stream.
        """
        return int(self.codec_id[:4], 16)

    @property
    def has_map(self) -> bool:
        """True where a picture comes with a map of levels."""
        return self.rung is not None and self.rung.has_map

    @cached_property
    def always_sent(self) -> NDArray[np.bool_]:
        """What the poorest level has: bool ``[all_indices]`` in transmission order."""
        level = None if self.rung is None else self.rung.levels[0]
        return np.concatenate(
            [
                np.repeat(
                    np.arange(la.segments) < (la.segments if level is None else level[n]), la.tokens
                )
                for n, la in enumerate(self.layers)
            ]
        )

    def sent(self, levels: NDArray[np.uint8] | None) -> NDArray[np.bool_]:
        """Which indices a picture with this map has: bool ``[all_indices]`` in transmission order.

        Args:
            levels: uint8 ``[grid * grid]``, level of every cell, row by row; None means the poorest.
        """
        if self.rung is None or levels is None:
            return self.always_sent
        table = np.array(self.rung.levels)
        parts = []
        for number, layer in enumerate(self.layers):
            depth = table[levels, number][self._cells(layer)]
            parts.append((np.arange(layer.segments)[:, None] < depth).reshape(-1))
        return np.concatenate(parts)

    def _cells(self, layer: LayerGeometry) -> NDArray[np.int64]:
        """The cell that every token of a layer lies in: int64 ``[tokens]``."""
        assert self.rung is not None
        side, grid = math.isqrt(layer.tokens), self.rung.grid
        if side**2 != layer.tokens:
            return np.zeros(layer.tokens, np.int64)  # all levels have the same of it
        places = np.arange(side) * grid // side
        return (places[:, None] * grid + places).reshape(-1)

    def order(self, levels: NDArray[np.uint8] | None) -> NDArray[np.int64]:
        """Places of the indices in the order they are sent: int64 ``[n]``, n at most :attr:`indices`.

        Args:
            levels: as for :meth:`sent`.

        Returns:
            Numbers of places among ``[all_indices]`` in transmission order.

        Raises:
            IndexFrameError: the map asks for more indices than there is room for.
        """
        sent = self.sent(levels)
        first = np.flatnonzero(self.always_sent)
        rest = np.flatnonzero(sent & ~self.always_sent)
        if len(first) + len(rest) > self.indices:
            raise IndexFrameError(
                f"levels: {len(first) + len(rest)} indices, there is room for {self.indices}"
            )
        return np.concatenate([first, rest])

    @cached_property
    def map_places(self) -> NDArray[np.int64]:
        """Where the bits of the map's copies stand: int64 ``[copies, map_bits]``."""
        if self.rung is None or not self.rung.has_map:
            return np.zeros((0, 0), np.int64)
        part = self.payload_bits // self.rung.map_copies
        starts = np.arange(self.rung.map_copies) * part
        return starts[:, None] + np.arange(self.rung.map_bits)

    @cached_property
    def index_places(self) -> NDArray[np.int64]:
        """Where the bits of the indices stand: int64 ``[indices, bits_per_index]``."""
        free = np.ones(self.payload_bits, np.bool_)
        free[self.map_places.reshape(-1)] = False
        places = np.flatnonzero(free)[: self.indices * self.bits_per_index]
        return places.reshape(self.indices, self.bits_per_index)

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary for a JSON header; :meth:`from_json` is the inverse."""
        data: dict[str, Any] = {
            "codec_id": self.codec_id,
            "image_size": self.image_size,
            "bits_per_index": self.bits_per_index,
            "layers": [[layer.tokens, layer.segments] for layer in self.layers],
        }
        if self.rung is not None:
            data["rung"] = rung_to_json(self.rung)
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> FrameGeometry:
        """Build from the dictionary of :meth:`to_json`; raises IndexFrameError on anything else."""
        try:
            codec_id, image_size = data["codec_id"], data["image_size"]
            bits_per_index, raw_layers = data["bits_per_index"], data["layers"]
        except (KeyError, TypeError) as error:
            raise IndexFrameError(f"frame geometry lacks {error}") from None
        layers = [LayerGeometry(*pair) for pair in _rows("layers", raw_layers, MAX_LAYERS, 2)]
        raw_rung = data.get("rung")
        rung = None if raw_rung is None else rung_from_json(raw_rung, len(layers))
        return cls(codec_id, image_size, bits_per_index, tuple(layers), rung)


def rung_to_json(rung: Rung) -> dict[str, Any]:
    """Plain dictionary; :func:`rung_from_json` is the inverse."""
    return {
        "grid": rung.grid,
        "levels": [list(level) for level in rung.levels],
        "payload_bits": rung.payload_bits,
    }


def rung_from_json(data: Any, layers: int) -> Rung:
    """Build a rung of a codec with so many layers; raises IndexFrameError on anything else."""
    if not isinstance(data, dict) or set(data) != {"grid", "levels", "payload_bits"}:
        raise IndexFrameError("rung: expected grid, levels and payload_bits")
    levels = _rows("rung.levels", data["levels"], MAX_LEVELS, layers)
    return Rung(data["grid"], tuple(levels), data["payload_bits"])


def _rows(name: str, data: Any, most: int, width: int) -> list[tuple[int, ...]]:
    """A JSON list of at most ``most`` lists of ``width`` integers."""
    if not isinstance(data, list) or len(data) > most:
        raise IndexFrameError(f"{name}: expected a list of at most {most} lists")
    for number, row in enumerate(data):
        if not (isinstance(row, list) and len(row) == width and all(type(v) is int for v in row)):
            raise IndexFrameError(f"{name}[{number}]: expected {width} integers")
    return [tuple(row) for row in data]


def require_int(name: str, value: object, low: int, high: int) -> None:
    """Raise IndexFrameError unless ``value`` is an integer from ``low`` to ``high``."""
    if type(value) is not int or not low <= value <= high:
        raise IndexFrameError(f"{name}: expected an integer {low}..{high}, got {value!r:.40}")
