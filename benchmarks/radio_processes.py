"""``uoisc tx`` or ``uoisc rx`` as a process of its own: its totals, its use of the machine, its end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

REPOSITORY = Path(__file__).resolve().parent.parent
_POLL_S = 0.1
# A process that is asked to end: what is under way, the last totals, the radio.
_END_S = 30.0
_MIB = 1024 * 1024


class RadioBenchmarkError(RuntimeError):
    """A link that cannot be measured: the figures would mean nothing."""


@dataclass(frozen=True)
class Usage:
    """What a process took of the machine.

    Args:
        cores: processor time, user and system, over time; 1.0 is one core.
        peak_mib: resident memory at most, as sampled, in MiB.
    """

    cores: float
    peak_mib: float


class LinkProcess:
    """One of the two, running. A context manager: nothing outlives it.

    Args:
        command: ``tx`` or ``rx``.
        profile: name or path.
        overrides: of it.
        folder: for its totals and its log.
        life_s: it ends by itself after so long, should this process be killed.
        environment: variables for it, beside this process's.
    """

    def __init__(
        self,
        command: str,
        profile: str,
        overrides: Sequence[str],
        folder: Path,
        life_s: float,
        environment: Mapping[str, str],
    ) -> None:
        self._command = command
        self._totals, self._log = folder / f"{command}.json", folder / f"{command}.log"
        words = [sys.executable, "-m", "cli.main", command, "--profile", profile]
        words += ["--json-stats", str(self._totals), "--duration", str(life_s)]
        words += [word for override in overrides for word in ("--set", override)]
        # The code that is measured is this one, wherever it was started.
        path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONPATH": path, "COLUMNS": "500", **environment},
            )
        self._seen = psutil.Process(self._process.pid)
        self._began_s = self._cpu_s = self._peak_mib = 0.0
        self.used = Usage(0.0, 0.0)

    def __enter__(self) -> LinkProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def check(self) -> None:
        """Raises RadioBenchmarkError where the process has ended."""
        if self._process.poll() is not None:
            raise RadioBenchmarkError(f"uoisc {self._command} ended: {self._last_words()}")

    def wait_for_record(
        self, patience_s: float, fits: Callable[[dict[str, Any]], bool] = lambda _: True
    ) -> dict[str, Any]:
        """Its totals as of now or later.

        Args:
            patience_s: wait so long at most.
            fits: whether the totals are what is waited for.

        Raises:
            RadioBenchmarkError: the process has ended, or has written none in time.
        """
        now_ns = time.time_ns()
        deadline_s = time.monotonic() + patience_s
        while True:
            self.check()
            if self._totals.exists() and self._totals.stat().st_mtime_ns > now_ns:
                record = self._record()
                if fits(record):
                    return record
            if time.monotonic() > deadline_s:
                raise RadioBenchmarkError(
                    f"uoisc {self._command} is not ready after {patience_s:.0f} s: {self._last_words()}"
                )
            time.sleep(_POLL_S)

    def begin_use(self) -> None:
        """From here on its use of the machine counts."""
        self._began_s, self._cpu_s, self._peak_mib = time.monotonic(), self._cpu_time_s(), 0.0
        self.sample_use()

    def sample_use(self) -> None:
        """To be called every now and then: memory is what it was at such moments."""
        self._peak_mib = max(self._peak_mib, self._ask(self._seen.memory_info).rss / _MIB)

    def end_use(self) -> None:
        """It no longer counts; see ``used``."""
        self.sample_use()
        wall_s = time.monotonic() - self._began_s
        self.used = Usage((self._cpu_time_s() - self._cpu_s) / wall_s, self._peak_mib)

    def end(self) -> dict[str, Any]:
        """Ask it to end, and read its last totals.

        Raises:
            RadioBenchmarkError: it did not end in order.
        """
        self.check()
        code = self._stop()
        if code != 0:
            raise RadioBenchmarkError(
                f"uoisc {self._command} ended with exit code {code}: {self._last_words()}"
            )
        return self._record()

    def _stop(self) -> int:
        self._process.send_signal(signal.SIGINT)  # nothing where it has ended
        try:
            return self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def _cpu_time_s(self) -> float:
        times = self._ask(self._seen.cpu_times)
        return float(times.user + times.system)

    def _ask(self, question: Callable[[], Any]) -> Any:
        try:
            return question()
        except psutil.Error:
            self.check()
            raise

    def _record(self) -> dict[str, Any]:
        record: dict[str, Any] = json.loads(self._totals.read_text(encoding="utf-8"))
        return record

    def _last_words(self) -> str:
        """Its error, or else its last line; what drivers print may come behind."""
        text = self._log.read_text(encoding="utf-8", errors="replace")
        lines = [line.strip() for line in text.split("\n") if line.strip()]
        errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        return (errors or lines or ["it said nothing"])[-1]
