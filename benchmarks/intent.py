"""Does a picture show what was asked about better than what was not? At the same number of symbols.

Over pairs of objects in one photo: how much better the asked object's boxes arrive when it is asked for
than when the other one is, in dB, and what that costs the picture as a whole. And over all asked objects: how
the same boxes arrive through other picture coders, which hear no question, in as many bytes. Numbers that
were chosen by looking at results (focus, levels of the rungs) were chosen on the photos of even number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from benchmarks.bootstrap import PhotoMean
from benchmarks.machine import machine
from benchmarks.named_objects import PERSON, NamedRegion, apart, askable
from benchmarks.rivals import code_photos
from blocks.modem.budget import air_symbols
from semantic.asked_photos import DEFAULT_QUERY, PhotosError
from semantic.codec.loader import PictureCodec
from semantic.codec.settings import Box, EncoderSettings
from semantic.index_search import likeness_or_usual
from semantic.metrics import psnr_db
from semantic.pictures import load_picture

# Pixels of the squares to which photos are cropped and scaled.
SIDE = 160
# Cells per side on which boxes are compared with each other.
_GRID = 20

Progress = Callable[[int, int], None]
Pixels = NDArray[np.float64]
_Item = TypeVar("_Item")


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
class RivalFigures:
    """The codec beside a coder that hears no question: all asked objects of a set, as many bytes each.

    Args:
        inside_db: PSNR inside the asked boxes through the rival; None where there is no object.
        codec_inside_db: likewise through the codec.
        gain: codec minus rival inside the boxes, dB.
        whole_gain: the same over whole pictures.
    """

    inside_db: float | None
    codec_inside_db: float | None
    gain: PhotoMean | None
    whole_gain: PhotoMean | None

    def to_json(self) -> dict[str, Any]:
        """One JSON object."""
        gain, whole = self.gain, self.whole_gain
        return {
            "inside_db": self.inside_db,
            "codec_inside_db": self.codec_inside_db,
            "gain_db": None if gain is None else gain.mean,
            "ci95": None if gain is None else gain.ci95,
            "whole_gain_db": None if whole is None else whole.mean,
            "whole_ci95": None if whole is None else whole.ci95,
            "objects": 0 if gain is None else gain.cases,
        }


@dataclass(frozen=True)
class IntentReport:
    """Result of :func:`benchmark_intent`.

    Args:
        codec_id: which codec.
        payload_bits: of every picture.
        mcs: code rate for which the symbols are counted.
        focus: how far bits followed the question.
        box: whether the objects' boxes were given, instead of found by the question.
        search_steps: of the search for better indices.
        search_likeness: how much that search minded how a picture looks to the image tower.
        photos: with at least one pair.
        sets: ``all`` (asked for things other than persons), ``even`` (choices were made on them), ``odd``,
            ``person`` (asked for persons).
        psnr_db: mean PSNR of the whole pictures, asked about things.
        psnr_without_query_db: of the same photos at the same rate, nobody asking.
        rivals: by name and set, how the codec stands against them inside the boxes.
    """

    codec_id: str
    payload_bits: int
    mcs: int
    focus: float
    box: bool
    search_steps: int
    search_likeness: float
    photos: int
    sets: dict[str, IntentFigures]
    psnr_db: PhotoMean
    psnr_without_query_db: PhotoMean
    rivals: dict[str, dict[str, RivalFigures]]

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
            "symbols": air_symbols(self.payload_bits, self.mcs),
            "mcs": self.mcs,
            "bits": self.payload_bits,
            "bits_per_pixel": self.payload_bits / SIDE**2,
            "focus": self.focus,
            "box": self.box,
            "search_steps": self.search_steps,
            "search_likeness": self.search_likeness,
            "sets": {
                name: {
                    key: None if value is None else value.to_json()
                    for key, value in vars(figures).items()
                }
                for name, figures in self.sets.items()
            },
            "rivals": {
                name: {
                    **sets["all"].to_json(),
                    "sets": {key: one.to_json() for key, one in sets.items()},
                }
                for name, sets in self.rivals.items()
            },
            "machine": {**machine(), "torch_threads": torch.get_num_threads()},
        }


@dataclass(frozen=True)
class _Received:
    """One region asked for: the picture's squared errors, ``[side, side]``, and its PSNR in dB."""

    squared: Pixels
    psnr_db: float


def benchmark_intent(
    codec: PictureCodec,
    regions: Sequence[NamedRegion],
    *,
    settings: EncoderSettings,
    box: bool = False,
    rivals: Sequence[str] = (),
    mcs: int = 4,
    seed: int = 0,
    progress: Progress = lambda done, total: None,
) -> IntentReport:
    """Measure what asking does.

    Args:
        codec: loaded.
        regions: named objects of photos, those of one photo one after the other.
        settings: of the encoder.
        box: give the encoder the asked object's boxes.
        rivals: names of :data:`semantic.systems.picture_coders.PICTURE_CODERS`.
        mcs: code rate for which symbols are counted; it changes nothing else.
        seed: of the bootstrap.
        progress: called with pictures done, out of how many.

    Raises:
        PictureError: a photo that is missing or damaged.
        PhotosError: no pair of objects to ask about, or a rival that cannot code a photo in so few bytes.
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
    alone = [n for n, region in enumerate(regions) if rivals and askable(region, _GRID)]
    needed = sorted({number for pair in pairs for number in pair} | set(alone))
    focus = codec.usual_focus if settings.focus is None else settings.focus
    likeness = likeness_or_usual(settings.search_likeness)
    settings = replace(settings, search_likeness=likeness)
    sources: dict[int, Image.Image] = {}
    received: dict[int, _Received] = {}
    free: dict[int, _Received] = {}
    payload_bits = 0
    for done, number in enumerate(needed):
        progress(done, len(needed))
        region = regions[number]
        if region.photo not in sources:
            source = sources[region.photo] = codec.prepare(load_picture(region.file, SIDE))
            frame = codec.encode(source, DEFAULT_QUERY, replace(settings, focus=0.0))
            free[region.photo] = _received(source, codec.decode(frame))
        source = sources[region.photo]
        asking = replace(settings, boxes=_boxes(region)) if box else settings
        frame = codec.encode(source, region.question, asking)
        payload_bits = frame.geometry.payload_bits
        received[number] = _received(source, codec.decode(frame))
    things = [pair for pair in pairs if regions[pair[0]].name != PERSON]
    chosen = _sets(regions, pairs, [pair[0] for pair in pairs])
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
    beside = {}
    for name in rivals:
        others = _coded(sources, name, payload_bits // 8)
        beside[name] = {
            which: _beside(regions, some, received, others, seed)
            for which, some in _sets(regions, alone, alone).items()
        }
    return IntentReport(
        codec.codec_id,
        payload_bits,
        mcs,
        focus,
        box,
        settings.search_steps,
        likeness,
        len({regions[asked].photo for asked, _ in pairs}),
        sets,
        mean,
        without,
        beside,
    )


def _received(source: Image.Image, picture: Image.Image) -> _Received:
    difference = np.asarray(source, np.float64) - np.asarray(picture, np.float64)
    return _Received(np.square(difference).mean(2), psnr_db(source, picture))


def _boxes(region: NamedRegion) -> tuple[Box, ...]:
    """The region's boxes in pixels."""
    found = []
    for left, top, right, bottom in region.boxes:
        x, y = int(left * SIDE), int(top * SIDE)
        found.append(Box(x, y, math.ceil(right * SIDE) - x, math.ceil(bottom * SIDE) - y))
    return tuple(found)


def _sets(
    regions: Sequence[NamedRegion], items: Sequence[_Item], asked: Sequence[int]
) -> dict[str, list[_Item]]:
    """Items by the sets of a report, given the region that each asks for."""
    both = list(zip(items, asked, strict=True))
    things = [(item, number) for item, number in both if regions[number].name != PERSON]
    return {
        "all": [item for item, _ in things],
        "even": [item for item, number in things if regions[number].photo % 2 == 0],
        "odd": [item for item, number in things if regions[number].photo % 2 == 1],
        "person": [item for item, number in both if regions[number].name == PERSON],
    }


def _coded(sources: dict[int, Image.Image], name: str, size: int) -> dict[int, _Received]:
    """What a rival makes of every photo in as many bytes."""
    found = code_photos(
        {Path(str(k)): one for k, one in sources.items()}, name, size, container=False
    )
    if found is None:
        raise PhotosError(f"{name} cannot code every photo in {size} bytes")
    return {int(str(k)): _received(sources[int(str(k))], one) for k, one in found.pictures.items()}


def _beside(
    regions: Sequence[NamedRegion],
    asked: Sequence[int],
    received: dict[int, _Received],
    others: dict[int, _Received],
    seed: int,
) -> RivalFigures:
    inside = {n: regions[n].cover(SIDE) > 0.5 for n in asked}
    ours = [_psnr_db(received[n].squared[inside[n]]) for n in asked]
    theirs = [_psnr_db(others[regions[n].photo].squared[inside[n]]) for n in asked]
    whole = [received[n].psnr_db - others[regions[n].photo].psnr_db for n in asked]
    photos = [regions[n].photo for n in asked]
    return RivalFigures(
        float(np.mean(theirs)) if theirs else None,
        float(np.mean(ours)) if ours else None,
        PhotoMean.of(np.subtract(ours, theirs).tolist(), photos, seed),
        PhotoMean.of(whole, photos, seed),
    )


def _psnr_db(squared: Pixels) -> float:
    return _decibels(255**2 / float(squared.mean()))


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
