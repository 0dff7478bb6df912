"""Samples that no radio means: NaN, infinity, or far beyond any full scale.

A running sum never forgets one: behind a NaN everything is NaN, behind 1e30 nothing else is left in a float.
They become silence before the first sum, and are counted.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

# In either part of a sample. Twice what integers of 16 bits reach when nobody scaled them to 1; smaller
# ones leave less than 0.01 behind in a sum of floats.
HIGHEST_LEVEL = 65_536.0


@njit(cache=True, nogil=True)
def blank_bad_samples(samples: NDArray[np.complex64]) -> int:
    """Set bad samples to zero, in place; returns how many there were.

    Args:
        samples: ``complex64 [n]``.
    """
    blanked = 0
    for place in range(samples.size):
        sample = samples[place]
        # Written so that NaN fails as well.
        if not (abs(sample.real) <= HIGHEST_LEVEL and abs(sample.imag) <= HIGHEST_LEVEL):
            samples[place] = 0
            blanked += 1
    return blanked
