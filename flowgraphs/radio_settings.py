"""What became of a setting, and the one error for a radio that is not there or cannot do it.

Radios coerce silently: asked for a rate they cannot make they take another one and say nothing. So every
setting is read back. What would break the link (rate, frequency, antenna, clock, a gain out of range) ends
in one :class:`RadioError` that says what was asked, what came and what the radio offers; a gain or filter
that was rounded only costs quality and is logged.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

_LOG = logging.getLogger(__name__)

# A different rate looks like a sample rate offset; the receiver takes 40 ppm from the clocks alone.
_RATE_TOLERANCE = 2e-6
# Tuning steps are below 1 Hz on USRPs, below 1 kHz elsewhere; a refused frequency is off by far more.
_FREQUENCY_TOLERANCE_HZ = 2e3
_GAIN_TOLERANCE_DB = 1.0
# Rates and names that a message lists at most.
_OFFERS = 8

# What a driver's C++ exceptions arrive as.
DRIVER_ERRORS = (RuntimeError, ValueError, IndexError)

_Answer = TypeVar("_Answer")


class RadioError(RuntimeError):
    """A radio that is not there, or cannot do what the profile asks; the message is one line."""


@dataclass(frozen=True)
class SettingsReadBack:
    """What one direction of a radio says it does, after everything was set.

    ``bandwidth_hz``, ``clock_source`` and ``time_source`` are None where the radio does not say.
    """

    rate_hz: float
    frequency_hz: float
    gain_db: float
    antenna: str
    bandwidth_hz: float | None = None
    clock_source: str | None = None
    time_source: str | None = None

    def text(self) -> str:
        """All of it, in one line."""
        parts = [
            f"{self.rate_hz / 1e6:.6g} Msps",
            f"{self.frequency_hz / 1e6:.6f} MHz",
            f"gain {self.gain_db:.1f} dB",
            f"antenna {self.antenna or '(the only one)'}",
        ]
        if self.bandwidth_hz:
            parts.append(f"filter {self.bandwidth_hz / 1e6:.3g} MHz")
        if self.clock_source:
            parts.append(f"clock {self.clock_source}")
        if self.time_source:
            parts.append(f"time {self.time_source}")
        return ", ".join(parts)


@contextlib.contextmanager
def setting(what: str, offers: Callable[[], str] | None = None) -> Iterator[None]:
    """Turn what a driver throws inside into a :class:`RadioError`.

    Args:
        what: the setting and its value, in words.
        offers: what the radio has instead, asked only where it refuses.
    """
    try:
        yield
    except RadioError:
        raise
    except DRIVER_ERRORS as error:
        # A driver that throws on one question may throw on the next.
        offer = optional(offers) if offers is not None else None
        raise RadioError(
            f"the radio refuses {what}{_it_offers(offer or '')} (its driver says: {short(error)})"
        ) from error


def optional(ask: Callable[[], _Answer]) -> _Answer | None:
    """A radio's answer to a question that not every driver knows; None from those."""
    try:
        return ask()
    except DRIVER_ERRORS:
        return None


def check_rate(asked_hz: float, came_hz: float, offer: str = "") -> None:
    """Refuse a rate that came out different; ``offer`` says what there is instead."""
    if not abs(came_hz - asked_hz) <= _RATE_TOLERANCE * asked_hz:
        raise RadioError(
            f"the radio makes {came_hz:.1f} samples per second of {asked_hz:.1f}: expected waveform."
            f"symbol_rate_hz x waveform.samples_per_symbol to be a rate it can make exactly"
            f"{_it_offers(offer)}"
        )


def check_clock_rate(asked_hz: float, came_hz: float) -> None:
    """Refuse a master clock that came out different."""
    if not abs(came_hz - asked_hz) <= _RATE_TOLERANCE * asked_hz:
        raise RadioError(
            f"the radio's master clock runs at {came_hz:.1f} Hz instead of {asked_hz:.1f}: expected "
            "master_clock_rate_hz to be one it can make, or null"
        )


def check_lock(source: str, locked: bool) -> None:
    """Refuse to run on a reference that is not there."""
    if not locked:
        raise RadioError(
            f"the radio finds no 10 MHz reference at its clock_source {source}: connect it, or take "
            "clock_source internal"
        )


def check_frequency(asked_hz: float, came_hz: float, offer: str = "") -> None:
    """Refuse a carrier that came out different; ``offer`` says what there is instead."""
    if not abs(came_hz - asked_hz) <= _FREQUENCY_TOLERANCE_HZ:
        raise RadioError(
            f"the radio tunes to {came_hz:.1f} Hz instead of {asked_hz:.1f}: expected frequency_hz "
            "within its range, and lo_offset_hz within its sample rate or bandwidth"
            f"{_it_offers(offer)}"
        )


def check_antenna(asked: str, ports: Sequence[str]) -> None:
    """Refuse a port that the radio does not have."""
    check_choice("antenna port", asked, ports)


def check_choice(what: str, asked: str, offered: Sequence[str]) -> None:
    """Refuse a name that is not among those on offer; ``what`` is the setting in words."""
    if asked not in offered:
        choices = ", ".join(offered) if offered else "none: this radio has no choice there"
        raise RadioError(f"the radio has no {what} {asked!r}: expected one of {choices}")


def check_gain(asked_db: float, lowest_db: float, highest_db: float) -> None:
    """Refuse a gain out of the radio's range."""
    if not lowest_db <= asked_db <= highest_db:
        raise RadioError(
            f"the radio has no gain of {asked_db:g} dB: expected gain_db from {lowest_db:g} to "
            f"{highest_db:g}"
        )


def report_gain(asked_db: float, came_db: float) -> None:
    """Log a gain that was rounded."""
    if not abs(came_db - asked_db) <= _GAIN_TOLERANCE_DB:
        _LOG.warning("gain: asked for %.1f dB, the radio took %.1f dB", asked_db, came_db)


def report_bandwidth(asked_hz: float, came_hz: float) -> None:
    """Log a filter that was rounded."""
    if not abs(came_hz - asked_hz) <= 0.01 * asked_hz:
        _LOG.warning("bandwidth: asked for %.0f Hz, the radio took %.0f Hz", asked_hz, came_hz)


def short(error: Exception) -> str:
    """A driver's message on one line."""
    return " ".join(str(error).split())[:200]


def _it_offers(offer: str) -> str:
    return f"; it offers {offer}" if offer else ""


def nearest_ranges(asked: float, ranges: Sequence[tuple[float, float]]) -> str:
    """The (lowest, highest) ranges in Hz that are nearest to what was asked, in words.

    Empty where there are none.
    """

    def distance(one: tuple[float, float]) -> float:
        return max(one[0] - asked, asked - one[1], 0.0)

    several = set(ranges)
    nearest = sorted(sorted(several, key=distance)[:_OFFERS])
    if not nearest:
        return ""
    texts = [
        f"{low:.10g}" if low == high else f"{low:.10g} to {high:.10g}" for low, high in nearest
    ]
    more = ", ..." if len(several) > len(nearest) else ""
    return f"{', '.join(texts)}{more} Hz"
