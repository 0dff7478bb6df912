"""Receive front end: from the radio's sample rate to two samples per symbol, in C++ but for the guard."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
from gnuradio import blocks as gr_blocks
from gnuradio import filter, gr

from blocks.modem import waveform as wf
from blocks.sample_guard import SampleGuard
from semantic.link_statistics import LinkStatistics

_STOP_ATTENUATION_DB = 60.0
# A call of the Python block behind it costs 50 microseconds whatever it hands over, which the scheduler's
# default of 4096 samples makes a sixth of the receiver's time.
_OUTPUT_BUFFER_SAMPLES = 32_768


def anti_alias_taps(samples_per_symbol: float, gain: float = 1.0) -> list[float]:
    """Low-pass taps, flat to 0.7 and silent from 1.3 symbol rates.

    Args:
        samples_per_symbol: at the rate the taps run at.
        gain: in the pass band.
    """
    centre = 0.5 * (wf.ANTI_ALIAS_PASS_SYMBOL_RATES + wf.ANTI_ALIAS_STOP_SYMBOL_RATES)
    width = wf.ANTI_ALIAS_STOP_SYMBOL_RATES - wf.ANTI_ALIAS_PASS_SYMBOL_RATES
    # Kaiser's own rule for the length; firdes takes a shorter one, 0.3 dB down at the edge of the
    # pass band and 29 dB down at that of the stop band.
    beta = 0.1102 * (_STOP_ATTENUATION_DB - 8.7)
    length = (_STOP_ATTENUATION_DB - 7.95) / (2.285 * 2 * np.pi * width / samples_per_symbol)
    half = int(np.ceil(length / 2))
    time = np.arange(-half, half + 1)
    taps = np.sinc(2 * centre / samples_per_symbol * time) * np.kaiser(time.size, beta)
    scaled: list[float] = (gain * taps / taps.sum()).tolist()
    return scaled


class FrontEnd(gr.hier_block2):
    """DC removal, anti-alias filter, resampling to 2 samples per symbol.

    Args:
        samples_per_symbol: at the input, 2..8.
        dc_block_length: samples over which DC is averaged, 0 leaves it in.

    ``delay_samples`` says how much later the signal comes out, in samples of the input.
    """

    def __init__(self, samples_per_symbol: int, dc_block_length: int = 0) -> None:
        signature = gr.io_signature(1, 1, gr.sizeof_gr_complex)
        gr.hier_block2.__init__(self, "FrontEnd", signature, signature)
        with warnings_only():
            chain, self.delay_samples = _make_chain(samples_per_symbol, dc_block_length)
            self._guard = SampleGuard(LinkStatistics()) if dc_block_length else None
        if self._guard is not None:
            chain.insert(0, self._guard)
        chain[-1].set_min_output_buffer(_OUTPUT_BUFFER_SAMPLES)
        # The flowgraph keeps the C++ side of a block alive, not the Python side of a Python block.
        self._chain = chain
        self.connect(self, *chain, self)

    def count_into(self, statistics: LinkStatistics) -> None:
        """Where samples are counted that are too bad for the average."""
        if self._guard is not None:
            self._guard.statistics = statistics


def _make_chain(
    samples_per_symbol: int, dc_block_length: int
) -> tuple[list[gr.basic_block], float]:
    """The blocks to connect, at least one, and their delay in samples of the input."""
    chain: list[gr.basic_block] = []
    delay_samples = 0.0
    if dc_block_length:
        blocker = filter.dc_blocker_cc(dc_block_length, True)
        delay_samples += blocker.group_delay()
        chain.append(blocker)
    ratio = Fraction(wf.RECEIVER_SAMPLES_PER_SYMBOL, samples_per_symbol)
    up, down = ratio.numerator, ratio.denominator
    # At 2 samples per symbol nothing folds, and the matched filter takes away the rest.
    if ratio != 1:
        taps = anti_alias_taps(up * samples_per_symbol, gain=up)
        delay_samples += (len(taps) - 1) / 2 / up
        chain.append(
            filter.fir_filter_ccf(down, taps)
            if up == 1
            else filter.rational_resampler_ccf(up, down, taps)
        )
    return chain or [gr_blocks.copy(gr.sizeof_gr_complex)], delay_samples


@contextlib.contextmanager
def warnings_only() -> Iterator[None]:
    """Blocks made inside do not announce the size of their buffers on standard output, now or later.

    GNU Radio fixes a block's level when it is made; ``set_log_level`` comes too late for this message.
    """
    logging = gr.logging()
    level = logging.default_level()
    logging.set_default_level(gr.log_levels.warn)
    try:
        yield
    finally:
        logging.set_default_level(level)
