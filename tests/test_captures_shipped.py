"""The recordings that come with the project: sound, small, and replayed as they always were."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from captures.library import SHIPPED_FOLDER, find_recording, shipped_recordings
from captures.recording import open_recording
from captures.sent_frames import gather_sent, load_sent, sent_folder
from captures.verify import verify_recording
from cli.replay import expected_values
from semantic.link_statistics import Fate
from tests.conftest import REPOSITORY

SIMULATED = ["clean", "fading_gap"]
LIVE = "virtual_radio"
NAMES = [*SIMULATED, LIVE]


def script() -> ModuleType:
    path = REPOSITORY / "scripts/make_captures.py"
    spec = importlib.util.spec_from_file_location("make_captures", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules["make_captures"] = module
    spec.loader.exec_module(module)
    return module


def expected(name: str) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(
        (SHIPPED_FOLDER / f"{name}.expected.json").read_text(encoding="utf-8")
    )
    return values


def check_alike(found: object, wanted: object, where: str) -> None:
    """Counts exactly, measurements closely: a processor may round a sum differently."""
    if isinstance(wanted, dict):
        assert isinstance(found, dict)
        assert set(found) == set(wanted), where
        for key in wanted:
            check_alike(found[key], wanted[key], f"{where}.{key}")
    elif isinstance(wanted, list):
        assert isinstance(found, list)
        assert len(found) == len(wanted), where
        for number, pair in enumerate(zip(found, wanted, strict=True)):
            check_alike(*pair, f"{where}[{number}]")
    elif isinstance(wanted, float):
        assert found == pytest.approx(wanted, rel=0.02, abs=0.05), where
    elif where.endswith("bit_errors"):
        # In blocks that failed: the decoder's last guess.
        assert found == pytest.approx(wanted, rel=0.05), where
    else:
        assert found == wanted, where


def test_what_there_is() -> None:
    assert shipped_recordings() == NAMES
    assert find_recording("clean") == SHIPPED_FOLDER / "clean.sigmf-meta"
    module = script()
    assert {shipped.name for shipped in module.RECORDINGS} == set(SIMULATED)
    assert module.VIRTUAL_RADIO.name == LIVE


@pytest.mark.parametrize("name", NAMES)
def test_sound_and_small(name: str) -> None:
    path = find_recording(name)
    assert verify_recording(path) == []
    files = [*SHIPPED_FOLDER.glob(f"{name}.*"), *sent_folder(path).iterdir()]
    assert sum(file.stat().st_size for file in files if file.is_file()) < 2_000_000


@pytest.mark.parametrize("name", NAMES)
def test_replayed_as_ever(name: str) -> None:
    recording = open_recording(find_recording(name))
    found = expected_values(recording, load_sent(recording))
    check_alike(found, expected(name), name)
    # And as it was heard while it was recorded.
    live = [record.to_json() for record in recording.records]
    check_alike(found["records"], live, name)


def test_they_show_what_they_are_for() -> None:
    clean, fading, live = (expected(name) for name in NAMES)
    assert clean["status"] == "ok"
    assert all(picture["bit_errors"] == 0 for picture in clean["pictures"])
    assert fading["status"] == "partial"
    assert fading["samples_lost"] == 2000
    assert fading["fates"][Fate.OVERFLOW] == 1
    assert fading["fates"][Fate.BLOCKS_FAILED] >= 1
    levels = [record["snr_db"] for record in fading["records"]]
    assert max(levels) - min(levels) > 10
    assert [record["fate"] for record in live["records"]] == ["decoded", "overflow", "decoded"]
    assert live["samples_lost"] == 3000
    assert [picture["bit_errors"] for picture in live["pictures"]][::2] == [0, 0]


@pytest.mark.parametrize("name", SIMULATED)
def test_made_again_they_are_the_same(name: str, tmp_path: Path) -> None:
    """From the same frames and seeds: the metadata to the byte, the samples to the last bit or nearly.

    Another processor may round a sample of noise the other way.
    """
    module = script()
    (shipped,) = (one for one in module.RECORDINGS if one.name == name)
    old = open_recording(find_recording(name))
    again = module.record(shipped, gather_sent([sent_folder(old.path)]), tmp_path)
    assert again.gaps == old.gaps
    assert again.samples == old.samples
    difference = abs(again.read_all() - old.read_all())
    assert difference.max() <= 2 / 32768
    assert (difference > 0).mean() < 0.01
    for one in sent_folder(again.path).iterdir():
        other = sent_folder(old.path) / one.name
        assert (
            hashlib.sha256(one.read_bytes()).digest() == hashlib.sha256(other.read_bytes()).digest()
        )


@pytest.mark.usefixtures("virtual_radio")
def test_the_live_one_is_made_again(tmp_path: Path) -> None:
    """In real time, so not to the byte: the same pictures and gap, and every argument of the device once."""
    module = script()
    for _ in range(3):
        try:
            path = module.make(module.VIRTUAL_RADIO, False, tmp_path)
        except SystemExit as too_busy:
            reason = str(too_busy)
            continue
        break
    else:
        pytest.skip(reason)
    assert path == tmp_path / "virtual_radio.sigmf-meta"
    assert verify_recording(path) == []
    recording = open_recording(path)
    old = open_recording(find_recording(LIVE))
    assert [gap.lost for gap in recording.gaps] == [gap.lost for gap in old.gaps]
    fates = [record.fate for record in recording.records]
    assert fates == [record.fate for record in old.records]
    # The frames beside it are those of the shipped one, and the expectations are its own.
    frames = [one.frame.to_bytes() for one in load_sent(recording)]
    assert frames == [one.frame.to_bytes() for one in load_sent(old)]
    wanted = json.loads(module.expectations_path(path).read_text())
    assert wanted["fates"] == recording.metadata.info.statistics["fates"]
    assert "tx_latency_s=0.4" in recording.metadata.info.hardware
    names = re.findall(r"(\w+)=", recording.metadata.info.hardware)
    assert len(set(names)) == len(names)
