"""Scale of the posterior LLRs of code blocks that failed, so that they say how sure they are.

Of bits with posterior L a share 1 / (1 + exp(abs L)) should be wrong. Far below the working point the
decoder's own posteriors keep that promise. Near it they claim too much, by up to a half where only one block
in a hundred fails: a block that looks nearly decoded and yet fails its CRC was misled. How nearly decoded it
looks is the mean error probability u that its posteriors claim. The factor that makes them true, found by
logistic regression on blocks that failed, is close to a straight line in u for each code rate.

The table was fitted with ``uoisc benchmark reliability --fit --above-theory-db 0:0.4:0.1 --failed-blocks 60
--max-blocks 4000 --seed 1000``: perfect synchronisation, largest code blocks, PER from 1 to about 1e-2.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Per MCS: factor at u = 0, and its rise with u.
_FACTORS = (
    (0.757, 1.23),
    (0.709, 1.65),
    (0.752, 1.99),
    (0.736, 2.58),
    (0.754, 3.47),
    (0.690, 5.00),
    (0.696, 5.96),
    (0.669, 7.46),
    (0.681, 7.30),
    (0.594, 11.24),
)
# What was seen when fitting; beyond, the line is not trusted.
LEAST_FACTOR, LARGEST_FACTOR = 0.5, 1.0


def claimed_error_rate(llrs: NDArray[np.float32]) -> float:
    """Mean probability of a wrong bit that posterior LLRs claim: between 0 and 1/2."""
    return float(np.mean(1 / (1 + np.exp(np.minimum(np.abs(llrs), 80.0)))))


def failed_block_factor(llrs: NDArray[np.float32], mcs: int) -> float:
    """What to multiply the posterior LLRs of a failed block with.

    Args:
        llrs: ``float32 [n]``, the decoder's own.
        mcs: index of the code rate.
    """
    at_zero, rise = _FACTORS[mcs]
    factor = at_zero + rise * claimed_error_rate(llrs)
    return float(np.clip(factor, LEAST_FACTOR, LARGEST_FACTOR))
