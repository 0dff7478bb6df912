"""The codec as the rest of the project uses it: a picture and a question in, an index frame out, and back.

>>> codec = load_codec()                                      # doctest: +SKIP
>>> frame = codec.encode(picture, "Is there a cat?")          # doctest: +SKIP
>>> picture = codec.decode(frame)                             # doctest: +SKIP
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from semantic.backbone import WeightsError
from semantic.checkpoint import EMBEDDED_CHECKPOINT, read_checkpoint
from semantic.index_frame import (
    LLR_STEP,
    FrameGeometry,
    IndexFrame,
    IndexFrameError,
    check_query,
)
from semantic.model import CodecModel
from semantic.pictures import fit_square, to_rgb

__all__ = ["Codec", "WeightsError", "load_codec", "picture_to_tensor", "tensor_to_picture"]


class Codec:
    """A trained codec on one device.

    Args:
        model: the network, in evaluation mode.
        geometry: shapes of its index frames, with its ``codec_id``.
        device: where to compute.
    """

    def __init__(self, model: CodecModel, geometry: FrameGeometry, device: torch.device) -> None:
        self.geometry = geometry
        self.device = device
        self._model = model.eval().to(device)

    @property
    def image_size(self) -> int:
        """Side of the square picture in pixels."""
        return self.geometry.image_size

    def load_towers(self) -> None:
        """Load the frozen towers now, not with the first picture to encode.

        Raises:
            WeightsError: a tower that is missing, damaged or another version.
        """
        self._model.backbone.to(self.device)

    @torch.inference_mode()
    def encode(self, picture: Image.Image, query: str, frame_id: int = 0) -> IndexFrame:
        """Picture and question -> indices, eq. (1) to (7).

        Args:
            picture: any size and mode; cropped to its centre square and resized where necessary.
            query: the user's question.
            frame_id: 0..2**32-1.

        Raises:
            IndexFrameError: a query that is empty, too long or not one line of text.
            WeightsError: a tower that is missing (see :meth:`load_towers`).
        """
        query = check_query(query)
        self.load_towers()
        square = fit_square(to_rgb(picture), self.image_size)
        pictures = picture_to_tensor(square).to(self.device)
        found = self._model.encode(pictures, [query])
        indices = tuple(layer[0].cpu().numpy().astype(np.uint16) for layer in found)
        return IndexFrame(frame_id, self.geometry, indices, query)

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
        if frame.geometry != self.geometry:
            raise IndexFrameError(
                f"the frame was made by codec {frame.geometry.codec_id}, this is codec "
                f"{self.geometry.codec_id}; load the codec that made it"
            )
        indices = [self._batch(layer.astype(np.int64)) for layer in frame.indices]
        erased = None if frame.erased is None else [self._batch(mask) for mask in frame.erased]
        if not soft or erased is None or frame.bit_llrs is None:
            return tensor_to_picture(self._model.decode(indices, erased))
        estimates = [
            quantizer.posterior_mean(self._batch(llrs))
            for quantizer, llrs in zip(
                self._model.segment_quantizers, _llrs_per_index(frame.bit_llrs, frame), strict=True
            )
        ]
        return tensor_to_picture(self._model.decode(indices, erased, estimates))

    def _batch(self, array: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(array)[None].to(self.device)


def _llrs_per_index(llrs: NDArray[np.int8], frame: IndexFrame) -> list[NDArray[np.float32]]:
    """LLRs in transmission order -> per layer float32 ``[tokens, segments, bits]`` in nats."""
    parts, start, width = [], 0, frame.geometry.bits_per_index
    for layer in frame.geometry.layers:
        flat = llrs[start : start + layer.indices * width].astype(np.float32) * LLR_STEP
        part = flat.reshape(layer.segments, layer.tokens, width).transpose(1, 0, 2)
        parts.append(np.ascontiguousarray(part))
        start += layer.indices * width
    return parts


def load_codec(
    checkpoint: Path | None = None, device: str = "auto", *, towers: bool = True
) -> Codec:
    """Load a trained codec.

    Args:
        checkpoint: a safetensors file; None means the embedded codec.
        device: ``"auto"`` (CUDA where there is one), ``"cpu"``, ``"cuda"``, ...
        towers: False leaves the frozen towers until something is encoded. Who only decodes needs
            neither them nor the libraries behind them, and starts in half the time.

    Raises:
        WeightsError: a checkpoint or tower that is missing, damaged or another version, or a device
            that is not there.
    """
    chosen = _device(device)
    model, geometry, _ = read_checkpoint(checkpoint or EMBEDDED_CHECKPOINT)
    codec = Codec(model, geometry, chosen)
    if towers:
        codec.load_towers()
    return codec


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise WeightsError(
            f"device {name!r} cannot be used ({str(error).splitlines()[0]})"
        ) from None
    return device


def picture_to_tensor(picture: Image.Image) -> Tensor:
    """RGB picture -> float32 ``[1, 3, h, w]``, 0..1."""
    pixels = np.asarray(picture, np.uint8).transpose(2, 0, 1)
    return torch.from_numpy(pixels.astype(np.float32) / 255)[None]


def tensor_to_picture(tensor: Tensor) -> Image.Image:
    """Float ``[1, 3, h, w]``, 0..1 -> RGB picture."""
    levels = (tensor[0].float().clamp(0, 1) * 255).round().to(torch.uint8)
    return Image.fromarray(levels.permute(1, 2, 0).cpu().numpy())
