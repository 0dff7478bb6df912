"""Gaps by the radio's clock: found to the sample, also at times of today, and none where there is none."""

from __future__ import annotations

import pytest

from blocks.rx_time import RxClock

RATE_HZ = 2e6


def test_first_time_says_nothing() -> None:
    assert RxClock(RATE_HZ).gap(17, 1000, 0.25) is None


# A clock that began with the radio, and one set to the time of day.
@pytest.mark.parametrize("start_s", [0, 1_900_000_000])
@pytest.mark.parametrize("lost", [2, 1000, 20_000_000])
def test_gap_is_found_to_the_sample(start_s: int, lost: int) -> None:
    clock = RxClock(RATE_HZ)
    assert clock.gap(0, start_s, 0.9) is None
    whole_s, fraction_s = divmod(0.9 + (600_000 + lost) / RATE_HZ, 1)
    assert clock.gap(600_000, start_s + int(whole_s), fraction_s) == lost
    # Counted anew from there.
    whole_s, fraction_s = divmod(0.9 + (800_000 + lost) / RATE_HZ, 1)
    assert clock.gap(800_000, start_s + int(whole_s), fraction_s) is None


@pytest.mark.parametrize("shift", [-1, 0, 1])
def test_a_tag_moved_by_a_filter_is_no_gap(shift: int) -> None:
    clock = RxClock(RATE_HZ)
    clock.gap(0, 5, 0.0)
    assert clock.gap(1000 + shift, 5, 1000 / RATE_HZ) is None


def test_a_clock_that_was_set_back_breaks_the_stream() -> None:
    clock = RxClock(RATE_HZ)
    clock.gap(0, 5, 0.0)
    assert clock.gap(1000, 0, 0.0) == 0
    assert clock.gap(2000, 0, 1000 / RATE_HZ) is None


def test_a_radio_without_a_clock_breaks_the_stream() -> None:
    """gr-soapy tags the place of an overflow with a time of zero then."""
    clock = RxClock(RATE_HZ)
    clock.gap(0, 0, 0.0)
    assert clock.gap(500, 0, 0.0) == 0


@pytest.mark.parametrize("whole", [10, 11])
@pytest.mark.parametrize("noise_s", [-2e-9, 0, 2e-9])
def test_half_a_sample_is_always_rounded_the_same_way(whole: int, noise_s: float) -> None:
    """A replay, whose clock is exact, counts what the radio's clock of whole nanoseconds gave."""
    clock = RxClock(RATE_HZ)
    clock.gap(0, 5, 0.0)
    assert clock.gap(1000, 5, (1000 + whole + 0.5) / RATE_HZ + noise_s) == whole + 1
