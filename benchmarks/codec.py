"""What a codec makes of photos it was not trained on: rate, fidelity, what a judge still sees, and time.

No channel errors: indices go from the encoder through the bits of an index frame to the decoder. JPEG 2000
gets the same number of bytes and stands beside it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.machine import machine
from benchmarks.photos import AskedPhoto
from semantic.codec import Codec
from semantic.index_frame import FrameGeometry, IndexFrame
from semantic.judge import Agreement, Judge, Reference, ask_reference
from semantic.metrics import ms_ssim, psnr_db
from semantic.pictures import load_picture
from semantic.systems import jpeg2000

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Quality:
    """How good the received pictures are: means over the questions.

    Args:
        bits_per_pixel: of the picture's bits alone, no header.
        psnr_db: mean of the pictures' PSNR.
        ms_ssim: mean.
        agreement: of the judge's answers.
    """

    bits_per_pixel: float
    psnr_db: float
    ms_ssim: float
    agreement: Agreement

    def to_json(self) -> dict[str, Any]:
        """Under the names of the benchmark."""
        return {
            "bits_per_pixel": self.bits_per_pixel,
            "psnr_db": self.psnr_db if np.isfinite(self.psnr_db) else None,
            "ms_ssim": self.ms_ssim,
            "judge_agreement": self.agreement.match,
            "judge_kappa": self.agreement.kappa,
            "judge_kappa_ci95": self.agreement.ci95,
            "judge_agreement_without_query": self.agreement.match_without_query,
        }


@dataclass(frozen=True)
class CodecReport:
    """All figures of one run.

    Args:
        codec_id: which codec.
        judge: which judge.
        photos: different photos.
        questions: rows, one encoding each.
        codec: its quality.
        jpeg2000: the same of JPEG 2000 at no more bytes; None where it was not asked for.
        reference: the judge's answers about the sources, with what chance gives.
        codebook_usage: share of all codewords that at least one of the photos used.
        encode_ms: milliseconds per picture, one for each question.
        decode_ms: likewise.
    """

    codec_id: str
    judge: str
    photos: int
    questions: int
    codec: Quality
    jpeg2000: Quality | None
    reference: Reference
    codebook_usage: float
    encode_ms: list[float]
    decode_ms: list[float]

    def to_json(self) -> dict[str, Any]:
        """One JSON object."""
        return {
            "codec_id": self.codec_id,
            "judge": self.judge,
            "photos": self.photos,
            "questions": self.questions,
            **self.codec.to_json(),
            "judge_chance": self.reference.chance,
            "judge_chance_blank": self.reference.chance_blank,
            "judge_chance_unrelated": self.reference.chance_unrelated,
            "codebook_usage": self.codebook_usage,
            "encode_p95_ms": float(np.percentile(self.encode_ms, 95)),
            "decode_p95_ms": float(np.percentile(self.decode_ms, 95)),
            "encode_median_ms": float(np.median(self.encode_ms)),
            "decode_median_ms": float(np.median(self.decode_ms)),
            "jpeg2000": None if self.jpeg2000 is None else self.jpeg2000.to_json(),
            "machine": {
                **machine(),
                "torch": torch.__version__,
                "torch_threads": torch.get_num_threads(),
            },
        }


class CodewordUse:
    """Which codewords of every codebook have been seen."""

    def __init__(self, geometry: FrameGeometry) -> None:
        codewords = 1 << geometry.bits_per_index
        self._seen = [np.zeros((layer.segments, codewords), np.bool_) for layer in geometry.layers]

    def add(self, frame: IndexFrame) -> None:
        """Count the indices of a frame."""
        for seen, indices in zip(self._seen, frame.indices, strict=True):
            for segment, column in enumerate(indices.T):
                seen[segment, column] = True

    @property
    def share(self) -> float:
        """Seen codewords over all codewords, 0..1."""
        return float(np.concatenate([seen.ravel() for seen in self._seen]).mean())


def benchmark_codec(
    codec: Codec,
    judge: Judge,
    rows: Sequence[AskedPhoto],
    *,
    with_jpeg2000: bool = True,
    seed: int = 0,
    progress: Progress = lambda what, done, total: None,
) -> CodecReport:
    """Measure a codec.

    Args:
        codec: loaded, with its towers.
        judge: who answers; must not be the one the codec was trained with.
        rows: photos and questions, at least one.
        with_jpeg2000: measure JPEG 2000 beside it.
        seed: of the photos that stand for chance, and of the bootstrap.
        progress: called with what is being done, how far, out of how many.

    Raises:
        PictureError: a photo that is missing or damaged.
        IndexFrameError: a question that is empty or too long.
    """
    photos: dict[Path, Image.Image] = {}
    for row in rows:
        if row.file not in photos:
            photos[row.file] = load_picture(row.file, codec.image_size)
    sources = [photos[row.file] for row in rows]
    queries = [row.question for row in rows]
    received, use, encode_ms, decode_ms = _through_codec(codec, sources, queries, progress)
    pictures = {"codec": received}
    rates = {"codec": codec.geometry.bits_per_pixel}
    if with_jpeg2000:
        pictures["jpeg2000"], rates["jpeg2000"] = _through_jpeg2000(codec, photos, rows, progress)
    progress("asking the judge", 0, 1)
    reference = ask_reference(judge, sources, queries, seed)
    found = {
        name: Quality(
            rates[name],
            float(np.mean([psnr_db(a, b) for a, b in zip(sources, arrived, strict=True)])),
            float(np.mean([ms_ssim(a, b) for a, b in zip(sources, arrived, strict=True)])),
            reference.agreement(judge.answer(arrived, queries)),
        )
        for name, arrived in pictures.items()
    }
    return CodecReport(
        codec.geometry.codec_id,
        judge.name,
        len(photos),
        len(rows),
        found["codec"],
        found.get("jpeg2000"),
        reference,
        use.share,
        encode_ms,
        decode_ms,
    )


def _through_codec(
    codec: Codec, sources: list[Image.Image], queries: list[str], progress: Progress
) -> tuple[list[Image.Image], CodewordUse, list[float], list[float]]:
    """Pictures received, codewords used, and milliseconds per picture to encode and to decode."""
    codec.decode(codec.encode(sources[0], queries[0]))  # not timed: loads and warms up
    use = CodewordUse(codec.geometry)
    received, encode_ms, decode_ms = [], [], []
    for number, (source, query) in enumerate(zip(sources, queries, strict=True)):
        progress("encoding and decoding", number, len(sources))
        started = time.perf_counter()
        frame = codec.encode(source, query, number)
        encoded = time.perf_counter()
        arrived = IndexFrame.from_bits(codec.geometry, frame.to_bits(), frame_id=number)
        unpacked = time.perf_counter()
        received.append(codec.decode(arrived))
        decode_ms.append(1e3 * (time.perf_counter() - unpacked))
        encode_ms.append(1e3 * (encoded - started))
        use.add(frame)
    return received, use, encode_ms, decode_ms


def _through_jpeg2000(
    codec: Codec, photos: dict[Path, Image.Image], rows: Sequence[AskedPhoto], progress: Progress
) -> tuple[list[Image.Image], float]:
    """One picture per row (the question changes nothing), and the mean bits per pixel."""
    budget = codec.geometry.payload_bits // 8
    arrived, bits = {}, []
    for number, (file, photo) in enumerate(photos.items()):
        progress("JPEG 2000", number, len(photos))
        stream = jpeg2000.encode(photo, budget)
        picture = jpeg2000.decode(stream)
        if picture is None:
            raise RuntimeError(f"{file}: an undamaged JPEG 2000 codestream did not decode")
        arrived[file] = picture
        bits.append(8 * len(stream) / (photo.width * photo.height))
    return [arrived[row.file] for row in rows], float(np.mean(bits))
