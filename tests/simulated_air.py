"""The air between two radios in plain NumPy, exact enough to test a receiver against theory.

GNU Radio's blocks are not used here on purpose: what tests the receiver shall not share code with the
flowgraph's channel (tested in test_flowgraph_channel.py), and a trial must take milliseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from blocks.modem import waveform as wf
from blocks.modem.burst import Burst, build_bursts

AIR_SPS = 4
RECEIVER_SPS = wf.RECEIVER_SAMPLES_PER_SYMBOL
# Air samples from the start of a burst's samples to the instant of its first preamble symbol.
FIRST_SYMBOL = (wf.PULSE_HALF_SPAN_SYMBOLS + wf.RAMP_SYMBOLS) * AIR_SPS

# 64 taps and a Kaiser window leave less than -90 dB of error for a signal within 0.2 of the rate.
_HALF_KERNEL = 32
_KERNEL_BETA = 10.0


@dataclass(frozen=True)
class Air:
    """One path from a transmitter at 4 samples per symbol to a receiver at 2.

    Args:
        snr_db: Es/N0 for samples of unit mean power, None for no noise.
        cfo: carrier offset in cycles per symbol.
        sro_ppm: the receiver's clock minus the transmitter's; positive means more samples per symbol.
        delay: in air samples, any fraction.
        phase: of the carrier at the first sample, in turns.
        phase_noise: random walk of the carrier's phase, rad^2 per symbol.
        gain: amplitude after everything else.
        dc: constant added to every sample, in units of the signal's amplitude before ``gain``.
    """

    snr_db: float | None = None
    cfo: float = 0.0
    sro_ppm: float = 0.0
    delay: float = 0.0
    phase: float = 0.0
    phase_noise: float = 0.0
    gain: float = 1.0
    dc: complex = 0.0

    def receive(
        self, samples: NDArray[np.complex64], generator: np.random.Generator
    ) -> NDArray[np.complex64]:
        """Air samples to receiver samples, ``complex64 [about n / 2]``."""
        count = int((samples.size + self.delay) * (1 + self.sro_ppm * 1e-6))
        count -= count % 2
        time = np.arange(count) / (1 + self.sro_ppm * 1e-6) - self.delay
        received = resample(samples, time)
        angle = 2 * np.pi * (self.cfo / AIR_SPS * np.arange(count) + self.phase)
        if self.phase_noise:
            step = np.sqrt(self.phase_noise / AIR_SPS)
            angle = angle + step * np.cumsum(generator.standard_normal(count))
        received = received * np.exp(1j * angle)
        if self.snr_db is not None:
            received = received + noise(count, AIR_SPS * 10 ** (-self.snr_db / 10), generator)
        return (self.gain * decimate(received + self.dc)).astype(np.complex64)

    def arrival(self, air_sample: float) -> float:
        """Receiver sample at which something sent at ``air_sample`` arrives."""
        return (air_sample + self.delay) * (1 + self.sro_ppm * 1e-6) * RECEIVER_SPS / AIR_SPS


def noise(count: int, variance: float, generator: np.random.Generator) -> NDArray[np.complex128]:
    """Circular white Gaussian noise, ``complex128 [count]``."""
    pairs = generator.standard_normal((count, 2)) * np.sqrt(variance / 2)
    return pairs[:, 0] + 1j * pairs[:, 1]


def resample(samples: NDArray[np.complex64], time: NDArray[np.float64]) -> NDArray[np.complex128]:
    """The band-limited signal behind ``samples`` at any instants; silent outside."""
    if np.array_equal(time, np.arange(time.size)) and time.size == samples.size:
        return samples.astype(np.complex128)
    padded = np.zeros(samples.size + 4 * _HALF_KERNEL, np.complex128)
    padded[2 * _HALF_KERNEL : 2 * _HALF_KERNEL + samples.size] = samples
    whole = np.floor(time).astype(np.int64)
    fraction = time - whole
    out = np.zeros(time.size, np.complex128)
    scale = np.i0(_KERNEL_BETA)
    inside = (whole > -2 * _HALF_KERNEL) & (whole < samples.size + _HALF_KERNEL)
    base = np.where(inside, whole, -_HALF_KERNEL) + 2 * _HALF_KERNEL
    # sin(pi (f - k)) is sin(pi f) but for its sign: one sine instead of 64.
    sine = np.sin(np.pi * fraction) / np.pi
    for k in range(1 - _HALF_KERNEL, _HALF_KERNEL + 1):
        distance = fraction - k
        exact = np.abs(distance) < 1e-12
        sinc = (-1) ** k * sine / np.where(exact, 1.0, distance)
        window = _window(distance) / scale
        out += padded[base + k] * np.where(exact, 1.0, sinc * window)
    return np.where(inside, out, 0.0)


def _window(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    grid, table = _window_table()
    return np.interp(np.abs(distance), grid, table)


@cache
def _window_table() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    grid = np.linspace(0, _HALF_KERNEL, 1 << 14)
    return grid, np.i0(_KERNEL_BETA * np.sqrt(1 - (grid / _HALF_KERNEL) ** 2))


@cache
def _decimation_taps() -> NDArray[np.float64]:
    # Flat to 0.7 symbol rates, silent from 1.3, as the front end promises; odd length, so no delay.
    half = 24
    time = np.arange(-half, half + 1)
    taps = np.sinc(time / 2) * np.kaiser(time.size, 7.0)
    return taps / taps.sum()


def decimate(samples: NDArray[np.complex128]) -> NDArray[np.complex128]:
    """Low-pass and every second sample; sample 0 stays sample 0."""
    full = np.convolve(samples, _decimation_taps())
    half = _decimation_taps().size // 2
    return full[half : half + samples.size : AIR_SPS // RECEIVER_SPS]


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
