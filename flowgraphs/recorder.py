"""Recorder: what a radio hears goes into a SigMF recording, and a receiver annotates it meanwhile.

The samples pass through C++ blocks alone (:mod:`flowgraphs.tape`); Python looks after the metadata, a few
times a second. What the receiver hears is what the file holds, so that a replay counts what it counted.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from gnuradio import gr

from blocks.burst_receiver import BurstReceiver
from blocks.modem import waveform as wf
from blocks.rx_time import RxClock
from blocks.sample_loss import SampleLoss
from blocks.worker_thread import WorkerThread
from captures.datatypes import parse_datatype
from captures.errors import CaptureError
from captures.metadata import ReceiverSettings
from captures.sent_frames import SentFrame
from captures.writer import RecordingHeader, RecordingWriter
from flowgraphs.link_blocks import settle_time_s
from flowgraphs.loopback import Loopback, LoopbackResult, send_through
from flowgraphs.receiver import Receiver
from flowgraphs.tape import Tape
from sdr_config.schema import Profile, SoapyRadio, UhdRadio
from semantic.index_frame import FrameGeometry
from semantic.link_statistics import BurstRecord

_POLL_S = 0.1
# A radio that gives nothing for this long is not coming back; a full disk looks the same.
_SILENT_S = 10.0
# What a resampler may keep because the next output needs more.
_FILTER_REST_SAMPLES = 4


def recording_header(
    profile: Profile,
    datatype: str,
    *,
    started: datetime | None = None,
    author: str | None = None,
    description: str = "",
) -> RecordingHeader:
    """What a profile says about a recording made with it.

    Args:
        profile: with a radio or a simulated channel.
        datatype: ``cf32_le`` or ``ci16_le``.
        started: time of the first sample, now where it is not given.
        author: who records.
        description: one sentence; the profile's where it is empty.
    """
    path = profile.radio.rx if isinstance(profile.radio, UhdRadio | SoapyRadio) else None
    return RecordingHeader(
        datatype=datatype,
        sample_rate_hz=profile.waveform.sample_rate_hz,
        symbol_rate_hz=profile.waveform.symbol_rate_hz,
        frequency_hz=path.frequency_hz if path is not None else 0.0,
        started=started or datetime.now(UTC),
        hardware=_hardware(profile),
        profile=profile.name,
        description=description or profile.description,
        author=author,
        simulation=None if profile.channel is None else profile.channel.model_dump(),
        settle_s=settle_time_s(profile),
        receiver=ReceiverSettings(
            dc_block_length=profile.receiver.dc_block_length,
            max_iterations=profile.receiver.max_iterations,
        ),
    )


def _hardware(profile: Profile) -> str:
    radio = profile.radio
    if isinstance(radio, UhdRadio):
        return f"USRP ({radio.device_args}) through gr-uhd"
    if isinstance(radio, SoapyRadio):
        device = ",".join(filter(None, [f"driver={radio.driver}", radio.device_args]))
        return f"SoapySDR ({device}) through gr-soapy"
    return f"none ({radio.kind})"


class Annotator(AbstractContextManager["Annotator"]):
    """Keeps a recording's metadata up to date while its flowgraph runs.

    Args:
        writer: of the recording.
        tape: that the samples pass.
        receiver: behind the tape.
        delay_samples: of what lies between them, in samples of the tape.
        samples_per_symbol: on the tape.
    """

    def __init__(
        self,
        writer: RecordingWriter,
        tape: Tape,
        receiver: BurstReceiver,
        delay_samples: float,
        samples_per_symbol: int,
    ) -> None:
        self._writer, self._tape, self._receiver = writer, tape, receiver
        self._delay = delay_samples
        self._samples_per_symbol = samples_per_symbol
        self._clock = RxClock(writer.header.sample_rate_hz)
        self._lost = 0
        self._times_seen = 0
        self._last: BurstRecord | None = None
        self._waiting: list[BurstRecord] = []
        self._worker = WorkerThread("Annotator", self._run)

    @property
    def failure(self) -> BaseException | None:
        """Why nothing more is annotated."""
        return self._worker.failure

    def __enter__(self) -> Self:
        self._worker.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._worker.stop()

    def _run(self) -> None:
        while not self._worker.stopping.wait(_POLL_S):
            position = self.collect()
            if self._writer.refresh_due:
                self._writer.refresh(position)

    def collect(self) -> int:
        """Take what is new from tape and receiver; returns the samples that this covers."""
        # The position first: what comes later than it may be missing from what is taken next.
        position = self._tape.position
        times = self._tape.times
        for offset, whole_s, fraction_s in times[self._times_seen :]:
            lost = self._clock.gap(offset, whole_s, fraction_s)
            if lost is not None:
                self._writer.add_gap(offset, lost)
                self._lost += lost
        self._times_seen = len(times)
        known_until = position + self._lost
        records = [*self._waiting, *self._new_records()]
        self._waiting = [one for one in records if self._place(one) > known_until]
        for record in records:
            if self._place(record) <= known_until:
                self._annotate(record)
        return position

    def finish(self, samples: int, transmission: dict[str, Any] | None = None) -> None:
        """Write the recording's last metadata; the flowgraph must have stopped."""
        if self.failure is not None:
            raise self.failure
        self.collect()
        self._writer.finish(samples, self._receiver.statistics.to_json(), transmission)

    def _new_records(self) -> list[BurstRecord]:
        fresh = []
        for record in reversed(list(self._receiver.records)):
            if record is self._last:
                break
            fresh.append(record)
        if fresh:
            self._last = fresh[0]
        return fresh[::-1]

    def _place(self, record: BurstRecord) -> float:
        """First sample of a burst, its ramp, in the stream before the front end."""
        ratio = self._samples_per_symbol / wf.RECEIVER_SAMPLES_PER_SYMBOL
        ramp = wf.RAMP_SYMBOLS * self._samples_per_symbol
        return record.start_sample * ratio - self._delay - ramp

    def _annotate(self, record: BurstRecord) -> None:
        place = self._place(record)
        first = self._writer.file_sample(place)
        last = self._writer.file_sample(place + record.symbols * self._samples_per_symbol)
        self._writer.add_burst(record, first, last - first)


class RadioRecorder(Receiver):
    """Radio -> Tape -> FrontEnd -> BurstReceiver -> IndexSink.

    Args:
        profile: with a radio.
        geometries: of the codecs and rates that are known.
        path: data file.
        datatype: ``cf32_le`` or ``ci16_le``.

    Raises:
        RadioError: a radio that is not there, or cannot do what the profile asks.
        AddressError: a ZMQ address is in use.
    """

    def __init__(
        self,
        profile: Profile,
        geometries: Iterable[FrameGeometry],
        path: Path,
        datatype: str,
    ) -> None:
        self.tape = Tape(path, datatype)
        # Whether a decoder runs meanwhile is nothing that a replay could know.
        super().__init__(profile, geometries, [self.tape], untaken_is_lost=False)


def record_radio(
    top: RadioRecorder,
    writer: RecordingWriter,
    samples: int | None,
    stopping: threading.Event,
    status: Callable[[RadioRecorder], None] = lambda _: None,
) -> int:
    """Record from a radio until it is enough.

    Args:
        top: the flowgraph; it is closed afterwards.
        writer: of the recording.
        samples: how many at least; None until ``stopping`` is set.
        stopping: set from outside to end the recording in order.
        status: called several times a second.

    Returns:
        Samples recorded.

    Raises:
        CaptureError: no samples came for a while, or the recording cannot be written.
    """
    annotator = Annotator(
        writer, top.tape, top.receiver, top.front_end.delay_samples, _samples_per_symbol(writer)
    )
    try:
        writer.begin(datetime.now(UTC))
        with annotator:
            top.start()
            try:
                spare = _FILTER_REST_SAMPLES * _samples_per_symbol(writer)
                enough = None if samples is None else samples + spare
                _watch(top, annotator, enough, stopping, status)
                _end(top, _samples_per_symbol(writer))
            finally:
                top.stop()
                top.wait()
                top.tape.close()
        recorded = _heard(top, _samples_per_symbol(writer))
        annotator.finish(recorded)
        return recorded
    finally:
        top.close()


def _samples_per_symbol(writer: RecordingWriter) -> int:
    return round(writer.header.sample_rate_hz / writer.header.symbol_rate_hz)


def _watch(
    top: RadioRecorder,
    annotator: Annotator,
    samples: int | None,
    stopping: threading.Event,
    status: Callable[[RadioRecorder], None],
) -> None:
    position, since = -1, time.monotonic()
    while not stopping.wait(_POLL_S):
        if (fault := top.fault()) is not None:
            raise fault
        if annotator.failure is not None:
            raise annotator.failure
        status(top)
        now = top.tape.position
        if samples is not None and now >= samples:
            return
        if now != position:
            position, since = now, time.monotonic()
        elif time.monotonic() - since > _SILENT_S:
            raise CaptureError(
                f"no samples for {_SILENT_S:.0f} s after {position}: check the radio, and that the disk "
                "is not full"
            )


def _end(top: RadioRecorder, samples_per_symbol: int) -> None:
    """Cut the stream; wait until file and receiver have what came before, and the receiver is done."""
    top.tape.cut()
    deadline = time.monotonic() + _SILENT_S
    while time.monotonic() < deadline:
        taken = top.tape.taken
        due = wf.RECEIVER_SAMPLES_PER_SYMBOL * taken // samples_per_symbol - _FILTER_REST_SAMPLES
        if top.tape.position == taken and top.receiver.nitems_read(0) >= due:
            break
        time.sleep(_POLL_S / 10)
    top.receiver.finish()
    top.index_sink.finished.wait(_SILENT_S)


def _heard(top: RadioRecorder, samples_per_symbol: int) -> int:
    """Recorded samples that the receiver heard: a replay that ends there counts as many as it did.

    The last few may be waiting in a filter for the next one.
    """
    heard = top.receiver.samples_taken * samples_per_symbol // wf.RECEIVER_SAMPLES_PER_SYMBOL
    return min(heard, top.tape.position)


def check_space(path: Path, datatype: str, samples: int) -> None:
    """Refuse a recording that the disk has no room for.

    Raises:
        CaptureError: naming how much is missing.
    """
    needed = samples * parse_datatype(datatype).sample_bytes
    free = shutil.disk_usage(path.resolve().parent).free
    if needed > free:
        raise CaptureError(f"{path}: needs {needed} bytes, the disk has {free} free")


def record_loopback(
    profile: Profile,
    geometries: Iterable[FrameGeometry],
    sent: Sequence[SentFrame],
    writer: RecordingWriter,
    loss: tuple[int, int] | None = None,
) -> LoopbackResult:
    """Send frames through the simulated channel and record what arrives.

    Args:
        profile: with ``radio.kind: channel``.
        geometries: of the codecs and rates that are known.
        sent: what to send.
        writer: of the recording.
        loss: first sample and count of a stretch that the recorder is to lose; None loses nothing.

    Raises:
        CaptureError: the recording cannot be written.
        LoopbackError: the profile has no channel, or the flowgraph failed.
        AddressError: a ZMQ address is in use.
    """
    tape = Tape(writer.data_path, writer.header.datatype)
    inserted: list[gr.basic_block] = [tape]
    if loss is not None:
        inserted.insert(0, SampleLoss(profile.waveform.sample_rate_hz, *loss))
    top = Loopback(profile, geometries, inserted)
    annotator = Annotator(
        writer,
        tape,
        top.receiver,
        top.front_end.delay_samples,
        profile.waveform.samples_per_symbol,
    )
    with annotator:
        result = send_through(top, [one.frame for one in sent])
    tape.close()
    assert tape.end is not None
    annotator.finish(
        tape.end,
        {
            "mcs": profile.transmitter.mcs,
            "bursts": result.bursts_sent,
            "code_blocks": result.code_blocks_sent,
            "symbols": result.symbols,
            "payload_symbols": result.payload_symbols,
        },
    )
    return result
