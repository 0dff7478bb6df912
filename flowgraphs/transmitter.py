"""The transmitter: index frames from a ZMQ socket onto the air."""

from __future__ import annotations

from gnuradio import gr

from blocks.burst_modulator import BurstModulator
from blocks.burst_timer import BurstTimer
from blocks.index_source import IndexSource
from flowgraphs.radios import make_sink
from sdr_config.schema import Profile, UhdRadio


class Transmitter(gr.top_block):
    """IndexSource -> BurstModulator -> radio.

    Args:
        profile: with ``radio.kind`` uhd or soapy.

    Raises:
        RadioError: a radio that is not there, or cannot do what the profile asks.
        AddressError: the ZMQ address is in use.
    """

    def __init__(self, profile: Profile) -> None:
        gr.top_block.__init__(self, "UO-ISC transmitter")
        waveform = profile.waveform
        self.radio = make_sink(profile)
        self.modulator = BurstModulator(
            mcs=profile.transmitter.mcs,
            samples_per_symbol=waveform.samples_per_symbol,
            amplitude=waveform.amplitude,
            gap_symbols=profile.transmitter.gap_symbols,
            max_burst_symbols=profile.transmitter.max_burst_symbols,
        )
        # Kept as attributes: GNU Radio does not keep Python blocks alive, and crashes without them.
        self.timer: BurstTimer | None = None
        if isinstance(profile.radio, UhdRadio):
            self.timer = BurstTimer(
                waveform.sample_rate_hz, profile.radio.lead_time_s, self._device_time_s
            )
        self.index_source = IndexSource(profile.zmq.frames_in, profile.zmq.high_water_mark)
        self.msg_connect(self.index_source, "frames", self.modulator, "frames")
        self.msg_connect(self.modulator, "sent", self.index_source, "sent")
        chain = [self.modulator, self.timer, self.radio]
        self.connect(*(block for block in chain if block is not None))

    def _device_time_s(self) -> float:
        return float(self.radio.get_time_now().get_real_secs())

    def close(self) -> None:
        """Give the socket back."""
        self.index_source.close()
