"""The codec as a system of an evaluation; its ablations are other checkpoints of the same kind."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from PIL import Image

from semantic.checkpoint import EMBEDDED_CHECKPOINT, read_metadata
from semantic.codec import Codec, load_codec
from semantic.frame_geometry import FrameGeometry
from semantic.index_frame import IndexFrame, IndexFrameError
from semantic.index_search import describe_search
from semantic.systems.picture_system import require_side
from semantic.systems.spec import UoiscSpec
from semantic.systems.system import Received, UnreachableError


@cache
def cached_codec(checkpoint: Path | None, device: str) -> Codec:
    """A codec for all systems of this process that use it; its towers are read with the first picture.

    Raises:
        WeightsError: as :func:`semantic.codec.load_codec`.
    """
    return load_codec(checkpoint, device, towers=False)


def rate_of(spec: UoiscSpec, device: str) -> FrameGeometry:
    """Geometry of what a system sends.

    Raises:
        UnreachableError: the codec has no rate that low.
        WeightsError: as :func:`semantic.codec.load_codec`.
    """
    try:
        return cached_codec(spec.checkpoint, device).rate(spec.bits_per_pixel)
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
        WeightsError: as :func:`semantic.codec.load_codec`.
    """

    kind = "uoisc"

    def __init__(self, spec: UoiscSpec, device: str) -> None:
        self._codec = cached_codec(spec.checkpoint, device)
        self._rate = rate_of(spec, device)
        self._soft = spec.soft
        self._search_steps = spec.search_steps
        self._search_likeness = spec.search_likeness
        self._focus = _focus(spec, self._codec, self._rate)
        self.label = spec.label
        self.codec_id: str | None = self._codec.geometry.codec_id
        self.segment_length = self._codec.config.quantizer.segment_length
        self.image_size = self._codec.image_size
        self.hears_query = self._codec.config.film != "none" or self._focus > 0
        metadata = read_metadata(spec.checkpoint or EMBEDDED_CHECKPOINT)
        pleased = (
            metadata.get("intent_judge"),
            self._codec.looking_at_itself(spec.search_steps, spec.search_likeness),
        )
        self.own_judges = tuple(sorted({judge for judge in pleased if judge is not None}))

    def encode(self, picture: Image.Image, query: str, frame_id: int) -> IndexFrame:
        """See :class:`semantic.systems.system.System`."""
        require_side(picture, self.image_size)
        return self._codec.encode(
            picture,
            query,
            frame_id,
            rate=self._rate,
            focus=self._focus,
            search_steps=self._search_steps,
            search_likeness=self._search_likeness,
        )

    def decode(self, received: Received, query: str) -> Image.Image | None:
        """See :class:`semantic.systems.system.System`."""
        if received.frame is None:
            return None
        return self._codec.decode(received.frame, soft=self._soft)

    def notes(self) -> list[str]:
        """See :class:`semantic.systems.system.System`."""
        return [
            f"{self.label}: codec {self.codec_id} ({self._codec.config.name}), "
            f"{self._rate.payload_bits} bits a picture, focus {self._focus:g}, "
            f"{describe_search(self._search_steps, self._search_likeness)}, "
            f"{'soft' if self._soft else 'hard'} decisions"
        ]


def _focus(spec: UoiscSpec, codec: Codec, rate: FrameGeometry) -> float:
    """How far bits follow the question; 0 where all cells of a picture get the same."""
    if spec.focus == 0 or (spec.focus is None and not rate.has_map):
        return 0.0
    if not rate.has_map:
        raise ValueError(
            f"{spec.label}: focus {spec.focus:g}: at this rate codec {rate.codec_id} sends every cell "
            "alike; only 0 will do"
        )
    usual = codec.usual_focus
    if spec.focus is not None and usual == 0:
        raise ValueError(
            f"{spec.label}: focus {spec.focus:g}: the towers of codec {rate.codec_id} cannot tell where "
            "a question points; only 0 will do"
        )
    return usual if spec.focus is None else spec.focus
