"""The whole link in one process: transmitter, simulated air, receiver; real sockets, real scheduler.

Index frames go in over ZMQ and come out over ZMQ, as with radios. The only difference is time: nothing
here waits for a clock, the flowgraph runs as fast as the machine, and the results depend on the profile
and its seed alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from gnuradio import gr
from numpy.typing import NDArray

from blocks.frame_assembler import AssembledFrame
from blocks.frame_sender import FrameSender
from blocks.picture_taker import PictureTaker
from flowgraphs.channel import Channel
from flowgraphs.front_end import FrontEnd
from flowgraphs.keys import profile_keys
from flowgraphs.link_blocks import (
    make_burst_receiver,
    make_index_sink,
    make_index_source,
    make_modulator,
)
from flowgraphs.progress import STALL_S, LinkError, wait_for
from sdr_config.schema import Profile
from semantic.index_frame import FrameGeometry, IndexFrame
from semantic.link_statistics import BurstRecord, LinkStatistics

# More than the receiver makes of what is on its way.
_PICTURES_AHEAD = 1000


class LoopbackError(LinkError):
    """The simulated link stopped working (a fault in the program, not on the channel)."""


@dataclass(frozen=True)
class LoopbackResult:
    """What came out of sending frames through the loopback.

    Args:
        pictures: frames that were heard of, in order, complete or not.
        received: the same as they came over the receiver's socket (frames with no surviving code block
            do not).
        statistics: totals of all bursts.
        bursts_sent: bursts transmitted.
        symbols: symbols on the air, everything counted.
        payload_symbols: symbols of the code blocks.
        code_blocks_sent: code blocks transmitted.
        sent: the frames handed in.
        air_s: wall time from the first frame handed over to the last burst decoded.
        constellation: equalised symbols of the last burst, None where none was demodulated.
    """

    pictures: list[AssembledFrame]
    received: list[IndexFrame]
    statistics: LinkStatistics
    records: list[BurstRecord]
    bursts_sent: int
    symbols: int
    payload_symbols: int
    code_blocks_sent: int
    sent: list[IndexFrame]
    air_s: float
    constellation: NDArray[np.complex64] | None = field(repr=False)


class Loopback(gr.top_block):
    """IndexSource -> BurstModulator -> Channel -> FrontEnd -> BurstReceiver -> IndexSink.

    Args:
        profile: with ``radio.kind: channel``.
        geometries: of the codecs and rates that are known.
        inserted: blocks between channel and front end, complex samples in and out.

    Raises:
        LoopbackError: the profile has no channel.
        AddressError: a ZMQ address is in use.
    """

    def __init__(
        self,
        profile: Profile,
        geometries: Iterable[FrameGeometry],
        inserted: Sequence[gr.basic_block] = (),
    ) -> None:
        gr.top_block.__init__(self, "UO-ISC loopback")
        if profile.channel is None:
            raise LoopbackError(f"profile {profile.name} has no section channel")
        self.profile = profile
        self.index_source = make_index_source(profile)
        self.modulator = make_modulator(profile)
        self.channel = Channel.of(profile)
        self.inserted = list(inserted)
        # Whatever the profile says: a simulation waits, it never drops, and it has no clock to
        # time a picture out by.
        self.receiver = make_burst_receiver(profile, when_full="block")
        self.front_end = FrontEnd(
            profile.waveform.samples_per_symbol, profile.receiver.dc_block_length
        )
        self.front_end.count_into(self.receiver.statistics)
        try:
            self.index_sink = make_index_sink(
                profile, geometries, self.receiver.statistics, frame_timeout_s=None
            )
        except BaseException:
            self.index_source.close()
            raise
        self.msg_connect(self.index_source, "frames", self.modulator, "frames")
        self.msg_connect(self.modulator, "sent", self.index_source, "sent")
        self.connect(self.modulator, self.channel, *self.inserted, self.front_end, self.receiver)
        self.msg_connect(self.receiver, "bursts", self.index_sink, "bursts")
        self.receiver.is_behind = self.index_sink.is_behind

    def close(self) -> None:
        """Give the sockets back."""
        self.index_source.close()
        self.index_sink.close()


def run_loopback(
    profile: Profile,
    geometries: Iterable[FrameGeometry],
    frames: list[IndexFrame],
) -> LoopbackResult:
    """Send frames through the loopback and collect what comes out.

    Args:
        profile: with ``radio.kind: channel``.
        geometries: of the codecs and rates that are known.
        frames: pictures to send, with different frame ids.

    Raises:
        LoopbackError: the profile has no channel, or the flowgraph failed.
        AddressError: a ZMQ address is in use.
    """
    return send_through(Loopback(profile, geometries), frames)


def send_through(top: Loopback, frames: list[IndexFrame]) -> LoopbackResult:
    """As :func:`run_loopback`, with a flowgraph that has been made; it is closed afterwards."""
    try:
        keys = profile_keys(top.profile)
        with (
            FrameSender(top.index_source.address, STALL_S, keys=keys) as sender,
            PictureTaker(top.index_sink.pictures_address, _PICTURES_AHEAD, keys) as taker,
        ):
            return _run(top, sender, taker, frames)
    finally:
        top.close()


def _run(
    top: Loopback, sender: FrameSender, taker: PictureTaker, frames: list[IndexFrame]
) -> LoopbackResult:
    received: list[IndexFrame] = []

    def take() -> bool:
        """Receipts and pictures must be taken, or the others would wait."""
        while (picture := taker.take(0)) is not None:
            received.append(picture.frame)
            taker.done(picture)
        return top.index_sink.finished.is_set()

    def all_received() -> bool:
        counts = top.index_sink.pictures_counts()
        take()
        return len(received) == counts["complete"] + counts["incomplete"] - counts["dropped"]

    started = time.monotonic()
    top.start()
    try:
        taker.ask(STALL_S)
        for frame in frames:
            sender.send(frame)
            take()
        sender.finish()
        top.modulator.finish()
        _wait(top, take)
        air_s = time.monotonic() - started
        _wait(top, all_received)
    finally:
        top.stop()
        top.wait()
    pictures = list(top.index_sink.pictures)
    return LoopbackResult(
        pictures=pictures,
        received=received,
        statistics=top.receiver.statistics,
        records=list(top.receiver.records),
        bursts_sent=top.modulator.bursts_sent,
        symbols=top.modulator.symbols_sent,
        payload_symbols=top.modulator.payload_symbols_sent,
        code_blocks_sent=top.modulator.code_blocks_sent,
        sent=frames,
        air_s=air_s,
        constellation=top.receiver.last_constellation,
    )


def _wait(top: Loopback, done: Callable[[], bool]) -> None:
    def check() -> None:
        parts = (top.index_source, top.modulator, top.receiver, top.index_sink)
        if (failure := next((one.failure for one in parts if one.failure), None)) is not None:
            raise LoopbackError(f"a part of the link failed: {failure!r}") from failure
        if top.modulator.frames_refused:
            raise LoopbackError("the modulator refused a frame")
        if top.index_source.messages_malformed:
            raise LoopbackError("a message on the transmitter's socket was malformed")

    wait_for(done, lambda: (top.modulator.bursts_sent, top.receiver.statistics.samples), check)
