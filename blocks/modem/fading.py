"""Channels that a whole burst sees at once, for error-rate curves: flat fading and one echo.

A burst is short against the coherence time: it keeps one gain from its first symbol to its last. Es/N0 is
always that of the mean received energy, so that the mean of the power gain is 1.

*Rician* with factor K (linear): h = sqrt(K/(K+1)) exp(j theta) + CN(0, 1/(K+1)); *Rayleigh* is K = 0. The
receiver meets any carrier phase anyway, so that only the power g = abs(h)^2 is drawn. It is drawn evenly:
trial n gets the quantile frac(u + n / golden ratio) with one random u per seed. Every trial has the law of g,
and a few hundred trials together cover it without the clumps of independent draws.

*Two taps*: h(t) = a (delta(t) + b exp(j theta) delta(t - d)), theta uniform, a^2 (1 + b^2) = 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_GOLDEN = (math.sqrt(5) - 1) / 2
_LAW_POINTS = 20_001
MAX_RICIAN_K = 100.0
MAX_ECHO_SYMBOLS = 16.0


class ChannelError(ValueError):
    """A channel that cannot be simulated."""


@dataclass(frozen=True)
class Path:
    """What one burst goes through.

    Args:
        gain: amplitude of the first path.
        echoes: as in :class:`blocks.modem.simulated_air.Air`.
    """

    gain: float = 1.0
    echoes: tuple[tuple[float, complex], ...] = ()


@dataclass(frozen=True)
class Awgn:
    """White noise and nothing else."""

    def __str__(self) -> str:
        return "awgn"

    def path(self, seed: int, trial: int) -> Path:
        """The way of one burst."""
        return Path()


@dataclass(frozen=True)
class FlatFading:
    """One gain per burst, Rician with factor ``rician_k`` (linear, not dB); 0 is Rayleigh."""

    rician_k: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.rician_k <= MAX_RICIAN_K:
            raise ChannelError(f"Rician K: expected 0 to {MAX_RICIAN_K:g}, got {self.rician_k:g}")

    def __str__(self) -> str:
        return f"rician:{self.rician_k:g}" if self.rician_k else "rayleigh"

    def path(self, seed: int, trial: int) -> Path:
        """The way of one burst."""
        first = np.random.default_rng([seed, _FADING_STREAM]).uniform()
        return Path(gain=self.amplitude((first + trial * _GOLDEN) % 1.0))

    def amplitude(self, quantile: float) -> float:
        """abs(h) that a share ``quantile`` of all bursts stays below."""
        amplitudes, weights = _law(self.rician_k)
        below = np.cumsum(weights) - weights / 2
        return float(np.interp(quantile, below, amplitudes))

    def mean(
        self, per_at: Callable[[NDArray[np.float64]], NDArray[np.float64]], snr_db: float
    ) -> float:
        """Exact average of an error rate over the law.

        Args:
            per_at: error rates in white noise at values of Es/N0 in dB, ``float64 [n]`` each.
            snr_db: mean Es/N0.
        """
        amplitudes, weights = _law(self.rician_k)
        return float(np.dot(weights, per_at(snr_db + 20 * np.log10(amplitudes))))


@dataclass(frozen=True)
class TwoTaps:
    """An echo ``echo_db`` against the first path (below 0), ``delay`` symbols behind, of random phase."""

    echo_db: float = -10.0
    delay: float = 1.0

    def __post_init__(self) -> None:
        if not -60 <= self.echo_db <= 0:
            raise ChannelError(f"echo: expected -60 to 0 dB, got {self.echo_db:g}")
        if not 0 < self.delay <= MAX_ECHO_SYMBOLS:
            raise ChannelError(
                f"echo: expected a delay up to {MAX_ECHO_SYMBOLS:g} symbols, got {self.delay:g}"
            )

    def __str__(self) -> str:
        return f"two-tap:{self.echo_db:g},{self.delay:g}"

    def path(self, seed: int, trial: int) -> Path:
        """The way of one burst."""
        turns = np.random.default_rng([seed, _FADING_STREAM]).uniform() + trial * _GOLDEN
        strength = 10 ** (self.echo_db / 20)
        echo = complex(strength * np.exp(2j * np.pi * turns))
        return Path(1 / math.sqrt(1 + strength**2), ((self.delay, echo),))


Channel = Awgn | FlatFading | TwoTaps

# Keeps the fading's random numbers apart from those of the bursts of the same seed.
_FADING_STREAM = 0xFAD


def parse_channel(text: str) -> Channel:
    """``awgn``, ``rayleigh``, ``rician:K``, ``two-tap`` or ``two-tap:DB,SYMBOLS``.

    Raises:
        ChannelError: anything else.
    """
    name, colon, values = text.partition(":")
    try:
        numbers = [float(value) for value in values.split(",")] if colon else []
    except ValueError:
        numbers = [math.nan]
    match name, numbers:
        case "awgn", []:
            return Awgn()
        case "rayleigh", []:
            return FlatFading()
        case "rician", [k] if k > 0:
            return FlatFading(k)
        case "two-tap", []:
            return TwoTaps()
        case "two-tap", [echo_db, delay]:
            return TwoTaps(echo_db, delay)
    raise ChannelError(
        f"{text!r}: expected awgn, rayleigh, rician:K, two-tap or two-tap:DB,SYMBOLS"
    )


@lru_cache(maxsize=16)
def _law(rician_k: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Amplitudes and their probabilities, ``float64 [20001]`` each; the probabilities sum to 1.

    p(r) = 2 r (1 + K) exp(-K - (1 + K) r^2) I0(2 r sqrt(K (1 + K))); less than exp(-60) lies above the last
    amplitude. Up to MAX_RICIAN_K no factor overflows.
    """
    scale = 1 / math.sqrt(1 + rician_k)
    last = math.sqrt(rician_k) * scale + 8 * scale
    amplitudes = (np.arange(_LAW_POINTS) + 0.5) * (last / _LAW_POINTS)
    argument = 2 * amplitudes * math.sqrt(rician_k * (1 + rician_k))
    exponent = -rician_k - (1 + rician_k) * amplitudes**2
    density = amplitudes * np.exp(exponent) * np.i0(argument)
    return amplitudes, density / density.sum()
