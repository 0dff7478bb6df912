"""Time tags of a sample stream: how many samples a radio lost.

gr-uhd inserts nothing where samples were lost. It tags the first sample of the stream with its time
(``rx_time``: whole seconds and fraction), and again the first one behind every loss.
"""

from __future__ import annotations

from fractions import Fraction

import pmt

RX_TIME_TAG = "rx_time"
RX_RATE_TAG = "rx_rate"
RX_FREQUENCY_TAG = "rx_freq"


def time_to_pmt(time_s: Fraction) -> pmt.pmt_base:
    """Value of a time tag, as gr-uhd writes it."""
    seconds = time_s.numerator // time_s.denominator
    return pmt.make_tuple(pmt.from_uint64(seconds), pmt.from_double(float(time_s - seconds)))


def pmt_to_time(value: pmt.pmt_base) -> Fraction:
    """Inverse of :func:`time_to_pmt`, in seconds, exact.

    Raises:
        ValueError: not such a value.
    """
    if not (pmt.is_tuple(value) and pmt.length(value) == 2):
        raise ValueError("expected a tuple of whole seconds and fraction")
    whole, fraction = pmt.tuple_ref(value, 0), pmt.tuple_ref(value, 1)
    if not (pmt.is_uint64(whole) or pmt.is_integer(whole)) or not pmt.is_real(fraction):
        raise ValueError("expected a tuple of whole seconds and fraction")
    return Fraction(int(pmt.to_uint64(whole))) + Fraction(pmt.to_double(fraction))


class LossCounter:
    """Turns the time tags of one stream, in their order, into counts of lost samples.

    Args:
        rate_hz: samples per second of the stream.
    """

    def __init__(self, rate_hz: float) -> None:
        self._rate_hz = Fraction(rate_hz)
        self._last: tuple[int, Fraction] | None = None

    def lost_before(self, offset: int, time_s: Fraction) -> int:
        """Samples lost since the last tag, 0 at the first one and where time stands still or goes back.

        Args:
            offset: number of the tagged sample in the stream.
            time_s: its time.
        """
        last, self._last = self._last, (offset, time_s)
        if last is None:
            return 0
        return max(0, round((time_s - last[1]) * self._rate_hz) - (offset - last[0]))
