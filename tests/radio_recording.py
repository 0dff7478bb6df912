"""A recording made over the virtual radio: bursts of a transmitter, heard by a recorder, in this process."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import zmq

from blocks.frame_assembler import AssembledFrame
from blocks.zmq_messages import TOPIC_FRAME, MessageWriter, SocketLimits, open_socket
from captures.recording import Recording, open_recording
from captures.sent_frames import SentFrame, known_geometries
from captures.writer import RecordingWriter
from flowgraphs.recorder import RadioRecorder, record_radio, recording_header
from flowgraphs.transmitter import Transmitter
from sdr_config.schema import Profile
from semantic.link_statistics import BurstRecord, LinkStatistics, TransmitStatistics

# A machine under load is slow; a dead thread never comes to an end.
_PATIENCE_S = 60.0
_LIMITS = SocketLimits(100, 1000)


@dataclass(frozen=True)
class LiveRecording:
    """A recording, and what the receiver said while it was made.

    Args:
        recording: as it lies on disk.
        statistics: the receiver's totals.
        records: one per burst.
        pictures: frames that were heard of, complete or not.
        transmitted: what the radio said about the bursts; None where it says nothing.
    """

    recording: Recording
    statistics: LinkStatistics
    records: list[BurstRecord]
    pictures: list[AssembledFrame]
    transmitted: TransmitStatistics | None


def record_over_the_air(
    profile: Profile,
    name: Path,
    sent: Sequence[SentFrame],
    description: str = "",
    samples: int = 0,
) -> LiveRecording:
    """Transmit frames and record what arrives, until every burst was heard.

    Nobody takes the pictures, as where a radio records and no decoder runs.

    Args:
        profile: of a radio.
        name: of the recording.
        sent: the frames.
        description: of the recording, one sentence.
        samples: recorded at least.
    """
    writer = RecordingWriter(
        name, recording_header(profile, "ci16_le", description=description), sent
    )
    recorder = RadioRecorder(profile, known_geometries(sent), writer.data_path, "ci16_le")
    transmitter = Transmitter(profile)
    try:
        conductor = _Conductor(transmitter, sent, samples)
        transmitter.start()
        record_radio(recorder, writer, None, conductor.enough, conductor.watch)
    finally:
        transmitter.stop()
        transmitter.wait()
        transmitter.close()
    return LiveRecording(
        open_recording(writer.path),
        recorder.receiver.statistics,
        list(recorder.receiver.records),
        list(recorder.index_sink.pictures),
        transmitter.statistics,
    )


class _Conductor:
    """Has the frames sent when the recorder listens, and ends the recording when it has heard them.

    Args:
        transmitter: to hand the frames to.
        sent: the frames.
        samples: to be recorded at least.
    """

    def __init__(
        self, transmitter: Transmitter, sent: Iterable[SentFrame], samples: int = 0
    ) -> None:
        self.enough = threading.Event()
        self._transmitter = transmitter
        self._waiting = [one.frame for one in sent]
        self._frames = len(self._waiting)
        self._samples = samples
        self._deadline_s = time.monotonic() + _PATIENCE_S

    def watch(self, recorder: RadioRecorder) -> None:
        """To be called several times a second."""
        if recorder.receiver.statistics.samples and self._waiting:
            self._send()
        # A burst that was transmitted and never heard would never be waited for long enough.
        heard = self._all_heard(recorder) and recorder.tape.position >= self._samples
        if heard or time.monotonic() > self._deadline_s:
            self.enough.set()

    def _send(self) -> None:
        writer = MessageWriter()
        address = self._transmitter.index_source.address
        with zmq.Context[zmq.Socket[bytes]]() as context:
            push = open_socket(context, zmq.DEALER, connect=address, limits=_LIMITS)
            for frame in self._waiting:
                push.send_multipart(writer.pack_frame(TOPIC_FRAME, frame))
            push.close(linger=1000)
        self._waiting = []

    def _all_heard(self, recorder: RadioRecorder) -> bool:
        modulator = self._transmitter.modulator
        all_sent = modulator.frames_sent == self._frames
        return all_sent and recorder.receiver.statistics.detected >= modulator.bursts_sent
