"""The receiver: from the air to index frames on ZMQ sockets."""

from __future__ import annotations

from collections.abc import Mapping

from gnuradio import gr

from blocks.burst_receiver import BurstReceiver
from blocks.index_sink import IndexSink
from flowgraphs.front_end import FrontEnd
from flowgraphs.radios import make_source
from sdr_config.schema import Profile
from semantic.index_frame import FrameGeometry


class Receiver(gr.top_block):
    """Radio -> FrontEnd -> BurstReceiver -> IndexSink.

    Args:
        profile: with ``radio.kind`` uhd or soapy.
        geometries: known codecs by codec tag.

    Raises:
        RadioError: a radio that is not there, or cannot do what the profile asks.
        AddressError: a ZMQ address is in use.
    """

    def __init__(self, profile: Profile, geometries: Mapping[int, FrameGeometry]) -> None:
        gr.top_block.__init__(self, "UO-ISC receiver")
        waveform, receiver, sockets = profile.waveform, profile.receiver, profile.zmq
        self.radio = make_source(profile)
        self.front_end = FrontEnd(waveform.samples_per_symbol, receiver.dc_block_length)
        self.receiver = BurstReceiver(
            symbol_rate_hz=waveform.symbol_rate_hz,
            ring_samples=receiver.ring_samples,
            when_full=receiver.when_full,
            max_iterations=receiver.max_iterations,
        )
        self.index_sink = IndexSink(
            sockets.pictures_out,
            sockets.watch_out,
            geometries,
            self.receiver.statistics,
            frame_timeout_s=receiver.frame_timeout_s,
            high_water_mark=sockets.high_water_mark,
            send_timeout_ms=sockets.send_timeout_ms,
        )
        self.connect(self.radio, self.front_end, self.receiver)
        self.msg_connect(self.receiver, "bursts", self.index_sink, "bursts")

    def close(self) -> None:
        """Give the sockets back."""
        self.index_sink.close()
