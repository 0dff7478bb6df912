"""The transmitter: index frames from a ZMQ socket onto the air."""

from __future__ import annotations

from gnuradio import gr

from blocks.burst_timer import BurstTimer
from flowgraphs.link_blocks import make_index_source, make_modulator
from flowgraphs.radios import make_sink
from sdr_config.schema import Profile, UhdRadio


class Transmitter(gr.top_block):
    """IndexSource -> BurstModulator -> radio.

    Args:
        profile: with ``radio.kind`` uhd, soapy or zmq.

    Raises:
        RadioError: a radio that is not there, or cannot do what the profile asks.
        AddressError: the ZMQ address is in use.
    """

    def __init__(self, profile: Profile) -> None:
        gr.top_block.__init__(self, "UO-ISC transmitter")
        self.radio = make_sink(profile)
        self.modulator = make_modulator(profile)
        # Kept as attributes: GNU Radio does not keep Python blocks alive, and crashes without them.
        self.timer: BurstTimer | None = None
        if isinstance(profile.radio, UhdRadio):
            self.timer = BurstTimer(
                profile.waveform.sample_rate_hz, profile.radio.lead_time_s, self._device_time_s
            )
        self.index_source = make_index_source(profile)
        self.msg_connect(self.index_source, "frames", self.modulator, "frames")
        self.msg_connect(self.modulator, "sent", self.index_source, "sent")
        chain = [self.modulator, self.timer, self.radio]
        self.connect(*(block for block in chain if block is not None))

    def _device_time_s(self) -> float:
        return float(self.radio.get_time_now().get_real_secs())

    def close(self) -> None:
        """Give the sockets back."""
        self.index_source.close()
        if hasattr(self.radio, "close"):
            self.radio.close()
