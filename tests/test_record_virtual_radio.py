"""Recording from the real gr-uhd and gr-soapy code: a replay counts what was counted on the air."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zmq

from blocks.frame_assembler import AssembledFrame
from blocks.zmq_messages import (
    TOPIC_FRAME,
    MessageWriter,
    SocketLimits,
    open_socket,
)
from captures.recording import open_recording
from captures.sent_frames import SentFrame, known_geometries, load_sent
from captures.verify import verify_recording
from cli.replay import replay_profile
from flowgraphs.replayer import ReplayResult, run_replay
from semantic.geometries import shipped_geometries
from semantic.index_frame import IndexFrame
from semantic.link_statistics import Fate
from tests.conftest import REPOSITORY, RunCommand
from tests.link_parts import Decoder, random_frame, same_indices
from tests.radio_link import KINDS, air, device_overrides, too_slow, virtual_profile
from tests.radio_recording import LiveRecording, record_over_the_air

pytestmark = pytest.mark.usefixtures("virtual_radio")

FRAMES = [random_frame(number) for number in range(1, 6)]
# Odd: half of it, at the receiver's rate, is no whole number.
LOST = 5_001


def record(
    folder: Path, kind: str, device_args: Sequence[str] = (), overrides: Sequence[str] = ()
) -> LiveRecording:
    with air() as name:
        # Long bursts: the driver overflows up to 25,000 samples behind a burst's beginning.
        profile = virtual_profile(kind, name, device_args, ["transmitter.mcs=0", *overrides])
        return record_over_the_air(profile, folder / "r", [SentFrame(one) for one in FRAMES])


def replay_of(live: LiveRecording) -> ReplayResult:
    profile = replay_profile(live.recording)
    return run_replay(profile, known_geometries(load_sent(live.recording)), live.recording)


def as_values(picture: AssembledFrame) -> dict[str, Any]:
    """Everything about a picture, as something to compare."""
    frame = picture.frame
    return {
        "frame_id": picture.frame_id,
        "blocks": picture.blocks,
        "blocks_ok": picture.blocks_ok,
        "bursts": picture.bursts,
        "indices": None if frame is None else [layer.tolist() for layer in frame.indices],
        "erased": None
        if frame is None or frame.erased is None
        else [layer.tolist() for layer in frame.erased],
    }


def whole(pictures: Sequence[AssembledFrame]) -> list[int]:
    """Ids of the frames that came through without a mistake."""
    sent = {frame.frame_id: frame for frame in FRAMES}
    return [
        one.frame_id
        for one in pictures
        if one.complete and one.frame and same_indices(one.frame, sent[one.frame_id])
    ]


def check_replay_is_the_same(live: LiveRecording) -> None:
    """Sound on disk, every burst annotated, and nothing that a replay counts differs from the air."""
    recording = live.recording
    assert verify_recording(recording.path) == []
    assert recording.records == live.records
    assert recording.metadata.info.statistics == live.statistics.to_json()
    assert len(recording.bursts) == live.statistics.detected
    again = replay_of(live)
    assert again.statistics.to_json() == live.statistics.to_json()
    assert again.records == live.records
    assert [as_values(one) for one in again.pictures] == [as_values(one) for one in live.pictures]


@pytest.mark.parametrize("kind", KINDS)
def test_everything_arrives(kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for attempt in range(3):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        live = record(folder, kind, ["noise_dbfs=-25", "cfo_hz=2345", "write_errors=1"])
        if not too_slow(live.transmitted, live.statistics, capfd.readouterr().err):
            break
        check_replay_is_the_same(live)
    else:
        pytest.skip("this machine is too busy for 250,000 samples per second, as the radio says")
    assert whole(live.pictures) == [1, 2, 3, 4, 5]
    assert live.recording.gaps == ()
    assert live.statistics.fates[Fate.DECODED] == len(FRAMES) == live.statistics.detected
    check_replay_is_the_same(live)


@pytest.mark.parametrize(("kind", "samples_per_symbol"), [("uhd", 4), ("soapy", 4), ("soapy", 2)])
def test_an_overflow(kind: str, samples_per_symbol: int, tmp_path: Path) -> None:
    """One gap of the length that was lost, one burst cut by it; the same in the replay."""
    live = record(
        tmp_path,
        kind,
        ["noise_dbfs=-25", "overflow_burst=3", f"overflow_samples={LOST}"],
        [f"waveform.samples_per_symbol={samples_per_symbol}"],
    )
    assert [gap.lost for gap in live.recording.gaps] == [LOST]
    assert live.statistics.overflows == 1
    assert live.statistics.samples_lost == pytest.approx(2 * LOST / samples_per_symbol, abs=1)
    check_third_burst_is_cut(live)
    check_replay_is_the_same(live)


def test_an_overflow_of_unknown_length(tmp_path: Path) -> None:
    """Of a driver without a clock: the place is known, the replay breaks there as well."""
    live = record(tmp_path, "soapy", ["timeless=1", "overflow_burst=3", f"overflow_samples={LOST}"])
    assert [gap.lost for gap in live.recording.gaps] == [0]
    assert live.statistics.overflows == 1
    assert live.statistics.samples_lost == 0
    check_third_burst_is_cut(live)
    check_replay_is_the_same(live)


def check_third_burst_is_cut(live: LiveRecording) -> None:
    assert whole(live.pictures) == [1, 2, 4, 5]
    assert [record.fate for record in live.records] == [
        *(Fate.DECODED, Fate.DECODED, Fate.OVERFLOW, Fate.DECODED, Fate.DECODED)
    ]
    cut = live.recording.bursts[2]
    (gap,) = live.recording.gaps
    assert cut.sample_start < gap.sample_start <= cut.sample_start + (cut.sample_count or 0)


def test_the_commands(tmp_path: Path, uoisc: RunCommand) -> None:
    """``uoisc tx`` and ``uoisc record`` share an air; ``uoisc replay`` counts what was recorded."""
    frame = _shipped_frame()
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames/7.uoisc").write_bytes(frame.to_bytes())
    addresses = {
        key: f"ipc://{tmp_path}/{key}" for key in ("frames_in", "pictures_out", "watch_out")
    }
    with air() as name, zmq.Context[zmq.Socket[bytes]]() as context:
        overrides = [
            *device_overrides("soapy", name, "noise_dbfs=-25"),
            *(f"zmq.{key}={address}" for key, address in addresses.items()),
            *("waveform.symbol_rate_hz=250e3", "receiver.when_full=block"),
            *("radio.tx.antenna=TX/RX", "radio.rx.antenna=RX2"),
            *("radio.tx.gain_db=10", "radio.rx.gain_db=20"),
        ]
        words = ["-p", "soapy", *(word for one in overrides for word in ("--set", one))]
        recorder = start("record", *words, "-o", tmp_path / "r", "--sent", tmp_path / "frames")
        # One after the other: the first to come sets the clock of the air that both share.
        deadline_s = time.monotonic() + 150
        data = tmp_path / "r.sigmf-data"
        while not (data.exists() and data.stat().st_size) and time.monotonic() < deadline_s:
            assert recorder.poll() is None, recorder.communicate()[0]
            time.sleep(0.2)
        transmitter = start("tx", *words)
        limits = SocketLimits(10, 100)
        pull = Decoder(addresses["pictures_out"])
        push = open_socket(context, zmq.DEALER, connect=addresses["frames_in"], limits=limits)
        writer = MessageWriter()
        try:
            # Until the recorder listens, what is sent is lost, as on any air.
            deadline_s = time.monotonic() + 150
            while not pull.poll(3000) and time.monotonic() < deadline_s:
                assert recorder.poll() is transmitter.poll() is None, "a process ended"
                if push.poll(1000, zmq.POLLOUT):
                    push.send_multipart(writer.pack_frame(TOPIC_FRAME, frame))
            assert pull.poll(0), "no picture came"
            assert same_indices(pull.frame(), frame)
        finally:
            outputs = [interrupt(recorder), interrupt(transmitter)]
            push.close(linger=0)
            pull.close()
    assert [recorder.returncode, transmitter.returncode] == [0, 0], outputs
    assert uoisc("captures", "verify", "r.sigmf-meta").returncode == 0
    ended = uoisc("replay", "r.sigmf-meta", "--no-decode", "--json")
    assert ended.returncode == 0, ended.stderr
    report = json.loads(ended.stdout)
    recording = open_recording(tmp_path / "r")
    totals = recording.metadata.info.statistics
    assert totals is not None
    keys = ("fates", "bursts_detected", "code_blocks", "code_blocks_ok", "snr_db_estimated")
    assert {key: report[key] for key in keys} == {key: totals[key] for key in keys}
    assert report["pictures"][0]["status"] == "ok"
    assert report["pictures"][0]["bit_errors"] == 0
    assert len(recording.bursts) == totals["bursts_detected"] >= 1


def _shipped_frame() -> IndexFrame:
    """Random indices of a codec that the commands know."""
    geometry = next(one for one in shipped_geometries() if not one.has_map)
    indices = random_frame(7, geometry=replace(geometry, rung=None)).indices
    return IndexFrame.of_rate(7, geometry, indices, None, None)


def start(*words: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "cli.main", *map(str, words)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def interrupt(process: subprocess.Popen[str]) -> str:
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    try:
        return process.communicate(timeout=60)[0]
    except subprocess.TimeoutExpired:
        process.kill()
        return process.communicate()[0]
