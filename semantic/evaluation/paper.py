"""What the paper's own geometry costs on the air: arithmetic from its configuration, nothing measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from semantic.codec_config import CONFIG_FOLDER, CodecConfig, read_recipe

SEGMENT_LENGTHS = (8, 16, 32, 64)
_BITS_PER_SYMBOL = 3  # 8-PSK
_CODE_RATE = 0.5


@dataclass(frozen=True)
class PayloadSize:
    """One picture at one segment length."""

    indices: int
    bits: int
    symbols: float


def payload_symbols(lengths: Sequence[int] = SEGMENT_LENGTHS) -> dict[int, PayloadSize]:
    """Indices, bits and 8-PSK payload symbols at rate 1/2 of ``paper_vitb16``, by segment length d."""
    codec = read_recipe(CONFIG_FOLDER / "paper_vitb16.yaml").codec
    found = {}
    for length in lengths:
        data = codec.model_dump()
        data["quantizer"]["segment_length"] = length
        # All segments of all tokens are sent: the last of its rates.
        geometry = CodecConfig.model_validate(data).geometries("00000000")[-1]
        bits = geometry.payload_bits
        found[length] = PayloadSize(
            sum(layer.indices for layer in geometry.layers),
            bits,
            bits / (_BITS_PER_SYMBOL * _CODE_RATE),
        )
    return found
