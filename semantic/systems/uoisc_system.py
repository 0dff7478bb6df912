"""The codec as a system of an evaluation; its ablations are other checkpoints of the same kind."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from PIL import Image

from semantic.checkpoint import EMBEDDED_CHECKPOINT
from semantic.codec.loader import PictureCodec, load_codec, taught_by
from semantic.codec.settings import DecodeFor, EncoderSettings
from semantic.codec.two_layer import TwoLayerCodec
from semantic.codec.vq_codec import Codec
from semantic.index_frame import IndexFrame, IndexFrameError, NothingReceivedError
from semantic.index_search import describe_search
from semantic.systems.picture_system import require_side
from semantic.systems.spec import UoiscSpec
from semantic.systems.system import Received, UnreachableError

# Pictures of a codec that takes any: as those of the embedded one.
_SIDE = 160


@cache
def cached_codec(checkpoint: Path | None, device: str, decode_for: DecodeFor) -> PictureCodec:
    """A codec for all systems of this process that use it; its towers are read with the first picture.

    Raises:
        WeightsError: as :func:`semantic.codec.loader.load_codec`.
    """
    return load_codec(
        checkpoint or EMBEDDED_CHECKPOINT, device, towers=False, decode_for=decode_for
    )


def settings_of(spec: UoiscSpec) -> EncoderSettings:
    """What a plan says about encoding."""
    return EncoderSettings(
        bits_per_pixel=spec.bits_per_pixel,
        focus=spec.focus,
        search_steps=spec.search_steps,
        search_likeness=spec.search_likeness,
        base_copies=spec.base_copies,
    )


def size_of(spec: UoiscSpec, device: str) -> tuple[int, int]:
    """Side and payload bits of the pictures that a system sends.

    Raises:
        UnreachableError: the codec has no rate that low.
        ValueError: another side than the codec's.
        WeightsError: as :func:`semantic.codec.loader.load_codec`.
    """
    codec = cached_codec(spec.checkpoint, device, spec.decode_for)
    side = _SIDE if isinstance(codec, TwoLayerCodec) else codec.image_size
    if spec.image_size is not None and isinstance(codec, TwoLayerCodec):
        side = spec.image_size
    if spec.image_size not in (None, side):
        raise ValueError(
            f"{spec.label}: image_size: {spec.image_size}, but codec {codec.codec_id} has pictures of {side}"
        )
    try:
        return side, codec.payload_bits(settings_of(spec), (side, side))
    except IndexFrameError as error:
        raise UnreachableError(f"{spec.label}: {error}") from None


class UoiscSystem:
    """A trained codec at one rate.

    Args:
        spec: which codec, and how it is used.
        device: where it computes.

    Raises:
        UnreachableError: the codec has no rate that low.
        ValueError: a focus where the codec has no bits to spread, or cannot tell where a question points.
        WeightsError: as :func:`semantic.codec.loader.load_codec`.
    """

    kind = "uoisc"

    def __init__(self, spec: UoiscSpec, device: str) -> None:
        codec = self._codec = cached_codec(spec.checkpoint, device, spec.decode_for)
        self.image_size, self._bits = size_of(spec, device)
        self._soft = spec.soft
        self._decode_for = spec.decode_for
        self._focus = _focus(spec, codec)
        self._settings = settings_of(spec)
        self.label = spec.label
        self.codec_id: str | None = codec.codec_id
        self.segment_length = codec.segment_length
        self.hears_query = codec.hears_query or self._focus > 0
        pleased = (
            taught_by(spec.checkpoint or EMBEDDED_CHECKPOINT),
            codec.looking_at_itself(self._settings),
        )
        self.own_judges = tuple(sorted({judge for judge in pleased if judge is not None}))

    def encode(self, picture: Image.Image, query: str, frame_id: int) -> IndexFrame:
        """See :class:`semantic.systems.system.System`."""
        require_side(picture, self.image_size)
        return self._codec.encode(picture, query, self._settings, frame_id)

    def decode(self, received: Received, query: str) -> Image.Image | None:
        """See :class:`semantic.systems.system.System`."""
        if received.frame is None:
            return None
        try:
            return self._codec.decode(received.frame, soft=self._soft)
        except NothingReceivedError:
            return None

    def notes(self) -> list[str]:
        """See :class:`semantic.systems.system.System`."""
        search = describe_search(self._settings.search_steps, self._settings.search_likeness)
        head = ", decoded for recognition" if self._decode_for == "recognition" else ""
        return [
            f"{self.label}: codec {self.codec_id} ({self._codec.name}), {self._bits} bits a picture, focus "
            f"{self._focus:g}, {search}, {'soft' if self._soft else 'hard'} decisions{head}"
        ]


def _focus(spec: UoiscSpec, codec: PictureCodec) -> float:
    """How far bits follow the question; 0 where all cells of a picture get the same."""
    usual = codec.usual_focus
    if isinstance(codec, Codec):
        rate = codec.rate(settings_of(spec))
        if not rate.has_map:
            if spec.focus:
                raise ValueError(
                    f"{spec.label}: focus {spec.focus:g}: at this rate codec {rate.codec_id} sends every "
                    "cell alike; only 0 will do"
                )
            return 0.0
    if spec.focus and usual == 0:
        raise ValueError(
            f"{spec.label}: focus {spec.focus:g}: the towers of codec {codec.codec_id} cannot tell where "
            "a question points; only 0 will do"
        )
    return usual if spec.focus is None else spec.focus
