"""Any file of bytes as an index frame, so that a baseline crosses the same air as the codec.

A byte is an index of 8 bits, the file one layer with one segment. The same number of bits as a picture of
the codec then makes the same code blocks, bursts and symbols.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from semantic.index_frame import FrameGeometry, IndexFrame, IndexFrameError, LayerGeometry


def byte_geometry(system: str, size: int, image_size: int) -> FrameGeometry:
    """Geometry of ``size`` bytes made by a system, with an id of its own.

    Args:
        system: name of the source coder, e.g. ``"jpeg2000"``.
        size: bytes per picture.
        image_size: side of the square picture in pixels.
    """
    codec_id = hashlib.sha256(f"{system}/{size}/{image_size}".encode()).hexdigest()[:8]
    return FrameGeometry(codec_id, image_size, 8, (LayerGeometry(size, 1),))


def bytes_to_frame(
    data: bytes, geometry: FrameGeometry, frame_id: int, query: str | None = None
) -> IndexFrame:
    """Bytes, padded with zeros to the geometry's size, as a frame.

    Raises:
        IndexFrameError: more bytes than the geometry holds.
    """
    size = geometry.indices
    if len(data) > size:
        raise IndexFrameError(f"{len(data)} bytes do not go into a frame of {size}")
    padded = np.zeros(size, np.uint16)
    padded[: len(data)] = np.frombuffer(data, np.uint8)
    return IndexFrame(frame_id, geometry, (padded.reshape(size, 1),), query)


def frame_to_bytes(frame: IndexFrame) -> bytes:
    """The bytes of a frame; what was not received reads 0."""
    indices: NDArray[np.uint16] = frame.indices[0]
    return indices.astype(np.uint8).tobytes()
