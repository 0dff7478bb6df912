"""What the tests send through :mod:`blocks.modem.simulated_air`: random bits, bursts, silence between."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from blocks.modem import waveform as wf
from blocks.modem.burst import Burst, build_bursts
from blocks.modem.simulated_air import AIR_SAMPLES_PER_SYMBOL as AIR_SPS
from blocks.modem.simulated_air import Air, noise, resample

__all__ = [
    "AIR_SPS",
    "FIRST_SYMBOL",
    "RECEIVER_SPS",
    "Air",
    "bursts_of",
    "noise",
    "on_air",
    "random_bits",
    "resample",
]

RECEIVER_SPS = wf.RECEIVER_SAMPLES_PER_SYMBOL
# Air samples from the start of a burst's samples to the instant of its first preamble symbol.
FIRST_SYMBOL = (wf.PULSE_HALF_SPAN_SYMBOLS + wf.RAMP_SYMBOLS) * AIR_SPS


def random_bits(count: int, seed: int) -> NDArray[np.uint8]:
    """``uint8 [count]`` of 0 and 1."""
    return np.random.default_rng(seed).integers(0, 2, count).astype(np.uint8)


def bursts_of(
    bits: NDArray[np.uint8],
    mcs: int,
    frame_id: int = 7,
    max_burst_symbols: int = wf.MAX_BURST_SYMBOLS,
) -> list[Burst]:
    """The bursts of one frame with an arbitrary codec tag."""
    return list(
        build_bursts(
            bits,
            frame_id=frame_id,
            codec_tag=0xABCD,
            mcs=mcs,
            max_burst_symbols=max_burst_symbols,
        )
    )


def on_air(
    bursts: Sequence[Burst], lead: int = 2000, gap: int = 400, tail: int = 2000
) -> tuple[NDArray[np.complex64], list[int]]:
    """Bursts with silence (air samples) before, between and after; and where each one's samples begin."""
    parts = [np.zeros(lead, np.complex64)]
    begins = []
    for burst in bursts:
        begins.append(sum(part.size for part in parts))
        parts += [burst.samples(AIR_SPS), np.zeros(gap, np.complex64)]
    parts[-1] = np.zeros(tail, np.complex64)
    return np.concatenate(parts), begins
