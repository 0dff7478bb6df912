"""Time tags as gr-uhd writes them."""

from __future__ import annotations

from fractions import Fraction

import pmt
import pytest

from blocks.rx_time import RxClock
from blocks.time_tags import pmt_to_time, time_to_pmt


@pytest.mark.parametrize("time_s", [Fraction(0), Fraction(7, 2), Fraction(10**9) + Fraction(1, 4)])
def test_there_and_back(time_s: Fraction) -> None:
    whole_s, fraction_s = pmt_to_time(time_to_pmt(time_s))
    assert whole_s + Fraction(fraction_s) == time_s
    assert 0 <= fraction_s < 1


@pytest.mark.parametrize(
    "value",
    [
        *(pmt.PMT_T, pmt.from_double(1.0), pmt.make_tuple(pmt.from_uint64(1))),
        pmt.make_tuple(pmt.from_double(1.0), pmt.from_double(0.5)),
    ],
)
def test_what_is_no_time(value: pmt.pmt_base) -> None:
    with pytest.raises(ValueError, match="whole seconds"):
        pmt_to_time(value)


@pytest.mark.parametrize("rate_hz", [1e6, 4e6, 10e6 / 3, 0.7e6])
def test_losses_come_through_exactly(rate_hz: float) -> None:
    """Also after a million seconds, with a fraction that is rounded to a double."""
    clock = RxClock(rate_hz)
    offset, index = 0, 12_345_678
    for lost in (None, 2, None, 1000, 10**12, 3):
        index += lost or 0
        assert clock.gap(offset, *pmt_to_time(time_to_pmt(index / Fraction(rate_hz)))) == lost
        offset, index = offset + 777, index + 777
