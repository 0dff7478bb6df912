"""Recording: what the file holds is what the receiver heard, gaps and annotations included."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from gnuradio import blocks as gr_blocks
from gnuradio import gr

from captures.errors import CaptureError
from captures.metadata import ReceiverSettings
from captures.recording import Gap, Recording, load_recording, open_recording
from captures.sent_frames import SentFrame, known_geometries, load_sent
from captures.verify import verify_recording
from captures.writer import RecordingWriter
from flowgraphs.loopback import LoopbackResult
from flowgraphs.recorder import (
    RadioRecorder,
    check_space,
    record_loopback,
    record_radio,
    recording_header,
)
from flowgraphs.tape import Tape
from sdr_config.load import load_profile
from sdr_config.schema import Profile
from semantic.link_statistics import Fate, LinkStatistics
from tests.link_parts import ANY_PORT, random_frame
from tests.recordings import burst_samples, write_foreign

PORTS = [f"zmq.{key}={ANY_PORT}" for key in ("frames_in", "pictures_out", "watch_out")]


def loopback_profile(*overrides: str) -> Profile:
    return load_profile("loopback", [*PORTS, *overrides])


def simulate(
    folder: Path,
    *overrides: str,
    datatype: str = "ci16_le",
    loss: tuple[int, int] | None = None,
    frames: int = 3,
    name: str = "r",
) -> tuple[Recording, LoopbackResult]:
    """Frames over the simulated channel, recorded."""
    profile = loopback_profile(*overrides)
    sent = [SentFrame(random_frame(number)) for number in range(1, frames + 1)]
    writer = RecordingWriter(folder / name, recording_header(profile, datatype), sent)
    result = record_loopback(profile, known_geometries(sent), sent, writer, loss)
    return open_recording(writer.path), result


@pytest.mark.parametrize("datatype", ["cf32_le", "ci16_le"])
def test_tape_and_stream_agree(tmp_path: Path, datatype: str) -> None:
    """What goes on is what the file holds, to the last bit."""
    generator = np.random.default_rng(1)
    samples = generator.normal(size=(50_000, 2)).astype(np.float32).view(np.complex64)[:, 0]
    tape = Tape(tmp_path / "data", datatype)
    sink = gr_blocks.vector_sink_c()
    top = gr.top_block()
    top.connect(gr_blocks.vector_source_c(samples.tolist()), tape, sink)
    top.run()
    assert tape.position == tape.taken == samples.size
    assert tape.end is None
    tape.close()
    path = write_foreign(tmp_path, samples[:1], datatype)
    (tmp_path / "data").replace(path.with_suffix(".sigmf-data"))
    recorded = open_recording(path).read_all()
    assert np.array_equal(recorded, np.array(sink.data(), np.complex64))
    if datatype == "cf32_le":
        assert np.array_equal(recorded, samples)
    else:
        clipped = np.clip(samples.view(np.float32), -1, 32767 / 32768)
        error = recorded.view(np.float32) - clipped
        assert np.abs(error).max() <= 0.5001 / 32768


@pytest.mark.parametrize("datatype", ["cf32_le", "ci16_le"])
def test_annotations_are_the_receivers_account(tmp_path: Path, datatype: str) -> None:
    recording, result = simulate(
        tmp_path, "channel.snr_db=4", "channel.cfo_hz=2e4", "waveform.amplitude=0.1", datatype=datatype,
        frames=8,
    )  # fmt: skip
    assert recording.records == result.records
    statistics = LinkStatistics()
    for record in recording.records:
        statistics.add(record)
    assert statistics.fates == result.statistics.fates
    assert statistics.snr_db_mean == result.statistics.snr_db_mean
    assert recording.metadata.info.statistics == result.statistics.to_json()
    assert verify_recording(recording.path) == []
    # One sample of the recording for every two that the receiver had.
    assert recording.samples == 2 * result.statistics.samples
    transmission = recording.metadata.info.transmission
    assert transmission is not None
    assert transmission.bursts == result.bursts_sent
    assert [one.frame.frame_id for one in load_sent(recording)] == list(range(1, 9))
    assert recording.metadata.info.simulation is not None
    assert recording.metadata.info.simulation["snr_db"] == 4


@pytest.mark.parametrize("samples_per_symbol", [2, 3, 4, 8])
@pytest.mark.parametrize("dc_block_length", [0, 64])
def test_annotations_lie_where_the_bursts_are(
    tmp_path: Path, samples_per_symbol: int, dc_block_length: int
) -> None:
    """There is signal inside, and silence before and behind (30 dB above the noise)."""
    recording, _ = simulate(
        tmp_path, "channel.snr_db=30", "transmitter.gap_symbols=200",
        f"waveform.samples_per_symbol={samples_per_symbol}",
        f"receiver.dc_block_length={dc_block_length}",
    )  # fmt: skip
    power = np.abs(recording.read_all()) ** 2
    assert len(recording.bursts) == 3
    for burst in recording.bursts:
        first, last = burst.sample_start, burst.sample_start + (burst.sample_count or 0)
        edge, guard = 10 * samples_per_symbol, 20 * samples_per_symbol
        inside = power[first + edge : last - edge]
        around = np.concatenate([power[max(0, first - 2 * guard) : max(0, first - guard)],
                                 power[last + guard : last + 2 * guard]])  # fmt: skip
        assert inside.mean() > 100 * around.mean()
        # Within two symbols: the ramps rise and fall there.
        step = 2 * samples_per_symbol
        assert power[first + edge - step : first + edge].mean() > 10 * around.mean()
        assert power[last - edge : last - edge + step].mean() > 10 * around.mean()


def test_a_gap(tmp_path: Path) -> None:
    """Samples lost within the second burst: that one fate is overflow, and the recording says where."""
    whole, _ = simulate(tmp_path, name="whole")
    second = whole.bursts[1]
    first_lost = second.sample_start + (second.sample_count or 0) // 2
    recording, result = simulate(tmp_path, loss=(first_lost, 3000))
    assert recording.samples == whole.samples - 3000
    assert recording.gaps == (Gap(first_lost, 3000),)
    assert [burst.fate for burst in recording.bursts] == [Fate.DECODED, Fate.OVERFLOW, Fate.DECODED]
    assert recording.records == result.records
    assert verify_recording(recording.path) == []
    starts = [burst.sample_start for burst in recording.bursts]
    wanted = [burst.sample_start for burst in whole.bursts]
    assert starts[:2] == wanted[:2]
    assert starts[2] == pytest.approx(wanted[2] - 3000, abs=2)
    # The receiver's own count goes on through what was lost.
    last, same = recording.records[2], whole.records[2]
    assert last.start_sample == pytest.approx(same.start_sample, abs=1)
    assert recording.bursts[1].sample_count == (second.sample_count or 0) - 3000
    samples, before = recording.read_all(), whole.read_all()
    assert np.array_equal(samples[:first_lost], before[:first_lost])
    assert np.array_equal(samples[first_lost:], before[first_lost + 3000 :])


def radio_profile(recording: Path, *overrides: str) -> Profile:
    """A radio that is a recording: it goes on for ever, as radios do."""
    return load_profile("replay", [*PORTS, f"radio.path={recording}", *overrides])


def record_from(
    profile: Profile, path: Path, samples: int | None, enough: int | None = None
) -> tuple[Recording, int]:
    """Record ``samples``, or until about ``enough`` are there."""
    stopping = threading.Event()
    writer = RecordingWriter(path, recording_header(profile, "ci16_le"))
    top = RadioRecorder(profile, known_geometries([]), writer.data_path, "ci16_le")

    def watch(top: RadioRecorder) -> None:
        if enough is not None and top.tape.position >= enough:
            stopping.set()

    recorded = record_radio(top, writer, samples, stopping, watch)
    return open_recording(path), recorded


def test_a_radio_for_a_while(tmp_path: Path) -> None:
    """As many samples as asked for, or a few more; the receiver heard all of them and no others."""
    air = write_foreign(tmp_path, np.tile(burst_samples(4), 10))
    wanted = burst_samples(4).size
    recording, recorded = record_from(radio_profile(air), tmp_path / "r", wanted)
    assert recording.samples == recorded >= wanted
    statistics = recording.metadata.info.statistics
    assert statistics is not None
    assert statistics["samples"] == pytest.approx(recorded / 2, abs=1)
    # No codec is known for random bits; the receiver's own account ends before that is found out.
    assert statistics["fates"][Fate.UNKNOWN_CODEC] >= 4
    # The last one may be cut off by the end, which costs blocks but not the header.
    placed = sum(burst.frame_id is not None for burst in recording.bursts)
    assert placed == statistics["fates"][Fate.UNKNOWN_CODEC]
    assert verify_recording(recording.path) == []


def test_a_radio_until_somebody_has_had_enough(tmp_path: Path) -> None:
    air = write_foreign(tmp_path, np.tile(burst_samples(4), 50), "ci16_le")
    recording, recorded = record_from(radio_profile(air), tmp_path / "r", None, enough=100_000)
    assert recording.samples == recorded >= 100_000
    statistics = recording.metadata.info.statistics
    assert statistics is not None
    assert statistics["samples"] == pytest.approx(recorded / 2, abs=1)
    assert len(recording.bursts) == statistics["bursts_detected"] >= 7
    assert not recording.partial


def test_a_radio_that_has_gaps(tmp_path: Path) -> None:
    """Its time tags become segments again: the gaps of the recording that is recorded."""
    first, _ = simulate(tmp_path, loss=(30_000, 4000), name="first")
    recording, _ = record_from(radio_profile(first.path), tmp_path / "r", first.samples)
    assert recording.gaps == first.gaps
    assert np.array_equal(recording.read_all()[: first.samples], first.read_all())
    assert [burst.fate for burst in recording.bursts] == [burst.fate for burst in first.bursts]


def test_a_silent_radio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was recorded before stays readable."""
    monkeypatch.setattr("flowgraphs.recorder._SILENT_S", 1.0)
    air = write_foreign(tmp_path, burst_samples(2))
    profile = radio_profile(air)
    writer = RecordingWriter(tmp_path / "r", recording_header(profile, "ci16_le"))
    top = RadioRecorder(profile, known_geometries([]), writer.data_path, "ci16_le")
    top.radio.samples._be_silent = lambda _out: 0  # a radio that has stopped
    with pytest.raises(CaptureError, match="no samples for 1 s"):
        record_radio(top, writer, 10**9, threading.Event())
    recording = load_recording(writer.path)
    assert recording.partial
    assert recording.problems == ()


def test_room_on_the_disk(tmp_path: Path) -> None:
    check_space(tmp_path / "r", "ci16_le", 1000)
    with pytest.raises(CaptureError, match="the disk has"):
        check_space(tmp_path / "r", "cf32_le", 1 << 60)


@pytest.mark.parametrize(
    ("profile", "hardware", "frequency_hz"),
    [
        ("loopback", "none (channel)", 0.0),
        ("usrp", "USRP (addr=192.168.10.2) through gr-uhd", 2.45e9),
        ("soapy", "SoapySDR (driver=lime) through gr-soapy", 868.3e6),
    ],
)
def test_what_a_profile_says(profile: str, hardware: str, frequency_hz: float) -> None:
    header = recording_header(load_profile(profile), "ci16_le")
    assert (header.hardware, header.frequency_hz) == (hardware, frequency_hz)
    assert (header.simulation is None) == (profile != "loopback")
    assert header.receiver == ReceiverSettings(dc_block_length=0, max_iterations=50)
