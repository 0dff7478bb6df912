"""The tags by which gr-uhd tells time, rate and carrier of a stream: written by whatever plays a radio."""

from __future__ import annotations

from fractions import Fraction

import pmt

RX_RATE_TAG = "rx_rate"
RX_FREQUENCY_TAG = "rx_freq"


def time_to_pmt(time_s: Fraction) -> pmt.pmt_base:
    """Value of a tag ``rx_time``: whole seconds and the rest."""
    seconds = time_s.numerator // time_s.denominator
    return pmt.make_tuple(pmt.from_uint64(seconds), pmt.from_double(float(time_s - seconds)))


def pmt_to_time(value: pmt.pmt_base) -> tuple[int, float]:
    """Inverse of :func:`time_to_pmt`: whole seconds, and the rest.

    Raises:
        ValueError: not such a value.
    """
    if not (pmt.is_tuple(value) and pmt.length(value) == 2):
        raise ValueError("expected a tuple of whole seconds and fraction")
    whole, fraction = pmt.tuple_ref(value, 0), pmt.tuple_ref(value, 1)
    if not (pmt.is_uint64(whole) or pmt.is_integer(whole)) or not pmt.is_real(fraction):
        raise ValueError("expected a tuple of whole seconds and fraction")
    return int(pmt.to_uint64(whole)), float(pmt.to_double(fraction))
