"""Companion's flowgraphs compiled by grcc, running without a screen, with sockets to the ends of the link."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import zmq

from blocks.zmq_messages import TOPIC_STATISTICS, SocketLimits, open_socket
from blocks.zmq_security import CurveKeys
from cli.grc_path import BLOCK_FOLDER
from tests.conftest import REPOSITORY
from tests.link_parts import Decoder

# Starting Python, Qt, GNU Radio and (with an empty cache) Numba takes its time on a loaded machine.
PATIENCE_S = 600
_LIMITS = SocketLimits(10, 1000)
_ENDS = ("frames-in", "pictures-out", "watch-out")


def companion_environment(home: Path) -> dict[str, str]:
    """No screen, and nothing of the user's is read or written."""
    return {
        **os.environ,
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / ".cache"),
        "XDG_CONFIG_HOME": str(home / ".config"),
        "XDG_STATE_HOME": str(home / ".local/state"),
        "XDG_RUNTIME_DIR": str(home),
        "QT_QPA_PLATFORM": "offscreen",
        "PYTHONPATH": str(REPOSITORY),
        "GRC_HIER_PATH": str(home / "hier"),
        "GRC_BLOCKS_PATH": str(BLOCK_FOLDER),
    }


def compile_flowgraphs(
    folder: Path, environment: Mapping[str, str], flowgraphs: Sequence[Path]
) -> Path:
    """Have grcc compile flowgraphs into a folder, which it must do without a complaint."""
    grcc = shutil.which("grcc")
    assert grcc, "grcc is missing: scripts/setup.sh installs it with gnuradio"
    result = subprocess.run(
        [sys.executable, grcc, "-o", str(folder), *map(str, flowgraphs)],
        env=dict(environment),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    report = result.stdout + result.stderr
    assert result.returncode == 0, report
    assert not re.search(r"error|warning", report, re.IGNORECASE), report
    return folder


class Running:
    """Compiled flowgraphs, each in a process of its own, and sockets to the three ends of the link.

    Args:
        folder: for the sockets and the log; a socket's path may have 107 characters.
        environment: of :func:`companion_environment`.
        commands: file name and options of each flowgraph, without addresses.
        keys: of the sockets; the flowgraphs are to be told.
        ports: TCP ports for the three ends, bound on every network interface; by default local sockets.
    """

    def __init__(
        self,
        folder: Path,
        environment: Mapping[str, str],
        commands: Sequence[Sequence[str]],
        keys: CurveKeys | None = None,
        ports: Sequence[int] | None = None,
    ) -> None:
        self.log = folder / "log"
        bound = {name: f"ipc://{folder}/{name}" for name in _ENDS}
        connected = bound
        if ports is not None:
            bound = {name: f"tcp://0.0.0.0:{port}" for name, port in zip(_ENDS, ports, strict=True)}
            connected = {name: text.replace("0.0.0.0", "127.0.0.1") for name, text in bound.items()}
        self.addresses = connected
        self.processes = [self._start(command, bound, environment) for command in commands]
        self.context = zmq.Context[zmq.Socket[bytes]]()
        self.push, self.watch = (
            open_socket(self.context, kind, connect=connected[name], limits=_LIMITS, keys=keys)
            for name, kind in (("frames-in", zmq.DEALER), ("watch-out", zmq.SUB))
        )
        self.pull = Decoder(connected["pictures-out"], keys)
        self.watch.setsockopt(zmq.SUBSCRIBE, TOPIC_STATISTICS)

    def _start(
        self, command: Sequence[str], addresses: Mapping[str, str], environment: Mapping[str, str]
    ) -> subprocess.Popen[bytes]:
        file, *options = command
        text = Path(file).read_text()
        for name, address in addresses.items():
            if f"--{name}" in text:
                options += [f"--{name}", address]
        with self.log.open("a") as log:
            return subprocess.Popen(
                [sys.executable, "-u", file, *options],
                env=dict(environment),
                cwd=self.log.parent,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def wait_for(
        self, socket: zmq.Socket[bytes] | Decoder, event: int, seconds: int = PATIENCE_S
    ) -> None:
        """Fails with the programs' own words where one ends, or nothing happens."""
        for _ in range(seconds):
            if socket.poll(1000, event):
                return
            self.check()
        raise AssertionError(f"nothing for {seconds} s: {self.log.read_text()}")

    def check(self) -> None:
        """Fails where a program has ended."""
        assert all(process.poll() is None for process in self.processes), self.log.read_text()

    def terminate(self) -> None:
        """Ask all of them to end, which they must do in order."""
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            assert process.wait(timeout=PATIENCE_S) == 0, self.log.read_text()
        assert "Traceback" not in self.log.read_text()

    def close(self) -> None:
        """Whatever happened, nothing stays."""
        self.pull.close()
        self.context.destroy(linger=0)
        for process in self.processes:
            process.kill()
            process.wait()
            assert process.stdin is not None
            process.stdin.close()


@contextmanager
def running(
    folder: Path,
    environment: Mapping[str, str],
    *commands: Sequence[str],
    keys: CurveKeys | None = None,
    ports: Sequence[int] | None = None,
) -> Iterator[Running]:
    """As :class:`Running`."""
    link = Running(folder, environment, commands, keys, ports)
    try:
        yield link
    finally:
        link.close()
