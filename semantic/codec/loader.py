"""The one door to codecs: a name or a checkpoint file in, something that encodes and decodes pictures out.

>>> codec = load_codec()                                                      # doctest: +SKIP
>>> source = codec.prepare(photo)                                             # doctest: +SKIP
>>> frame = codec.encode(source, "Is there a cat?", EncoderSettings(bits=6400))  # doctest: +SKIP
>>> picture = codec.decode(frame)                                             # doctest: +SKIP
"""

from __future__ import annotations

from pathlib import Path

from semantic.backbone import WeightsError
from semantic.checkpoint import read_metadata
from semantic.codec.detail_checkpoint import base_file, is_two_layer, load_two_layer
from semantic.codec.settings import DecodeFor, EncoderSettings
from semantic.codec.two_layer import TwoLayerCodec
from semantic.codec.vq_codec import Codec, load_vq_codec
from semantic.geometries import CHECKPOINT_FOLDER, DEFAULT_CODEC

__all__ = [
    "DecodeFor",
    "EncoderSettings",
    "PictureCodec",
    "WeightsError",
    "checkpoint_file",
    "load_codec",
    "taught_by",
]

PictureCodec = Codec | TwoLayerCodec


def checkpoint_file(checkpoint: str | Path | None = None) -> Path:
    """File of a codec: a bare name such as ``embedded`` means a shipped one, None the usual one.

    Raises:
        WeightsError: no shipped codec of that name.
    """
    name = Path(DEFAULT_CODEC if checkpoint is None else checkpoint)
    if name.suffix or name.name != str(name):
        return name
    file = CHECKPOINT_FOLDER / f"{name}.safetensors"
    if not file.exists():
        shipped = sorted(one.stem for one in CHECKPOINT_FOLDER.glob("*.json"))
        raise WeightsError(
            f"codec {str(name)!r}: no shipped codec of that name ({', '.join(shipped)}); the path of a "
            "checkpoint ends in .safetensors"
        )
    return file


def taught_by(checkpoint: str | Path | None = None) -> str | None:
    """Identity of the judge that a codec was trained to please, who must not score it; None: nobody.

    Raises:
        WeightsError: a checkpoint that is missing or damaged.
    """
    file = checkpoint_file(checkpoint)
    return read_metadata(base_file(file) if is_two_layer(file) else file).get("intent_judge")


def load_codec(
    checkpoint: str | Path | None = None,
    device: str = "auto",
    *,
    towers: bool = True,
    amp: bool = False,
    compiled: bool = False,
    decode_for: DecodeFor = "fidelity",
) -> PictureCodec:
    """Load a trained codec of either kind.

    Args:
        checkpoint: see :func:`checkpoint_file`.
        device: ``"auto"`` (CUDA or else MPS where there is one), ``"cpu"``, ``"cuda"``, ...
        towers: False leaves the frozen towers until something is encoded. Who only decodes needs
            neither them nor the libraries behind them, and starts in half the time.
        amp: decode in bfloat16 where that is safe.
        compiled: compile the decoder with its first picture; wants a C++ compiler.
        decode_for: what decoded pictures are for: ``"fidelity"``, near the photo in every pixel, or
            ``"recognition"``, where few bits should show what is there.

    Raises:
        WeightsError: a checkpoint or tower that is missing, damaged or another version, a codec without a
            head for it, or a device that is not there.
    """
    file = checkpoint_file(checkpoint)
    if is_two_layer(file):
        return load_two_layer(
            file, device, towers=towers, amp=amp, compiled=compiled, decode_for=decode_for
        )
    if decode_for != "fidelity":
        raise WeightsError(f"{file}: this codec has one decoder, and none for {decode_for}")
    return load_vq_codec(file, device, towers=towers, amp=amp, compiled=compiled)
