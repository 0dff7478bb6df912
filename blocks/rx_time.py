"""Gaps in a radio's stream, found by its clock. No GNU Radio.

When a computer takes samples too slowly, a radio throws some away and goes on: nothing marks the place but
the time of the next sample, which gr-uhd and gr-soapy put on it as a tag ``rx_time``. Two such times and the
count of samples between them say how many are missing. Of a SoapySDR driver without a clock gr-soapy tags the
place all the same, with a time of zero.
"""

from __future__ import annotations

import math

# The tag that gr-uhd's and gr-soapy's sources set: (whole seconds, fraction).
RX_TIME_TAG = "rx_time"
# A tag keeps its place through a decimating filter to half a sample at best.
_TOLERANCE_SAMPLES = 1
# Behind a decimating filter a gap may end on half a sample. A clock's nanoseconds must not decide which way
# that is rounded, or a recording would be counted otherwise than the radio was.
_CLOCK_NOISE_SAMPLES = 0.05


class RxClock:
    """Compares the radio's time with the count of samples.

    Args:
        sample_rate_hz: of the stream that the samples are counted in.
    """

    def __init__(self, sample_rate_hz: float) -> None:
        self._sample_rate_hz = sample_rate_hz
        self._last: tuple[int, int, float] | None = None

    def gap(self, sample: int, whole_s: int, fraction_s: float) -> int | None:
        """Samples that are missing in front of one whose time is known.

        Args:
            sample: its number in the stream.
            whole_s: its time, the whole seconds of it.
            fraction_s: and the rest.

        Returns:
            None where the stream goes on without a break; 0 where it breaks and nobody knows by how
            much (the radio has no clock, or its clock was set back).
        """
        last, self._last = self._last, (sample, whole_s, fraction_s)
        if last is None:
            return None
        # Whole seconds apart from fractions: a double holds a time since 1970 to a quarter microsecond.
        elapsed_s = (whole_s - last[1]) + (fraction_s - last[2])
        missing = _round_up_halves(elapsed_s * self._sample_rate_hz) - (sample - last[0])
        if abs(missing) <= _TOLERANCE_SAMPLES:
            return None
        return max(missing, 0)


def _round_up_halves(samples: float) -> int:
    return math.floor(samples + 0.5 + _CLOCK_NOISE_SAMPLES)
