"""The base layer: the paper's codec at its fewest bits, for a picture of any shape.

One vector-quantised token per 32x32 pixels, from frozen towers through FiLM by the
question. It decodes whatever is lost beside it. The codec is convolutional, so a token grid may be any
rectangle.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from semantic.alignment import to_tokens
from semantic.codec.vq_codec import Codec
from semantic.frame.slices import CELL


class BaseLayer:
    """The coarsest layer of a codec with several.

    Args:
        codec: on its device.

    Raises:
        ValueError: a codec whose coarsest tokens are not 32 pixels wide.
    """

    def __init__(self, codec: Codec) -> None:
        config = codec.config
        if config.layers[-1].grid * CELL != config.image_size or codec.config.quantizer.residual:
            raise ValueError(f"base layer: tokens of codec {codec.geometry.codec_id} do not fit")
        self._codec = codec
        self._model = codec.model
        self._features = config.layers[-1].features
        self.segments = config.segments[-1]
        self.bits_per_token = config.quantizer.bits_per_index

    @torch.inference_mode()
    def encode(self, pictures: Tensor, queries: Sequence[str]) -> Tensor:
        """Indices of pictures, eq. (1) to (7).

        Args:
            pictures: float32 ``[B, 3, H, W]``, 0..1, sides multiples of 32.
            queries: the question about each.

        Returns:
            int64 ``[B, H/32, W/32, M]``.
        """
        self._codec.load_towers()
        model = self._model
        grid = pictures.shape[2] // CELL, pictures.shape[3] // CELL
        maps = model.backbone.image_features(pictures)
        tokens = to_tokens([maps[i] for i in self._features], grid)
        aligned = model.alignments[-1](tokens, model.query_features(list(queries)))
        indices: Tensor = model.segment_quantizers[-1].nearest(aligned.float())
        return indices.unflatten(1, grid)

    @torch.inference_mode()
    def decode(self, tokens: Tensor, known: Tensor | None = None) -> Tensor:
        """Pictures from indices, eq. (9) and (10); the finer layers are the mean codeword everywhere.

        Args:
            tokens: int64 ``[B, rows, columns, M]``.
            known: bool ``[B, rows, columns]``; None: all are.

        Returns:
            float32 ``[B, 3, 32 rows, 32 columns]``, 0..1.
        """
        batch, rows, columns, _ = tokens.shape
        device = self._codec.device
        config = self._model.config
        vectors = []
        for layer, segments, quantizer in zip(
            config.layers, config.segments, self._model.segment_quantizers, strict=True
        ):
            fold = layer.grid // config.layers[-1].grid
            count = rows * columns * fold**2
            if fold == 1:
                indices = tokens.reshape(batch, count, segments).to(device)
                lost = torch.zeros_like(indices, dtype=torch.bool)
                if known is not None:
                    lost |= ~known.reshape(batch, count, 1).to(device)
            else:
                indices = torch.zeros(batch, count, segments, dtype=torch.long, device=device)
                lost = torch.ones_like(indices, dtype=torch.bool)
            vectors.append(quantizer.lookup(indices, lost))
        pictures: Tensor = self._model.decoder(vectors, (rows, columns))
        return pictures.float().clamp(0, 1)

    def codewords(self) -> Tensor:
        """Integers that stand for the codewords, int8 ``[M, K, d]``: what the detail layer's prior sees."""
        book = self._model.segment_quantizers[-1].codebook.detach().float().cpu()
        return (book / book.std() * 32).round().clamp(-127, 127).to(torch.int8)


def pad_to_cells(picture: Tensor) -> Tensor:
    """``[1, 3, h, w]`` with its last rows and columns repeated up to multiples of 32."""
    height, width = picture.shape[2:]
    return functional.pad(picture, (0, -width % CELL, 0, -height % CELL), mode="replicate")
