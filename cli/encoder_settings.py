"""What a profile says about the codec: which one, and how it encodes. Here budgets become bits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from blocks.modem import waveform as wf
from blocks.modem.budget import payload_bits_within
from semantic.codec.settings import Box, EncoderSettings

if TYPE_CHECKING:
    from PIL import Image

    from sdr_config.schema import Profile
    from semantic.codec.loader import PictureCodec
    from semantic.relevance import Found


def settings_of(profile: Profile, boxes: Sequence[str] | None = None) -> EncoderSettings:
    """How ``profile`` wants pictures encoded, slices as long as its code blocks.

    Args:
        profile: of the transmitter.
        boxes: where the bits go, ``x,y,w,h`` each, instead of where the question points.

    Raises:
        WaveformError: a budget in which not one byte fits.
        IndexFrameError: a value out of range.
    """
    wanted, sender = profile.codec, profile.transmitter
    bits = None
    if wanted.symbols is not None:
        bits = payload_bits_within(wanted.symbols, sender.mcs, sender.max_burst_symbols)
    if wanted.air_time_ms is not None:
        symbols = int(wanted.air_time_ms / 1000 * profile.waveform.symbol_rate_hz)
        bits = payload_bits_within(
            symbols, sender.mcs, sender.max_burst_symbols, sender.gap_symbols
        )
    return EncoderSettings(
        bits=bits,
        bits_per_pixel=wanted.bits_per_pixel,
        focus=wanted.focus,
        boxes=tuple(Box.parse(box) for box in boxes or ()),
        search_steps=wanted.search_steps,
        search_likeness=wanted.search_likeness,
        slice_bits=wf.max_info_bits(sender.mcs) - wf.CODE_BLOCK_CRC_BITS,
        base_copies=wanted.base_copies,
        max_side=wanted.max_side,
    )


def load_codec_of(profile: Profile, *, towers: bool = True) -> PictureCodec:
    """The codec of a profile.

    Args:
        profile: of either end.
        towers: see :func:`semantic.codec.loader.load_codec`; errors as there.
    """
    from semantic.codec.loader import load_codec

    wanted = profile.codec
    return load_codec(
        wanted.checkpoint,
        wanted.device,
        towers=towers,
        amp=wanted.bf16,
        compiled=wanted.compiled,
        decode_for=wanted.decode_for,
    )


def find_asked(
    codec: PictureCodec, source: Image.Image, query: str, settings: EncoderSettings
) -> Found | None:
    """Where the question points and how far that is trusted; None where it decides nothing."""
    from semantic.codec.two_layer import TwoLayerCodec

    asked = settings.focus is None or settings.focus > 0
    if isinstance(codec, TwoLayerCodec) and asked and not settings.boxes and codec.usual_focus > 0:
        return codec.find(source, query)
    return None


def as_overrides(values: dict[str, Any]) -> list[str]:
    """Command-line options as ``key=value`` overrides of a profile, where they are given.

    JSON is YAML, so numbers keep their type; a NaN reads as the text it is and the schema refuses it.
    """
    return [f"{key}={json.dumps(value)}" for key, value in values.items() if value is not None]
