"""The paper's codec: a picture and a question in, vector-quantised indices out, and back.

>>> codec = load_vq_codec()                                   # doctest: +SKIP
>>> frame = codec.encode(picture, "Is there a cat?")          # doctest: +SKIP
>>> picture = codec.decode(frame)                             # doctest: +SKIP
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

from semantic.allocation import allocate, cell_costs, importance
from semantic.backbone import WeightsError, towers_digest
from semantic.checkpoint import EMBEDDED_CHECKPOINT, read_checkpoint
from semantic.codec.settings import EncoderSettings
from semantic.codec_config import CodecConfig, PackagedTowers
from semantic.fused_convolution import fuse_convolutions
from semantic.index_frame import (
    FrameGeometry,
    IndexFrame,
    IndexFrameError,
    check_query,
)
from semantic.index_search import likeness_or_usual, search_indices
from semantic.model import CodecModel
from semantic.patch_relevance import PatchTextMapper, has_patch_vectors
from semantic.pictures import fit_square, to_rgb
from semantic.relevance import RelevanceMapper, load_relevance

# How far bits follow the question: chosen by `uoisc benchmark intent`, see docs/codec.md.
FOCUS = 0.9

# Where nobody says how many bits a picture may have.
USUAL_BITS_PER_PIXEL = 1.0

__all__ = [
    "Codec",
    "WeightsError",
    "find_device",
    "load_vq_codec",
    "picture_to_tensor",
    "tensor_to_picture",
]


class Codec:
    """A trained codec on one device.

    Args:
        model: the network, in evaluation mode.
        geometry: shapes of its index frames at the full rate, with its ``codec_id``.
        device: where to compute.
        amp: decode in bfloat16 where that is safe (torch's autocast): faster on a GPU, and the same to
            about one level of 255. Encoding stays in float32, for near codewords hang on it.
        compiled: compile the decoder with its first picture; wants a C++ compiler.
        final: nobody trains or writes the model any more, so its layers may be put into the forms that
            are fastest (:mod:`semantic.fused_convolution`).

    Attributes:
        geometries: of every rate, lowest first, the full one last.
        slices_damaged: always 0, for indices of fixed length have no slices.
    """

    slices_damaged = 0

    def __init__(
        self,
        model: CodecModel,
        geometry: FrameGeometry,
        device: torch.device,
        *,
        amp: bool = False,
        compiled: bool = False,
        final: bool = False,
    ) -> None:
        self.geometry = geometry
        self.geometries = model.config.geometries(geometry.codec_id)
        self.device = device
        self._model = model.eval().to(device)
        self._relevance: list[RelevanceMapper | PatchTextMapper | None] = []
        self._amp = amp
        self._final = final
        self._towers_ready = False
        if compiled:
            self._model.decoder.compile()
        elif final:
            fuse_convolutions(self._model.decoder)

    @property
    def codec_id(self) -> str:
        """8 hexadecimal digits, short hash of the codec's configuration and weights."""
        return self.geometry.codec_id

    @property
    def image_size(self) -> int:
        """Side of the square picture in pixels."""
        return self._model.config.image_size

    @property
    def segment_length(self) -> int | None:
        """Features per index, the paper's d."""
        return self._model.config.quantizer.segment_length

    @property
    def name(self) -> str:
        """As the recipe calls it."""
        return self.config.name

    @property
    def hears_query(self) -> bool:
        """Whether features are aligned with the question."""
        return self.config.film != "none"

    @property
    def usual_rates(self) -> tuple[float, ...]:
        """Bits per pixel of :attr:`geometries`."""
        return tuple(geometry.bits_per_pixel for geometry in self.geometries)

    @property
    def model(self) -> CodecModel:
        """The network."""
        return self._model

    @property
    def config(self) -> CodecConfig:
        """What the codec is."""
        return self._model.config

    def looking_at_itself(self, settings: EncoderSettings) -> str | None:
        """Identity of the judge that a search with these settings pleases; None: nobody.

        That is a judge over the codec's own frozen towers, who must not score what was searched for
        (:func:`semantic.judge.refuse_same_judge`).
        """
        likes = settings.search_steps > 0 and settings.search_likeness != 0
        return self.tower_identity if likes else None

    @property
    def tower_identity(self) -> str | None:
        """Identity of a judge over the frozen towers; None where they are no frozen ones."""
        towers = self._model.config.backbone
        return None if towers.trainable else towers_digest(towers)

    def load_towers(self) -> None:
        """Load the frozen towers now, not with the first picture to encode.

        Raises:
            WeightsError: a tower that is missing, damaged or another version.
        """
        if self._towers_ready:
            return
        # Not as inference tensors, even where it is the first picture that loads them: a search passes
        # gradients through them.
        with torch.inference_mode(False):
            self._model.backbone.to(self.device)
            if self._final:
                self._model.backbone.speed_up()
        self._towers_ready = True

    def rate(self, settings: EncoderSettings) -> FrameGeometry:
        """The highest rate of the codec within the bits of these settings.

        Where they name none, the usual rate: :data:`USUAL_BITS_PER_PIXEL`, or the codec's lowest where all
        are above that.

        Raises:
            IndexFrameError: even the lowest rate is above it.
        """
        lowest = self.geometries[0]
        pixels = self.image_size**2
        if settings.bits is not None:
            wanted = settings.bits / pixels
        else:
            wanted = settings.bits_per_pixel or max(USUAL_BITS_PER_PIXEL, lowest.bits_per_pixel)
        for geometry in reversed(self.geometries):
            if geometry.bits_per_pixel <= wanted:
                return geometry
        raise IndexFrameError(
            f"bits per pixel: {wanted:.4g} is below {lowest.bits_per_pixel:.4g}, the lowest rate of codec "
            f"{self.codec_id}"
        )

    def payload_bits(self, settings: EncoderSettings, size: tuple[int, int]) -> int:
        """Bits of a picture, which here is always as large; errors as of :meth:`rate`."""
        return self.rate(settings).payload_bits

    def prepare(self, picture: Image.Image, max_side: int | None = None) -> Image.Image:
        """The picture that is sent, to which every figure of quality refers: the centre square, RGB.

        Raises:
            IndexFrameError: ``max_side`` below the codec's side, which is always the same.
        """
        if max_side is not None and max_side < self.image_size:
            raise IndexFrameError(
                f"max_side {max_side}: codec {self.codec_id} sends squares of {self.image_size} pixels"
            )
        return fit_square(to_rgb(picture), self.image_size)

    @torch.inference_mode()
    def encode(
        self,
        picture: Image.Image,
        query: str,
        settings: EncoderSettings = EncoderSettings(),  # noqa: B008 (frozen)
        frame_id: int = 0,
    ) -> IndexFrame:
        """Picture and question -> indices, eq. (1) to (7).

        Args:
            picture: any size and mode; see :meth:`prepare`.
            query: the user's question.
            settings: the codec sends at its highest rate within their bits, by default within
                :data:`USUAL_BITS_PER_PIXEL`.
            frame_id: 0..2**32-1.

        Raises:
            IndexFrameError: a query that is empty, too long or not one line of text; fewer bits than the
                lowest rate takes; a box, or a focus above 0 with towers that cannot tell where a
                question points.
            WeightsError: a tower that is missing (see :meth:`load_towers`).
        """
        query = check_query(query)
        if settings.boxes:
            raise IndexFrameError(
                f"box: codec {self.codec_id} finds what is asked by itself; the two-layer codec takes boxes"
            )
        geometry = self.rate(settings)
        likeness = likeness_or_usual(settings.search_likeness)
        self.load_towers()
        square = self.prepare(picture, settings.max_side)
        pictures = picture_to_tensor(square).to(self.device)
        features = self._model.features(pictures, [query])
        found = self._model.nearest(features)
        weights = levels = None
        if geometry.rung is not None and geometry.has_map:
            wanted = self.usual_focus if settings.focus is None else settings.focus
            weights = self._importance(pictures, query, geometry.rung.grid, wanted)
            levels = self._levels(pictures, found, geometry, weights)
        frame = IndexFrame.of_rate(frame_id, geometry, _to_numpy(found), query, levels)
        if not settings.search_steps:
            return frame
        steps = settings.search_steps
        better = self._search(pictures, features, frame, weights, steps, likeness)
        return IndexFrame.of_rate(frame_id, geometry, _to_numpy(better), query, levels)

    def _search(
        self,
        pictures: Tensor,
        features: list[Tensor],
        frame: IndexFrame,
        weights: NDArray[np.float64] | None,
        steps: int,
        likeness: float,
    ) -> list[Tensor]:
        """Indices from which the decoder makes a better picture.

        Errors count by the square root of what they count for the map: with that asking gains most
        (`uoisc benchmark intent --search-steps 10`, coco128's photos of even number).
        """
        unsent = [self._batch(~sent) for sent in frame.sent]
        counts = torch.ones_like(pictures[:, :1])
        if weights is not None:
            side = math.isqrt(len(weights))
            cells = torch.from_numpy(np.sqrt(weights).reshape(1, 1, side, side)).to(pictures)
            counts = functional.interpolate(cells, counts.shape[2:], mode="bilinear")
        return search_indices(self._model, pictures, features, unsent, counts, steps, likeness)

    @torch.inference_mode()
    def encode_batch(self, pictures: Tensor, queries: Sequence[str]) -> list[Tensor]:
        """All indices of many pictures at once, eq. (1) to (7).

        Args:
            pictures: float32 ``[B, 3, side, side]``, 0..1.
            queries: B questions.

        Returns:
            per layer int64 ``[B, N, M]``, on the codec's device.
        """
        self.load_towers()
        return self._model.encode(pictures.to(self.device), list(queries))

    @torch.inference_mode()
    def decode_batch(
        self, indices: Sequence[Tensor], unknown: Sequence[Tensor] | None = None
    ) -> Tensor:
        """Pictures from indices, eq. (9) and (10), many at once.

        Args:
            indices: per layer int64 ``[B, N, M]``.
            unknown: per layer bool ``[B, N, M]``, True where an index was not sent or not received.

        Returns:
            float32 ``[B, 3, side, side]``, 0..1, on the codec's device.
        """
        masks = None if unknown is None else [mask.to(self.device) for mask in unknown]
        return self._decode([layer.to(self.device) for layer in indices], masks)

    def _decode(
        self,
        indices: list[Tensor],
        unknown: list[Tensor] | None,
        bit_llrs: list[Tensor] | None = None,
    ) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._amp):
            return self._model.decode(indices, unknown, bit_llrs)

    @property
    def usual_focus(self) -> float:
        """:data:`FOCUS`, or 0 for a codec whose towers cannot tell where a question points."""
        return 0.0 if self.relevance_mapper() is None else FOCUS

    def _importance(
        self, pictures: Tensor, query: str, grid: int, focus: float
    ) -> NDArray[np.float64]:
        """How much an error in every cell counts, mean 1: float64 ``[cells]``."""
        if focus == 0:
            return np.ones(grid * grid)
        mapper = self.relevance_mapper()
        if mapper is None:
            raise IndexFrameError(
                f"focus {focus:g}: the towers of codec {self.geometry.codec_id} cannot tell where a "
                "question points; only 0 will do"
            )
        return importance(mapper(pictures, [query], grid)[0].cpu().numpy(), focus)

    def relevance_mapper(self) -> RelevanceMapper | PatchTextMapper | None:
        """What finds the question in the picture, where the codec's towers can; loaded once."""
        if not self._relevance:
            self._relevance.append(self._load_relevance())
        return self._relevance[0]

    def language_known(self, query: str) -> bool:
        """Whether a question reads as text that the towers can understand, where they are asked at all."""
        mapper = self.relevance_mapper()
        return mapper is None or mapper.language_known(query)

    def _load_relevance(self) -> RelevanceMapper | PatchTextMapper | None:
        towers, backbone = self._model.config.backbone, self._model.backbone
        if isinstance(towers, PackagedTowers) and not towers.trainable:
            return load_relevance(towers, backbone).to(self.device)
        if has_patch_vectors(backbone):
            return PatchTextMapper(backbone).to(self.device)
        return None

    def _levels(
        self,
        pictures: Tensor,
        indices: list[Tensor],
        geometry: FrameGeometry,
        weights: NDArray[np.float64],
    ) -> NDArray[np.uint8]:
        """The map of levels: what each level would leave of the errors is seen by decoding it."""
        assert geometry.rung is not None
        rung = geometry.rung
        batch = [layer.expand(len(rung.levels), -1, -1) for layer in indices]
        sent = np.array(rung.levels)
        masks = [
            (torch.arange(layer.shape[-1])[None] >= torch.from_numpy(sent[:, n, None]))[:, None]
            .expand_as(layer)
            .to(self.device)
            for n, layer in enumerate(batch)
        ]
        found = self._decode(batch, masks)
        squared = (found - pictures).square().mean(1)  # [levels, side, side]
        cells = functional.adaptive_avg_pool2d(squared, rung.grid).flatten(1)
        errors = cells.T.cpu().double().numpy() * weights[:, None]
        spare = geometry.indices - int(geometry.always_sent.sum())
        return allocate(errors, cell_costs(geometry), spare)

    @torch.inference_mode()
    def decode(self, frame: IndexFrame, *, soft: bool = False) -> Image.Image:
        """Indices -> picture, eq. (9) and (10); what was not received is estimated.

        Args:
            frame: as received; an erased index counts as unknown and becomes the mean codeword.
            soft: estimate erased indices from the frame's bit LLRs instead, where it has them. They
                must be calibrated: overconfident LLRs are worse than none.

        Raises:
            IndexFrameError: the frame was made by another codec.
        """
        if frame.geometry not in self.geometries:
            raise IndexFrameError(
                f"the frame was made by codec {frame.geometry.codec_id}, this is codec "
                f"{self.geometry.codec_id}; load the codec that made it"
            )
        indices = [self._batch(layer.astype(np.int64)) for layer in frame.indices]
        missing = frame.unknown
        unknown = None if missing is None else [self._batch(mask) for mask in missing]
        llrs = frame.index_llrs()
        if not soft or unknown is None or llrs is None:
            return tensor_to_picture(self._decode(indices, unknown))
        known = [self._batch(array) for array in llrs]
        return tensor_to_picture(self._decode(indices, unknown, known))

    def depth(self, frame: IndexFrame) -> NDArray[np.float64] | None:
        """Indices per token in every cell of a picture, ``[grid, grid]``; None where all have the same."""
        rung = frame.geometry.rung
        if rung is None or frame.levels is None:
            return None
        counts = np.array([sum(level) for level in rung.levels], np.float64)
        return counts[frame.levels].reshape(rung.grid, rung.grid)

    def _batch(self, array: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(array)[None].to(self.device)


def load_vq_codec(
    checkpoint: Path | None = None,
    device: str = "auto",
    *,
    towers: bool = True,
    amp: bool = False,
    compiled: bool = False,
) -> Codec:
    """Load a trained codec.

    Args:
        checkpoint: a safetensors file; None means the embedded codec.
        device: ``"auto"`` (CUDA or else MPS where there is one), ``"cpu"``, ``"cuda"``, ...
        towers: False leaves the frozen towers until something is encoded. Who only decodes needs
            neither them nor the libraries behind them, and starts in half the time.
        amp: see :class:`Codec`.
        compiled: likewise.

    Raises:
        WeightsError: a checkpoint or tower that is missing, damaged or another version, or a device
            that is not there.
    """
    chosen = find_device(device)
    model, geometry, _ = read_checkpoint(checkpoint or EMBEDDED_CHECKPOINT)
    codec = Codec(model, geometry, chosen, amp=amp, compiled=compiled, final=True)
    if towers:
        codec.load_towers()
    return codec


def find_device(name: str) -> torch.device:
    """The device of a name as of :func:`load_vq_codec`.

    Raises:
        WeightsError: it is not there.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise WeightsError(
            f"device {name!r} cannot be used ({str(error).splitlines()[0]})"
        ) from None
    return device


def _to_numpy(indices: list[Tensor]) -> tuple[NDArray[np.uint16], ...]:
    """Per layer int64 ``[1, N, M]`` -> uint16 ``[N, M]``."""
    return tuple(layer[0].cpu().numpy().astype(np.uint16) for layer in indices)


def picture_to_tensor(picture: Image.Image) -> Tensor:
    """RGB picture -> float32 ``[1, 3, h, w]``, 0..1."""
    pixels = np.asarray(picture, np.uint8).transpose(2, 0, 1)
    return torch.from_numpy(pixels.astype(np.float32) / 255)[None]


def tensor_to_picture(tensor: Tensor) -> Image.Image:
    """Float ``[1, 3, h, w]``, 0..1 -> RGB picture."""
    levels = (tensor[0].float().clamp(0, 1) * 255).round().to(torch.uint8)
    return Image.fromarray(levels.permute(1, 2, 0).cpu().numpy())
