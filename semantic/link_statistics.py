"""The statistics record: one counted fate for every burst, the same numbers everywhere.

The receiver fills it; the report, the SigMF annotations, the ZMQ PUB socket and the log read it.
Books must balance: ``sent = sum of fates + undetected``. NumPy-free on purpose: a record is plain data.
"""

from __future__ import annotations

import threading
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class Fate(StrEnum):
    """What became of a burst that was heard. Exactly one applies to each."""

    DECODED = "decoded"  # header and every code block passed their CRC
    BLOCKS_FAILED = "blocks_failed"  # header passed, at least one code block did not
    HEADER_FAILED = "header_failed"  # preamble found, header CRC wrong: nothing is guessed
    TRUNCATED = "truncated"  # header passed, but the stream ended or broke off inside the burst
    OVERFLOW = "overflow"  # samples were lost inside the burst
    QUEUE_FULL = "queue_full"  # decoded, but nobody took the result in time
    UNKNOWN_CODEC = "unknown_codec"  # decoded, but no codec geometry is known for its tag


@dataclass(frozen=True)
class BurstRecord:
    """What was measured on one burst.

    ``start_sample`` counts from the start of the receiver's input stream (at its sample rate) to the
    first preamble symbol; header fields are None where the header failed.
    """

    fate: Fate
    start_sample: int
    snr_db: float  # Es/N0, measured on known symbols
    cfo_hz: float
    level: float  # linear amplitude of one symbol at the receiver's input
    frame_id: int | None = None
    burst_number: int | None = None
    mcs: int | None = None
    code_blocks: int = 0
    code_blocks_ok: int = 0
    symbols: int = 0  # all symbols of the burst, ramps and preamble included
    sample_rate_offset_ppm: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary, the fate as text."""
        return {**asdict(self), "fate": self.fate.value}


@dataclass
class LinkStatistics:
    """Running totals over many bursts. Safe to use from several threads.

    ``samples`` is what the receiver worked on, ``samples_dropped`` what it had no room for (this computer
    is too slow); ``samples_lost`` in ``overflows`` gaps is what the radio threw away before it got here.
    All of them at the receiver's input rate. ``samples_blanked`` were no numbers, or absurdly large, and
    count as silence; before a DC blocker they are counted at the rate on the air.
    """

    fates: dict[Fate, int] = field(default_factory=lambda: dict.fromkeys(Fate, 0))
    code_blocks: int = 0
    code_blocks_ok: int = 0
    samples: int = 0
    samples_dropped: int = 0
    overflows: int = 0
    samples_lost: int = 0
    samples_blanked: int = 0
    _snr_db_sum: float = 0.0
    _cfo_hz_sum: float = 0.0
    _measured: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @property
    def detected(self) -> int:
        """Bursts heard: the sum over all fates."""
        return sum(self.fates.values())

    @property
    def snr_db_mean(self) -> float | None:
        """Mean of the measured Es/N0 in dB over bursts whose header passed; None before the first."""
        return self._snr_db_sum / self._measured if self._measured else None

    @property
    def cfo_hz_mean(self) -> float | None:
        """Mean carrier offset in Hz over bursts whose header passed; None before the first."""
        return self._cfo_hz_sum / self._measured if self._measured else None

    def add(self, record: BurstRecord) -> None:
        """Count one burst."""
        with self._lock:
            self.fates[record.fate] += 1
            self.code_blocks += record.code_blocks
            self.code_blocks_ok += record.code_blocks_ok
            if record.frame_id is not None:
                self._snr_db_sum += record.snr_db
                self._cfo_hz_sum += record.cfo_hz
                self._measured += 1

    def count_blanked(self, samples: int) -> None:
        """Count samples that were replaced by silence."""
        if samples:
            with self._lock:
                self.samples_blanked += samples

    def refate(self, old: Fate, new: Fate) -> None:
        """Move one burst to another fate (a decoded burst that nobody took in time)."""
        with self._lock:
            if self.fates[old] == 0:
                raise ValueError(f"no burst with fate {old.value} to move to {new.value}")
            self.fates[old] -= 1
            self.fates[new] += 1

    def undetected(self, sent: int) -> int:
        """Bursts of ``sent`` that were never heard. Negative would mean false detections."""
        return sent - self.detected

    def to_json(self, sent: int | None = None) -> dict[str, Any]:
        """Plain dictionary; with ``sent`` the undetected bursts are counted too."""
        with self._lock:
            data: dict[str, Any] = {
                "fates": {fate.value: count for fate, count in self.fates.items()},
                "bursts_detected": self.detected,
                "code_blocks": self.code_blocks,
                "code_blocks_ok": self.code_blocks_ok,
                "samples": self.samples,
                "samples_dropped": self.samples_dropped,
                "overflows": self.overflows,
                "samples_lost": self.samples_lost,
                "samples_blanked": self.samples_blanked,
                "snr_db_estimated": self.snr_db_mean,
                "cfo_hz_estimated": self.cfo_hz_mean,
            }
            if sent is not None:
                data["bursts_sent"] = sent
                data["undetected"] = sent - self.detected
            return data


@dataclass
class TransmitStatistics:
    """What a radio said about the bursts that were handed to it. Safe to use from several threads."""

    acknowledged: int = 0  # bursts that left the antenna whole
    underflows: int = 0  # samples came too late in the middle of a burst: its rest was lost
    late: int = 0  # a burst came after its time and was not sent
    sequence_errors: int = 0  # samples were lost on the way to the radio
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @property
    def failed(self) -> int:
        """Bursts that were not sent, or not whole; one that fails twice over counts twice."""
        return self.underflows + self.late + self.sequence_errors

    def count(self, name: str) -> None:
        """Count one event.

        Raises:
            ValueError: no such counter.
        """
        if name not in _TRANSMIT_COUNTERS:
            raise ValueError(
                f"no counter {name!r}: expected one of {', '.join(_TRANSMIT_COUNTERS)}"
            )
        with self._lock:
            setattr(self, name, getattr(self, name) + 1)

    def to_json(self) -> dict[str, int]:
        """Plain dictionary."""
        with self._lock:
            return {name: getattr(self, name) for name in _TRANSMIT_COUNTERS}


_TRANSMIT_COUNTERS = ("acknowledged", "underflows", "late", "sequence_errors")
