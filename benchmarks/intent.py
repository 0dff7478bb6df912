"""Does a picture show what was asked about better than what was not? At the same number of symbols.

Over pairs of objects in one photo: how much better the asked object's boxes arrive when it is asked for
than when the other one is, in dB, and what that costs the picture as a whole. Numbers that were chosen by
looking at results (focus, levels of the rungs) were chosen on the photos of even number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from benchmarks.bootstrap import PhotoMean
from benchmarks.machine import machine
from benchmarks.named_objects import PERSON, NamedRegion, apart, askable
from blocks.modem import waveform as wf
from semantic.asked_photos import DEFAULT_QUERY, PhotosError
from semantic.codec import Codec
from semantic.index_frame import FrameGeometry
from semantic.index_search import likeness_or_usual
from semantic.metrics import psnr_db
from semantic.pictures import load_picture

# Cells per side on which boxes are compared with each other.
_GRID = 20

Progress = Callable[[int, int], None]
Pixels = NDArray[np.float64]


@dataclass(frozen=True)
class IntentFigures:
    """What asking gains over one set of pairs; None where there is no pair.

    Args:
        asked_gain_db: PSNR inside the asked object's boxes, minus PSNR inside the same boxes when the other
            object is asked.
        against_query_free_db: the same against the picture at which nobody asked.
    """

    asked_gain_db: PhotoMean | None
    against_query_free_db: PhotoMean | None


@dataclass(frozen=True)
class IntentReport:
    """Result of :func:`benchmark_intent`.

    Args:
        codec_id: which codec.
        geometry: of the rate that was measured.
        mcs: code rate for which the symbols are counted.
        focus: how far bits followed the question.
        search_steps: of the search for better indices.
        search_likeness: how much that search minded how a picture looks to the image tower.
        photos: with at least one pair.
        sets: ``all`` (asked for things other than persons), ``even`` (choices were made on them), ``odd``,
            ``person`` (asked for persons).
        psnr_db: mean PSNR of the whole pictures, asked about things.
        psnr_without_query_db: of the same photos at the same rate, nobody asking.
    """

    codec_id: str
    geometry: FrameGeometry
    mcs: int
    focus: float
    search_steps: int
    search_likeness: float
    photos: int
    sets: dict[str, IntentFigures]
    psnr_db: PhotoMean
    psnr_without_query_db: PhotoMean

    def to_json(self) -> dict[str, Any]:
        """One JSON object."""
        gain = self.sets["all"].asked_gain_db
        return {
            "codec_id": self.codec_id,
            "photos": self.photos,
            "pairs": 0 if gain is None else gain.cases,
            "asked_gain_db": None if gain is None else gain.mean,
            "ci95": None if gain is None else gain.ci95,
            "psnr_db": self.psnr_db.mean,
            "psnr_without_query_db": self.psnr_without_query_db.mean,
            "symbols": frame_symbols(self.geometry.payload_bits, self.mcs),
            "mcs": self.mcs,
            "bits": self.geometry.payload_bits,
            "bits_per_pixel": self.geometry.bits_per_pixel,
            "focus": self.focus,
            "search_steps": self.search_steps,
            "search_likeness": self.search_likeness,
            "sets": {
                name: {
                    key: None if value is None else value.to_json()
                    for key, value in vars(figures).items()
                }
                for name, figures in self.sets.items()
            },
            "machine": {**machine(), "torch_threads": torch.get_num_threads()},
        }


def frame_symbols(payload_bits: int, mcs: int) -> int:
    """Every symbol on the air of a frame of so many bits: preambles, headers, pilots and ramps included."""
    plan = wf.plan_blocks(payload_bits, mcs)
    return sum(wf.burst_symbols(blocks * plan.symbols) for blocks in wf.blocks_per_burst(plan))


@dataclass(frozen=True)
class _Received:
    """One region asked for: the picture's squared errors, ``[side, side]``, and its PSNR in dB."""

    squared: Pixels
    psnr_db: float


def benchmark_intent(
    codec: Codec,
    regions: Sequence[NamedRegion],
    *,
    rate: FrameGeometry,
    focus: float,
    search_steps: int = 0,
    search_likeness: float | None = None,
    mcs: int = 4,
    seed: int = 0,
    progress: Progress = lambda done, total: None,
) -> IntentReport:
    """Measure what asking does.

    Args:
        codec: loaded.
        regions: named objects of photos, those of one photo one after the other.
        rate: one of the codec's.
        focus: of :meth:`semantic.codec.Codec.encode`.
        search_steps: likewise.
        search_likeness: likewise.
        mcs: code rate for which symbols are counted; it changes nothing else.
        seed: of the bootstrap.
        progress: called with pictures done, out of how many.

    Raises:
        PictureError: a photo that is missing or damaged.
        PhotosError: no pair of objects to ask about.
    """
    pairs = [
        (asked, other)
        for asked in range(len(regions))
        if askable(regions[asked], _GRID)
        for other in range(len(regions))
        if apart(regions[asked], regions[other], _GRID)
    ]
    if not pairs:
        raise PhotosError("no photo has two objects of different names, apart and of fair size")
    needed = sorted({number for pair in pairs for number in pair})

    likeness = likeness_or_usual(search_likeness)

    def send(source: Image.Image, question: str, focus: float) -> _Received:
        frame = codec.encode(
            source,
            question,
            rate=rate,
            focus=focus,
            search_steps=search_steps,
            search_likeness=likeness,
        )
        picture = codec.decode(frame)
        difference = np.asarray(source, np.float64) - np.asarray(picture, np.float64)
        return _Received(np.square(difference).mean(2), psnr_db(source, picture))

    received, free = _send_all(regions, needed, codec.image_size, focus, send, progress)
    things = [pair for pair in pairs if regions[pair[0]].name != PERSON]
    chosen = {
        "all": things,
        "even": [pair for pair in things if regions[pair[0]].photo % 2 == 0],
        "odd": [pair for pair in things if regions[pair[0]].photo % 2 == 1],
        "person": [pair for pair in pairs if regions[pair[0]].name == PERSON],
    }
    sets = {name: _figures(regions, some, received, free, seed) for name, some in chosen.items()}
    asked = sorted({pair[0] for pair in things})
    photos = [regions[number].photo for number in asked]
    mean, without = (
        PhotoMean.of(values, photos, seed)
        for values in (
            [received[number].psnr_db for number in asked],
            [free[photo].psnr_db for photo in photos],
        )
    )
    if mean is None or without is None:
        raise PhotosError("no photo has anything but persons to ask about")
    return IntentReport(
        codec.geometry.codec_id,
        rate,
        mcs,
        focus,
        search_steps,
        likeness,
        len({regions[asked].photo for asked, _ in pairs}),
        sets,
        mean,
        without,
    )


def _send_all(
    regions: Sequence[NamedRegion],
    needed: Sequence[int],
    side: int,
    focus: float,
    send: Callable[[Image.Image, str, float], _Received],
    progress: Progress,
) -> tuple[dict[int, _Received], dict[int, _Received]]:
    """By region the picture when it is asked for, by photo the one when nobody asks."""
    received, free = {}, {}
    for done, number in enumerate(needed):
        progress(done, len(needed))
        region = regions[number]
        source = load_picture(region.file, side)
        received[number] = send(source, region.question, focus)
        if region.photo not in free:
            free[region.photo] = send(source, DEFAULT_QUERY, 0.0)
    return received, free


def _figures(
    regions: Sequence[NamedRegion],
    pairs: Sequence[tuple[int, int]],
    received: dict[int, _Received],
    free: dict[int, _Received],
    seed: int,
) -> IntentFigures:
    gains, against_free = [], []
    for asked, other in pairs:
        inside = regions[asked].cover(len(received[asked].squared)) > 0.5
        wanted = received[asked].squared[inside].mean()
        gains.append(_decibels(received[other].squared[inside].mean() / wanted))
        against_free.append(_decibels(free[regions[asked].photo].squared[inside].mean() / wanted))
    photos = [regions[asked].photo for asked, _ in pairs]
    return IntentFigures(
        PhotoMean.of(gains, photos, seed), PhotoMean.of(against_free, photos, seed)
    )


def _decibels(ratio: float) -> float:
    return 10 * math.log10(ratio)
