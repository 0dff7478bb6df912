"""Means over cases that come from few photos, with honest intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

_RESAMPLES = 2000


@dataclass(frozen=True)
class PhotoMean:
    """A mean over cases with its 95 % bootstrap interval over photos."""

    mean: float
    ci95: tuple[float, float]
    cases: int

    @classmethod
    def of(cls, values: Sequence[float], photos: Sequence[int], seed: int) -> PhotoMean | None:
        """Cases of one photo stand and fall together, so photos are drawn, not cases.

        Returns:
            None where there is no case.
        """
        if not values:
            return None
        _, number = np.unique(photos, return_inverse=True)
        sums, counts = np.bincount(number, values), np.bincount(number)
        draws = np.random.default_rng(seed).integers(len(sums), size=(_RESAMPLES, len(sums)))
        means = sums[draws].sum(1) / counts[draws].sum(1)
        low, high = np.percentile(means, [2.5, 97.5])
        return cls(float(np.mean(values)), (float(low), float(high)), len(values))

    def to_json(self) -> dict[str, Any]:
        """One JSON object."""
        return {"mean": self.mean, "ci95": self.ci95, "cases": self.cases}
