"""Scale of the posterior LLRs of code blocks that failed, so that they say how sure they are.

Of bits with posterior L a share 1 / (1 + exp(abs L)) should be wrong. Far below the working point the
decoder's own posteriors keep that promise. Near it they claim too much, by up to a half where only one block
in a hundred fails: a block that looks nearly decoded and yet fails its CRC was misled. How nearly decoded it
looks is the mean error probability u that its posteriors claim. The factor that makes them true, found by
logistic regression on blocks that failed, is close to a straight line in u for each code rate.

Short blocks are misled more. The line is fitted for 1000 bits and for the largest block of each code rate;
between, it moves with the logarithm of the size.

The tables come from ``uoisc benchmark reliability --fit --failed-blocks 60 --max-blocks 4000 --seed 1000``
with ``--info-bits 1000 --above-theory-db 0:0.6:0.15`` and with ``--above-theory-db 0:0.4:0.1``: perfect
synchronisation, PER from 1 to about 1e-2.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from blocks.modem import waveform as wf

_SHORT_BITS = 1000
# Per MCS: factor at u = 0, and its rise with u.
_SHORT = (
    (0.575, 1.85),
    (0.568, 1.94),
    (0.595, 2.26),
    (0.551, 2.98),
    (0.540, 4.01),
    (0.495, 5.13),
    (0.485, 7.66),
    (0.460, 10.04),
    (0.520, 6.42),
    (0.332, 18.14),
)
_LARGEST = (
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
LEAST_FACTOR, LARGEST_FACTOR = 0.4, 1.0


def claimed_error_rate(llrs: NDArray[np.float32]) -> float:
    """Mean probability of a wrong bit that posterior LLRs claim: between 0 and 1/2."""
    return float(np.mean(1 / (1 + np.exp(np.minimum(np.abs(llrs), 80.0)))))


def failed_block_factor(llrs: NDArray[np.float32], mcs: int) -> float:
    """What to multiply the posterior LLRs of a failed block with.

    Args:
        llrs: ``float32 [K]``, the decoder's own, CRC included.
        mcs: index of the code rate.
    """
    size = math.log(llrs.size / _SHORT_BITS) / math.log(wf.max_info_bits(mcs) / _SHORT_BITS)
    share = min(max(size, 0.0), 1.0)
    at_zero, rise = (
        (1 - share) * short + share * largest
        for short, largest in zip(_SHORT[mcs], _LARGEST[mcs], strict=True)
    )
    factor = at_zero + rise * claimed_error_rate(llrs)
    return min(max(factor, LEAST_FACTOR), LARGEST_FACTOR)
