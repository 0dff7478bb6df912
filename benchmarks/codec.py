"""What a codec makes of photos it was not trained on: rate, fidelity, what a judge still sees, and time.

No channel errors: indices go from the encoder through the bits of an index frame to the decoder. Other
picture coders get the same number of bytes for every photo and stand beside it, at every rate.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.bootstrap import PhotoMean
from benchmarks.machine import machine
from benchmarks.rivals import code_photos
from semantic.asked_photos import AskedPhoto
from semantic.codec.loader import PictureCodec
from semantic.codec.settings import EncoderSettings
from semantic.codec.vq_codec import Codec, picture_to_tensor
from semantic.index_frame import FrameGeometry, IndexFrame
from semantic.index_search import likeness_or_usual
from semantic.judge import Agreement, Judge, Reference, ask_reference
from semantic.judges.agreement import matching
from semantic.metrics import ms_ssim, psnr_db
from semantic.perceptual import check_installed, flip_error, ssimulacra2_score
from semantic.pictures import load_picture

Progress = Callable[[str, int, int], None]

# Pictures at a time where throughput is measured, and how often.
_BATCH, _CALLS = 16, 5
_PERCEPTUAL = {"ssimulacra2": ssimulacra2_score, "flip": flip_error}


@dataclass(frozen=True)
class Quality:
    """How good the received pictures are: means over the questions.

    Args:
        bits_per_pixel: of the picture's bits alone, no header.
        psnr_db: mean of the pictures' PSNR.
        ms_ssim: mean.
        perceptual: means of :mod:`semantic.perceptual` by name; empty where they were not asked for.
        agreement: of the judge's answers.
        each_psnr_db: one per question.
        matches: the judge's answer is that about the source, one per question.
    """

    bits_per_pixel: float
    psnr_db: float
    ms_ssim: float
    perceptual: dict[str, float]
    agreement: Agreement
    each_psnr_db: list[float] = field(repr=False)
    matches: list[bool] = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """Under the names of the benchmark."""
        return {
            "bits_per_pixel": self.bits_per_pixel,
            "psnr_db": self.psnr_db if np.isfinite(self.psnr_db) else None,
            "ms_ssim": self.ms_ssim,
            **self.perceptual,
            "judge_agreement": self.agreement.match,
            "judge_kappa": self.agreement.kappa,
            "judge_kappa_ci95": self.agreement.ci95,
            "judge_agreement_without_query": self.agreement.match_without_query,
        }


@dataclass(frozen=True)
class Ahead:
    """How far the codec is ahead of a rival at the same bytes: paired over photos, one row per question.

    Args:
        psnr_db: of the pictures.
        kappa: of the judge's agreement; None where chance is 1.
    """

    psnr_db: PhotoMean | None
    kappa: PhotoMean | None

    @classmethod
    def of(cls, codec: Quality, rival: Quality, reference: Reference) -> Ahead:
        """Differences row by row; their interval by bootstrap over photos."""
        photos, seed = reference.photo.tolist(), reference.seed
        decibels = np.subtract(codec.each_psnr_db, rival.each_psnr_db).tolist()
        kappa = None
        if reference.chance < 1:
            gains = np.subtract(codec.matches, rival.matches, dtype=np.float64)
            kappa = PhotoMean.of((gains / (1 - reference.chance)).tolist(), photos, seed)
        return cls(PhotoMean.of(decibels, photos, seed), kappa)

    def to_json(self) -> dict[str, Any]:
        """Under the names of the benchmark."""
        return {
            "ahead_db": None if self.psnr_db is None else self.psnr_db.to_json(),
            "ahead_kappa": None if self.kappa is None else self.kappa.to_json(),
        }


@dataclass(frozen=True)
class RateReport:
    """One rate: the codec, and its rivals within as many bytes.

    Args:
        codec: its quality.
        codebook_usage: share of the codewords of what is sent that at least one of the photos used; None of
            a codec whose indices are coded.
        encode_ms: milliseconds per picture, one for each question.
        decode_ms: likewise.
        rivals: by name; None where a rival cannot code every photo in so few bytes.
        ahead: by name, of the codec over those rivals that can.
        rivals_in_containers: the same, whole files counted.
    """

    codec: Quality
    codebook_usage: float | None
    encode_ms: list[float]
    decode_ms: list[float]
    rivals: dict[str, Quality | None]
    ahead: dict[str, Ahead]
    rivals_in_containers: dict[str, Quality | None]

    def to_json(self) -> dict[str, Any]:
        """Under the names of the benchmark."""
        return {
            **self.codec.to_json(),
            "codebook_usage": self.codebook_usage,
            "encode_p95_ms": float(np.percentile(self.encode_ms, 95)),
            "decode_p95_ms": float(np.percentile(self.decode_ms, 95)),
            "encode_median_ms": float(np.median(self.encode_ms)),
            "decode_median_ms": float(np.median(self.decode_ms)),
            "rivals": {
                name: None if one is None else {**one.to_json(), **self.ahead[name].to_json()}
                for name, one in self.rivals.items()
            },
            "rivals_in_containers": _to_json(self.rivals_in_containers),
        }


def _to_json(rivals: Mapping[str, Quality | None]) -> dict[str, Any]:
    return {name: None if one is None else one.to_json() for name, one in rivals.items()}


@dataclass(frozen=True)
class CodecReport:
    """All figures of one run.

    Args:
        codec_id: which codec.
        judge: which judge.
        photos: different photos.
        questions: rows, one encoding each.
        focus: how far bits followed the questions.
        search_steps: of the search for better indices.
        search_likeness: how much that search minded how a picture looks to the image tower.
        main: the rate that was asked for.
        ladder: every rate measured, as they were given.
        reference: the judge's answers about the sources, with what chance gives.
        batch_speed: pictures in a second, many at a time; None of a codec that takes them one by one.
    """

    codec_id: str
    judge: str
    photos: int
    questions: int
    focus: float
    search_steps: int
    search_likeness: float
    main: RateReport
    ladder: list[RateReport]
    reference: Reference
    batch_speed: BatchSpeed | None

    def to_json(self) -> dict[str, Any]:
        """One JSON object."""
        chance = {
            "judge_chance": self.reference.chance,
            "judge_chance_blank": self.reference.chance_blank,
            "judge_chance_unrelated": self.reference.chance_unrelated,
        }
        count = {"photos": self.photos, "questions": self.questions}
        return {
            "codec_id": self.codec_id,
            "judge": self.judge,
            "focus": self.focus,
            "search_steps": self.search_steps,
            "search_likeness": self.search_likeness,
            **count,
            **self.main.to_json(),
            **chance,
            "ladder": [{**count, **rung.to_json(), **chance} for rung in self.ladder],
            "batch": None if self.batch_speed is None else vars(self.batch_speed),
            "machine": {
                **machine(),
                "torch": torch.__version__,
                "torch_threads": torch.get_num_threads(),
            },
        }


@dataclass(frozen=True)
class BatchSpeed:
    """Throughput of the networks alone, many pictures at a time.

    Args:
        device: where it was measured.
        size: pictures at a time.
        encoded_per_s: towers, alignment and quantiser at the full rate.
        decoded_per_s: look-up and decoder.
    """

    device: str
    size: int
    encoded_per_s: float
    decoded_per_s: float


class CodewordUse:
    """Which codewords of every codebook have been seen; codebooks of segments never sent do not count."""

    def __init__(self, geometry: FrameGeometry) -> None:
        codewords = 1 << geometry.bits_per_index
        self._seen = [np.zeros((layer.segments, codewords), np.bool_) for layer in geometry.layers]

    def add(self, frame: IndexFrame) -> None:
        """Count the indices of a frame."""
        for seen, indices, sent in zip(self._seen, frame.indices, frame.sent, strict=True):
            for segment, column in enumerate(indices.T):
                seen[segment, column[sent[:, segment]]] = True

    @property
    def share(self) -> float:
        """Seen codewords over all codewords, 0..1."""
        books = np.concatenate(self._seen)
        used = books[books.any(axis=1)]
        return float(used.mean()) if len(used) else 0.0


@dataclass(frozen=True)
class _Asked:
    """What is measured, prepared once: rows, their sources, and the judge's answers about them."""

    rows: Sequence[AskedPhoto]
    photos: dict[Path, Image.Image]
    judge: Judge
    reference: Reference
    perceptual: bool

    @property
    def sources(self) -> list[Image.Image]:
        """One per row; rows about one photo hold the same object."""
        return [self.photos[row.file] for row in self.rows]

    @property
    def queries(self) -> list[str]:
        """One per row."""
        return [row.question for row in self.rows]

    def quality(self, bits_per_pixel: float, arrived: list[Image.Image]) -> Quality:
        """How good received pictures are, one per row."""
        pairs = list(zip(self.sources, arrived, strict=True))
        answers = self.judge.answer(arrived, self.queries)
        decibels = [psnr_db(a, b) for a, b in pairs]
        return Quality(
            bits_per_pixel,
            float(np.mean(decibels)),
            float(np.mean([ms_ssim(a, b) for a, b in pairs])),
            {
                name: float(np.mean([measure(a, b) for a, b in pairs]))
                for name, measure in (_PERCEPTUAL if self.perceptual else {}).items()
            },
            self.reference.agreement(answers),
            decibels,
            matching(self.reference.answers, answers).tolist(),
        )


def benchmark_codec(
    codec: PictureCodec,
    judge: Judge,
    rows: Sequence[AskedPhoto],
    *,
    settings: EncoderSettings = EncoderSettings(),  # noqa: B008 (frozen)
    rates: Sequence[float] = (),
    side: int = 160,
    rivals: Sequence[str] = ("jpeg2000",),
    with_containers: bool = False,
    perceptual: bool = False,
    seed: int = 0,
    progress: Progress = lambda what, done, total: None,
) -> CodecReport:
    """Measure a codec.

    Args:
        codec: loaded, with its towers.
        judge: who answers; must not be the one the codec was trained with.
        rows: photos and questions, at least one.
        settings: of the encoder; its rate is the report's main one.
        rates: in bits per pixel, measured as well.
        side: of the squares to which photos are cropped and scaled, in pixels.
        rivals: names of :data:`semantic.systems.picture_coders.PICTURE_CODERS`.
        with_containers: measure rivals also with their whole files counted.
        perceptual: measure by :mod:`semantic.perceptual` as well.
        seed: of the photos that stand for chance, and of the bootstrap.
        progress: called with what is being done, how far, out of how many.

    Raises:
        PictureError: a photo that is missing or damaged.
        IndexFrameError: a question that is empty or too long.
        MeasureError: perceptual measures that are not installed.
    """
    if perceptual:
        check_installed()
    photos: dict[Path, Image.Image] = {}
    for row in rows:
        if row.file not in photos:
            photos[row.file] = codec.prepare(load_picture(row.file, side))
    progress("asking the judge", 0, 1)
    sources, queries = [photos[row.file] for row in rows], [row.question for row in rows]
    asked = _Asked(rows, photos, judge, ask_reference(judge, sources, queries, seed), perceptual)
    followed = codec.usual_focus if settings.focus is None else settings.focus
    likeness = likeness_or_usual(settings.search_likeness)
    settings = replace(settings, search_likeness=likeness)
    ladder: dict[int, RateReport] = {}
    for wanted in (
        *(replace(settings, bits=None, bits_per_pixel=rate) for rate in rates),
        settings,
    ):
        # The rates of a codec with a few may be asked for twice under different names.
        first = codec.encode(sources[0], queries[0], wanted).geometry
        main = first.payload_bits
        if main not in ladder:
            ladder[main] = _measure_rate(
                codec, asked, wanted, rivals, with_containers, first, progress
            )
    return CodecReport(
        codec.codec_id,
        judge.name,
        len(photos),
        len(rows),
        followed,
        settings.search_steps,
        likeness,
        ladder[main],
        list(ladder.values()),
        asked.reference,
        _batch_speed(codec, sources, queries) if isinstance(codec, Codec) else None,
    )


def _measure_rate(
    codec: PictureCodec,
    asked: _Asked,
    settings: EncoderSettings,
    rivals: Sequence[str],
    with_containers: bool,
    geometry: FrameGeometry,
    progress: Progress,
) -> RateReport:
    sources, queries = asked.sources, asked.queries
    width, height = sources[0].size
    bits_per_pixel = geometry.payload_bits / (width * height)
    budget = geometry.payload_bits // 8

    def report(what: str, done: int, total: int) -> None:
        progress(f"{bits_per_pixel:.3f} bit/pixel, {what}", done, total)

    # Not timed: loads and warms up.
    codec.decode(codec.encode(sources[0], queries[0], settings))
    use = None if geometry.is_stream else CodewordUse(geometry)
    received, encode_ms, decode_ms = [], [], []
    for number, (source, query) in enumerate(zip(sources, queries, strict=True)):
        report("encoding and decoding", number, len(sources))
        started = time.perf_counter()
        frame = codec.encode(source, query, settings, number)
        encoded = time.perf_counter()
        arrived = IndexFrame.from_bits(geometry, frame.to_bits(), frame_id=number)
        unpacked = time.perf_counter()
        received.append(codec.decode(arrived))
        decode_ms.append(1e3 * (time.perf_counter() - unpacked))
        encode_ms.append(1e3 * (encoded - started))
        if use is not None:
            use.add(frame)
    quality = asked.quality(bits_per_pixel, received)
    found = _rivals(asked, rivals, budget, False, report)
    return RateReport(
        quality,
        None if use is None else use.share,
        encode_ms,
        decode_ms,
        found,
        {
            name: Ahead.of(quality, one, asked.reference)
            for name, one in found.items()
            if one is not None
        },
        _rivals(asked, rivals if with_containers else (), budget, True, report),
    )


def _rivals(
    asked: _Asked, names: Sequence[str], budget: int, container: bool, progress: Progress
) -> dict[str, Quality | None]:
    return {name: _rival(asked, name, budget, container, progress) for name in names}


def _rival(
    asked: _Asked, name: str, budget: int, container: bool, progress: Progress
) -> Quality | None:
    """A rival within a number of bytes (the question changes nothing)."""
    found = code_photos(
        asked.photos,
        name,
        budget,
        container=container,
        progress=lambda done, total: progress(name, done, total),
    )
    if found is None:
        return None
    return asked.quality(found.bits_per_pixel, [found.pictures[row.file] for row in asked.rows])


def _batch_speed(codec: Codec, sources: list[Image.Image], queries: list[str]) -> BatchSpeed:
    repeated = -(-_BATCH // len(sources))
    pictures = torch.cat([picture_to_tensor(one) for one in (sources * repeated)[:_BATCH]])
    asked = (queries * repeated)[:_BATCH]
    indices = codec.encode_batch(pictures, asked)
    encode_s = _seconds(codec.device, lambda: codec.encode_batch(pictures, asked))
    decode_s = _seconds(codec.device, lambda: codec.decode_batch(indices))
    return BatchSpeed(str(codec.device), _BATCH, _BATCH / encode_s, _BATCH / decode_s)


def _seconds(device: torch.device, call: Callable[[], object]) -> float:
    """Median over a few calls, the device's queue worked off."""
    found = []
    for _ in range(_CALLS + 1):
        started = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        found.append(time.perf_counter() - started)
    return float(np.median(found[1:]))
