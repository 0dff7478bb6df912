"""Sent = delivered + counted losses, over real processes, whatever is done to them.

Whoever lives through a scenario does the sum: where the decoder is harmed, the receiver; else the decoder, by
the numbers that were left out.
"""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from PIL import Image

from semantic.codec.loader import EncoderSettings, load_codec
from semantic.demo_photos import photo_path
from tests.test_virtual_air import Lab

_STOPPED_S = 10.0
_MIB = 1024 * 1024


class Counting(Lab):
    """The four processes; ``send`` gets the names of frames one by one."""

    def __init__(self, folder: Path, frame: Path) -> None:
        super().__init__(folder)
        self.frame = frame
        self.commands = {
            "rx": ["--json-stats", "rx.json"],
            "tx": ["--json-stats", "tx.json"],
            "receive": ["--output", str(self.out)],
            "send": ["-", "--patience", "200"],
        }
        for name, arguments in self.commands.items():
            self.start(name, *arguments)

    def feed(self, count: int) -> None:
        stdin = self.running["send"].stdin
        assert stdin is not None
        stdin.write(f"{self.frame}\n".encode() * count)
        stdin.flush()

    @property
    def sent(self) -> list[int]:
        """Numbers of the pictures with a receipt."""
        return [int(one) for one in re.findall(r" as picture (\d+)", self.log("send").read_text())]

    @property
    def delivered(self) -> set[int]:
        return {int(name.removesuffix(".png")) for name in self.pictures()}

    def wait_for_last(self) -> None:
        """One more, until it arrives: what was lost before it shows as numbers left out."""
        before = len(self.sent)
        self.feed(1)
        self.wait(lambda: len(self.sent) > before, "receipt")
        self.wait(lambda: self.sent[-1] in self.delivered, "last picture")

    def finish_sending(self) -> None:
        stdin = self.running["send"].stdin
        assert stdin is not None
        stdin.close()
        assert self.running.pop("send").wait(60) == 0, self.logs()

    def at_receiver(self) -> dict[str, int]:
        """End the receiver; pictures by what became of them."""
        assert self.end("rx", signal.SIGTERM) == 0, self.logs()
        found: dict[str, int] = json.loads((self.folder / "rx.json").read_text())["pictures"]
        return found

    def at_decoder(self) -> tuple[int, int]:
        """End the decoder; pictures that it wrote, and numbers that it did not see."""
        assert self.end("receive", signal.SIGTERM) == 0, self.logs()
        line = self.log("receive").read_text().splitlines()[-1]
        missing = re.search(r"(\d+) numbers between them", line)
        return int(line.split()[0]), 0 if missing is None else int(missing[1])

    def harm(self, name: str, how: str) -> None:
        process = self.running[name]
        if how == "stop":
            process.send_signal(signal.SIGSTOP)
            time.sleep(_STOPPED_S)
            process.send_signal(signal.SIGCONT)
            return
        self.kill(name)
        time.sleep(0.5)
        self.start(name, *self.commands[name])


@pytest.fixture(scope="module")
def frame(tmp_path_factory: pytest.TempPathFactory) -> Path:
    picture = Image.open(photo_path("chelsea")).resize((64, 64))
    made = load_codec("two_layer", "cpu").encode(picture, "a cat", EncoderSettings(bits=2000))
    file = tmp_path_factory.mktemp("frame") / "frame.uoisc"
    file.write_bytes(made.to_bytes())
    return file


@pytest.fixture
def lab(tmp_path: Path, frame: Path) -> Iterator[Counting]:
    made = Counting(tmp_path, frame)
    yield made
    for name in list(made.running):
        made.kill(name)


def check_sums(lab: Counting, name: str, how: str, pictures: int) -> None:
    lab.feed(pictures // 3)
    lab.wait(lambda: len(lab.delivered) >= 3, "first pictures")
    lab.feed(pictures // 3)
    lab.harm(name, how)
    if name == "send" and how == "kill":
        lab.wait(lambda: lab.sent[-1] in lab.delivered, "last picture of the one that was killed")
    lab.feed(pictures // 3)
    lab.wait_for_last()
    lab.finish_sending()
    sent = lab.sent
    assert len(set(sent)) == len(sent)
    if name == "receive":
        counts = lab.at_receiver()
        whereabouts = ("done", "taken", "waiting", "dropped", "empty", "missing")
        assert sum(counts[one] for one in whereabouts) == len(sent), counts
        # What was decoded just before the end may not have been told.
        assert counts["done"] <= len(lab.delivered) <= counts["done"] + counts["taken"]
        return
    written, missing = lab.at_decoder()
    assert written == len(lab.delivered)
    # A picture may have gone out without its receipt having come back.
    assert lab.delivered >= {one for one in sent if one in lab.delivered}
    unreceipted = len(lab.delivered - set(sent))
    assert written + missing - unreceipted == len(sent), lab.logs()
    if (name, how) == ("send", "kill"):
        assert unreceipted <= 4
    else:
        assert unreceipted == 0
    assert "Traceback" not in lab.logs()
    assert "Assertion" not in lab.logs()


def test_sums_when_the_transmitter_is_killed(lab: Counting) -> None:
    check_sums(lab, "tx", "kill", 60)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["stop", "kill"])
@pytest.mark.parametrize("name", ["send", "tx", "rx", "receive"])
def test_sums_whatever_is_done_to_one_of_them(lab: Counting, name: str, how: str) -> None:
    check_sums(lab, name, how, 90)


@pytest.mark.slow
def test_a_thousand_unpaced_and_minutes_of_nothing(lab: Counting) -> None:
    """All arrive; between, the processes stand still and their memory does too."""
    lab.feed(1)
    lab.wait(lambda: len(lab.delivered) == 1, "first picture: the decoder is there")
    lab.feed(499)
    lab.wait(lambda: len(lab.sent) == 500, "receipts")
    lab.wait(lambda: len(lab.delivered) == 500, "pictures")
    processes = {name: psutil.Process(one.pid) for name, one in lab.running.items()}
    before = {name: one.memory_info().rss for name, one in processes.items()}
    time.sleep(180)
    grown = {name: one.memory_info().rss - before[name] for name, one in processes.items()}
    assert max(grown.values()) < 4 * _MIB, grown
    lab.feed(500)
    lab.wait(lambda: len(lab.delivered) == 1000, "pictures")
    lab.finish_sending()
    written, missing = lab.at_decoder()
    counts = lab.at_receiver()
    assert (len(lab.sent), written, missing, counts["done"]) == (1000, 1000, 0, 1000)
    assert lab.end("tx") == 0
    record = json.loads((lab.folder / "tx.json").read_text())
    assert record["frames_accepted"] == record["frames_sent"] == 1000
    assert sum(record["socket"].values()) == 0
    assert record["radio"]["replayed"] == record["radio"]["out_of_order"] == 0
