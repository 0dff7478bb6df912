"""The air between two radios in plain NumPy: fast, exact, independent of GNU Radio.

For error-rate curves and tests. The flowgraphs have a channel of their own made of stock GNU Radio blocks
(``flowgraphs/channel.py``); the two share no code on purpose, so that each can be held against the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numba import njit
from numpy.typing import NDArray

from blocks.modem import waveform as wf

AIR_SAMPLES_PER_SYMBOL = 4
_DECIMATION = AIR_SAMPLES_PER_SYMBOL // wf.RECEIVER_SAMPLES_PER_SYMBOL

# Resampling: 64 taps under a Kaiser window leave less than -90 dB of error for a signal within 0.2 of
# the rate; the nearest of 8192 tabulated phases adds -85 dB at most.
_HALF_KERNEL = 32
_KERNEL_PHASES = 8192
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
        echoes: further paths, each ``(delay, gain)``: delay behind the first path in symbols of the
            transmitter, any fraction, and complex gain relative to it. ``snr_db`` stays that of the
            first path.
    """

    snr_db: float | None = None
    cfo: float = 0.0
    sro_ppm: float = 0.0
    delay: float = 0.0
    phase: float = 0.0
    phase_noise: float = 0.0
    gain: float = 1.0
    dc: complex = 0.0
    echoes: tuple[tuple[float, complex], ...] = ()

    def receive(
        self, samples: NDArray[np.complex64], generator: np.random.Generator
    ) -> NDArray[np.complex64]:
        """Air samples to receiver samples, ``complex64 [about n / 2]``."""
        paths = [(0.0, 1.0 + 0.0j), *self.echoes]
        latest = AIR_SAMPLES_PER_SYMBOL * max(delay for delay, _ in paths)
        count = int((samples.size + self.delay + latest) * (1 + self.sro_ppm * 1e-6)) // 2 * 2
        step = 1 / (1 + self.sro_ppm * 1e-6)
        received = np.zeros(count, np.complex128)
        for delay, gain in paths:
            first = -self.delay - AIR_SAMPLES_PER_SYMBOL * delay
            received += gain * resample(samples, first, step, count)
        walk = np.zeros(count)
        if self.phase_noise:
            spread = np.sqrt(self.phase_noise / AIR_SAMPLES_PER_SYMBOL)
            walk = spread * np.cumsum(generator.standard_normal(count))
        _rotate(received, self.cfo / AIR_SAMPLES_PER_SYMBOL, self.phase, walk)
        if self.snr_db is not None:
            variance = AIR_SAMPLES_PER_SYMBOL * 10 ** (-self.snr_db / 10)
            received = received + noise(count, variance, generator)
        return (self.gain * decimate(received + self.dc)).astype(np.complex64)

    def arrival(self, air_sample: float) -> float:
        """Receiver sample at which something sent at ``air_sample`` arrives."""
        return (air_sample + self.delay) * (1 + self.sro_ppm * 1e-6) / _DECIMATION


def noise(count: int, variance: float, generator: np.random.Generator) -> NDArray[np.complex128]:
    """Circular white Gaussian noise, ``complex128 [count]``."""
    pairs = generator.standard_normal((count, 2)) * np.sqrt(variance / 2)
    return pairs.view(np.complex128)[:, 0]


def resample(
    samples: NDArray[np.complex64], first: float, step: float, count: int
) -> NDArray[np.complex128]:
    """The band-limited signal behind ``samples`` at ``first + step n``; silent outside.

    Args:
        samples: ``complex64 [m]``, band-limited to about 0.4 of the rate.
        first: first instant, in samples.
        step: between instants, in samples.
        count: instants.
    """
    # Real and imaginary parts apart: the inner loop then is two plain dot products.
    parts = np.zeros((2, samples.size + 4 * _HALF_KERNEL))
    inside = slice(2 * _HALF_KERNEL, 2 * _HALF_KERNEL + samples.size)
    parts[0, inside], parts[1, inside] = samples.real, samples.imag
    out: NDArray[np.complex128] = _resample(
        parts[0], parts[1], _kernel(), first + 2 * _HALF_KERNEL, step, count
    )
    return out


@cache
def _kernel() -> NDArray[np.float64]:
    """Windowed sinc, ``float64 [8193, 64]``: row p is for an instant p/8192 past a sample."""
    fraction = np.arange(_KERNEL_PHASES + 1)[:, None] / _KERNEL_PHASES
    distance = np.arange(1 - _HALF_KERNEL, _HALF_KERNEL + 1)[None, :] - fraction
    edge = np.clip(1 - (distance / _HALF_KERNEL) ** 2, 0, None)
    window = np.i0(_KERNEL_BETA * np.sqrt(edge)) / np.i0(_KERNEL_BETA)
    kernel: NDArray[np.float64] = (np.sinc(distance) * window).astype(np.float64)
    return kernel


@njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})
def _resample(real, imag, kernel, first, step, count):  # type: ignore[no-untyped-def]
    phases = kernel.shape[0] - 1
    out = np.zeros(count, np.complex128)
    for n in range(count):
        instant = first + step * n
        whole = int(np.floor(instant))
        start = whole + 1 - _HALF_KERNEL
        if start < 0 or start + 2 * _HALF_KERNEL > real.size:
            continue
        row = kernel[int((instant - whole) * phases + 0.5)]
        x = real[start : start + 2 * _HALF_KERNEL]
        y = imag[start : start + 2 * _HALF_KERNEL]
        a, b = 0.0, 0.0
        for k in range(2 * _HALF_KERNEL):
            a += row[k] * x[k]
            b += row[k] * y[k]
        out[n] = complex(a, b)
    return out


@njit(nogil=True, cache=True)
def _rotate(samples, cycles, phase, walk):  # type: ignore[no-untyped-def]
    """Turn sample n in place by ``cycles n + phase`` turns and ``walk[n]`` radians."""
    for n in range(samples.size):
        angle = 2 * np.pi * (cycles * n + phase) + walk[n]
        samples[n] *= complex(np.cos(angle), np.sin(angle))


@cache
def _decimation_taps() -> NDArray[np.float64]:
    # Flat to 0.7 symbol rates, silent from 1.3, as the front end promises; odd length, so no delay.
    time = np.arange(-24, 25)
    taps = np.sinc(time / _DECIMATION) * np.kaiser(time.size, 7.0)
    return taps / taps.sum()


def decimate(samples: NDArray[np.complex128]) -> NDArray[np.complex128]:
    """Low-pass and every second sample; sample 0 stays sample 0."""
    # A half-band filter: of the even samples only the one in the middle counts.
    taps = _decimation_taps()
    half = taps.size // 2
    even, odd = samples[::2], samples[1::2]
    beside = np.convolve(odd, taps[1::2])[half // 2 - 1 :][: even.size]
    decimated: NDArray[np.complex128] = (taps[half] * even + beside).astype(np.complex128)
    return decimated
