"""Many pictures through the four processes: the sums are right in the end, and memory is what it was.

Ten minutes at 2.2 pictures a second; ``UOISC_ENDURANCE_S=7200`` makes it two hours.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from semantic.demo_photos import photo_path
from tests.test_virtual_air import Lab

PICTURES_PER_S = 2.2
DURATION_S = float(os.environ.get("UOISC_ENDURANCE_S", "600"))
# Without any progress for so long something is stuck; the machine may be as slow as it likes.
STUCK_S = 120.0
# Allocators keep some of what they had; a leak of one picture (0.6 MB of pixels) each would be far more.
GROWTH_MIB = 48
PROCESSES = ("tx", "rx", "receive", "send")


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    lab = Lab(tmp_path)
    yield lab
    for name in list(lab.running):
        lab.kill(name)


def totals(lab: Lab, name: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((lab.folder / f"{name}.json").read_text())
    return read


def resident_mib(lab: Lab) -> dict[str, float]:
    return {
        name: psutil.Process(lab.running[name].pid).memory_info().rss / 2**20 for name in PROCESSES
    }


def wait_for_pictures(lab: Lab, count: int) -> None:
    """Until so many pictures lie in the folder."""
    there, moved_s = -1, time.monotonic()
    while there < count:
        for name, process in lab.running.items():
            assert process.poll() in (None, 0), f"{name} has ended:\n{lab.logs()[-5000:]}"
        now = len(lab.pictures())
        if now != there:
            there, moved_s = now, time.monotonic()
        assert time.monotonic() - moved_s < STUCK_S, (
            f"{there} of {count} pictures:\n{lab.logs()[-5000:]}"
        )
        time.sleep(0.2)


@pytest.mark.slow
def test_every_picture_of_a_long_run_arrives_and_memory_stays(lab: Lab) -> None:
    count = max(8, round(PICTURES_PER_S * DURATION_S))
    for name in ("tx", "rx"):
        lab.start(name, "--json-stats", f"{name}.json")
    lab.start("receive", "--output", "out")
    lab.start(
        "send", "-", "-q", "Is this a cat?", "--rate", str(PICTURES_PER_S), "--patience", "120"
    )
    # Or the first pictures would be dropped, and counted, because nobody takes them.
    lab.wait(
        lambda: "waiting for pictures" in lab.log("receive").read_text(), "receiver of pictures"
    )
    stdin = lab.running["send"].stdin
    assert stdin is not None
    line = f"{photo_path('chelsea')}\n".encode()
    warm = count // 4
    stdin.write(line * warm)
    stdin.flush()
    wait_for_pictures(lab, warm)
    before = resident_mib(lab)
    stdin.write(line * (count - warm))
    stdin.flush()
    wait_for_pictures(lab, count)
    grown = {name: mib - before[name] for name, mib in resident_mib(lab).items()}

    stdin.close()
    assert lab.running.pop("send").wait(60) == 0
    for name in ("tx", "rx", "receive"):
        assert lab.end(name, signal.SIGTERM) in (0, 130), lab.logs()[-5000:]
    assert f"{count} of {count} pictures sent" in lab.log("send").read_text()
    tx, rx = totals(lab, "tx"), totals(lab, "rx")
    print(f"{count} pictures, MiB grown: {grown}")  # noqa: T201 - the figures of a long run
    assert tx["frames_sent"] == count
    assert rx["pictures"]["complete"] == count
    assert rx["pictures"]["incomplete"] == rx["pictures"]["dropped"] == 0
    assert sum(rx["fates"].values()) == rx["fates"]["decoded"] == tx["bursts_sent"]
    assert len(lab.pictures()) == count
    assert max(grown.values()) < GROWTH_MIB, grown
