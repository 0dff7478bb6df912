"""Batches of a training run: which photos, asked what, and what the channel does to their indices.

Everything is drawn for the whole batch, from the seed and the number of the step, and then shared by the
processes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from semantic.alignment import TextFeatures
from semantic.index_channel import draw_damage, draw_unsent
from semantic.model import IndexDamage
from semantic.processes import Processes
from semantic.training_state import Run


@dataclass(frozen=True)
class Batch:
    """Photos with a question each.

    Args:
        numbers: of the photos.
        flips: which are mirrored.
        queries: what is asked about them.
    """

    numbers: list[int]
    flips: list[bool]
    queries: list[str]

    def share(self, processes: Processes) -> Batch:
        """The part of it that is this process's."""
        own = processes.own
        return Batch(own(self.numbers), own(self.flips), own(self.queries))


def draw_batch(run: Run, step: int, random: np.random.Generator) -> Batch:
    """Photos (every one once per epoch), mirrored or not, each with one of its questions."""
    size, count = run.training.batch_size, len(run.train_numbers)
    places = np.arange(step * size, (step + 1) * size)
    numbers = []
    for epoch in np.unique(places // count):
        order = np.random.default_rng([run.training.seed, 2, int(epoch)]).permutation(count)
        numbers += [
            int(run.train_numbers[order[p]]) for p in places[places // count == epoch] % count
        ]
    flips = [bool(f) for f in random.random(size) < 0.5]
    photos = run.features.photos
    queries = [photos.questions[n][int(random.integers(len(photos.questions[n])))] for n in numbers]
    return Batch(numbers, flips, queries)


def batch_pictures(run: Run, batch: Batch) -> Tensor:
    """float32 ``[B, 3, side, side]``, 0..1, on the run's device."""
    return run.features.pictures(batch.numbers, batch.flips).to(run.device)


def batch_features(run: Run, batch: Batch) -> tuple[dict[int, Tensor], TextFeatures]:
    """What the towers say about photos and questions, on the run's device."""
    maps = run.features.maps(batch.numbers, batch.flips)
    text = run.features.text(batch.queries)
    return {index: found.to(run.device) for index, found in maps.items()}, text.to(run.device)


def draw_channel(run: Run, random: np.random.Generator) -> IndexDamage:
    """What the channel does to the indices of this process's share; what is not sent is lost as well."""
    config, codec = run.training, run.recipe.codec
    damage = draw_damage(
        codec.layer_geometry, codec.quantizer.codewords, config.batch_size, config, random
    )
    erased = damage.erased
    if config.ladder_probability:
        unsent = draw_unsent(codec, config.batch_size, config.ladder_probability, random)
        erased = [torch.logical_or(*pair) for pair in zip(erased, unsent, strict=True)]
    own = run.processes.own
    return IndexDamage(list(map(own, erased)), list(map(own, damage.replaced))).to(run.device)
