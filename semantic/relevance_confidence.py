"""How likely a relevance map has found what was asked: two signs, one logistic regression.

A map always points somewhere, also where nothing of the kind is in the photo or the question makes no sense.
What tells the two apart without any box:

- **presence**: does the classifier see one of the asked classes anywhere? Logarithm of
  ``sum_c w_c max_cells p_c``, mean of the sum over the scales (w: class weights of the query);
- **peak**: mean of the map's best 5 % of cells, in log-odds. Evidence that is weak or spread over the photo
  peaks low.

Fitted by ``python -m benchmarks.relevance_confidence`` on coco128's photos of even number to "the map's
largest token lies in the asked box"; ``uoisc benchmark relevance`` prints how it holds on the others. How
alike the two scales' evidence is added nothing to these two.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Share of a map's cells whose mean is the peak.
_BEST_SHARE = 0.05
# Keeps the log-odds of a peak finite.
_SMALLEST_GAP = 1e-6
_BIAS = -0.379
_PER_PEAK = 0.291
_PER_PRESENCE = 0.366


@dataclass(frozen=True)
class Signs:
    """What confidence is made of.

    Args:
        peak: log-odds of the mean over the map's best cells, float ``[B]``.
        presence: logarithm of a probability, float ``[B]``.
    """

    peak: Tensor
    presence: Tensor

    def confidence(self) -> Tensor:
        """Probability that the map's largest token lies on what was asked, ``[B]``."""
        return torch.sigmoid(_BIAS + _PER_PEAK * self.peak + _PER_PRESENCE * self.presence)


def peak(maps: Tensor) -> Tensor:
    """Log-odds of the mean of the best 5 % of the cells (at least one) of maps ``[B, h, w]``: ``[B]``."""
    cells = maps.flatten(1)
    best = cells.topk(max(round(_BEST_SHARE * cells.shape[1]), 1), dim=1).values
    return torch.logit(best.mean(1), eps=_SMALLEST_GAP)
