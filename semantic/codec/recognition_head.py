"""A second decoder head for the same bits: pictures to recognise things in, not near in every pixel.

At few bits the least squared error is fog. This head was trained so that frozen towers see in its pictures
what they see in the photo. The receiver chooses; nothing on the air depends on it, so it is a file of its own
and not part of the ``codec_id``.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from semantic.backbone import WeightsError
from semantic.codec.detail_layer import Correction, DetailConfig, DetailLayer, Refinement
from semantic.codec.packed_weights import (
    check_tensors,
    pack_weights,
    replace_file,
    tensors_digest,
    unpack_weights,
)

FORMAT = "uo-isc-recognition-head-1"


@dataclass(frozen=True)
class HeadConfig:
    """Sizes of a recognition head.

    Args:
        transform_width, refine_width: as of the detail layer.
        blocks: residual blocks of its correction.
    """

    transform_width: int
    refine_width: int
    blocks: int


class RecognitionHead(nn.Module):
    """Networks of the detail layer's decoder, trained for other eyes.

    Args:
        config: sizes.
    """

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.config = config
        self.decoder = Correction.of_decoder(config.transform_width, config.blocks)
        self.refine = Refinement(config.refine_width)

    @classmethod
    def from_layer(cls, layer: DetailLayer, extra_blocks: int) -> RecognitionHead:
        """A head that begins as the layer's own, with blocks more that begin as nothing."""
        sizes: DetailConfig = layer.config
        blocks = len(layer.decoder.blocks) + extra_blocks
        head = cls(HeadConfig(sizes.transform_width, sizes.refine_width, blocks))
        missing, _ = head.decoder.load_state_dict(layer.decoder.state_dict(), strict=False)
        for name in missing:
            if name.endswith((".3.weight", ".3.bias")):  # a block's last convolution
                nn.init.zeros_(head.decoder.get_parameter(name))
        head.refine.load_state_dict(layer.refine.state_dict())
        return head


def head_file(codec_file: Path) -> Path:
    """Where the recognition head of a two-layer checkpoint lies."""
    return codec_file.with_name(f"{codec_file.stem}_recognition.safetensors")


def write_head(
    file: Path, head: RecognitionHead, codec_id: str, training: Mapping[str, object]
) -> None:
    """Write ``file`` atomically.

    Args:
        file: see :func:`head_file`.
        head: trained.
        codec_id: of the codec whose bits it was trained on.
        training: how it was trained, for the record.
    """
    sizes = json.dumps(dataclasses.asdict(head.config))
    packed = pack_weights(head.state_dict())
    metadata = {
        "format": FORMAT,
        "codec_id": codec_id,
        "head": sizes,
        "digest": tensors_digest(codec_id + sizes, packed),
        "training": json.dumps(training),
    }
    replace_file(file, save(packed, metadata))


def load_head(file: Path, codec_id: str) -> RecognitionHead:
    """Read a head.

    Raises:
        WeightsError: a file that is missing, damaged or of another codec.
    """
    try:
        with safe_open(file, framework="pt", device="cpu") as opened:
            metadata = opened.metadata() or {}
            packed = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        if metadata.get("format") != FORMAT:
            raise ValueError(f"format {metadata.get('format')!r}")
        check_tensors(file, packed)
        owner, sizes = metadata["codec_id"], metadata["head"]
        if tensors_digest(owner + sizes, packed) != metadata["digest"]:
            raise ValueError("contents and digest differ: it is damaged or was altered")
        head = RecognitionHead(HeadConfig(**json.loads(sizes)))
        head.load_state_dict(unpack_weights(packed))
    except WeightsError:
        raise
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise WeightsError(f"{file}: cannot be read as a recognition head ({error})") from None
    if owner != codec_id:
        raise WeightsError(f"{file}: the recognition head of codec {owner}, expected {codec_id}")
    return head.eval()
