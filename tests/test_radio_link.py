"""The real gr-uhd and gr-soapy code against a radio that is not there: pictures cross, faults are handled."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zmq

from blocks.zmq_messages import (
    TOPIC_FRAME,
    MessageWriter,
    SocketLimits,
    open_socket,
)
from flowgraphs.radio_settings import RadioError
from semantic.geometries import shipped_geometries
from semantic.index_frame import IndexFrame
from semantic.link_statistics import Fate
from tests.conftest import REPOSITORY
from tests.link_parts import Decoder, random_frame, same_indices, wait_until
from tests.radio_link import KINDS, RadioLink, air, device_overrides, fell_behind, radio_link

pytestmark = pytest.mark.usefixtures("virtual_radio")

FRAMES = [random_frame(number) for number in range(1, 7)]


def whole(pictures: list[IndexFrame]) -> list[int]:
    """Ids of the frames that came through without a mistake."""
    sent = {frame.frame_id: frame for frame in FRAMES}
    return [
        picture.frame_id
        for picture in pictures
        if picture.complete and same_indices(picture, sent[picture.frame_id])
    ]


NOISE_DBFS, CFO_HZ, LEVEL = -20.0, 2345.0, 0.25


def check_clean_run(link: RadioLink) -> None:
    """Level, carrier offset and Es/N0 come out as the virtual air made them; nothing is lost."""
    statistics = link.receiver.receiver.statistics
    assert statistics.fates[Fate.DECODED] == len(FRAMES) == statistics.detected
    assert statistics.samples_lost == statistics.samples_dropped == 0
    # A symbol of level A at 4 samples per symbol has the energy 4 A^2.
    expected_db = 10 * np.log10(4 * LEVEL**2) - NOISE_DBFS
    assert statistics.snr_db_mean == pytest.approx(expected_db, abs=0.5)
    assert statistics.cfo_hz_mean == pytest.approx(CFO_HZ, abs=20)
    levels = [record.level for record in link.receiver.receiver.records]
    assert levels == pytest.approx([LEVEL] * len(FRAMES), rel=0.05)
    assert link.receiver.fault() is None


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_cross(kind: str) -> None:
    with radio_link(kind, [f"noise_dbfs={NOISE_DBFS}", f"cfo_hz={CFO_HZ}"]) as link:
        link.send(FRAMES)
        assert whole(link.pictures(len(FRAMES))) == [frame.frame_id for frame in FRAMES]
        check_clean_run(link)
        told = link.transmitter.statistics
        if kind == "uhd":
            assert told is not None
            wait_until(lambda: told.acknowledged == len(FRAMES), "acknowledgements")
            assert told.failed == 0
        else:
            assert told is None


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_cross_at_full_rate(kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    """1 Msym/s, 4 Msps, which a machine that does other work may not keep up with."""
    told = ["write_errors=1", f"noise_dbfs={NOISE_DBFS}", f"cfo_hz={CFO_HZ}"]
    for _ in range(2):
        with radio_link(kind, told, ["waveform.symbol_rate_hz=1e6"]) as link:
            link.send(FRAMES)
            pictures = link.pictures(len(FRAMES))
            if not fell_behind(link, capfd.readouterr().err):
                assert whole(pictures) == [frame.frame_id for frame in FRAMES]
                check_clean_run(link)
                return
    pytest.skip("this machine is too busy for 4 million samples per second, as the radio says")


@pytest.mark.parametrize("kind", KINDS)
def test_settings_are_read_back(kind: str) -> None:
    with radio_link(kind) as link:
        for settings, gain_db, antenna in (
            (link.transmitter.settings, 10, "TX/RX"),
            (link.receiver.settings, 20, "RX2"),
        ):
            assert settings is not None
            assert settings.rate_hz == 250e3
            assert settings.gain_db == gain_db
            assert settings.antenna == antenna
            assert settings.clock_source == "internal"
            assert f"gain {gain_db}.0 dB" in settings.text()


@pytest.mark.parametrize("kind", KINDS)
def test_local_oscillator_offset(kind: str) -> None:
    """The leak of the receiver's oscillator, as strong as the signal, lies beside it and does no harm."""
    overrides = ["radio.tx.lo_offset_hz=100e3", "radio.rx.lo_offset_hz=-100e3"]
    with radio_link(kind, ["dc=0.25"], overrides) as link:
        link.send(FRAMES[:2])
        assert whole(link.pictures(2)) == [1, 2]
        assert link.receiver.receiver.statistics.cfo_hz_mean == pytest.approx(0, abs=5)


def test_underflow_costs_one_burst_and_is_counted() -> None:
    with radio_link("uhd", ["underflow_burst=3"]) as link:
        link.send(FRAMES)
        pictures = link.pictures(len(FRAMES))
        assert whole(pictures) == [1, 2, 4, 5, 6]
        fates = link.receiver.receiver.statistics.fates
        assert fates[Fate.DECODED] == 5
        assert fates[Fate.BLOCKS_FAILED] == 1
        told = link.transmitter.statistics
        assert told is not None
        wait_until(lambda: told.acknowledged == 5, "acknowledgements")
        assert told.to_json() == {
            "acknowledged": 5,
            "underflows": 1,
            "late": 0,
            "sequence_errors": 0,
        }


def test_underflow_through_gr_soapy_costs_one_burst() -> None:
    """The driver refuses the samples once; gr-soapy offers them again, and the next burst is whole."""
    with radio_link("soapy", ["underflow_burst=3", "write_errors=1"]) as link:
        link.send(FRAMES)
        assert whole(link.pictures(len(FRAMES))) == [1, 2, 4, 5, 6]


def test_late_burst_is_lost_as_a_whole_and_counted() -> None:
    with radio_link("uhd", ["late_burst=3"]) as link:
        link.send(FRAMES)
        assert whole(link.pictures(5)) == [1, 2, 4, 5, 6]
        told = link.transmitter.statistics
        assert told is not None
        wait_until(lambda: told.acknowledged == 5, "acknowledgements")
        assert told.late == 1
        assert link.receiver.receiver.statistics.undetected(len(FRAMES)) == 1


def test_without_lead_time_every_burst_is_late() -> None:
    with radio_link("uhd", overrides=["radio.lead_time_s=0"]) as link:
        link.send(FRAMES[:1])
        told = link.transmitter.statistics
        assert told is not None
        wait_until(lambda: told.late == 1, "a late burst")
        assert told.acknowledged == 0


@pytest.mark.parametrize("kind", KINDS)
def test_overflow_cuts_one_burst_and_nothing_is_glued(kind: str) -> None:
    lost = 10_000
    with radio_link(kind, ["overflow_burst=3", f"overflow_samples={lost}"]) as link:
        link.send(FRAMES)
        pictures = link.pictures(len(FRAMES))
        statistics = link.receiver.receiver.statistics
        assert whole(pictures) == [1, 2, 4, 5, 6]
        assert statistics.fates[Fate.DECODED] == 5
        assert statistics.fates[Fate.OVERFLOW] == 1
        assert statistics.overflows == 1
        # Counted at the receiver's 2 samples per symbol.
        assert statistics.samples_lost == pytest.approx(lost / 2, abs=1)
        # Places go on as if nothing had been lost: no burst lies inside another.
        records = list(link.receiver.receiver.records)
        assert records[2].fate is Fate.OVERFLOW
        for one, next_one in itertools.pairwise(records):
            assert next_one.start_sample >= one.start_sample + 2 * one.symbols


def test_overflow_of_a_driver_without_a_clock() -> None:
    """The place is known all the same; how much is missing, nobody knows."""
    with radio_link("soapy", ["timeless=1", "overflow_burst=3", "overflow_samples=10000"]) as link:
        link.send(FRAMES)
        assert whole(link.pictures(len(FRAMES))) == [1, 2, 4, 5, 6]
        statistics = link.receiver.receiver.statistics
        assert statistics.fates[Fate.OVERFLOW] == 1
        assert statistics.overflows == 1
        assert statistics.samples_lost == 0


@pytest.mark.parametrize("kind", KINDS)
def test_silent_radio_is_noticed(kind: str) -> None:
    with radio_link(kind, ["stall_after_s=0.5"], ["radio.silence_s=1"]) as link:
        wait_until(lambda: link.receiver.fault() is not None, "the watchdog")
        fault = link.receiver.fault()
        assert isinstance(fault, RadioError)
        assert "went silent after" in str(fault)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_heard_on_the_wrong_frequency(kind: str) -> None:
    with radio_link(kind, ["noise_dbfs=-20"], ["radio.rx.frequency_hz=2.4e9"]) as link:
        link.send(FRAMES[:1])
        wait_until(lambda: link.transmitter.modulator.frames_sent == 1, "the frame to be sent")
        before = link.receiver.receiver.statistics.samples
        wait_until(
            lambda: link.receiver.receiver.statistics.samples > before + 500e3,
            "a second of samples",
        )
        assert link.receiver.receiver.statistics.fates[Fate.DECODED] == 0


@pytest.mark.parametrize("kind", KINDS)
def test_two_commands_in_two_processes(kind: str, tmp_path: Path) -> None:
    """``uoisc rx`` and ``uoisc tx`` share an air; Ctrl-C ends both in order."""
    frame = _shipped_frame()
    with air() as name:
        overrides = [
            *device_overrides(kind, name),
            f"zmq.frames_in=ipc://{tmp_path}/in",
            f"zmq.pictures_out=ipc://{tmp_path}/out",
            f"zmq.watch_out=ipc://{tmp_path}/watch",
            "waveform.symbol_rate_hz=62.5e3",
            "radio.tx.lo_offset_hz=0",
            "radio.rx.lo_offset_hz=0",
            "radio.tx.antenna=TX/RX",
            "radio.rx.antenna=RX2",
            "radio.tx.gain_db=10",
            "radio.rx.gain_db=20",
            "receiver.when_full=block",
        ]
        if kind == "uhd":
            overrides.append("radio.lead_time_s=1")
        processes = [_start(command, kind, overrides) for command in ("rx", "tx")]
        context = zmq.Context[zmq.Socket[bytes]]()
        limits = SocketLimits(10, 100)
        pull = Decoder(f"ipc://{tmp_path}/out")
        push = open_socket(context, zmq.DEALER, connect=f"ipc://{tmp_path}/in", limits=limits)
        writer = MessageWriter()
        try:
            # Until the receiver listens, what is sent is lost, as on any air.
            deadline_s = time.monotonic() + 120
            received = None
            while received is None and time.monotonic() < deadline_s:
                assert all(process.poll() is None for process in processes), "a process ended"
                if push.poll(1000, zmq.POLLOUT):
                    push.send_multipart(writer.pack_frame(TOPIC_FRAME, frame))
                if pull.poll(3000):
                    received = pull.frame()
            assert received is not None
            assert same_indices(received, frame)
        finally:
            outputs = [_interrupt(process) for process in processes]
            push.close()
            pull.close()
            context.destroy(linger=0)
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert "the radio says: 0.25 Msps" in outputs[0]
    assert "crest factor 5.1 dB" in outputs[1]


def _shipped_frame() -> IndexFrame:
    """Random indices of a codec that the commands know."""
    geometry = next(one for one in shipped_geometries() if not one.has_map)
    indices = random_frame(7, geometry=replace(geometry, rung=None)).indices
    return IndexFrame.of_rate(7, geometry, indices, None, None)


def _start(command: str, kind: str, overrides: list[str]) -> subprocess.Popen[str]:
    profile = {"uhd": "usrp", "soapy": "soapy"}[kind]
    arguments = [word for override in overrides for word in ("--set", override)]
    return subprocess.Popen(
        [sys.executable, "-m", "cli.main", command, "-p", profile, *arguments],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _interrupt(process: subprocess.Popen[str]) -> str:
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    try:
        return process.communicate(timeout=60)[0]
    except subprocess.TimeoutExpired:
        process.kill()
        return process.communicate()[0]
