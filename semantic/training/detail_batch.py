"""What one training step of the detail layer works on: photos at random gains, in parts, with losses."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from semantic.dataset import PhotoSet
from semantic.frame.slices import position_order
from semantic.training.base_pictures import BasePictures
from semantic.training.detail_recipe import Schedule

# What a rectangle in every second photo may reach.
_RECTANGLE_SPREAD = 1.2
_GAIN_LIMITS = (-3.0, 1.6)


@dataclass(frozen=True)
class DetailBatch:
    """Photos and how they are coded.

    Args:
        pictures, bases: float32 ``[B, 3, H, W]``, 0..255.
        tokens: int64 ``[B, H/32, W/32, M]``.
        log_gain: float32 ``[B, 1, H/8, W/8]``.
        sent: bool, likewise: positions that are coded.
        arrived: bool, likewise: those of them that the decoder gets.
    """

    pictures: Tensor
    bases: Tensor
    tokens: Tensor
    log_gain: Tensor
    sent: Tensor
    arrived: Tensor


def load_rows(
    photos: PhotoSet, bases: BasePictures, rows: NDArray[np.int64]
) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures, base pictures and tokens of rows, as :class:`DetailBatch` has them."""
    pictures = photos.pictures[torch.from_numpy(rows // 2)].float()
    mirrored = torch.from_numpy(rows % 2 == 1)
    pictures[mirrored] = pictures[mirrored].flip(-1)
    made = torch.from_numpy(np.stack([bases.pictures[row] for row in rows])).float()
    tokens = torch.from_numpy(np.stack([bases.tokens[row] for row in rows])).long()
    return pictures, made, tokens


def draw_batch(
    photos: PhotoSet,
    bases: BasePictures,
    numbers: NDArray[np.int64],
    config: Schedule,
    random: np.random.Generator,
) -> DetailBatch:
    """Photos of these numbers, mirrored or not, each with a gain map and perhaps slices and losses."""
    rows = 2 * numbers + random.integers(0, 2, len(numbers))
    pictures, made, tokens = load_rows(photos, bases, rows)
    height, width = (side // 8 for side in pictures.shape[2:])
    gains = np.empty((len(rows), 1, height, width), np.float32)
    sent = np.ones(gains.shape, np.bool_)
    arrived = np.ones(gains.shape, np.bool_)
    for n in range(len(rows)):
        gains[n] = _draw_gains(height, width, config, random)
        chance = random.random()
        if chance < config.partial:
            sent[n, 0] = _draw_run(height, width, random)
            arrived[n] = sent[n]
        elif chance < config.partial + config.lost:
            arrived[n, 0] = False if random.random() < 0.3 else ~_draw_run(height, width, random)
    return DetailBatch(
        pictures, made, tokens, torch.from_numpy(gains), torch.from_numpy(sent),
        torch.from_numpy(arrived),
    )  # fmt: skip


def _draw_gains(
    height: int, width: int, config: Schedule, random: np.random.Generator
) -> NDArray[np.float32]:
    """One log gain, in every second photo another one in a rectangle."""
    log_gain = random.uniform(config.least_log_gain, config.most_log_gain)
    gains = np.full((height, width), log_gain, np.float32)
    if random.random() < 0.5:
        top, left = random.integers(0, height), random.integers(0, width)
        down, across = random.integers(2, height + 1), random.integers(2, width + 1)
        gains[top : top + down, left : left + across] += random.normal(0, _RECTANGLE_SPREAD)
    return gains.clip(*_GAIN_LIMITS)


def _draw_run(height: int, width: int, random: np.random.Generator) -> NDArray[np.bool_]:
    """A run of positions in sending order, as a slice has them: bool ``[height, width]``."""
    order = position_order(height // 4, width // 4)
    count = int(len(order) * math.exp(random.uniform(math.log(0.08), math.log(0.7))))
    first = int(random.integers(-count // 2, len(order) - count // 2))
    run = np.zeros(len(order), np.bool_)
    run[order[max(0, first) : first + count]] = True
    return run.reshape(height, width)
