"""Sustained rate: ``uoisc tx`` and ``uoisc rx`` as they run in the lab, fed with pictures at a steady pace.

Both are the real commands in processes of their own. This one hands frames of random indices over as
``uoisc send`` does, takes the pictures as ``uoisc receive`` does, and compares them; what it costs the
machine is not part of the figures. One picture crosses before the clock starts, so that starting up and
compiling are over.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.radio_processes import LinkProcess, RadioBenchmarkError, Usage
from blocks.frame_sender import FrameSender
from blocks.picture_taker import PictureTaker
from blocks.zmq_security import CurveKeys
from flowgraphs.keys import profile_keys
from sdr_config.load import load_profile
from sdr_config.schema import Profile, ZmqRadio
from semantic.geometries import shipped_geometries
from semantic.index_frame import FrameGeometry, IndexFrame

# Pictures per second that a search tries.
SEARCHED = (1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0)

# Starting takes seconds, with an empty Numba cache and on a busy machine minutes.
_START_S = 300.0
# What was sent before the receiver listened is lost, as on any air: another one after so long.
_AGAIN_S = 10.0
# Nothing has come for so long: nothing more will.
_DRAIN_S = 10.0
_USAGE_S = 0.2
_PICTURES_AHEAD = 1000


@dataclass(frozen=True)
class Bench:
    """What is measured.

    Args:
        profile: name or path.
        overrides: ``section.key=value`` each.
        environment: variables for both processes, beside this one's.
    """

    profile: str
    overrides: Sequence[str] = ()
    environment: Mapping[str, str] | None = None


@dataclass(frozen=True)
class SustainedRate:
    """What became of pictures that were sent at a steady pace.

    Args:
        pictures_per_s: as asked for.
        seconds: for which pictures were sent.
        due: pictures that were to be sent.
        sent: those that the transmitter took; it takes no more where the air is full.
        whole: pictures received with every index right.
        damaged: pictures received with holes or mistakes.
        bursts_sent: by the transmitter.
        bursts_heard: by the receiver, whatever became of them.
        bursts_decoded: of them whole.
        overflows: gaps in what the radio delivered.
        samples_lost: in them, at 2 samples per symbol.
        samples_dropped: that the receiver had no room for, likewise.
        underflows: bursts that the transmitter's radio ran dry in; None where it does not tell (gr-soapy).
        late: bursts that came after their time; None likewise.
        air_share: of the time, during which there was something on the air; None on an air without a clock.
        delay_s: median from handing a frame over to its picture, None where none came.
        longest_delay_s: longest of them.
        tx: what the transmitter's process took.
        rx: what the receiver's took.
    """

    pictures_per_s: float
    seconds: float
    due: int
    sent: int
    whole: int
    damaged: int
    bursts_sent: int
    bursts_heard: int
    bursts_decoded: int
    overflows: int
    samples_lost: int
    samples_dropped: int
    underflows: int | None
    late: int | None
    air_share: float | None
    delay_s: float | None
    longest_delay_s: float | None
    tx: Usage
    rx: Usage

    @property
    def missing(self) -> int:
        """Pictures of which nothing was received."""
        return self.sent - self.whole - self.damaged

    @property
    def sustained(self) -> bool:
        """Every picture was sent when it was due and came whole, and no sample was lost on the way."""
        lost = self.overflows + self.samples_lost + self.samples_dropped
        failed = (self.underflows or 0) + (self.late or 0)
        return self.due == self.sent == self.whole and lost + failed == 0

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary."""
        return {**asdict(self), "missing": self.missing, "sustained": self.sustained}


def largest_geometry() -> FrameGeometry:
    """The largest picture of a shipped codec that needs no map."""
    without_map = (one for one in shipped_geometries() if not one.has_map)
    return max(without_map, key=lambda geometry: geometry.payload_bits)


def random_frame(frame_id: int, geometry: FrameGeometry) -> IndexFrame:
    """A frame of random indices, the same for the same number."""
    generator = np.random.default_rng(frame_id)
    most = 1 << geometry.bits_per_index
    indices = [
        generator.integers(0, most, (layer.tokens, layer.segments)).astype(np.uint16)
        for layer in geometry.layers
    ]
    return IndexFrame.of_rate(frame_id, geometry, indices, None, None)


def measure(
    bench: Bench,
    pictures_per_s: float,
    seconds: float,
    show: Callable[[str], None] = lambda _: None,
) -> SustainedRate:
    """Send pictures at a steady pace and count what arrives.

    Args:
        bench: over what.
        pictures_per_s: pace.
        seconds: for so long.
        show: told how far it is.

    Raises:
        RadioBenchmarkError: a process that does not start or ends, or no picture that comes through.
        ConfigError: a profile that cannot be used.
    """
    with ExitStack() as stack:
        # A socket's path may have 107 characters, which a name in the working folder may not leave.
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="uoisc-")))
        overrides = [*bench.overrides, *_socket_overrides(bench, folder)]
        profile = load_profile(bench.profile, overrides)
        life_s = 2 * _START_S + seconds + 2 * _DRAIN_S

        def start(command: str) -> LinkProcess:
            process = LinkProcess(
                command, bench.profile, overrides, folder, life_s, bench.environment or {}
            )
            return stack.enter_context(process)

        show("starting")
        # One after the other: the first to come sets the clock of a virtual radio's air.
        rx = start("rx")
        rx.wait_for_record(_START_S, lambda record: record["samples"] > 0)
        tx = start("tx")
        tx.wait_for_record(_START_S)
        exchange = stack.enter_context(_Exchange(profile, profile_keys(profile), (tx, rx)))
        exchange.begin()
        before = tx.wait_for_record(_START_S), rx.wait_for_record(_START_S)
        elapsed_s = exchange.run(pictures_per_s, seconds, show)
        used = tx.used, rx.used
        exchange.drain()
        # The transmitter first: nothing of what it does in leaving counts as heard.
        after = tx.end(), rx.end()
        return _result(profile, pictures_per_s, elapsed_s, exchange, before, after, used)


def search(rates: Sequence[float], try_rate: Callable[[float], SustainedRate]) -> float | None:
    """The highest rate that is sustained, by halving; None where even the lowest is not.

    Args:
        rates: rising.
        try_rate: measures one of them.
    """
    low, high = -1, len(rates)
    while high - low > 1:
        middle = (low + high) // 2
        if try_rate(rates[middle]).sustained:
            low = middle
        else:
            high = middle
    return rates[low] if low >= 0 else None


def _socket_overrides(bench: Bench, folder: Path) -> list[str]:
    """Sockets of this measurement's own, beside those that are in use on this machine."""
    names = ["zmq.frames_in", "zmq.pictures_out", "zmq.watch_out"]
    radio = load_profile(bench.profile, bench.overrides).radio
    if isinstance(radio, ZmqRadio):
        names.append("radio.address")
    return [f"{name}=ipc://{folder}/{name}" for name in names]


class _Exchange:
    """The codec's side of the link: frames in, pictures out, and what is on its way between.

    Args:
        profile: with the addresses.
        keys: of the sockets.
        processes: transmitter and receiver, whose use of the machine is watched.
    """

    def __init__(
        self, profile: Profile, keys: CurveKeys | None, processes: Sequence[LinkProcess]
    ) -> None:
        self._processes = processes
        self._geometry = largest_geometry()
        self._sender = FrameSender(profile.zmq.frames_in, _START_S, keys=keys)
        self._taker = PictureTaker(profile.zmq.pictures_out, _PICTURES_AHEAD, keys)
        self._next_id = 1
        self._on_the_way: dict[int, float] = {}
        self._forget()

    def _forget(self) -> None:
        self.due = self.sent = self.whole = self.damaged = 0
        self.delays_s: list[float] = []

    def __enter__(self) -> _Exchange:
        return self

    def __exit__(self, *_: object) -> None:
        self._sender.close()
        self._taker.close()

    def begin(self) -> None:
        """Send until a picture comes through, and everything that was sent is over."""
        deadline_s = time.monotonic() + _START_S
        again_s = 0.0
        while self.whole == 0:
            now_s = time.monotonic()
            if now_s > deadline_s:
                raise RadioBenchmarkError(f"no picture came through in {_START_S:.0f} s")
            if now_s > again_s and self._offer():
                again_s = now_s + _AGAIN_S
            self._take(_USAGE_S)
        self.drain()
        self._on_the_way.clear()
        self._forget()

    def run(self, pictures_per_s: float, seconds: float, show: Callable[[str], None]) -> float:
        """Send at a steady pace, and take what comes; seconds that it took."""
        total = max(1, round(pictures_per_s * seconds))
        started_s = time.monotonic()
        end_s = started_s + seconds
        for process in self._processes:
            process.begin_use()
        while (now_s := time.monotonic()) < end_s:
            self.due = min(total, 1 + int((now_s - started_s) * pictures_per_s))
            if self.sent < self.due and self._offer():
                continue
            next_s = started_s + self.due / pictures_per_s if self.sent == self.due else now_s
            self._take(min(max(next_s - now_s, 0.001), _USAGE_S, end_s - now_s))
            for process in self._processes:
                process.sample_use()
            show(f"{self.sent} of {total} sent, {self.whole} received whole")
        self.due = total
        for process in self._processes:
            process.end_use()
        return time.monotonic() - started_s

    def drain(self) -> None:
        """Take what is still on its way."""
        while self._on_the_way and self._take(_DRAIN_S):
            pass

    def _offer(self) -> bool:
        """Hand the next frame over, if the transmitter takes one."""
        if not self._sender.offer(random_frame(self._next_id, self._geometry)):
            return False
        self._on_the_way[self._next_id] = time.monotonic()
        self._next_id += 1
        self.sent += 1
        return True

    def _take(self, seconds: float) -> bool:
        """Wait so long for a picture; True where one came. A process that has ended is an error."""
        for process in self._processes:
            process.check()
        taken = self._taker.take(math.ceil(1000 * seconds))
        if taken is None:
            return False
        self._taker.done(taken)
        picture = taken.frame
        sent_s = self._on_the_way.pop(picture.frame_id, None)
        if sent_s is None:
            return True  # not of this measurement
        self.delays_s.append(time.monotonic() - sent_s)
        wanted = random_frame(picture.frame_id, self._geometry)
        if picture.complete and all(map(np.array_equal, picture.indices, wanted.indices)):
            self.whole += 1
        else:
            self.damaged += 1
        return True


_Records = tuple[dict[str, Any], dict[str, Any]]


def _result(
    profile: Profile,
    pictures_per_s: float,
    seconds: float,
    exchange: _Exchange,
    before: _Records,
    after: _Records,
    used: tuple[Usage, Usage],
) -> SustainedRate:
    def since(side: int, *path: str) -> int | None:
        """How far a count has risen; None where there is no such count."""
        first: Any = before[side]
        last: Any = after[side]
        for key in path:
            if key not in last:
                return None
            first, last = first[key], last[key]
        return int(last - first)

    def counted(side: int, *path: str) -> int:
        count = since(side, *path)
        assert count is not None
        return count

    tx, rx = 0, 1
    has_clock = not isinstance(profile.radio, ZmqRadio)
    on_air_s = counted(tx, "symbols_sent") / profile.waveform.symbol_rate_hz
    delays_s = exchange.delays_s
    return SustainedRate(
        pictures_per_s=pictures_per_s,
        seconds=round(seconds, 3),
        due=exchange.due,
        sent=exchange.sent,
        whole=exchange.whole,
        damaged=exchange.damaged,
        bursts_sent=counted(tx, "bursts_sent"),
        bursts_heard=counted(rx, "bursts_detected"),
        bursts_decoded=counted(rx, "fates", "decoded"),
        overflows=counted(rx, "overflows"),
        samples_lost=counted(rx, "samples_lost"),
        samples_dropped=counted(rx, "samples_dropped"),
        underflows=since(tx, "radio", "underflows"),
        late=since(tx, "radio", "late"),
        air_share=on_air_s / seconds if has_clock else None,
        delay_s=statistics.median(delays_s) if delays_s else None,
        longest_delay_s=max(delays_s, default=None),
        tx=used[tx],
        rx=used[rx],
    )
