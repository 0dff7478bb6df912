"""The four commands as four processes over the virtual air: pictures cross, and kills do not stop them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from semantic.demo_photos import photo_path
from tests.link_parts import free_ports

REPOSITORY = Path(__file__).resolve().parent.parent
# Four processes start at once on two cores that others use as well.
_PATIENCE_S = 240.0
_TRY_AGAIN_S = 8.0


class Lab:
    """Processes by name, each with its log, all with one profile."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        frames, pictures, watch, air = free_ports(4)
        self.settings = {
            "zmq.frames_in": frames,
            "zmq.pictures_out": pictures,
            "zmq.watch_out": watch,
            "radio.address": air,
        }
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def start(self, name: str, *arguments: str) -> None:
        options = [*arguments, "--profile", "virtual"]
        for key, port in self.settings.items():
            options += ["--set", f"{key}=tcp://127.0.0.1:{port}"]
        with self.log(name).open("ab") as log:
            self.running[name] = subprocess.Popen(
                [sys.executable, "-m", "cli.main", name, *options],
                cwd=self.folder,
                env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
            )

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def logs(self) -> str:
        return "\n".join(f"--- {p.name}\n{p.read_text()}" for p in self.folder.glob("*.log"))

    def pictures(self) -> set[str]:
        return {path.name for path in self.out.glob("*.png")} if self.out.is_dir() else set()

    def wait(self, done: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while not done():
            for name, process in self.running.items():
                assert process.poll() is None, f"{name} has ended:\n{self.logs()}"
            assert time.monotonic() < deadline, f"no {what}:\n{self.logs()}"
            time.sleep(0.05)

    def send_picture(self) -> None:
        """Ask the running ``uoisc send -`` for one more."""
        stdin = self.running["send"].stdin
        assert stdin is not None
        stdin.write(f"{photo_path('chelsea')}\n".encode())
        stdin.flush()

    def pictures_flow(self) -> None:
        """Pictures go in until one comes out; what was under way in a killed process is lost."""
        before = self.pictures()
        next_s = 0.0

        def arrived() -> bool:
            nonlocal next_s
            if time.monotonic() > next_s:
                next_s = time.monotonic() + _TRY_AGAIN_S
                self.send_picture()
            return bool(self.pictures() - before)

        self.wait(arrived, "picture")

    def kill(self, name: str) -> None:
        process = self.running.pop(name)
        process.kill()
        process.wait()
        if process.stdin is not None:
            process.stdin.close()

    def end(self, name: str, number: int = signal.SIGINT) -> int:
        process = self.running.pop(name)
        process.send_signal(number)
        try:
            return process.wait(60)
        finally:
            process.kill()
            if process.stdin is not None:
                process.stdin.close()


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path)
    yield made
    for name in list(made.running):
        made.kill(name)


def test_each_of_the_four_is_killed_and_pictures_flow_again(lab: Lab) -> None:
    commands = {
        "rx": ["--json-stats", "rx.json"],
        "tx": ["--json-stats", "tx.json"],
        "receive": ["--output", str(lab.out)],
        "send": ["-", "--query", "Is there a cat?", "--patience", "200"],
    }
    for name, arguments in commands.items():
        lab.start(name, *arguments)
    lab.pictures_flow()
    for name, arguments in commands.items():
        others = {other: process.pid for other, process in lab.running.items() if other != name}
        lab.kill(name)
        lab.start(name, *arguments)
        lab.pictures_flow()
        assert others.items() <= {n: p.pid for n, p in lab.running.items()}.items()
    # The statistics are those of the processes that run now, and whole at every moment.
    for name in ("rx", "tx"):
        assert lab.end(name) == 0, lab.logs()
        record = json.loads((lab.folder / f"{name}.json").read_text())
        assert (record["command"], record["profile"], record["running"]) == (name, "virtual", False)
    receiver = json.loads((lab.folder / "rx.json").read_text())
    assert receiver["pictures"]["complete"] >= 2
    assert receiver["per"] < 1
    assert lab.end("receive", signal.SIGTERM) == 0, lab.logs()
    assert "Traceback" not in lab.logs()
