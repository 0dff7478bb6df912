"""Following a burst through time: clock drift, carrier phase, amplitude and noise, from known symbols.

Everything here is feed-forward and data-aided: no loop has to settle, and the same samples always give
the same result.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from blocks.modem import waveform as wf
from blocks.modem.pulse import matched_filter_bank, sample_symbols

GROUP = wf.PILOT_SYMBOLS
_SPS = wf.RECEIVER_SAMPLES_PER_SYMBOL

# Sample-rate offsets tried, in ppm: two radios of +-25 ppm each, with room.
MAX_SAMPLE_RATE_OFFSET_PPM = 100.0
# The fine stage pulls in from a quarter of a symbol at the end of the burst.
_PULL_IN_SYMBOLS = 0.2
_EARLY_LATE_SYMBOLS = 0.25
_TIMING_ROUNDS = 2

# Residual carrier offset searched after acquisition, in cycles per symbol: 5 sigma at -2 dB.
_RESIDUAL_CFO_REACH = 6e-4
# Phase noise the tracker is built for, rad^2 per symbol (the waveform's promise is 1e-5; the rest is
# room for what the straight-line fits leave).
_PHASE_WALK = 1.5e-5


@dataclass(frozen=True)
class KnownSymbols:
    """Known symbols in groups of 8.

    Args:
        indices: ``float64 [groups, 8]`` positions, in symbols from the first preamble symbol.
        symbols: ``complex64 [groups, 8]`` of unit amplitude.
    """

    indices: NDArray[np.float64]
    symbols: NDArray[np.complex64]

    @property
    def centres(self) -> NDArray[np.float64]:
        """Middle of each group, in symbols."""
        centres: NDArray[np.float64] = self.indices.mean(axis=1)
        return centres

    def phasors(
        self, samples: NDArray[np.complex64], start: float, step: float
    ) -> NDArray[np.complex64]:
        """Mean channel seen by each group, ``complex64 [groups]``."""
        received = sample_symbols(
            samples, matched_filter_bank(), start, step, self.indices.reshape(-1)
        )
        means: NDArray[np.complex64] = (
            received.reshape(self.symbols.shape) * self.symbols.conj()
        ).mean(axis=1)
        return means


def join(*parts: KnownSymbols) -> KnownSymbols:
    """Several sets of known symbols as one, ordered in time."""
    indices = np.concatenate([part.indices for part in parts])
    symbols = np.concatenate([part.symbols for part in parts])
    order = np.argsort(indices[:, 0], kind="stable")
    return KnownSymbols(indices[order], symbols[order])


def known_preamble() -> KnownSymbols:
    """The 256 preamble symbols as 32 groups."""
    indices = np.arange(wf.PREAMBLE_SYMBOLS, dtype=np.float64).reshape(-1, GROUP)
    return KnownSymbols(indices, wf.preamble().reshape(-1, GROUP))


def body_positions(body_symbols: int) -> NDArray[np.int64]:
    """Position of each body symbol, counted from the first preamble symbol, ``int64 [body_symbols]``."""
    index = np.arange(body_symbols)
    return wf.PREAMBLE_SYMBOLS + index + GROUP * (index // wf.PILOT_SPACING)


def known_pilots(body_symbols: int) -> KnownSymbols:
    """All pilot groups of a burst whose header and payload have ``body_symbols`` symbols."""
    groups = -(-body_symbols // wf.PILOT_SPACING)
    ends = np.minimum((np.arange(groups) + 1) * wf.PILOT_SPACING, body_symbols)
    first = wf.PREAMBLE_SYMBOLS + ends + GROUP * np.arange(groups)
    indices = (first[:, None] + np.arange(GROUP)).astype(np.float64)
    return KnownSymbols(indices, wf.pilots(groups))


def known_body(first: int, symbols: NDArray[np.complex64]) -> KnownSymbols:
    """Decided body symbols (the re-encoded header) that start at body position ``first``.

    ``symbols`` is a whole number of groups of 8 that no pilot group cuts.
    """
    positions = body_positions(first + symbols.size)[first:]
    return KnownSymbols(
        positions.astype(np.float64).reshape(-1, GROUP),
        symbols.reshape(-1, GROUP),
    )


def track_timing(
    samples: NDArray[np.complex64], start: float, known: KnownSymbols
) -> tuple[float, float]:
    """Time of the first symbol and spacing of symbols, in samples.

    A sample-rate offset moves the symbols by up to two periods within a long burst, further than an
    early-late detector can see: first a grid of offsets, then early-late errors with a straight line
    through them.

    Args:
        samples: ``complex64``, carrier offset removed.
        start: instant of the first preamble symbol from acquisition.
        known: the known symbols of the burst.

    Returns:
        ``(start, step)``.
    """
    length = float(known.indices.max()) + 1
    step = _best_step(samples, start, known, length)
    for _ in range(_TIMING_ROUNDS):
        delta = _EARLY_LATE_SYMBOLS * _SPS
        early, middle, late = (
            known.phasors(samples, start + shift, step) for shift in (-delta, 0.0, delta)
        )
        errors = (middle.conj() * (late - early)).real.astype(np.float64)
        power = (np.abs(middle) ** 2).astype(np.float64)
        slope = _early_late_slope() * power.mean()
        offset, drift = _straight_line(known.centres, errors / max(slope, 1e-30))
        start += offset * _SPS
        step += drift * _SPS
    return start, step


def _best_step(
    samples: NDArray[np.complex64], start: float, known: KnownSymbols, length: float
) -> float:
    spacing = _PULL_IN_SYMBOLS / length
    steps = int(MAX_SAMPLE_RATE_OFFSET_PPM * 1e-6 / spacing)
    if steps == 0:
        return float(_SPS)
    offsets = np.arange(-steps, steps + 1) * spacing
    powers = [
        float((np.abs(known.phasors(samples, start, _SPS * (1 + offset))) ** 2).sum())
        for offset in offsets
    ]
    return float(_SPS * (1 + offsets[int(np.argmax(powers))]))


def _early_late_slope() -> float:
    """Slope of the early-late error per symbol of timing error, for unit power.

    A symbol that comes a time t after the instant looked at gives R(d - t) - R(d + t) = -2 R'(d) t with
    the raised cosine R and the distance d of the early and late samples.
    """
    d, a, h = _EARLY_LATE_SYMBOLS, wf.ROLL_OFF, 1e-4

    def raised_cosine(t: float) -> float:
        return float(np.sinc(t) * np.cos(np.pi * a * t) / (1 - (2 * a * t) ** 2))

    return -(raised_cosine(d + h) - raised_cosine(d - h)) / h


def _straight_line(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float]:
    """Least squares ``y = offset + slope x``."""
    centre = x.mean()
    spread = ((x - centre) ** 2).sum()
    slope = float(((x - centre) * y).sum() / spread)
    return float(y.mean() - slope * centre), slope


def residual_cfo(phasors: NDArray[np.complex64], centres: NDArray[np.float64]) -> float:
    """Carrier offset left after acquisition, cycles per symbol: peak of the known symbols' spectrum."""
    span = float(centres[-1] - centres[0]) + GROUP
    resolution = 1.0 / (8 * span)
    steps = max(1, int(np.ceil(_RESIDUAL_CFO_REACH / resolution)))
    power = _spectrum(phasors.astype(np.complex128), centres, resolution, steps)
    peak = int(np.clip(np.argmax(power), 1, 2 * steps - 1))
    left, middle, right = power[peak - 1 : peak + 2]
    bend = left - 2 * middle + right
    vertex = 0.0 if bend >= 0 else float(np.clip(0.5 * (left - right) / bend, -1, 1))
    return (peak - steps + vertex) * resolution


@njit(nogil=True, cache=True)
def _spectrum(phasors, centres, resolution, steps):  # type: ignore[no-untyped-def]
    """|sum_g phasors[g] exp(-j 2 pi f centres[g])|^2 at f = k resolution, k = -steps..steps."""
    power = np.empty(2 * steps + 1)
    values = phasors.copy()
    for g in range(values.size):
        values[g] *= np.exp(2j * np.pi * steps * resolution * centres[g])
    turns = np.exp(-2j * np.pi * resolution * centres)
    for k in range(power.size):
        total = values.sum()
        power[k] = total.real**2 + total.imag**2
        values *= turns
    return power


def track_phase(
    phasors: NDArray[np.complex64],
    centres: NDArray[np.float64],
    noise_variance: float,
) -> NDArray[np.complex128]:
    """Channel at each group: random-walk (Kalman, Rauch-Tung-Striebel) smoothing of the phasors.

    Args:
        phasors: ``complex64 [groups]``, residual carrier offset removed.
        centres: ``float64 [groups]``, in symbols.
        noise_variance: N0 of one received symbol.

    Returns:
        ``complex128 [groups]``.
    """
    level = max(float((np.abs(phasors) ** 2).mean()) - noise_variance / GROUP, 1e-30)
    return _smooth(
        phasors.astype(np.complex128), centres, noise_variance / GROUP, _PHASE_WALK * level
    )


@njit(nogil=True, cache=True)
def _smooth(observed, centres, observation_noise, walk):  # type: ignore[no-untyped-def]
    count = observed.size
    state = np.empty(count, np.complex128)
    variance = np.empty(count)
    predicted = np.empty(count)
    state[0] = observed[0]
    variance[0] = observation_noise
    predicted[0] = observation_noise
    for g in range(1, count):
        predicted[g] = variance[g - 1] + walk * (centres[g] - centres[g - 1])
        gain = predicted[g] / (predicted[g] + observation_noise + 1e-300)
        state[g] = state[g - 1] + gain * (observed[g] - state[g - 1])
        variance[g] = (1 - gain) * predicted[g]
    for g in range(count - 2, -1, -1):
        gain = variance[g] / (predicted[g + 1] + 1e-300)
        state[g] += gain * (state[g + 1] - state[g])
    return state


def interpolate_channel(
    channel: NDArray[np.complex128], centres: NDArray[np.float64], positions: NDArray[np.float64]
) -> NDArray[np.complex64]:
    """Channel between the groups, linear; constant beyond the first and the last."""
    real = np.interp(positions, centres, channel.real)
    imag = np.interp(positions, centres, channel.imag)
    return (real + 1j * imag).astype(np.complex64)
