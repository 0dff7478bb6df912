"""The two-layer codec: the paper's tokens as a base, a learned wavelet codec on top.

>>> codec = load_two_layer()                                                       # doctest: +SKIP
>>> frame = codec.encode(photo, "Is there a cat?", EncoderSettings(bits=6400))     # doctest: +SKIP
>>> picture = codec.decode(frame)                                                  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from semantic.allocation import importance, trusted_focus
from semantic.codec import gain_map as gm
from semantic.codec.base_layer import BaseLayer, pad_to_cells
from semantic.codec.detail_coder import CodedSource, DetailCoder, ReceivedDetail
from semantic.codec.detail_layer import DetailLayer
from semantic.codec.entropy import ResidualModels
from semantic.codec.recognition_head import RecognitionHead
from semantic.codec.settings import Box, EncoderSettings
from semantic.codec.vq_codec import Codec, picture_to_tensor, tensor_to_picture
from semantic.frame.slices import MAX_SIDE, usual_slices
from semantic.index_frame import (
    FrameGeometry,
    IndexFrame,
    IndexFrameError,
    NothingReceivedError,
    check_query,
)
from semantic.pictures import to_rgb
from semantic.relevance import Found

# How far bits follow the question: chosen on coco128's photos of even number.
FOCUS = 0.85
USUAL_BITS_PER_PIXEL = 1.0
USUAL_RATES = (0.07, 0.1, 0.25, 0.45, 0.5, 1.0)
MINIMUM_SIDE = 16
# Slices of one picture differ by less, cells of a map by more, in nepers.
_LEAST_DEPTH = 0.24
# Weight of what lies outside a drawn box, of 1 inside.
_OUTSIDE_BOX = 0.1


class TwoLayerCodec:
    """Encoder and decoder on one device.

    Args:
        base: the codec whose coarsest tokens are the base layer.
        detail: trained, in evaluation mode.
        models: probabilities of residuals.
        codec_id: 8 hexadecimal digits.
        head: what pictures are made with; None: the detail layer's own networks.
        amp: what shapes pixels computes in bfloat16 when decoding: faster on a GPU. What the bits hang on
            stays in whole numbers.
        compiled: compile what shapes pixels with the first picture; wants a C++ compiler.

    Attributes:
        slices_damaged: that arrived and did not decode to what was sent, in all frames so far.
    """

    def __init__(
        self,
        base: Codec,
        detail: DetailLayer,
        models: ResidualModels,
        codec_id: str,
        head: RecognitionHead | None = None,
        *,
        amp: bool = False,
        compiled: bool = False,
    ) -> None:
        self.codec_id = codec_id
        self.slices_damaged = 0
        self._amp = amp
        self.device = base.device
        self._vq = base
        self._base = BaseLayer(base)
        self._detail = detail.eval().to(base.device)
        self._head = None if head is None else head.eval().to(base.device)
        if compiled:
            (self._head or self._detail).decoder.compile()
            (self._head or self._detail).refine.compile()
        self._coder = DetailCoder(self._detail, models, base.device)

    @property
    def geometry(self) -> FrameGeometry:
        """Of a frame of this codec; any number of bytes will do."""
        return FrameGeometry.of_stream(self.codec_id, 1)

    @property
    def geometries(self) -> tuple[FrameGeometry, ...]:
        """What :meth:`decode` takes: frames of this codec, and those of the codec its base comes from."""
        return self.geometry, *self._vq.geometries

    @property
    def name(self) -> str:
        """For people."""
        return f"two layers over {self._vq.name}"

    @property
    def hears_query(self) -> bool:
        """Whether the base layer's features are aligned with the question."""
        return self._vq.hears_query

    @property
    def usual_rates(self) -> tuple[float, ...]:
        """Bits per pixel at which it is measured; any other will do."""
        return USUAL_RATES

    @property
    def segment_length(self) -> int | None:
        """None: only the base layer has segments of one length."""
        return None

    def load_towers(self) -> None:
        """Load the frozen towers now, not with the first picture to encode."""
        self._vq.load_towers()

    def payload_bits(self, settings: EncoderSettings, size: tuple[int, int]) -> int:
        """Bits of a picture of this width and height."""
        return settings.payload_bits(*size, USUAL_BITS_PER_PIXEL)

    def prepare(self, picture: Image.Image, max_side: int | None = None) -> Image.Image:
        """The picture that is sent, to which every figure of quality refers: RGB in its own shape.

        Larger photos are scaled down to ``max_side`` (at most and by default 1024) pixels at the longest
        side.

        Raises:
            IndexFrameError: a photo smaller than 16 pixels a side, then or before.
        """
        picture = to_rgb(picture)
        photo = picture.size
        longest = min(max_side or MAX_SIDE, MAX_SIDE)
        if max(picture.size) > longest:
            factor = longest / max(picture.size)
            width, height = (max(1, round(side * factor)) for side in picture.size)
            picture = picture.resize((width, height), Image.Resampling.LANCZOS)
        if min(picture.size) < MINIMUM_SIDE:
            raise IndexFrameError(
                f"a photo of {photo[0]}x{photo[1]} pixels is {picture.width}x{picture.height} with the "
                f"longest side at {longest}: expected at least {MINIMUM_SIDE} a side"
            )
        return picture

    @torch.inference_mode()
    def encode(
        self,
        picture: Image.Image,
        query: str,
        settings: EncoderSettings = EncoderSettings(),  # noqa: B008 (frozen)
        frame_id: int = 0,
    ) -> IndexFrame:
        """Picture and question -> a frame of exactly as many bits as the settings say.

        Args:
            picture: any size and mode; see :meth:`prepare`.
            query: the user's question.
            settings: bits, focus and so on.
            frame_id: 0..2**32-1.

        Raises:
            IndexFrameError: a query that is empty, too long or not one line of text; fewer bits than the
                base layer takes; a box outside the picture; steps of a search.
            WeightsError: a tower that is missing.
        """
        query = check_query(query)
        if settings.search_steps:
            raise IndexFrameError(
                f"search_steps: codec {self.codec_id} has no search; the embedded codec has"
            )
        picture = self.prepare(picture, settings.max_side)
        bits = self.payload_bits(settings, picture.size)
        slices = usual_slices(bits, settings.slice_bits)
        padded = pad_to_cells(picture_to_tensor(picture).to(self.device))
        tokens = self._base.encode(padded, [query])
        base = self._base.decode(tokens)
        levels = self._levels(padded, picture.size, query, settings)
        bands, base_bands = (self._detail.bands(one * 255) for one in (padded, base))
        source = CodedSource(bands, base_bands, tokens[0].cpu(), picture.size, levels)
        coded = self._coder.encode(source, bits, slices, copies=settings.base_copies)
        data = np.packbits(coded)
        geometry = FrameGeometry.of_stream(self.codec_id, len(data))
        return IndexFrame(frame_id, geometry, (data.astype(np.uint16)[:, None],), query)

    @torch.inference_mode()
    def decode(self, frame: IndexFrame, *, soft: bool = False) -> Image.Image:
        """Frame -> picture; what was lost is made up from what arrived.

        Args:
            frame: as received.
            soft: of a frame of the base's codec, as there; erased bytes have no soft use.

        Raises:
            IndexFrameError: the frame was made by another codec.
            NothingReceivedError: not one slice arrived.
        """
        if frame.geometry.codec_id == self._vq.codec_id:
            return self._vq.decode(frame, soft=soft)
        return self.picture(self.receive(frame))

    def depth(self, frame: IndexFrame) -> NDArray[np.float64] | None:
        """Log gain of every 8x8 pixels, ``[h, w]``; None where nothing but the room of slices decides it."""
        gains = self.receive(frame).log_gain[0, 0].double().numpy()
        return None if np.ptp(gains) < _LEAST_DEPTH else gains

    def receive(self, frame: IndexFrame) -> ReceivedDetail:
        """What the slices of a frame say; errors as of :meth:`decode`."""
        if not frame.geometry.is_stream or frame.geometry.codec_id != self.codec_id:
            raise IndexFrameError(
                f"the frame was made by codec {frame.geometry.codec_id}, this is codec "
                f"{self.codec_id}; load the codec that made it"
            )
        lost = np.zeros(frame.geometry.indices, np.bool_)
        if frame.erased is not None:
            lost = frame.erased[0][:, 0]
        data = frame.indices[0].astype(np.uint8).tobytes()
        received = self._coder.decode(data, lost, self._base.segments)
        if received is not None:
            self.slices_damaged += received.damaged
        if received is None or not received.tokens_known.any():
            raise NothingReceivedError("not one slice of the picture arrived whole")
        return received

    @torch.inference_mode()
    def picture(self, received: ReceivedDetail) -> Image.Image:
        """The picture that received slices make."""
        base = self._base.decode(received.tokens[None], received.tokens_known[None]) * 255
        planes = (
            plane.to(self.device) for plane in (received.values, received.log_gain, received.inside)
        )
        values, log_gain, inside = planes
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._amp):
            picture = self._detail.synthesise(values, base, log_gain, inside, self._head)
        width, height = received.size
        return tensor_to_picture(picture[:, :, :height, :width] / 255)

    @torch.inference_mode()
    def base_bits(self, picture: Image.Image, query: str) -> tuple[float, int]:
        """Bits of the base layer's indices: as coded (the ideal length), and what a fixed length takes."""
        padded = pad_to_cells(picture_to_tensor(self.prepare(picture)).to(self.device))
        tokens = self._base.encode(padded, [check_query(query)])[0]
        return self._coder.base_bits(tokens), tokens.numel() * self._base.bits_per_token

    @property
    def usual_focus(self) -> float:
        """How far bits follow the question where nobody says."""
        return FOCUS if self._vq.usual_focus else 0.0

    def looking_at_itself(self, settings: EncoderSettings) -> str | None:
        """Identity of the judge that the recognition head pleases, where pictures are made with it."""
        return None if self._head is None else self._vq.tower_identity

    def language_known(self, query: str) -> bool:
        """Whether a question reads as text that the towers can understand, where they are asked at all."""
        return self._vq.language_known(query)

    def find(self, picture: Image.Image, query: str) -> Found:
        """Where a question points in a picture, on the grid of the gain map, and how far that is trusted.

        Raises:
            IndexFrameError: towers that cannot tell.
        """
        picture = self.prepare(picture)
        padded = pad_to_cells(picture_to_tensor(picture).to(self.device))
        return self._find(padded, picture.size, check_query(query))

    @torch.inference_mode()
    def _find(self, padded: Tensor, size: tuple[int, int], query: str) -> Found:
        self.load_towers()
        mapper = self._vq.relevance_mapper()
        if mapper is None:
            raise IndexFrameError(
                f"the towers of codec {self.codec_id} cannot tell where a question points"
            )
        return mapper.find(padded, [query], gm.map_shape(*size))

    def _levels(
        self, padded: Tensor, size: tuple[int, int], query: str, settings: EncoderSettings
    ) -> NDArray[np.int64] | None:
        if settings.boxes:
            return gm.levels_from_weights(_box_weights(settings.boxes, size))
        focus = settings.focus
        if focus == 0 or (focus is None and self.usual_focus == 0):
            return None
        found = self._find(padded, size, query)
        if focus is None:
            # A map that may be wrong moves fewer bits, or none.
            focus = trusted_focus(FOCUS, float(found.confidence[0]))
            if focus == 0:
                return None
        relevance = found.maps[0].cpu().numpy()
        weights = importance(relevance, focus).reshape(relevance.shape)
        return gm.levels_from_weights(weights)


def _box_weights(boxes: Sequence[Box], size: tuple[int, int]) -> NDArray[np.float64]:
    """Weight of every map cell: by the share that the box which covers it most covers."""
    side = gm.map_cell_side(*size)
    rows, columns = gm.map_shape(*size)
    inside = np.zeros((rows, columns))
    for box in boxes:
        if box.x >= size[0] or box.y >= size[1]:
            raise IndexFrameError(
                f"box: {box.x},{box.y} lies outside the picture of {size[0]}x{size[1]} pixels"
            )
        across = _overlap(box.x, box.width, columns, side)
        down = _overlap(box.y, box.height, rows, side)
        inside = np.maximum(inside, down[:, None] * across)
    return _OUTSIDE_BOX + (1 - _OUTSIDE_BOX) * inside


def _overlap(begin: int, length: int, cells: int, side: int) -> NDArray[np.float64]:
    edges = np.arange(cells + 1) * side
    inside = np.minimum(edges[1:], begin + length) - np.maximum(edges[:-1], begin)
    return np.clip(inside, 0, None) / side
