"""Picture files over the air: JPEG 2000, WebP and AVIF at a budget, and JPEG 2000 without loss.

A frame is as long as what the coder left, at most the budget; the receiver learns that length from the burst
headers. It is told for nothing which coder was used, to which side the picture was scaled, and the headers
that follow from both: they go into the ``codec_id``, as a codec's weights do. What was not received reads
zero, and the decoder makes of it what it can.
"""

from __future__ import annotations

from PIL import Image, features

from semantic.frame_geometry import MAX_PAYLOAD_BITS, FrameGeometry
from semantic.index_frame import IndexFrame, IndexFrameError
from semantic.systems import lossless_jpeg2000
from semantic.systems.byte_frames import byte_geometry, bytes_to_frame, frame_to_bytes
from semantic.systems.picture_coders import PICTURE_CODERS, PictureCoder, coded_sides
from semantic.systems.system import Received, UnavailableError, UnreachableError

MAXIMUM_BYTES = MAX_PAYLOAD_BITS // 8
_PILLOW_FEATURES = {"jpeg2000": "jpg_2000", "webp": "webp", "avif": "avif"}


def require_side(picture: Image.Image, side: int) -> None:
    """Raise ValueError unless a picture is a square of this side."""
    if picture.size != (side, side):
        raise ValueError(
            f"a picture of {picture.width}x{picture.height}, expected {side}x{side} pixels"
        )


def get_coder(name: str) -> PictureCoder:
    """A coder of :data:`semantic.systems.picture_coders.PICTURE_CODERS`.

    Raises:
        UnavailableError: this Pillow was built without it.
    """
    if not features.check(_PILLOW_FEATURES[name]):
        raise UnavailableError(
            f"this Pillow was built without {name}; install the wheel from PyPI (make setup)"
        )
    return PICTURE_CODERS[name]


class ScaledFrames:
    """Frames that hold a coded picture, and at which side it was coded.

    Args:
        name: what makes these frames different from those of other systems.
        image_size: side of the source in pixels.
    """

    def __init__(self, name: str, image_size: int) -> None:
        self._name = name
        self._image_size = image_size

    def pack(self, payload: bytes, side: int, frame_id: int) -> IndexFrame:
        """Bytes as a frame of their length."""
        return bytes_to_frame(payload, self._geometry(len(payload), side), frame_id)

    def unpack(self, frame: IndexFrame) -> tuple[bytes, int]:
        """Bytes of a frame, zero where they were not received, and the side.

        Raises:
            IndexFrameError: the frame was made by another system.
        """
        for side in coded_sides(self._image_size):
            if frame.geometry == self._geometry(frame.geometry.indices, side):
                return frame_to_bytes(frame), side
        raise IndexFrameError(
            f"the frame was made by codec {frame.geometry.codec_id}, not by {self._name}"
        )

    def _geometry(self, size: int, side: int) -> FrameGeometry:
        return byte_geometry(f"{self._name}/{side}", size, self._image_size)


class PictureSystem:
    """The best picture of a coder within a number of bytes.

    Args:
        label: name in tables and figures.
        kind: name of the coder.
        budget_bytes: at most so many per picture.
        image_size: side of the pictures in pixels.

    Raises:
        UnavailableError: this Pillow was built without the coder.
    """

    codec_id: str | None = None
    segment_length: int | None = None
    hears_query = False
    own_judges: tuple[str, ...] = ()

    def __init__(self, label: str, kind: str, budget_bytes: int, image_size: int) -> None:
        self.label = label
        self.kind = kind
        self.image_size = image_size
        self._budget_bytes = budget_bytes
        self._coder = get_coder(kind)
        self._frames = ScaledFrames(kind, image_size)

    def encode(self, picture: Image.Image, query: str, frame_id: int) -> IndexFrame:
        """See :class:`semantic.systems.system.System`."""
        require_side(picture, self.image_size)
        coded = self._coder.code_within(picture, self._budget_bytes, container=False)
        if coded is None:
            raise UnreachableError(
                f"{self.label}: no {self.kind} picture fits into {self._budget_bytes} bytes"
            )
        payload = self._coder.strip(coded.data, coded.side)
        return self._frames.pack(payload, coded.side, frame_id)

    def decode(self, received: Received, query: str) -> Image.Image | None:
        """See :class:`semantic.systems.system.System`."""
        if received.frame is None:
            return None
        payload, side = self._frames.unpack(received.frame)
        return self._coder.receive(payload, side, self.image_size)

    def notes(self) -> list[str]:
        """See :class:`semantic.systems.system.System`."""
        return [
            f"{self.label}: at most {self._budget_bytes} bytes a picture; coder, the side it scales to and "
            "constant headers are told for nothing"
        ]


class LosslessSystem:
    """JPEG 2000 without loss; every picture takes what it takes.

    Args:
        label: name in tables and figures.
        image_size: side of the pictures in pixels.

    Raises:
        UnavailableError: this Pillow was built without the coder.
    """

    kind = "jpeg2000"
    codec_id: str | None = None
    segment_length: int | None = None
    hears_query = False
    own_judges: tuple[str, ...] = ()

    def __init__(self, label: str, image_size: int) -> None:
        get_coder("jpeg2000")
        self.label = label
        self.image_size = image_size
        self._frames = ScaledFrames("jpeg2000-lossless", image_size)

    def encode(self, picture: Image.Image, query: str, frame_id: int) -> IndexFrame:
        """See :class:`semantic.systems.system.System`."""
        require_side(picture, self.image_size)
        payload = lossless_jpeg2000.encode(picture)
        if len(payload) > MAXIMUM_BYTES:
            raise UnreachableError(
                f"{self.label}: {len(payload)} bytes without loss, a frame holds {MAXIMUM_BYTES}"
            )
        return self._frames.pack(payload, self.image_size, frame_id)

    def decode(self, received: Received, query: str) -> Image.Image | None:
        """See :class:`semantic.systems.system.System`."""
        if received.frame is None:
            return None
        payload, side = self._frames.unpack(received.frame)
        return lossless_jpeg2000.decode(payload, side)

    def notes(self) -> list[str]:
        """See :class:`semantic.systems.system.System`."""
        return [f"{self.label}: reversible 5/3 wavelet; constant headers are told for nothing"]
