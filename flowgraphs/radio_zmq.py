"""The virtual air as a radio: samples from one transmitter's process to those of its receivers."""

from __future__ import annotations

from gnuradio import gr

from blocks.air_messages import CHUNK_SAMPLES
from blocks.air_sink import AirSink
from blocks.air_source import AirSource
from flowgraphs.addresses import named_addresses
from flowgraphs.channel import Channel
from flowgraphs.front_end import warnings_only
from flowgraphs.keys import profile_keys
from sdr_config.schema import Profile, ZmqRadio

# What the receiver needs to see behind a burst, at 2 samples per symbol, before it lets go of it: the
# search's context and block, a preamble, and the filters. 3225 and a little.
_TAIL_SYMBOLS = 4096


def make_zmq_sink(profile: Profile, radio: ZmqRadio) -> AirSink:
    """The transmitter's end; raises AddressError and KeyFileError."""
    with named_addresses({"radio.address": radio.address}):
        return AirSink(
            radio.address,
            profile.waveform.sample_rate_hz,
            receiver_timeout_s=radio.receiver_timeout_s,
            wait_for_receiver=radio.without_receiver == "wait",
            keys=profile_keys(profile),
        )


def make_zmq_source(profile: Profile, radio: ZmqRadio) -> ZmqSource:
    """A receiver's end; raises AddressError and KeyFileError."""
    return ZmqSource(profile, radio)


class ZmqSource(gr.hier_block2):
    """AirSource -> Channel, where the profile has one.

    Every receiver has a channel of its own: noise, fading and offsets are added where they are received.
    """

    def __init__(self, profile: Profile, radio: ZmqRadio) -> None:
        output = gr.io_signature(1, 1, gr.sizeof_gr_complex)
        gr.hier_block2.__init__(self, "ZmqSource", gr.io_signature(0, 0, 0), output)
        with warnings_only():
            self.air = AirSource(
                radio.address,
                profile.waveform.sample_rate_hz,
                tail_samples=_TAIL_SYMBOLS * profile.waveform.samples_per_symbol,
                # The transmitter may be waiting for another receiver so long.
                broken_after_s=2 * radio.receiver_timeout_s,
                keys=profile_keys(profile),
            )
            # A whole chunk in a call: a call costs more than the samples it copies.
            self.air.set_min_output_buffer(2 * CHUNK_SAMPLES)
        # Kept as an attribute: GNU Radio does not keep Python blocks alive.
        self.channel = Channel.of(profile) if profile.channel is not None else None
        chain = [self.air, self.channel, self]
        self.connect(*(block for block in chain if block is not None))

    def close(self) -> None:
        """Give the socket back."""
        self.air.close()

    def to_json(self) -> dict[str, int]:
        """What was received, missed, and refused by cause."""
        return self.air.to_json()
