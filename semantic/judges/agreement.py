"""How often a judge answers alike about source and received picture, against chance.

A match rate alone says little: a judge that always answers "yes" matches always. The floor is what the
judge says about a blank picture and about an unrelated one of the same set, asked the same question;
``kappa = (match - chance) / (1 - chance)`` with the larger of the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from semantic.judges.answers import Answer, Judge

_RESAMPLES = 2000
# What is judged where nothing was received.
GREY = (128, 128, 128)


@dataclass(frozen=True)
class Agreement:
    """How well answers about received pictures match those about the sources.

    Args:
        match: share of rows with the same answer.
        match_without_query: the same for answers to no question; None where the judge needs one.
        kappa: above chance, 1 at best; None where chance is 1.
        ci95: 95 % interval of kappa, bootstrap over photos; None where kappa is None.
    """

    match: float
    match_without_query: float | None
    kappa: float | None
    ci95: tuple[float, float] | None


@dataclass(frozen=True)
class Reference:
    """A judge's answers about the sources, and what chance would match of them.

    Args:
        answers: one per row.
        photo: int64 ``[rows]``, which rows share a photo.
        blank_matches: bool ``[rows]``, a grey picture gets the same answer.
        unrelated_matches: likewise another photo of the set; None where there is only one photo.
        seed: of the bootstrap.
    """

    answers: list[Answer]
    photo: NDArray[np.int64]
    blank_matches: NDArray[np.bool_]
    unrelated_matches: NDArray[np.bool_] | None
    seed: int

    @property
    def chance_blank(self) -> float:
        """Share of rows that a grey picture matches."""
        return float(self.blank_matches.mean())

    @property
    def chance_unrelated(self) -> float | None:
        """Share of rows that another photo matches."""
        found = self.unrelated_matches
        return None if found is None else float(found.mean())

    @property
    def chance(self) -> float:
        """The larger of the two."""
        return max(self.chance_blank, self.chance_unrelated or 0.0)

    def agreement(self, received: Sequence[Answer]) -> Agreement:
        """Score answers about the received pictures, in the same order as the sources."""
        matches = matching(self.answers, received)
        free = [
            a.without_query == b.without_query for a, b in zip(self.answers, received, strict=True)
        ]
        known = all(answer.without_query is not None for answer in self.answers)
        match = float(matches.mean())
        return Agreement(
            match,
            float(np.mean(free)) if known else None,
            kappa(match, self.chance),
            self._interval(matches),
        )

    def _interval(self, matches: NDArray[np.bool_]) -> tuple[float, float] | None:
        """Bootstrap over photos, because questions about one photo stand and fall together."""
        if self.chance >= 1:
            return None
        floor = self.blank_matches
        if self.unrelated_matches is not None and self.unrelated_matches.mean() > floor.mean():
            floor = self.unrelated_matches
        columns = np.stack([np.ones_like(matches), matches, floor], axis=1).astype(np.float64)
        per_photo = np.zeros((int(self.photo.max()) + 1, 3))
        np.add.at(per_photo, self.photo, columns)
        return kappa_interval(per_photo, photo_draws(len(per_photo), self.seed))


@lru_cache(maxsize=8)
def photo_draws(photos: int, seed: int) -> NDArray[np.float64]:
    """How often each resample of a bootstrap holds each photo: ``[resamples, photos]``."""
    share = np.full(photos, 1 / photos)
    draws = np.random.default_rng(seed).multinomial(photos, share, _RESAMPLES).astype(np.float64)
    draws.flags.writeable = False  # shared by all who ask
    return draws


def kappa_interval(
    per_photo: NDArray[np.float64], draws: NDArray[np.float64]
) -> tuple[float, float] | None:
    """95 % interval of kappa; match and chance are resampled together.

    Args:
        per_photo: ``[photos, 3]``, the number of rows, of rows that match, of rows that match by chance.
        draws: as :func:`photo_draws`.

    Returns:
        None where chance always matches in every resample.
    """
    rows, matched, by_chance = (draws @ per_photo).T
    usable = by_chance < rows
    if not usable.any():
        return None
    values = (matched - by_chance)[usable] / (rows - by_chance)[usable]
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def kappa(match: float, chance: float) -> float | None:
    """``(match - chance) / (1 - chance)``; None where chance alone always matches."""
    return None if chance >= 1 else (match - chance) / (1 - chance)


def matching(first: Sequence[Answer], second: Sequence[Answer]) -> NDArray[np.bool_]:
    """Row by row, whether two answers are the same: bool ``[rows]``."""
    pairs = zip(first, second, strict=True)
    return np.array([a.text == b.text for a, b in pairs], np.bool_)


def ask_reference(
    judge: Judge, sources: Sequence[Image.Image], queries: Sequence[str], seed: int = 0
) -> Reference:
    """Ask a judge about the sources, a grey picture and, for each row, another photo of the set.

    Args:
        judge: who answers.
        sources: one picture per row; rows about one photo hold the same object.
        queries: one question per row.
        seed: of the choice of other photos, and of the bootstrap.

    Raises:
        ValueError: no rows.
    """
    if not sources:
        raise ValueError("no pictures to judge")
    numbers: dict[int, int] = {}
    photo = np.array([numbers.setdefault(id(source), len(numbers)) for source in sources])
    first = [int(np.argmax(photo == number)) for number in range(len(numbers))]
    others = another_each(len(numbers), seed)
    grey = Image.new("RGB", sources[0].size, GREY)
    asked = [*sources, *[grey] * len(sources)]
    if others is not None:
        asked += [sources[first[others[number]]] for number in photo]
    # One call: a judge may look at each picture only once however often it is asked about.
    answers = judge.answer(asked, [*queries] * (len(asked) // len(sources)))
    rows = len(sources)
    own, blank, other = answers[:rows], answers[rows : 2 * rows], answers[2 * rows :]
    unrelated = matching(own, other) if others is not None else None
    return Reference(own, photo, matching(own, blank), unrelated, seed)


def another_each(count: int, seed: int) -> NDArray[np.int64] | None:
    """For each of ``count`` photos another one, each used once; None where there is only one."""
    if count < 2:
        return None
    order = np.random.default_rng(seed).permutation(count)
    others = np.empty(count, np.int64)
    others[order] = np.roll(order, -1)  # one ring through all of them: nobody is his own neighbour
    return others
