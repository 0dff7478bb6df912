"""Do relevance maps lie on what was asked about? Measured against boxes, with chance beside it.

What was chosen by looking at results (temperatures, scales, reach of the walk, the confidence's numbers) was
chosen on the photos of even number alone; those of odd number are reported apart. Regions join all objects
of a name, because a question names a kind and not one of its kind. Confidence is held against the same boxes,
and reported for things that are not in the photo.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.bootstrap import PhotoMean
from benchmarks.machine import machine
from benchmarks.named_objects import PERSON, NamedRegion, apart, askable, read_named_regions
from semantic.codec.vq_codec import picture_to_tensor
from semantic.pictures import load_picture
from semantic.relevance import RelevanceMapper

# The map is as good as its best tokens: so many of them would get bits.
TOP_SHARE = 0.3
# Parts, by confidence, in which it is held against what was hit.
BINS = 3
# Questions per photo about things that are in other photos alone.
ABSENT_PER_PHOTO = 3

Progress = Callable[[int, int], None]
Map = NDArray[np.float64]


@dataclass(frozen=True)
class Figures:
    """What one set of asked regions gives.

    Args:
        peak_in_box: the map's largest token has its centre of mass in a box (more than half covered).
        chance: mean share of the photo in the boxes: what a map drawn blindly scores.
        mass_in_box: share of the map's sum in the boxes.
        box_covered: share of the boxes' area in the top 30 % of the tokens; blindly 0.3.
        asked_wins: over pairs, more mass in the asked boxes when they are asked than when the other is.
        asked_coverage_gain: over pairs, box_covered when asked minus when the other is asked.
    """

    peak_in_box: PhotoMean | None
    chance: float | None
    mass_in_box: PhotoMean | None
    box_covered: PhotoMean | None
    asked_wins: PhotoMean | None
    asked_coverage_gain: PhotoMean | None

    def to_json(self) -> dict[str, Any]:
        """One JSON object."""
        return {
            name: value.to_json() if isinstance(value, PhotoMean) else value
            for name, value in vars(self).items()
        }


@dataclass(frozen=True)
class ConfidenceBin:
    """Objects of like confidence.

    Args:
        confidence: its mean over them, what should be hit.
        peak_in_box: what was hit.
    """

    confidence: float
    peak_in_box: PhotoMean

    def to_json(self) -> dict[str, Any]:
        """One JSON object."""
        return {"confidence": self.confidence, "peak_in_box": self.peak_in_box.to_json()}


@dataclass(frozen=True)
class RelevanceReport:
    """Result of :func:`benchmark_relevance`.

    Args:
        photos: with at least one named object.
        sets: ``all``, ``even`` (choices were made on them), ``odd`` and ``person`` (all photos).
        reliability: for the same sets, terciles by confidence, lowest first.
        absent_confidence: means of confidence for questions about what is not in the photo, per set.
        map_ms: milliseconds per picture for one map and its confidence, query included.
    """

    photos: int
    grid: int
    sets: dict[str, Figures]
    reliability: dict[str, list[ConfidenceBin]]
    absent_confidence: dict[str, float | None]
    map_ms: list[float]

    def to_json(self) -> dict[str, Any]:
        """One JSON object."""
        return {
            "photos": self.photos,
            "grid": self.grid,
            **{name: figures.to_json() for name, figures in self.sets.items()},
            "reliability": {
                name: [one.to_json() for one in bins] for name, bins in self.reliability.items()
            },
            "absent_confidence": self.absent_confidence,
            "map_median_ms": float(np.median(self.map_ms)),
            "map_p95_ms": float(np.percentile(self.map_ms, 95)),
            "machine": {**machine(), "torch_threads": torch.get_num_threads()},
        }


def benchmark_relevance(
    mapper: RelevanceMapper,
    data: Path,
    *,
    picture_side: int = 160,
    grid: int = 20,
    seed: int = 0,
    progress: Progress = lambda done, total: None,
) -> RelevanceReport:
    """Measure relevance maps over photos with named boxes.

    Args:
        mapper: makes the maps.
        data: a folder with ``images`` and ``objects.jsonl``.
        picture_side: pixels of the codec's picture, from which the map is made.
        grid: side of the token grid.
        seed: of the bootstrap.
        progress: called with photos done, out of how many.

    Raises:
        PhotosError: a listing that is missing, empty or malformed.
        PictureError: a photo that is missing or damaged.
    """
    regions = read_named_regions(data)
    answers = _ask(mapper, regions, picture_side, grid, progress)
    maps = answers.maps
    things = [k for k, region in enumerate(regions) if region.name != PERSON]
    chosen = {
        "all": things,
        "even": [k for k in things if regions[k].photo % 2 == 0],
        "odd": [k for k in things if regions[k].photo % 2 == 1],
        "person": [k for k, region in enumerate(regions) if region.name == PERSON],
    }
    asked = {
        name: [k for k in numbers if askable(regions[k], grid)] for name, numbers in chosen.items()
    }
    absent = {
        "all": answers.absent,
        "even": [(photo, c) for photo, c in answers.absent if photo % 2 == 0],
        "odd": [(photo, c) for photo, c in answers.absent if photo % 2 == 1],
    }
    return RelevanceReport(
        len({region.photo for region in regions}),
        grid,
        {name: figures(regions, maps, numbers, seed) for name, numbers in asked.items()},
        {
            name: reliability(regions, maps, answers.confidences, numbers, seed)
            for name, numbers in asked.items()
        },
        {
            name: float(np.mean([c for _, c in found])) if found else None
            for name, found in absent.items()
        },
        answers.map_ms,
    )


def reliability(
    regions: Sequence[NamedRegion],
    maps: Sequence[Map],
    confidences: Sequence[float],
    asked: Sequence[int],
    seed: int = 0,
) -> list[ConfidenceBin]:
    """Terciles by confidence, lowest first; fewer where there are fewer objects.

    Args:
        regions: all regions of all photos.
        maps: one per region, made with that region's question.
        confidences: of those maps.
        asked: numbers of the regions that count.
        seed: of the bootstrap.
    """
    rising = sorted(asked, key=lambda k: confidences[k])
    bins = []
    for part in np.array_split(np.array(rising, np.int64), BINS):
        numbers = [int(k) for k in part]
        hits = PhotoMean.of(
            [float(peak_in_box(maps[k], regions[k])) for k in numbers],
            [regions[k].photo for k in numbers],
            seed,
        )
        if hits is not None:
            bins.append(ConfidenceBin(float(np.mean([confidences[k] for k in numbers])), hits))
    return bins


def peak_in_box(relevance: Map, region: NamedRegion) -> bool:
    """Whether more than half of the map's largest token lies in the region's boxes."""
    return bool(region.cover(relevance.shape[0]).ravel()[relevance.argmax()] > 0.5)


def figures(
    regions: Sequence[NamedRegion], maps: Sequence[Map], asked: Sequence[int], seed: int = 0
) -> Figures:
    """Score maps against boxes.

    Args:
        regions: all regions of all photos.
        maps: one per region, ``[grid, grid]``, made with that region's question.
        asked: numbers of the regions that are scored.
        seed: of the bootstrap.
    """
    grid = maps[0].shape[0]
    covers = [region.cover(grid) for region in regions]
    photos = [regions[k].photo for k in asked]

    def share(values: Sequence[float], of: Sequence[int]) -> PhotoMean | None:
        return PhotoMean.of(values, of, seed)

    pairs = [
        (k, other)
        for k in asked
        for other in range(len(regions))
        if apart(regions[k], regions[other], grid)
    ]
    wins = [
        0.5 + 0.5 * float(np.sign(mass(maps[k], covers[k]) - mass(maps[other], covers[k])))
        for k, other in pairs
    ]
    gains = [covered(maps[k], covers[k]) - covered(maps[other], covers[k]) for k, other in pairs]
    pair_photos = [regions[k].photo for k, _ in pairs]
    return Figures(
        share([float(peak_in_box(maps[k], regions[k])) for k in asked], photos),
        float(np.mean([covers[k].mean() for k in asked])) if asked else None,
        share([mass(maps[k], covers[k]) for k in asked], photos),
        share([covered(maps[k], covers[k]) for k in asked], photos),
        share(wins, pair_photos),
        share(gains, pair_photos),
    )


def mass(relevance: Map, cover: Map) -> float:
    """Share of a map's sum that lies in the boxes."""
    return float((relevance * cover).sum() / relevance.sum())


def covered(relevance: Map, cover: Map) -> float:
    """Share of the boxes' area in the map's best tokens, :data:`TOP_SHARE` of all."""
    best = np.argsort(-relevance, axis=None, kind="stable")[: round(TOP_SHARE * relevance.size)]
    return float(cover.ravel()[best].sum() / cover.sum())


@dataclass(frozen=True)
class _Answers:
    """Maps and confidences per region; photo and confidence per question about what is not there."""

    maps: list[Map]
    confidences: list[float]
    absent: list[tuple[int, float]]
    map_ms: list[float]


def _ask(
    mapper: RelevanceMapper,
    regions: Sequence[NamedRegion],
    picture_side: int,
    grid: int,
    progress: Progress,
) -> _Answers:
    by_photo: dict[int, list[NamedRegion]] = {}
    for region in regions:
        by_photo.setdefault(region.photo, []).append(region)
    answers = _Answers([], [], [], [])
    for done, (photo, own) in enumerate(by_photo.items()):
        progress(done, len(by_photo))
        picture = picture_to_tensor(load_picture(own[0].file, picture_side))
        questions = [region.question for region in own]
        if done == 0:
            mapper.find(picture, questions[:1], grid)  # not timed: warms up
        started = time.perf_counter()
        mapper.find(picture, questions[:1], grid)
        answers.map_ms.append(1000 * (time.perf_counter() - started))
        absent = _absent_questions(regions, own)
        weights = mapper.class_weights([*questions, *absent])
        cells = [one.repeat(len(weights)) for one in mapper.cells(picture)]
        confidences = mapper.signs(cells, weights).confidence().tolist()
        maps = mapper.maps(cells, weights, grid)[: len(own)]
        answers.maps.extend(maps.cpu().double().numpy())
        answers.confidences.extend(confidences[: len(own)])
        answers.absent.extend((photo, c) for c in confidences[len(own) :])
    return answers


def _absent_questions(regions: Sequence[NamedRegion], own: Sequence[NamedRegion]) -> list[str]:
    """Questions about things that this photo does not have named, other ones for every photo."""
    there = {region.name for region in own} | {PERSON}
    others = {region.name: region.question for region in regions if region.name not in there}
    names = sorted(others)
    draw = np.random.default_rng(own[0].photo)
    count = min(ABSENT_PER_PHOTO, len(names))
    return [others[names[k]] for k in draw.choice(len(names), count, replace=False)]
