"""The table of the docs: ``python -m semantic.evaluate_codec [CHECKPOINT] [--json] [--picture FILE]``.

Every one of the seven demo photos goes through encoder, index frame, bits and decoder, without
channel errors and with a share of the indices erased, beside JPEG 2000 at the same number of bytes.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from PIL import Image

from semantic.codec.settings import EncoderSettings
from semantic.codec.vq_codec import Codec, load_vq_codec
from semantic.demo_photos import describe_photo, load_photo, photo_names
from semantic.index_frame import LLR_STEP, IndexFrame
from semantic.metrics import ms_ssim, psnr_db
from semantic.systems import jpeg2000


@dataclass(frozen=True)
class PhotoScore:
    """What the codec made of one photo.

    Args:
        photo: its name.
        psnr_db: all indices received.
        ms_ssim: all indices received.
        psnr_erased_db: a run of a tenth of the bits lost, mean over the ten places of that run.
        jpeg2000_psnr_db: JPEG 2000 of at most as many bytes, all received.
        jpeg2000_ms_ssim: likewise.
        query_effect: share of the indices that another question about the photo changes.
    """

    photo: str
    psnr_db: float
    ms_ssim: float
    psnr_erased_db: float
    jpeg2000_psnr_db: float
    jpeg2000_ms_ssim: float
    query_effect: float


def score_photo(codec: Codec, name: str) -> tuple[PhotoScore, Image.Image, Image.Image]:
    """Score one photo; also the source and the reconstruction."""
    source = load_photo(name, codec.image_size)
    first, second = describe_photo(name).questions
    full = EncoderSettings(bits=codec.geometry.payload_bits)
    frame = codec.encode(source, first, full)
    bits, other = frame.to_bits(), codec.encode(source, second, full).to_bits()
    picture = codec.decode(IndexFrame.from_bits(codec.geometry, bits, frame_id=0))
    tenths = [psnr_db(source, codec.decode(_without_tenth(frame, k))) for k in range(10)]
    rival = jpeg2000.decode(jpeg2000.encode(source, len(bits) // 8))
    if rival is None:
        raise RuntimeError(f"{name}: an undamaged JPEG 2000 codestream did not decode")
    changed = (bits != other).reshape(-1, codec.geometry.bits_per_index).any(axis=1)
    score = PhotoScore(
        photo=name,
        psnr_db=psnr_db(source, picture),
        ms_ssim=ms_ssim(source, picture),
        psnr_erased_db=float(np.mean(tenths)),
        jpeg2000_psnr_db=psnr_db(source, rival),
        jpeg2000_ms_ssim=ms_ssim(source, rival),
        query_effect=float(changed.mean()),
    )
    return score, source, picture


def _without_tenth(frame: IndexFrame, number: int) -> IndexFrame:
    """The frame after tenth ``number`` (0..9) of its bits was lost."""
    bits = frame.to_bits()
    erased = np.zeros(len(bits), np.bool_)
    erased[len(bits) * number // 10 : len(bits) * (number + 1) // 10] = True
    return IndexFrame.from_bits(frame.geometry, bits, frame_id=frame.frame_id, erased_bits=erased)


def evaluate(codec: Codec) -> tuple[list[PhotoScore], Image.Image]:
    """Scores of the seven photos, and one overview picture (sources above, results below)."""
    side, names = codec.image_size, photo_names()
    overview = Image.new("RGB", (side * len(names), 2 * side))
    scores = []
    for column, name in enumerate(names):
        score, source, picture = score_photo(codec, name)
        scores.append(score)
        overview.paste(source, (column * side, 0))
        overview.paste(picture, (column * side, side))
    return scores, overview


def mean_score(scores: list[PhotoScore]) -> PhotoScore:
    """The mean over photos of every figure."""
    figures = [field.name for field in fields(PhotoScore) if field.name != "photo"]
    means = {name: float(np.mean([getattr(score, name) for score in scores])) for name in figures}
    return PhotoScore(photo="mean", **means)


def soft_decoding(codec: Codec, mean_llr: float, seed: int = 0) -> tuple[float, float]:
    """What soft decoding gains when the second quarter of the bits is lost.

    The lost bits went over a Gaussian channel: LLRs of mean ``mean_llr`` and variance twice that, so
    that they are true ones.

    Returns:
        Mean PSNR in dB over the photos with mean codewords, and with posterior means.
    """
    random = np.random.default_rng(seed)
    found = []
    for name in photo_names():
        source = load_photo(name, codec.image_size)
        full = EncoderSettings(bits=codec.geometry.payload_bits)
        frame = codec.encode(source, describe_photo(name).questions[0], full)
        bits = frame.to_bits()
        llrs = (1 - 2.0 * bits) * mean_llr + random.normal(0, np.sqrt(2 * mean_llr), len(bits))
        lost = np.zeros(len(bits), np.bool_)
        lost[len(bits) // 4 : len(bits) // 2] = True
        received = IndexFrame.from_bits(
            codec.geometry,
            bits,
            frame_id=0,
            erased_bits=lost,
            bit_llrs=np.clip(np.rint(llrs / LLR_STEP), -127, 127).astype(np.int8),
        )
        pictures = codec.decode(received), codec.decode(received, soft=True)
        found.append([psnr_db(source, picture) for picture in pictures])
    hard, soft = np.mean(found, axis=0)
    return float(hard), float(soft)


def _soft_table(codec: Codec) -> str:
    """Gain of soft decoding over a range of reliabilities."""
    lines = ["mean LLR  bit error rate  PSNR dB erased  PSNR dB soft"]
    for mean_llr in (1.0, 2.0, 4.0, 8.0, 12.0, 20.0):
        hard, soft = soft_decoding(codec, mean_llr)
        rate = 0.5 * math.erfc(math.sqrt(mean_llr) / 2)
        lines.append(f"{mean_llr:8.0f} {rate:15.2%} {hard:15.2f} {soft:13.2f}")
    return "\n".join(lines)


def _as_json(codec: Codec, scores: list[PhotoScore]) -> str:
    return json.dumps(
        {
            "codec_id": codec.geometry.codec_id,
            "bits_per_pixel": codec.geometry.bits_per_pixel,
            "mean": asdict(mean_score(scores)),
            "photos": [asdict(score) for score in scores],
        }
    )


def _as_table(codec: Codec, scores: list[PhotoScore]) -> str:
    geometry = codec.geometry
    lines = [
        f"codec {geometry.codec_id}: {geometry.payload_bits} bits, "
        f"{geometry.bits_per_pixel:.4f} bit per pixel",
        "",
        "                     this codec           1/10 lost      JPEG 2000       other question",
        "photo             PSNR dB  MS-SSIM         PSNR dB  PSNR dB  MS-SSIM    changes indices",
    ]
    for score in [*scores, mean_score(scores)]:
        lines.append(
            f"{score.photo:<16} {score.psnr_db:8.2f} {score.ms_ssim:8.4f} "
            f"{score.psnr_erased_db:15.2f} {score.jpeg2000_psnr_db:8.2f} "
            f"{score.jpeg2000_ms_ssim:8.4f} {score.query_effect:17.1%}"
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Score a codec on the seven demo photos.")
    parser.add_argument("checkpoint", type=Path, nargs="?", help="default: the embedded codec")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--picture", type=Path, help="write the overview picture to this file")
    parser.add_argument("--soft", action="store_true", help="what soft decoding of losses gains")
    options = parser.parse_args(arguments)
    codec = load_vq_codec(options.checkpoint, device="cpu")
    if options.soft:
        sys.stdout.write(_soft_table(codec) + "\n")
        return
    scores, overview = evaluate(codec)
    if options.picture is not None:
        overview.save(options.picture)
    text = _as_json(codec, scores) if options.json else _as_table(codec, scores)
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()
