"""What ``uoisc tx`` and ``uoisc rx`` tell while they run: one line for people, one record for programs."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from cli.output import OutputError, atomic_write, check_output_file
from semantic.link_statistics import BurstRecord, Fate, LinkStatistics

if TYPE_CHECKING:
    from flowgraphs.receiver import Receiver
    from flowgraphs.transmitter import Transmitter

FILE_PERIOD_S = 5.0
# Es/N0, offset and level shown are those of the latest bursts: somebody may be turning a knob.
_LATEST_BURSTS = 20
_ERRORS = (Fate.BLOCKS_FAILED, Fate.HEADER_FAILED, Fate.TRUNCATED, Fate.OVERFLOW)
# Counted without anything being wrong; left out of the line.
_UNREMARKABLE = {"samples_sent", "samples_received", "sessions", "waits", "receivers_joined"}


class Counts(Protocol):
    """Anything that counts events by name: a radio, a socket."""

    def to_json(self) -> dict[str, int]:
        """The counts."""
        ...


def radio_counts(radio: object, events: Counts | None = None) -> dict[str, int]:
    """What a radio counts itself (the virtual air does), and what it tells of (underflows, late bursts)."""
    counts: dict[str, int] = {}
    for part in (radio, events):
        if part is not None and hasattr(part, "to_json"):
            counts.update(part.to_json())
    return counts


def packet_error_rate(statistics: LinkStatistics) -> float | None:
    """Share of the bursts heard that were not decoded whole; None before the first."""
    heard = statistics.detected
    return sum(statistics.fates[fate] for fate in _ERRORS) / heard if heard else None


@dataclass(frozen=True)
class Latest:
    """Means over the latest bursts whose header passed; None where there is none.

    Args:
        snr_db: Es/N0 in dB.
        cfo_hz: carrier offset in Hz.
        level: linear amplitude of a symbol.
    """

    snr_db: float | None
    cfo_hz: float | None
    level: float | None

    @classmethod
    def of(cls, records: Iterable[BurstRecord]) -> Latest:
        """Of the last bursts among records."""
        good = [one for one in records if one.frame_id is not None][-_LATEST_BURSTS:]
        return cls(
            _mean(one.snr_db for one in good),
            _mean(one.cfo_hz for one in good),
            _mean(one.level for one in good),
        )


def tx_record(top: Transmitter) -> dict[str, Any]:
    """Totals of a transmitter, as JSON."""
    modulator, source = top.modulator, top.index_source
    return {
        "frames_accepted": source.frames_accepted,
        "frames_sent": modulator.frames_sent,
        "frames_refused": modulator.frames_refused,
        "bursts_sent": modulator.bursts_sent,
        "symbols_sent": modulator.symbols_sent,
        "socket": source.socket_counts(),
        "radio": radio_counts(top.radio, top.statistics),
    }


def rx_record(top: Receiver) -> dict[str, Any]:
    """Totals of a receiver, as JSON."""
    statistics, sink = top.receiver.statistics, top.index_sink
    latest = Latest.of(tuple(top.receiver.records))
    return {
        **statistics.to_json(),
        "per": packet_error_rate(statistics),
        "snr_db_latest": latest.snr_db,
        "cfo_hz_latest": latest.cfo_hz,
        "level_latest": latest.level,
        "pictures": sink.pictures_counts(),
        "socket": sink.socket_counts(),
        "radio": radio_counts(top.radio),
    }


def tx_line(record: Mapping[str, Any]) -> str:
    """The status line of a transmitter from its record."""
    text = f"{record['frames_sent']} pictures in {record['bursts_sent']} bursts sent"
    if record["frames_refused"]:
        text += f", {record['frames_refused']} refused"
    return text + _events(record)


def rx_line(record: Mapping[str, Any]) -> str:
    """The status line of a receiver from its record."""
    pictures = record["pictures"]
    parts = [
        f"{record['bursts_detected']} bursts",
        f"PER {_show(record['per'], '.3f')}",
        f"Es/N0 {_show(record['snr_db_latest'], '.1f')} dB",
        f"CFO {_show(record['cfo_hz_latest'], '+.0f')} Hz",
        f"level {_dbfs(record['level_latest'])}",
        f"{pictures['complete'] + pictures['incomplete']} pictures",
    ]
    parts += [
        f"{count} {name.replace('_', ' ')}"
        for name, count in pictures.items()
        if count and name != "complete"
    ]
    parts += [
        f"{record[name]} {name.replace('_', ' ')}"
        for name in ("samples_dropped", "overflows", "samples_lost", "samples_blanked")
        if record.get(name)
    ]
    return ", ".join(parts) + _events(record)


class StatisticsFile:
    """A JSON file of totals, whole at every moment, renewed every few seconds and at the end.

    A disk that fills up while a radio runs is no reason to stop the radio: only the last write fails.

    Args:
        path: None writes nothing.
        command: ``tx`` or ``rx``.
        profile: its name.
        record: makes the totals.

    Raises:
        OutputError: the file cannot be written where it is.
    """

    def __init__(
        self,
        path: Path | None,
        command: str,
        profile: str,
        record: Callable[[], Mapping[str, Any]],
    ) -> None:
        self._path = None if path is None else check_output_file(path)
        self._about = {"command": command, "profile": profile}
        self._record = record
        self._started_s = time.monotonic()
        self._written_s = -math.inf

    def renew(self) -> None:
        """Write where it is time to."""
        now_s = time.monotonic()
        if now_s - self._written_s < FILE_PERIOD_S:
            return
        self._written_s = now_s
        with contextlib.suppress(OutputError):  # tried again; close() tells
            self._write(running=True)

    def close(self) -> None:
        """Write the final totals; raises OutputError."""
        self._write(running=False)

    def _write(self, *, running: bool) -> None:
        if self._path is None:
            return
        elapsed_s = round(time.monotonic() - self._started_s, 3)
        data = {**self._about, "running": running, "elapsed_s": elapsed_s, **self._record()}
        text = json.dumps(data, indent=2, allow_nan=False)
        atomic_write(self._path, f"{text}\n".encode(errors="backslashreplace"))


def _events(record: Mapping[str, Any]) -> str:
    """Whatever radio and sockets have counted; apart in the file, together in the line."""
    counts = Counter(record["socket"]) + Counter(record["radio"])  # without zeros
    return "".join(
        f", {count} {name.replace('_', ' ')}"
        for name, count in counts.items()
        if name not in _UNREMARKABLE
    )


def _mean(values: Iterable[float]) -> float | None:
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else None


def _dbfs(level: float | None) -> str:
    return f"{20 * math.log10(level):.1f} dBFS" if level else "-"


def _show(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
