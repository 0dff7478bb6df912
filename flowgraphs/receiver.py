"""The receiver: from the air to index frames on ZMQ sockets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from gnuradio import gr

from blocks.modem.burst import build_bursts
from blocks.modem.stream_receiver import Outcome, StreamReceiver
from blocks.modem.waveform import MCS_CODE_RATES, RECEIVER_SAMPLES_PER_SYMBOL
from flowgraphs.front_end import FrontEnd
from flowgraphs.link_blocks import make_burst_receiver, make_index_sink
from flowgraphs.radios import make_source, read_settings
from flowgraphs.watchdog import Watchdog
from sdr_config.schema import HardwareRadio, Profile
from semantic.index_frame import FrameGeometry


def warm_up(max_iterations: int) -> None:
    """Demodulate one burst of every code rate, with no radio around.

    Numba compiles a function when it is first called, which takes seconds where its cache is empty. A
    radio does not wait that long: the first bursts would be lost in a full buffer.

    Raises:
        RuntimeError: a burst without any noise is not decoded.
    """
    bits = np.zeros(1000, np.uint8)
    for mcs in range(len(MCS_CODE_RATES)):
        (burst,) = build_bursts(bits, frame_id=0, codec_tag=0, mcs=mcs)
        receiver = StreamReceiver(max_iterations)
        heard = receiver.push(burst.samples(RECEIVER_SAMPLES_PER_SYMBOL)) + receiver.flush()
        if [found.outcome for found in heard] != [Outcome.DEMODULATED]:
            raise RuntimeError(f"a perfect burst of mcs {mcs} was not demodulated")


class Receiver(gr.top_block):
    """Radio -> FrontEnd -> BurstReceiver -> IndexSink.

    Args:
        profile: with ``radio.kind`` uhd, soapy or zmq.
        geometries: of the codecs and rates that are known.
        inserted: blocks between radio and front end, complex samples in and out.
        untaken_is_lost: whether a picture that no decoder takes counts as lost.

    Raises:
        RadioError: a radio that is not there, or cannot do what the profile asks.
        AddressError: a ZMQ address is in use.
    """

    def __init__(
        self,
        profile: Profile,
        geometries: Iterable[FrameGeometry],
        inserted: Sequence[gr.basic_block] = (),
        *,
        untaken_is_lost: bool = True,
    ) -> None:
        gr.top_block.__init__(self, "UO-ISC receiver")
        receiver = profile.receiver
        self.radio = make_source(profile)
        self.settings = read_settings(profile, self.radio)
        warm_up(receiver.max_iterations)
        self.receiver = make_burst_receiver(profile, receiver.when_full)
        self.front_end = FrontEnd(profile.waveform.samples_per_symbol, receiver.dc_block_length)
        self.front_end.count_into(self.receiver.statistics)
        self.index_sink = make_index_sink(
            profile,
            geometries,
            self.receiver.statistics,
            receiver.frame_timeout_s,
            untaken_is_lost=untaken_is_lost,
        )
        self.inserted = list(inserted)
        self.connect(self.radio, *self.inserted, self.front_end, self.receiver)
        self.msg_connect(self.receiver, "bursts", self.index_sink, "bursts")
        self.receiver.is_behind = self.index_sink.is_behind
        radio = profile.radio
        self._silence_s = radio.silence_s if isinstance(radio, HardwareRadio) else None
        self._watchdog: Watchdog | None = None

    def start(self, max_noutput_items: int = 10_000_000) -> None:
        """Start, and begin to watch."""
        super().start(max_noutput_items)
        if self._silence_s is not None:
            self._watchdog = Watchdog(self._silence_s)

    def fault(self) -> BaseException | None:
        """Why this must not go on, to be asked every now and then: a worker's failure, a silent radio."""
        failure = self.receiver.failure or self.index_sink.failure
        if failure is not None or self._watchdog is None:
            return failure
        return self._watchdog.check(self.receiver.nitems_read(0))

    def close(self) -> None:
        """Give the sockets back."""
        self.index_sink.close()
        if hasattr(self.radio, "close"):
            self.radio.close()
