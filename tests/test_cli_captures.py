"""``uoisc record``, ``replay`` and ``captures``: real commands, real files, one line for every mistake."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gnuradio import blocks as gr_blocks
from gnuradio import gr
from PIL import Image

from captures.library import SHIPPED_FOLDER
from captures.recording import load_recording, open_recording
from captures.verify import verify_recording
from cli.main import run
from cli.replay import replay_profile
from semantic.geometries import CHECKPOINT_FOLDER, read_geometries
from semantic.index_frame import IndexFrame
from tests.conftest import REPOSITORY, RunCommand
from tests.recordings import burst_samples, change, write_foreign

LOOPBACK_KEYS = {
    *("status", "mcs", "code_rate", "snr_db", "seed", "bursts_sent", "bursts_detected"),
    *("undetected", "fates", "code_blocks", "code_blocks_ok", "symbols", "payload_symbols"),
    *("snr_db_estimated", "cfo_hz_estimated", "index_error_rate", "bits", "bits_per_pixel"),
    *("psnr_db", "ms_ssim", "air_s", "decode_s", "encode_s", "image", "query", "profile"),
    *("codec_id", "output"),
}


def embedded_frame(frame_id: int = 1) -> IndexFrame:
    """Random indices of the embedded codec at its full rate: no picture, but one that can be decoded."""
    *_, geometry = read_geometries(CHECKPOINT_FOLDER / "embedded.json")
    generator = np.random.default_rng(frame_id)
    indices = [
        generator.integers(0, 1 << geometry.bits_per_index, (layer.tokens, layer.segments))
        for layer in geometry.layers
    ]
    return IndexFrame(
        frame_id, geometry, tuple(array.astype(np.uint16) for array in indices), "a cat?"
    )


def record_simulation(folder: Path, name: str, *arguments: str) -> None:
    """Two frames over the simulated channel."""
    sent = folder / "frames"
    sent.mkdir(exist_ok=True)
    for frame_id in (1, 2):
        (sent / f"{frame_id}.uoisc").write_bytes(embedded_frame(frame_id).to_bytes())
    command = ["record", "-p", "loopback", "--sent", str(sent), "-o", str(folder / name)]
    assert run([*command, *arguments]) == 0


def replayed(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    capsys.readouterr()
    assert run(["replay", *arguments, "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    values: dict[str, Any] = json.loads(line)
    return values


def without_times(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in ("air_s", "decode_s")}


def test_record_then_replay(uoisc: RunCommand, tmp_path: Path) -> None:
    (tmp_path / "1.uoisc").write_bytes(embedded_frame(1).to_bytes())
    Image.new("RGB", (200, 180), "red").save(tmp_path / "1.png")
    recorded = uoisc("record", "-p", "loopback", "--sent", "1.uoisc", "-o", "r", "--json")
    assert recorded.returncode == 0, recorded.stderr
    summary = json.loads(recorded.stdout)
    assert summary["state"] == "complete"
    assert summary["statistics"]["fates"]["decoded"] == summary["bursts"] == 2
    assert uoisc("captures", "verify", "r").returncode == 0
    result = uoisc("replay", "r.sigmf-meta", "--json", "--output", "out")
    assert result.returncode == 0, result.stderr
    values = json.loads(result.stdout)
    assert set(values) >= LOOPBACK_KEYS | {"pictures", "bit_error_rate", "recording", "samples"}
    assert (values["status"], values["index_error_rate"]) == ("ok", 0.0)
    assert (values["bursts_sent"], values["undetected"], values["snr_db"]) == (2, 0, 20.0)
    (picture,) = values["pictures"]
    assert (picture["frame_id"], picture["bit_errors"]) == (1, 0)
    # Its quality refers to the photo beside the frame.
    assert picture["quality_refers_to"] == "source"
    assert picture["psnr_db"] < 20
    assert json.loads((tmp_path / "out/report.json").read_text()) == values
    with Image.open(tmp_path / "out" / picture["file"]) as image:
        assert image.size == (160, 160)


def test_pictures_and_their_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A picture with lost samples in it: some indices are gone, and the picture suffers."""
    record_simulation(tmp_path, "r", "--loss", "30000,8000", "--set", "transmitter.mcs=2")
    values = replayed(capsys, str(tmp_path / "r"))
    assert values["status"] == "partial"
    first, second = values["pictures"]
    assert (first["status"], second["status"]) == ("partial", "ok")
    assert 0 < first["index_error_rate"] < 1
    assert 0 < first["bit_errors"] < first["bits"] / 2
    assert first["code_blocks_ok"] < first["code_blocks"]
    assert second["bit_errors"] == second["index_errors"] == 0
    # No photo lies beside: the reference is what the indices would have made.
    assert first["quality_refers_to"] == "sent_indices"
    assert 5 < first["psnr_db"] < 60
    assert second["psnr_db"] is None  # not one pixel differs
    assert values["samples_lost"] == 8000
    assert values["bit_error_rate"] == pytest.approx(first["bit_error_rate"] / 2)
    assert without_times(replayed(capsys, str(tmp_path / "r"))) == without_times(values)
    quick = replayed(capsys, str(tmp_path / "r"), "--no-decode")
    assert quick["decode_s"] is None
    assert quick["bit_error_rate"] == values["bit_error_rate"]
    assert run(["replay", str(tmp_path / "r"), "--no-decode"]) == 0
    assert "partial" in capsys.readouterr().out


def test_a_foreign_recording(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is known but the samples."""
    path = write_foreign(tmp_path, burst_samples(), "cu8")
    values = replayed(capsys, str(path))
    assert values["status"] == "not_received"
    assert values["fates"]["unknown_codec"] == values["bursts_detected"] == 3
    assert (values["mcs"], values["pictures"], values["bursts_sent"]) == (4, [], None)
    # At half the sample rate it is the same signal with half the symbol rate.
    change(path, "global", core__sample_rate=2e6)
    slow = replayed(capsys, str(path), "--symbol-rate", "5e5")
    assert slow["bursts_detected"] == 3
    assert replayed(capsys, str(path), "--set", "waveform.symbol_rate_hz=5e5") == {
        **slow, "air_s": pytest.approx(slow["air_s"], abs=60),
    }  # fmt: skip


def test_rates_come_from_the_recording(tmp_path: Path) -> None:
    path = write_foreign(tmp_path, burst_samples(1), info={"uoisc:symbol_rate_hz": 8e5})
    profile = replay_profile(open_recording(path))
    assert (profile.waveform.symbol_rate_hz, profile.waveform.samples_per_symbol) == (8e5, 5)
    change(path, "global", core__sample_rate=20e6)
    profile = replay_profile(open_recording(path), symbol_rate_hz=1e6)
    assert (profile.waveform.symbol_rate_hz, profile.waveform.samples_per_symbol) == (1e6, 4)


@pytest.mark.parametrize("setting", ["dc_block_length=64", "max_iterations=2"])
def test_received_as_it_was_live(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], setting: str
) -> None:
    """What decides the counts stands in the recording; a profile or --set has the last word."""
    name = str(tmp_path / "r")
    settings = (f"receiver.{setting}", "channel.snr_db=5.5")
    record_simulation(tmp_path, "r", *(word for one in settings for word in ("--set", one)))
    live = open_recording(tmp_path / "r").metadata.info.statistics
    assert live is not None

    def counted(*arguments: str) -> dict[str, Any]:
        values = replayed(capsys, name, "--no-decode", *arguments)
        return {key: value for key, value in values.items() if key in live and key != "samples"}

    as_recorded = {key: value for key, value in live.items() if key in counted()}
    assert "snr_db_estimated" in as_recorded
    assert counted() == as_recorded
    assert counted("-p", "replay", "--set", f"receiver.{setting}") == as_recorded
    usual = counted("-p", "replay")
    assert usual != as_recorded
    defaults = [f"receiver.{one}" for one in ("dc_block_length=0", "max_iterations=50")]
    assert counted(*(word for one in defaults for word in ("--set", one))) == usual


def test_list_and_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record_simulation(tmp_path, "good")
    broken = write_foreign(tmp_path, burst_samples(1), name="broken")
    change(broken, "global", core__datatype="rf32_le")
    cut = write_foreign(tmp_path, burst_samples(1), name="cut", info={"uoisc:samples": 10**9})
    capsys.readouterr()
    assert run(["captures", "list", str(tmp_path), "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["recordings"]}
    assert set(rows) == {"broken.sigmf-meta", "cut", "good"}
    assert "real samples" in rows["broken.sigmf-meta"]["problems"][0]
    assert rows["good"]["problems"] == []
    assert run(["captures", "list", str(tmp_path)]) == 0
    assert "good" in capsys.readouterr().out
    assert run(["captures", "show", str(cut), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["problems"] == [
        f"truncated: {burst_samples(1).size} samples, {10**9} were recorded"
    ]
    assert run(["captures", "show", str(tmp_path / "good"), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert len(shown["burst_list"]) == shown["bursts"] > 2
    assert shown["burst_list"][0]["fate"] == "decoded"
    assert run(["captures", "show", str(tmp_path / "good")]) == 0
    assert "decoded" in capsys.readouterr().out
    assert run(["captures", "verify", str(tmp_path / "good"), str(cut), "--json"]) == 1
    verified = json.loads(capsys.readouterr().out)
    assert not verified["all_ok"]
    assert [row["ok"] for row in verified["recordings"]] == [True, False]


def start_recording(
    folder: Path, *arguments: str, bursts_on_air: int = 240
) -> subprocess.Popen[bytes]:
    """``uoisc record`` from a radio that is a recording, in a process of its own; bursts are annotated.

    The metadata is read while it is rewritten: it is whole at every moment.
    """
    air = write_foreign(
        folder, np.tile(burst_samples(4), bursts_on_air // 4), "ci16_le", name="air"
    )
    command = [
        *(sys.executable, "-m", "cli.main", "record", "-p", "replay", "-o", "r"),
        *("--set", f"radio.path={air}", *arguments),
        *(f"--set=zmq.{key}=tcp://127.0.0.1:*" for key in ("frames_in", "pictures_out", "watch_out")),
    ]  # fmt: skip
    process = subprocess.Popen(
        command, cwd=folder, env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    deadline = time.monotonic() + 300
    while not (folder / "r.sigmf-meta").exists() or not load_recording(folder / "r").bursts:
        assert process.poll() is None, process.communicate()[1].decode()
        assert time.monotonic() < deadline, "recording has not begun"
        time.sleep(0.05)
    return process


def test_a_killed_recording_is_readable_up_to_its_last_refresh(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    process = start_recording(tmp_path)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    recording = open_recording(tmp_path / "r")
    assert recording.partial
    assert recording.samples > 0
    assert recording.bursts
    (problem,) = verify_recording(recording.path)
    assert "not ended in order" in problem
    assert run(["captures", "show", str(tmp_path / "r")]) == 0
    assert "recording" in capsys.readouterr().out
    assert run(["captures", "verify", str(tmp_path / "r")]) == 1
    # The samples are those of the radio, and what is annotated is heard again.
    air = open_recording(tmp_path / "air")
    assert np.array_equal(recording.read_all(), air.read_all()[: recording.samples])
    values = replayed(capsys, str(tmp_path / "r"))
    assert values["partial"] is True
    noted = [record for record in recording.records if record.frame_id is not None]
    assert values["bursts_detected"] >= len(noted)
    assert [path.name for path in tmp_path.glob("*.part")] == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_recording_ends_in_order_when_asked_to(tmp_path: Path, number: signal.Signals) -> None:
    process = start_recording(tmp_path)
    process.send_signal(number)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors.decode()
    assert b"complete" in output
    recording = open_recording(tmp_path / "r")
    assert not recording.partial
    assert verify_recording(recording.path) == []


def test_a_recording_of_some_length(tmp_path: Path) -> None:
    # Of 2.6 s on the air, so that it is the length asked for that ends it.
    process = start_recording(tmp_path, "--duration", "0.4", bursts_on_air=800)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors.decode()
    recording = open_recording(tmp_path / "r")
    assert 0.4 <= recording.duration_s < 2
    assert recording.metadata.info.hardware == "none (file)"


NO_USRP = "radio.device_args=type=b200,serial=NONE"


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["record", "-p", "loopback", "-o", "r"], 2, "--sent"),
        (["record", "-p", "loopback", "-o", "r", "--sent", "a", "--duration", "3"], 2, "--duration"),
        (["record", "-p", "usrp", "-o", "r", "--loss", "1,2"], 2, "--loss"),
        (["record", "-p", "loopback", "-o", "r", "--sent", "a", "--loss", "1"], 2, "FIRST,COUNT"),
        (["record", "-p", "loopback", "-o", "r", "--sent", "none.uoisc"], 1, "none.uoisc"),
        (["record", "-p", "loopback", "-o", "none/r", "--sent", "f.uoisc"], 1, "folder"),
        (["record", "-p", "loopback", "-o", "r", "--sent", "f.uoisc", "--datatype", "cu8"], 1, "cu8"),
        (["record", "-p", "usrp", "-o", "r", "--set", NO_USRP], 1, "no USRP"),
        (["record", "-p", "usrp", "-o", "r", "--duration", "1e15"], 1, "the disk has"),
        (["replay", "nothing"], 1, "nothing.sigmf-meta: no such file"),
        (["replay", "f.uoisc"], 1, "no such file"),
        (["replay", "air", "--profile", "nope"], 1, "profile 'nope'"),
        (["replay", "air", "--symbol-rate", "3e6"], 1, "less than two samples per symbol"),
        (["replay", "air", "--symbol-rate", "-1"], 1, "symbol_rate_hz"),
        (["captures", "list", "nowhere"], 1, "nowhere: no such folder"),
        (["captures", "show", "nothing"], 1, "no such file"),
        (["captures", "verify", "nothing"], 1, "no such file"),
        (["rx", "-p", "replay", "--set", "radio.path=nothing"], 1, "no such file"),
        (["tx", "-p", "replay"], 1, "which is no radio"),
    ],
)  # fmt: skip
def test_mistakes(
    arguments: list[str],
    code: int,
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "f.uoisc").write_bytes(embedded_frame().to_bytes())
    write_foreign(tmp_path, burst_samples(1), name="air")
    before = sorted(tmp_path.iterdir())
    assert run(arguments) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.fullmatch(r"error: [^\n]+\n", captured.err)
    assert expected in captured.err
    assert "fault in the program" not in captured.err
    # Nothing is left behind, nothing half-made.
    assert sorted(tmp_path.iterdir()) == before


def test_receiving_from_a_recording(tmp_path: Path, uoisc: RunCommand) -> None:
    """``uoisc rx`` takes a recording for a radio."""
    record_simulation(tmp_path, "r")
    ports = [
        f"--set=zmq.{key}=tcp://127.0.0.1:*" for key in ("frames_in", "pictures_out", "watch_out")
    ]
    name = tmp_path / "r.sigmf-meta"
    result = uoisc("rx", "-p", "replay", "--set", f"radio.path={name}", *ports, "--duration", "2")
    assert result.returncode == 0, result.stderr
    recording = open_recording(name)
    assert f"{len(recording.bursts)} bursts" in result.stderr


def test_a_recording_without_its_frames_is_replayed_and_says_so(
    tmp_path: Path, uoisc: RunCommand
) -> None:
    """Renamed without its folder."""
    for ending in (".sigmf-meta", ".sigmf-data"):
        shutil.copy(SHIPPED_FOLDER / f"clean{ending}", tmp_path / f"renamed{ending}")
    result = uoisc("replay", "renamed", "--no-decode", "--json")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert [one["status"] for one in report["pictures"]] == ["ok", "ok"]
    assert report["bit_error_rate"] is None
    assert "renamed.sent: no such folder" in result.stderr
    result = uoisc("captures", "verify", "renamed")
    assert result.returncode == 1
    assert "renamed.sent: no such folder" in result.stdout


def test_a_measured_sample_rate_is_replayed(tmp_path: Path, uoisc: RunCommand) -> None:
    for ending in (".sigmf-meta", ".sigmf-data"):
        shutil.copy(SHIPPED_FOLDER / f"clean{ending}", tmp_path / f"clean{ending}")
    shutil.copytree(SHIPPED_FOLDER / "clean.sent", tmp_path / "clean.sent")
    change(tmp_path / "clean.sigmf-meta", "global", core__sample_rate=1_999_999.0)
    result = uoisc("replay", "clean.sigmf-meta", "--no-decode", "--json")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["bit_error_rate"] == 0
    assert [one["status"] for one in report["pictures"]] == ["ok", "ok"]


def test_what_gnu_radio_writes_is_sound(tmp_path: Path) -> None:
    """Its own SigMF sink: no checksum, no hardware, no time."""
    samples = burst_samples(count=2)
    sink = gr_blocks.sigmf_sink_minimal(8, str(tmp_path / "theirs"), 4e6, 1e9, "", "", "", True)
    top = gr.top_block()
    top.connect(gr_blocks.vector_source_c(samples.tolist()), sink)
    top.run()
    assert verify_recording(tmp_path / "theirs") == []
    np.testing.assert_array_equal(open_recording(tmp_path / "theirs").read_all(), samples)
