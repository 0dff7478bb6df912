"""One picture across the simulated air, and what there is to say about it: shared by loopback and demo."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    from flowgraphs.loopback import LoopbackResult
    from sdr_config.schema import Profile
    from semantic.codec.loader import PictureCodec
    from semantic.index_frame import IndexFrame

STATUS_OK = "ok"
STATUS_PARTIAL = "partial"
STATUS_NOT_RECEIVED = "not_received"


@dataclass(frozen=True)
class LinkReport:
    """A picture's way through the link.

    Args:
        values: the report as it is printed and written, one plain value per key.
        received: the picture as decoded, None where nothing was received.
        constellation: equalised payload symbols, None where no burst was demodulated.
    """

    values: dict[str, Any]
    received: Image.Image | None = field(repr=False)
    constellation: NDArray[np.complex64] | None = field(repr=False)


def send_frame(
    profile: Profile,
    frame: IndexFrame,
    source: Image.Image,
    decode: Callable[[IndexFrame], Image.Image | None],
) -> LinkReport:
    """Send one frame through the loopback flowgraph and judge what arrives.

    Args:
        profile: with a simulated channel.
        frame: what the encoder made of ``source``.
        source: the picture that every quality figure refers to.
        decode: receiver's decoder; None means that it could not make a picture of what it got.
    """
    from flowgraphs.loopback import run_loopback

    geometry = frame.geometry
    result = run_loopback(profile, [geometry], [frame])
    received_frame = result.received[0] if result.received else None
    started = time.monotonic()
    picture = decode(received_frame) if received_frame is not None else None
    decode_s = time.monotonic() - started if received_frame is not None else None
    values = {
        "status": frame_status(received_frame),
        **_link_values(profile, result),
        "index_error_rate": _index_error_rate(frame, received_frame),
        "bits": geometry.payload_bits,
        "bits_per_pixel": frame.bits_per_pixel,
        **picture_quality(source, picture),
        "air_s": result.air_s,
        "decode_s": decode_s,
    }
    return LinkReport(values, picture, result.constellation)


def decoder_of(codec: PictureCodec) -> Callable[[IndexFrame], Image.Image | None]:
    """A codec's decoder, which makes the most of what arrived; None where that is nothing."""
    from semantic.index_frame import NothingReceivedError

    def decode(frame: IndexFrame) -> Image.Image | None:
        try:
            return codec.decode(frame, soft=True)
        except NothingReceivedError:
            return None

    return decode


def frame_status(frame: IndexFrame | None) -> str:
    """``ok``, ``partial`` or ``not_received``."""
    if frame is None:
        return STATUS_NOT_RECEIVED
    return STATUS_OK if frame.complete else STATUS_PARTIAL


def _link_values(profile: Profile, result: LoopbackResult) -> dict[str, Any]:
    from blocks.modem.waveform import BITS_PER_SYMBOL, MCS_CODE_RATES

    assert profile.channel is not None
    totals = result.statistics.to_json(result.bursts_sent)
    mcs = profile.transmitter.mcs
    frame_bits = sum(frame.geometry.payload_bits for frame in result.sent)
    return {
        "mcs": mcs,
        "code_rate": float(MCS_CODE_RATES[mcs]),
        "snr_db": profile.channel.snr_db,
        "seed": profile.channel.seed,
        "bursts_sent": result.bursts_sent,
        "bursts_detected": totals["bursts_detected"],
        "undetected": totals["undetected"],
        "fates": totals["fates"],
        "code_blocks": result.code_blocks_sent,
        "code_blocks_ok": totals["code_blocks_ok"],
        "symbols": result.symbols,
        # The paper's figure: index bits alone, at 3 x rate bits per symbol.
        "payload_symbols": math.ceil(frame_bits / (BITS_PER_SYMBOL * MCS_CODE_RATES[mcs])),
        "snr_db_estimated": totals["snr_db_estimated"],
        "cfo_hz_estimated": totals["cfo_hz_estimated"],
    }


def _index_error_rate(sent: IndexFrame, received: IndexFrame | None) -> float | None:
    """Share of the indices that are wrong or missing; None where nothing was received."""
    if received is None:
        return None
    from semantic.frame_errors import count_errors

    errors = count_errors(sent, received)
    return errors.index_errors / errors.indices


def picture_quality(source: Image.Image, picture: Image.Image | None) -> dict[str, float | None]:
    """PSNR and MS-SSIM of a picture as received.

    None where there is no picture, or no error at all; MS-SSIM also where a picture is too small for it.
    """
    from semantic.metrics import MS_SSIM_SIDE, ms_ssim, psnr_db

    if picture is None:
        return {"psnr_db": None, "ms_ssim": None}
    psnr = psnr_db(source, picture)
    return {
        # JSON has no infinity, and a picture without any error has no PSNR to speak of.
        "psnr_db": psnr if math.isfinite(psnr) else None,
        "ms_ssim": ms_ssim(source, picture) if min(source.size) >= MS_SSIM_SIDE else None,
    }
