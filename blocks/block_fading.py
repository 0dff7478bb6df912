"""BlockFading: the flat fading of the paper's eq. (8), y = h s + n, with one h per burst.

Simulation only. The gain changes where a burst's length tag stands and nowhere else, and the n-th burst
always gets the n-th draw, so that the result does not depend on how the stream is cut.
"""

from __future__ import annotations

from collections import deque
from typing import Literal

import numpy as np
import pmt
from gnuradio import gr
from numpy.typing import NDArray

from blocks.burst_modulator import LENGTH_TAG

# The latest gains, for reports.
_GAINS_KEPT = 10_000

Fading = Literal["none", "rayleigh", "rician"]


def draw_gain(generator: np.random.Generator, fading: Fading, rician_k_db: float = 0.0) -> complex:
    """One channel gain h with E|h|^2 = 1.

    Rayleigh: h is circular complex Gaussian. Rician: a constant part of power K/(K+1) with a random
    phase, and a Gaussian part of power 1/(K+1).
    """
    if fading == "none":
        return 1.0 + 0.0j
    scattered = complex(generator.standard_normal(), generator.standard_normal()) / np.sqrt(2)
    if fading == "rayleigh":
        return scattered
    k = 10 ** (rician_k_db / 10)
    direct = np.exp(2j * np.pi * generator.uniform())
    return complex(np.sqrt(k / (k + 1)) * direct + scattered / np.sqrt(k + 1))


class BlockFading(gr.sync_block):
    """Multiplies every burst with its own random gain; silence is left alone.

    Args:
        fading: the law of |h|.
        rician_k_db: power of the constant part over that of the scattered part.
        seed: of the gains.
    """

    def __init__(self, fading: Fading, rician_k_db: float, seed: int) -> None:
        gr.sync_block.__init__(
            self, name="BlockFading", in_sig=[np.complex64], out_sig=[np.complex64]
        )
        self._fading: Fading = fading
        self._k_db = rician_k_db
        self._generator = np.random.default_rng(seed)
        self._gain = np.complex64(1.0)
        self._key = pmt.intern(LENGTH_TAG)
        self.gains: deque[complex] = deque(maxlen=_GAINS_KEPT)

    def work(
        self, inputs: list[NDArray[np.complex64]], outputs: list[NDArray[np.complex64]]
    ) -> int:
        """Scale; a new gain from every length tag on."""
        samples, out = inputs[0], outputs[0]
        first = self.nitems_read(0)
        done = 0
        tags = self.get_tags_in_range(0, first, first + samples.size, self._key)
        for offset in sorted(int(tag.offset - first) for tag in tags):
            out[done:offset] = samples[done:offset] * self._gain
            self._gain = np.complex64(draw_gain(self._generator, self._fading, self._k_db))
            self.gains.append(complex(self._gain))
            done = offset
        out[done:] = samples[done:] * self._gain
        return int(samples.size)
