"""The table of the docs: ``python -m semantic.evaluate_codec [CHECKPOINT] [--json] [--pictures FOLDER]``.

Every one of the seven demo photos goes through encoder, index frame, bits and decoder, without channel
errors and with a share of the indices erased.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from semantic.codec import Codec, load_codec
from semantic.demo_photos import describe_photo, load_photo, photo_names
from semantic.index_frame import IndexFrame
from semantic.metrics import ms_ssim, psnr_db


@dataclass(frozen=True)
class PhotoScore:
    """What the codec made of one photo.

    Args:
        photo: its name.
        psnr_db, ms_ssim: all indices received.
        psnr_erased_db: a run of a tenth of the bits lost, mean over ten positions of the run.
    """

    photo: str
    psnr_db: float
    ms_ssim: float
    psnr_erased_db: float


def score_photo(codec: Codec, name: str) -> tuple[PhotoScore, Image.Image, Image.Image]:
    """Score one photo; also the source and the reconstruction."""
    source = load_photo(name, codec.image_size)
    frame = codec.encode(source, describe_photo(name).questions[0])
    received = IndexFrame.from_bits(codec.geometry, frame.to_bits(), frame_id=0)
    picture = codec.decode(received)
    tenths = [psnr_db(source, codec.decode(_without_tenth(frame, k))) for k in range(10)]
    score = PhotoScore(
        name, psnr_db(source, picture), ms_ssim(source, picture), float(np.mean(tenths))
    )
    return score, source, picture


def _without_tenth(frame: IndexFrame, number: int) -> IndexFrame:
    """The frame after tenth ``number`` (0..9) of its bits was lost."""
    bits = frame.to_bits()
    erased = np.zeros(len(bits), np.bool_)
    erased[len(bits) * number // 10 : len(bits) * (number + 1) // 10] = True
    return IndexFrame.from_bits(frame.geometry, bits, frame_id=frame.frame_id, erased_bits=erased)


def evaluate(codec: Codec) -> tuple[list[PhotoScore], Image.Image]:
    """Scores of the seven photos, and one overview picture (sources above, reconstructions below)."""
    side, names = codec.image_size, photo_names()
    overview = Image.new("RGB", (side * len(names), 2 * side))
    scores = []
    for column, name in enumerate(names):
        score, source, picture = score_photo(codec, name)
        scores.append(score)
        overview.paste(source, (column * side, 0))
        overview.paste(picture, (column * side, side))
    return scores, overview


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Score a codec on the seven demo photos.")
    parser.add_argument("checkpoint", type=Path, nargs="?", help="default: the embedded codec")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--pictures", type=Path, help="write the overview picture to this file")
    options = parser.parse_args(arguments)
    codec = load_codec(options.checkpoint, device="cpu")
    scores, overview = evaluate(codec)
    if options.pictures is not None:
        overview.save(options.pictures)
    text = _as_json(codec, scores) if options.json else _as_table(codec, scores)
    sys.stdout.write(text + "\n")


def mean_score(scores: list[PhotoScore]) -> PhotoScore:
    """The mean over photos of every figure."""
    return PhotoScore(
        "mean",
        float(np.mean([score.psnr_db for score in scores])),
        float(np.mean([score.ms_ssim for score in scores])),
        float(np.mean([score.psnr_erased_db for score in scores])),
    )


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
        f"{'photo':<16} {'PSNR dB':>8} {'MS-SSIM':>8} {'PSNR dB, 1/10 lost':>19}",
    ]
    for score in [*scores, mean_score(scores)]:
        lines.append(
            f"{score.photo:<16} {score.psnr_db:8.2f} {score.ms_ssim:8.4f} "
            f"{score.psnr_erased_db:19.2f}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
