"""Do relevance maps lie on what was asked about? Measured against boxes, with chance beside it.

What was chosen by looking at results (temperatures, reach of the walk) was chosen on the photos of even
number alone; those of odd number are reported apart. Regions join all objects of a name, because a
question names a kind and not one of its kind.
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
class RelevanceReport:
    """Result of :func:`benchmark_relevance`.

    Args:
        photos: with at least one named object.
        sets: ``all``, ``even`` (choices were made on them), ``odd`` and ``person`` (all photos).
        map_ms: milliseconds per picture for one map, query included.
    """

    photos: int
    grid: int
    sets: dict[str, Figures]
    map_ms: list[float]

    def to_json(self) -> dict[str, Any]:
        """One JSON object."""
        return {
            "photos": self.photos,
            "grid": self.grid,
            **{name: figures.to_json() for name, figures in self.sets.items()},
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
    maps, map_ms = _maps(mapper, regions, picture_side, grid, progress)
    things = [k for k, region in enumerate(regions) if region.name != PERSON]
    chosen = {
        "all": things,
        "even": [k for k in things if regions[k].photo % 2 == 0],
        "odd": [k for k in things if regions[k].photo % 2 == 1],
        "person": [k for k, region in enumerate(regions) if region.name == PERSON],
    }
    sets = {
        name: figures(regions, maps, [k for k in asked if askable(regions[k], grid)], seed)
        for name, asked in chosen.items()
    }
    return RelevanceReport(len({region.photo for region in regions}), grid, sets, map_ms)


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
        share([float(covers[k].ravel()[maps[k].argmax()] > 0.5) for k in asked], photos),
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


def _maps(
    mapper: RelevanceMapper,
    regions: Sequence[NamedRegion],
    picture_side: int,
    grid: int,
    progress: Progress,
) -> tuple[list[Map], list[float]]:
    """One map per region, and milliseconds per photo for the first of them."""
    by_photo: dict[int, list[int]] = {}
    for number, region in enumerate(regions):
        by_photo.setdefault(region.photo, []).append(number)
    maps: dict[int, Map] = {}
    times_ms = []
    for done, numbers in enumerate(by_photo.values()):
        progress(done, len(by_photo))
        picture = picture_to_tensor(load_picture(regions[numbers[0]].file, picture_side))
        questions = [regions[number].question for number in numbers]
        if done == 0:
            mapper(picture, questions[:1], grid)  # not timed: warms up
        started = time.perf_counter()
        mapper(picture, questions[:1], grid)
        times_ms.append(1000 * (time.perf_counter() - started))
        cells = mapper.cells(picture).repeat(len(numbers))
        found = mapper.maps(cells, mapper.class_weights(questions), grid).cpu().double().numpy()
        maps.update(zip(numbers, found, strict=True))
    return [maps[number] for number in range(len(regions))], times_ms
