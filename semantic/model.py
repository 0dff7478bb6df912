"""The codec as one trainable network: towers, alignment, quantisers, decoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from semantic.alignment import TEXT_FORM, AlignedLayer, TextFeatures, to_tokens
from semantic.backbone import Backbone, load_backbone
from semantic.codec_config import CodecConfig
from semantic.decoder import PictureDecoder
from semantic.processes import Processes
from semantic.quantizer import Damage, Quantized, Quantizer, make_quantizer


@dataclass(frozen=True)
class Reconstruction:
    """What a training step needs from one pass.

    Args:
        pictures: float ``[B, 3, side, side]``.
        features: per layer float32 ``[B, N, D]``, before quantisation.
        indices: per layer int64 ``[B, N, M]``; empty while training without quantiser.
        quantization_loss: scalar, eq. (12) averaged over the layers' values.
    """

    pictures: Tensor
    features: list[Tensor]
    indices: list[Tensor]
    quantization_loss: Tensor


@dataclass(frozen=True)
class IndexDamage:
    """What the channel did to the indices of a training batch, per layer ``[B, N, M]``.

    Args:
        erased: bool, index not received.
        replaced: int64, the wrong index received there, or -1 where it is right.
    """

    erased: list[Tensor]
    replaced: list[Tensor]

    @property
    def received(self) -> Tensor:
        """Share of each picture's indices that is received, float ``[B]``, 0..1."""
        arrived = torch.stack([(~mask).flatten(1).sum(1) for mask in self.erased]).sum(0)
        return arrived / sum(mask[0].numel() for mask in self.erased)

    def to(self, device: torch.device) -> IndexDamage:
        """The same on another device."""
        return IndexDamage(
            [mask.to(device) for mask in self.erased], [new.to(device) for new in self.replaced]
        )


@dataclass(frozen=True)
class TowerWidths:
    """Sizes of what the towers hand to the trained part.

    Args:
        tokens: channels of a token of every layer, before projection.
        text: length of a text vector.
    """

    tokens: tuple[int, ...]
    text: int


def tower_widths(config: CodecConfig, backbone: Backbone) -> TowerWidths:
    """Measure the widths of loaded towers."""
    tokens = tuple(
        sum(backbone.channels[i] * (backbone.grids[i] // layer.grid) ** 2 for i in layer.features)
        for layer in config.layers
    )
    return TowerWidths(tokens, backbone.text_width)


class CodecModel(nn.Module):
    """Image and query in, picture out, through vector-quantised features.

    Frozen towers are not part of ``state_dict``: they come from their own files. Trainable ones are, the
    text tower only where the query is used.

    Args:
        config: what to build.
        backbone: the towers, where they are loaded already.
        widths: what the towers give, where it is known without them; then they are not loaded
            before something is encoded (a decoder needs none).
    """

    def __init__(
        self,
        config: CodecConfig,
        backbone: Backbone | None = None,
        widths: TowerWidths | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        # In a list, so that torch does not register it: state_dict holds trained tensors only.
        self._backbone = [] if backbone is None else [backbone]
        if widths is None:
            widths = tower_widths(config, self.backbone)
        self.layers = nn.ModuleList(
            AlignedLayer(width, widths.text, layer.dim, config.projection_hidden, config.film)
            for layer, width in zip(config.layers, widths.tokens, strict=True)
        )
        self.quantizers = nn.ModuleList(
            make_quantizer(layer.dim, segments, config.quantizer)
            for layer, segments in zip(config.layers, config.segments, strict=True)
        )
        self.decoder = PictureDecoder(config)
        if config.backbone.trainable:
            self.image_tower: nn.Module = self.backbone.towers.visual
            if config.film != "none":
                self.text_tower: nn.Module = self.backbone.towers.text

    @property
    def backbone(self) -> Backbone:
        """The towers, loaded when they are first asked for."""
        if not self._backbone:
            used = sorted({index for layer in self.config.layers for index in layer.features})
            loaded = load_backbone(self.config.backbone, used, self.config.image_size)
            self._backbone.append(loaded)
        return self._backbone[0]

    @property
    def alignments(self) -> list[AlignedLayer]:
        """The layers up to their quantisers, finest grid first."""
        return cast(list[AlignedLayer], list(self.layers))

    @property
    def segment_quantizers(self) -> list[Quantizer]:
        """One quantiser per layer."""
        return cast(list[Quantizer], list(self.quantizers))

    def tokens(self, maps: dict[int, Tensor]) -> list[Tensor]:
        """Feature maps of the tower -> per layer tokens ``[B, N, channels]``."""
        return [
            to_tokens([maps[i] for i in layer.features], layer.grid) for layer in self.config.layers
        ]

    @property
    def last_layer(self) -> Tensor:
        """Weights of the decoder's last convolution, where the terms of a loss are weighed up."""
        return cast(Tensor, self.decoder.head.refine[-1].weight)

    def query_features(self, queries: list[str]) -> TextFeatures:
        """What the text tower makes of queries, as far as this codec's modulation needs it."""
        return self.backbone.query_features(queries, TEXT_FORM[self.config.film])

    def align(self, maps: dict[int, Tensor], text: TextFeatures) -> list[Tensor]:
        """Eq. (1) to (4) for every layer: per layer ``[B, N, D]``."""
        pairs = zip(self.alignments, self.tokens(maps), strict=True)
        return [layer(tokens, text) for layer, tokens in pairs]

    def features(self, pictures: Tensor, queries: list[str]) -> list[Tensor]:
        """What the encoder says of pictures before it is quantised, eq. (1) to (4).

        Args:
            pictures: float32 ``[B, 3, side, side]``, 0..1.
            queries: B questions.

        Returns:
            per layer float32 ``[B, N, D]``.
        """
        maps = self.backbone.image_features(pictures)
        return [layer.float() for layer in self.align(maps, self.query_features(queries))]

    def nearest(self, features: list[Tensor]) -> list[Tensor]:
        """Indices of features, eq. (5) to (7): per layer ``[B, N, D]`` -> int64 ``[B, N, M]``."""
        pairs = zip(self.segment_quantizers, features, strict=True)
        return [quantizer.nearest(layer) for quantizer, layer in pairs]

    def encode(self, pictures: Tensor, queries: list[str]) -> list[Tensor]:
        """Indices of pictures, eq. (1) to (7).

        Args:
            pictures: float32 ``[B, 3, side, side]``, 0..1.
            queries: B questions.

        Returns:
            per layer int64 ``[B, N, M]``.
        """
        return self.nearest(self.features(pictures, queries))

    def decode(
        self,
        indices: list[Tensor],
        erased: list[Tensor] | None = None,
        bit_llrs: list[Tensor] | None = None,
    ) -> Tensor:
        """Pictures from indices, eq. (9) and (10).

        Args:
            indices: per layer int64 ``[B, N, M]``.
            erased: per layer bool ``[B, N, M]``; None means all received.
            bit_llrs: per layer float32 ``[B, N, M, log2 K]``, what is known of the bits of erased indices;
                None: nothing, and they become the mean codeword.

        Returns:
            float32 ``[B, 3, side, side]``, 0..1.
        """
        return self.decode_vectors(
            [
                quantizer.lookup(
                    indices[n],
                    None if erased is None else erased[n],
                    None if bit_llrs is None else bit_llrs[n],
                )
                for n, quantizer in enumerate(self.segment_quantizers)
            ]
        )

    def decode_vectors(self, layers: list[Tensor]) -> Tensor:
        """Pictures from codeword estimates per layer ``[B, N, D]`` (hard look-ups or posterior means)."""
        picture: Tensor = self.decoder(layers)
        return picture.float().clamp(0, 1)

    def forward(
        self,
        maps: dict[int, Tensor],
        text: TextFeatures,
        *,
        damage: IndexDamage | None = None,
        continuous_noise: float | None = None,
        processes: Processes | None = None,
    ) -> Reconstruction:
        """One training pass.

        Args:
            maps: feature maps of the image tower.
            text: the queries.
            damage: what the channel does to the indices.
            continuous_noise: if given, no quantiser: noise of this many segment spreads instead.
            processes: who shares the batch, where it is more than this process.
        """
        aligned = [features.float() for features in self.align(maps, text)]
        if continuous_noise is not None:
            noisy = [
                _with_noise(features, quantizer.codebook.shape[-1], continuous_noise, processes)
                for features, quantizer in zip(aligned, self.segment_quantizers, strict=True)
            ]
            zero = aligned[0].new_zeros(())
            return Reconstruction(self.decoder(noisy), aligned, [], zero)
        damages: list[Damage | None] = [None] * len(aligned)
        if damage is not None:
            damages = [Damage(*one) for one in zip(damage.erased, damage.replaced, strict=True)]
        results: list[Quantized] = [
            quantizer(*given)
            for quantizer, *given in zip(self.segment_quantizers, aligned, damages, strict=True)
        ]
        vectors = [result.vectors for result in results]
        values = [features.numel() for features in aligned]
        weighted = [r.loss * n for r, n in zip(results, values, strict=True)]
        loss = torch.stack(weighted).sum() / sum(values)
        return Reconstruction(self.decoder(vectors), aligned, [r.indices for r in results], loss)


def _with_noise(
    features: Tensor, segment_length: int, amount: float, processes: Processes | None
) -> Tensor:
    """Gaussian noise of ``amount`` times each segment's root mean square deviation over the batch."""
    segments = features.unflatten(-1, (-1, segment_length))
    whole = segments.detach()
    if processes is not None:
        whole = processes.gather(whole)
    spread = whole.std(dim=(0, 1)).square().mean(-1, keepdim=True).sqrt()
    noise = torch.randn_like(whole)
    if processes is not None:
        noise = processes.own(noise)
    return (segments + amount * spread * noise).flatten(-2)
