"""A recording as a radio: its samples at the profile's rate, and its gaps told as a radio tells them."""

from __future__ import annotations

from fractions import Fraction

import pmt
from gnuradio import blocks as gr_blocks
from gnuradio import filter, gr

from blocks.modem import waveform as wf
from blocks.piece_source import PieceSource, Tag
from blocks.rx_time import RX_TIME_TAG
from blocks.time_tags import RX_FREQUENCY_TAG, RX_RATE_TAG, time_to_pmt
from captures.errors import CaptureError
from captures.library import find_recording
from captures.recording import RATE_TOLERANCE, Recording, open_recording
from flowgraphs.front_end import anti_alias_taps
from sdr_config.schema import FileRadio, Waveform

_PIECE_SAMPLES = 32_768
# Terms of the ratio between two sample rates: 48 kHz and 44.1 kHz would be 160 : 147.
_MAX_RATIO_TERM = 1000


def make_file_source(radio: FileRadio, waveform: Waveform) -> gr.basic_block:
    """The recording that a profile names, as a source.

    Raises:
        CaptureError: it is not there, damaged, or of a rate that does not fit.
    """
    recording = open_recording(find_recording(radio.path))
    return FileSource(recording, waveform, realtime=radio.realtime)


class FileSource(gr.hier_block2):
    """Samples of a recording, then an end mark, and silence for ever.

    Args:
        recording: to play.
        waveform: whose sample rate is wanted.
        realtime: not faster than that.

    ``delay_samples`` says how much later a sample comes out than it stands in the recording, and ``ratio``
    how many samples come out for one of the recording.

    Raises:
        CaptureError: a sample rate that does not fit.
    """

    def __init__(self, recording: Recording, waveform: Waveform, *, realtime: bool = False) -> None:
        output = gr.io_signature(1, 1, gr.sizeof_gr_complex)
        gr.hier_block2.__init__(self, "FileSource", gr.io_signature(0, 0, 0), output)
        self.ratio = rate_ratio(recording, waveform)
        rate_hz = Fraction(waveform.sample_rate_hz) / self.ratio
        self.samples = PieceSource(recording.pieces(_PIECE_SAMPLES), _time_tags(recording, rate_hz))
        self.delay_samples = 0.0
        chain: list[gr.basic_block] = [self.samples]
        if self.ratio != 1:
            up, down = self.ratio.numerator, self.ratio.denominator
            taps = anti_alias_taps(up * recording.sample_rate_hz / waveform.symbol_rate_hz, gain=up)
            self.delay_samples = (len(taps) - 1) / 2 / down
            chain.append(filter.rational_resampler_ccf(up, down, taps))
        if realtime:
            chain.append(gr_blocks.throttle(gr.sizeof_gr_complex, waveform.sample_rate_hz))
        self.connect(*chain, self)


def rate_ratio(recording: Recording, waveform: Waveform) -> Fraction:
    """Samples wanted for one of the recording: of ratios that come near enough, the simplest.

    Raises:
        CaptureError: less than two samples per symbol, or rates in no simple ratio.
    """
    rate_hz = recording.sample_rate_hz
    least_hz = wf.RECEIVER_SAMPLES_PER_SYMBOL * waveform.symbol_rate_hz
    if rate_hz < least_hz * (1 - RATE_TOLERANCE):
        raise CaptureError(
            f"{recording.path}: core:sample_rate is {rate_hz:g}, less than two samples per symbol: "
            f"expected at least {least_hz:g} for {waveform.symbol_rate_hz:g} symbols per second"
        )
    exact = Fraction(waveform.sample_rate_hz) / Fraction(rate_hz)
    nearest = map(exact.limit_denominator, range(1, _MAX_RATIO_TERM + 1))
    ratio = next((one for one in nearest if abs(one / exact - 1) <= RATE_TOLERANCE), None)
    if ratio is None or ratio.numerator > _MAX_RATIO_TERM:
        raise CaptureError(
            f"{recording.path}: core:sample_rate is {rate_hz:.12g}, expected a rate in a ratio of whole "
            f"numbers up to {_MAX_RATIO_TERM} to {waveform.sample_rate_hz:.12g} (2 to 8 samples per symbol "
            "fit best)"
        )
    return ratio


def _time_tags(recording: Recording, rate_hz: Fraction) -> list[Tag]:
    """What gr-uhd says at the start of a stream and behind every gap; times from the stream's beginning."""
    tags: list[Tag] = []
    since = 0
    for segment in recording.segments:
        if segment.sample_start >= recording.samples:
            break
        start, frequency_hz = segment.sample_start, segment.frequency_hz or 0.0
        if segment.unknown_loss:
            since = (
                segment.stream_index
            )  # the clock begins anew: a break of nobody knows what length
        tags += [
            (start, RX_TIME_TAG, time_to_pmt((segment.stream_index - since) / rate_hz)),
            (start, RX_RATE_TAG, pmt.from_double(recording.sample_rate_hz)),
            (start, RX_FREQUENCY_TAG, pmt.from_double(frequency_hz)),
        ]
    return tags
