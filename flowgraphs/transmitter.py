"""The transmitter: index frames from a ZMQ socket onto the air."""

from __future__ import annotations

import math

from gnuradio import gr

from blocks.burst_timer import BurstTimer
from blocks.transmit_monitor import TransmitMonitor
from flowgraphs.front_end import warnings_only
from flowgraphs.link_blocks import make_index_source, make_modulator
from flowgraphs.radios import make_sink, read_settings
from sdr_config.schema import PEAK_LEVEL, Profile, UhdRadio
from semantic.link_statistics import TransmitStatistics

# What shaping adds to a burst's symbols at either end (blocks/modem/pulse.py), and a margin.
_SHAPING_SYMBOLS = 32


class Transmitter(gr.top_block):
    """IndexSource -> BurstModulator -> radio.

    A burst is made whole before its first sample goes anywhere, and the buffers on its way hold all of
    it: the radio gets it in one go, ``lead_time_s`` ahead of its time, and does not run dry inside it.

    ``statistics`` counts what the radio says about the bursts; None where it says nothing (gr-soapy).

    Args:
        profile: with ``radio.kind`` uhd, soapy or zmq.

    Raises:
        RadioError: a radio that is not there, or cannot do what the profile asks.
        AddressError: the ZMQ address is in use.
    """

    def __init__(self, profile: Profile) -> None:
        gr.top_block.__init__(self, "UO-ISC transmitter")
        self.radio = make_sink(profile)
        self.settings = read_settings(profile, self.radio)
        burst_samples = _longest_burst_samples(profile)
        with warnings_only():
            self.modulator = make_modulator(profile)
        self.modulator.set_min_output_buffer(burst_samples)
        # Kept as attributes: GNU Radio does not keep Python blocks alive, and crashes without them.
        self.timer: BurstTimer | None = None
        self.monitor: TransmitMonitor | None = None
        self.statistics: TransmitStatistics | None = None
        if isinstance(profile.radio, UhdRadio):
            with warnings_only():
                self.timer = BurstTimer(
                    profile.waveform.sample_rate_hz, profile.radio.lead_time_s, self._device_time_s
                )
            self.timer.set_min_output_buffer(burst_samples)
            self.statistics = TransmitStatistics()
            self.monitor = TransmitMonitor(self.statistics)
            self.msg_connect(self.radio, "async_msgs", self.monitor, "async_msgs")
        self.index_source = make_index_source(profile)
        self.msg_connect(self.index_source, "frames", self.modulator, "frames")
        self.msg_connect(self.modulator, "sent", self.index_source, "sent")
        chain = [self.modulator, self.timer, self.radio]
        self.connect(*(block for block in chain if block is not None))

    def _device_time_s(self) -> float:
        return float(self.radio.get_time_now().get_real_secs())

    def fault(self) -> BaseException | None:
        """Why this must not go on, to be asked every now and then."""
        of_radio: BaseException | None = getattr(self.radio, "failure", None)
        return self.index_source.failure or self.modulator.failure or of_radio

    def close(self) -> None:
        """Give the sockets back."""
        self.index_source.close()
        if hasattr(self.radio, "close"):
            self.radio.close()


def level_report(profile: Profile) -> str:
    """How far the transmitted bursts stay below full scale, in one line."""
    level_db = 20 * math.log10(profile.waveform.amplitude)
    crest_db = 20 * math.log10(PEAK_LEVEL)
    return (
        f"level {level_db:.1f} dBFS, crest factor {crest_db:.1f} dB, "
        f"peaks at {level_db + crest_db:.1f} dBFS"
    )


def _longest_burst_samples(profile: Profile) -> int:
    transmitter = profile.transmitter
    symbols = transmitter.max_burst_symbols + transmitter.gap_symbols + _SHAPING_SYMBOLS
    return symbols * profile.waveform.samples_per_symbol
