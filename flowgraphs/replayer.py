"""Replayer: a recording through the whole receive path, as fast as it goes, every time the same."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from gnuradio import gr
from numpy.typing import NDArray

from blocks.frame_assembler import AssembledFrame
from blocks.picture_taker import PictureTaker
from captures.recording import Recording
from flowgraphs.front_end import FrontEnd
from flowgraphs.keys import profile_keys
from flowgraphs.link_blocks import make_burst_receiver, make_index_sink
from flowgraphs.progress import STALL_S, LinkError, wait_for
from flowgraphs.radio_file import FileSource
from sdr_config.schema import Profile
from semantic.index_frame import FrameGeometry
from semantic.link_statistics import BurstRecord, LinkStatistics

_SCHEDULER_ITEMS = 100_000_000  # GNU Radio's own default for start()
_ALL_PICTURES = 100_000
_PICTURES_AHEAD = 1000


@dataclass(frozen=True)
class ReplayResult:
    """What was heard in a recording.

    Args:
        pictures: frames that were heard of, in order, complete or not.
        statistics: totals of all bursts.
        records: one per burst, the latest 10,000.
        air_s: wall time from the first sample to the last burst decoded.
        constellation: equalised symbols of the last burst, None where none was demodulated.
    """

    pictures: list[AssembledFrame]
    statistics: LinkStatistics
    records: list[BurstRecord]
    air_s: float
    constellation: NDArray[np.complex64] | None = field(repr=False)


class Replayer(gr.top_block):
    """FileSource -> FrontEnd -> BurstReceiver -> IndexSink.

    Args:
        profile: its waveform and receiver; its radio is not asked for.
        geometries: of the codecs and rates that are known.
        recording: to replay.

    Raises:
        CaptureError: a sample rate that does not fit.
        AddressError: a ZMQ address is in use.
    """

    def __init__(
        self, profile: Profile, geometries: Iterable[FrameGeometry], recording: Recording
    ) -> None:
        gr.top_block.__init__(self, "UO-ISC replayer")
        self.source = FileSource(recording, profile.waveform)
        settled_s = recording.metadata.info.settle_s
        self.receiver = make_burst_receiver(profile, when_full="block", settle_s=settled_s)
        self.front_end = FrontEnd(
            profile.waveform.samples_per_symbol, profile.receiver.dc_block_length
        )
        self.front_end.count_into(self.receiver.statistics)
        # A recording has no clock to time a picture out by.
        self.index_sink = make_index_sink(
            _unhurried(profile), geometries, self.receiver.statistics, frame_timeout_s=None
        )
        # All of them; by itself the sink keeps the latest few.
        self.index_sink.pictures = deque()
        self.connect(self.source, self.front_end, self.receiver)
        self.msg_connect(self.receiver, "bursts", self.index_sink, "bursts")
        self.receiver.is_behind = self.index_sink.is_behind

    def close(self) -> None:
        """Give the sockets back."""
        self.index_sink.close()


def _unhurried(profile: Profile) -> Profile:
    """The profile with sockets that lose no picture because this process is slow to take it."""
    patient = {"high_water_mark": _ALL_PICTURES, "send_timeout_ms": 60_000}
    return profile.model_copy(update={"zmq": profile.zmq.model_copy(update=patient)})


def run_replay(
    profile: Profile,
    geometries: Iterable[FrameGeometry],
    recording: Recording,
    scheduler_items: int = _SCHEDULER_ITEMS,
) -> ReplayResult:
    """Receive a recording from its first sample to its last.

    Args:
        profile: its waveform and receiver.
        geometries: of the codecs and rates that are known.
        recording: to replay.
        scheduler_items: samples that a block is given at a time at most; changes nothing but the speed.

    Raises:
        CaptureError: a recording that does not fit, or whose file cannot be read.
        LinkError: the flowgraph failed.
        AddressError: a ZMQ address is in use.
    """
    top = Replayer(profile, geometries, recording)
    try:
        with PictureTaker(
            top.index_sink.pictures_address, _PICTURES_AHEAD, profile_keys(profile)
        ) as taker:
            return _run(top, taker, scheduler_items)
    finally:
        top.close()


def _run(top: Replayer, taker: PictureTaker, scheduler_items: int) -> ReplayResult:
    def take() -> bool:
        """Pictures must be taken, or the receiver would wait for a decoder."""
        done = top.index_sink.finished.is_set()
        while (picture := taker.take(0)) is not None:
            taker.done(picture)
        return done

    def check() -> None:
        if (failure := top.receiver.failure or top.index_sink.failure) is not None:
            raise LinkError(f"the receiver failed: {failure!r}") from failure

    started = time.monotonic()
    top.start(scheduler_items)
    try:
        taker.ask(STALL_S)
        wait_for(take, lambda: top.receiver.statistics.samples, check)
        air_s = time.monotonic() - started
    finally:
        top.stop()
        top.wait()
    failure = top.source.samples.failure
    if failure is not None:
        raise failure
    return ReplayResult(
        pictures=list(top.index_sink.pictures),
        statistics=top.receiver.statistics,
        records=list(top.receiver.records),
        air_s=air_s,
        constellation=top.receiver.last_constellation,
    )
