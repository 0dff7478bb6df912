"""What became of a setting, and the one error for a radio that is not there or cannot do it.

Radios coerce silently: asked for a rate they cannot make they take another one and say nothing. So every
setting is read back. What would break the link (rate, frequency, antenna, clock, a gain out of range) ends
in one :class:`RadioError` that says what was asked, what came and what the radio offers; a gain or filter
that was rounded only costs quality and is logged.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

_LOG = logging.getLogger(__name__)

# A different rate looks like a sample rate offset; the receiver takes 40 ppm from the clocks alone.
_RATE_TOLERANCE = 2e-6
# Tuning steps are below 1 Hz on USRPs, below 1 kHz elsewhere; a refused frequency is off by far more.
_FREQUENCY_TOLERANCE_HZ = 2e3
_GAIN_TOLERANCE_DB = 1.0
# Rates and names that a message lists at most.
_OFFERS = 8

Ranges = Sequence[tuple[float, float]]


class RadioError(RuntimeError):
    """A radio that is not there, or cannot do what the profile asks; the message is one line."""


@dataclass(frozen=True)
class SettingsReadBack:
    """What one direction of a radio says it does, after everything was set.

    ``bandwidth_hz``, ``clock_source`` and ``time_source`` are None where the radio does not say.
    """

    side: str
    rate_hz: float
    frequency_hz: float
    gain_db: float
    antenna: str
    bandwidth_hz: float | None = None
    clock_source: str | None = None
    time_source: str | None = None

    def report(self) -> None:
        """Log it, in one line."""
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
        _LOG.info("%s: %s", self.side, ", ".join(parts))


def check_rate(asked_hz: float, came_hz: float, ranges: Ranges = ()) -> None:
    """Refuse a rate that came out different; ``ranges`` are (lowest, highest) rates in Hz on offer."""
    if not abs(came_hz - asked_hz) <= _RATE_TOLERANCE * asked_hz:
        raise RadioError(
            f"the radio makes {came_hz:.1f} samples per second of {asked_hz:.1f}: expected waveform."
            "symbol_rate_hz x waveform.samples_per_symbol to be a rate it can make exactly"
            + _offered(asked_hz, ranges)
        )


def check_frequency(asked_hz: float, came_hz: float, ranges: Ranges = ()) -> None:
    """Refuse a carrier that came out different; ``ranges`` as for rates."""
    if not abs(came_hz - asked_hz) <= _FREQUENCY_TOLERANCE_HZ:
        raise RadioError(
            f"the radio tunes to {came_hz:.1f} Hz instead of {asked_hz:.1f}: expected frequency_hz "
            "within its range, and lo_offset_hz within its sample rate or bandwidth"
            + _offered(asked_hz, ranges)
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


def _offered(asked: float, ranges: Ranges) -> str:
    """The ranges on offer nearest to what was asked, as the end of a sentence."""

    def distance(one: tuple[float, float]) -> float:
        return max(one[0] - asked, asked - one[1], 0.0)

    nearest = sorted(sorted(set(ranges), key=distance)[:_OFFERS])
    if not nearest:
        return ""
    texts = [
        f"{low:.10g}" if low == high else f"{low:.10g} to {high:.10g}" for low, high in nearest
    ]
    more = ", ..." if len(set(ranges)) > len(nearest) else ""
    return f"; it offers {', '.join(texts)}{more} Hz"
