"""The rehearsal of docs/lab-guide.md, as printed: its commands, and every row of its table of symptoms."""

from __future__ import annotations

import math
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import zmq

from benchmarks.radio import largest_geometry, random_frame
from benchmarks.radio_processes import LinkProcess, RadioBenchmarkError
from blocks.picture_taker import PictureTaker
from blocks.zmq_messages import TOPIC_FRAME, MessageWriter, SocketLimits, open_socket
from tests.conftest import REPOSITORY
from tests.link_parts import PATIENCE_S
from tests.virtual_radio import build

pytestmark = pytest.mark.slow

GUIDE = (REPOSITORY / "docs/lab-guide.md").read_text(encoding="utf-8")
REHEARSAL = GUIDE.split("\n## Rehearsal without radios\n")[1].split("\n## ")[0]
AIR = f"bench-{os.getpid()}"
PICTURES = 4
_PATIENCE_S = 300.0
# A picture is 0.04 s on the air.
_PACE_S = 0.5


@dataclass(frozen=True)
class Bench:
    """The rehearsal's radio, built and put into a profile by the guide's own lines."""

    profile: Path
    environment: dict[str, str]


@dataclass(frozen=True)
class Heard:
    """What ``tx`` and ``rx`` said in the end; ``failure`` where ``rx`` ended by itself."""

    tx: dict[str, Any]
    rx: dict[str, Any]
    failure: str = ""

    @property
    def level_dbfs(self) -> float:
        return 20 * math.log10(self.rx["level_latest"])

    @property
    def snr_db(self) -> float:
        return float(self.rx["snr_db_latest"])

    @property
    def pictures(self) -> tuple[int, int]:
        """Complete, and not."""
        counts = self.rx["pictures"]
        return counts["complete"], counts["incomplete"]

    @property
    def faults(self) -> dict[str, int]:
        """What the radio has told of, and samples that the receiver dropped."""
        if self.failure:
            return {}
        told = {key: self.tx["radio"][key] for key in ("underflows", "late")}
        told |= {key: self.rx[key] for key in ("overflows", "samples_dropped")}
        return {key: count for key, count in told.items() if count}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    if (missing := build.why_not()) is not None:
        pytest.skip(f"{missing}: the virtual radio cannot be built")
    folder = tmp_path_factory.mktemp("rehearsal")
    lines = "\n".join(re.findall(r"```sh\n(.*?)```", REHEARSAL, re.DOTALL))
    elsewhere = {"/tmp/uoisc-virtual": str(folder), ">my.yaml": f">{folder}/my.yaml"}
    for printed, here in {**elsewhere, "air=bench": f"air={AIR}"}.items():
        assert printed in lines
        lines = lines.replace(printed, here)
    subprocess.run(["bash", "-euc", lines], cwd=REPOSITORY, check=True, timeout=_PATIENCE_S)
    yield Bench(folder / "my.yaml", {"SOAPY_SDR_PLUGIN_PATH": str(folder)})
    Path(f"/dev/shm/uoisc-air-{AIR}").unlink(missing_ok=True)


def rehearse(bench: Bench, folder: Path, at: str, add: Sequence[str]) -> Heard:
    """Both ends, one of them with what the table adds, and a few pictures across."""
    own = [
        f"zmq.{name}=ipc://{folder}/{name}" for name in ("frames_in", "pictures_out", "watch_out")
    ]
    arguments = re.findall(r"^ *device_args: (\S+)", bench.profile.read_text(), re.MULTILINE)[0]
    changes = [one.removeprefix("--set ") for one in add if one.startswith("--set ")]
    changes.append("".join([f"radio.device_args={arguments}", *(a for a in add if a[0] == ",")]))
    with ExitStack() as stack:

        def start(command: str) -> LinkProcess:
            overrides = own + (changes if command == at else [])
            process = LinkProcess(
                command, str(bench.profile), overrides, folder, 600, bench.environment
            )
            return stack.enter_context(process)

        rx = start("rx")
        try:
            rx.wait_for_record(_PATIENCE_S, lambda record: record["samples"] > 0)
            tx = start("tx")
            tx.wait_for_record(_PATIENCE_S)
            with connected(folder) as push:
                send_pictures(push)
                # Whatever happens to a radio happens within seconds of its start.
                until_s = time.monotonic() + 6
                while time.monotonic() < until_s:
                    rx.check()
                    time.sleep(0.1)
            return Heard(tx.end(), rx.end())
        except RadioBenchmarkError as failure:
            return Heard({}, {}, str(failure))


@contextmanager
def connected(folder: Path) -> Iterator[zmq.Socket[bytes]]:
    """The way to the transmitter, and a decoder that takes what the receiver has."""
    limits = SocketLimits(100, 1000)
    context = zmq.Context[zmq.Socket[bytes]]()
    decoder = PictureTaker(f"ipc://{folder}/pictures_out", ahead=99)
    try:
        decoder.ask(PATIENCE_S)
        yield open_socket(context, zmq.DEALER, connect=f"ipc://{folder}/frames_in", limits=limits)
    finally:
        decoder.close()
        context.destroy(linger=0)


def send_pictures(push: zmq.Socket[bytes]) -> None:
    writer = MessageWriter()
    for number in range(1, PICTURES + 1):
        frame = random_frame(number, largest_geometry())
        push.send_multipart(writer.pack_frame(TOPIC_FRAME, frame))
        time.sleep(_PACE_S)


# --- what is said of each row ------------------------------------------------------------------------


def all_arrive(heard: Heard) -> None:
    assert heard.pictures == (PICTURES, 0)
    assert heard.rx["per"] == 0


def clean(heard: Heard) -> None:
    all_arrive(heard)
    assert heard.level_dbfs == pytest.approx(-12, abs=0.5)
    assert heard.snr_db > 35


def clipping(heard: Heard) -> None:
    assert heard.level_dbfs == pytest.approx(1, abs=1)
    assert heard.snr_db < 25


def bad_channel(heard: Heard) -> None:
    all_arrive(heard)
    assert heard.snr_db == pytest.approx(8, abs=0.5)


def clocks_apart(heard: Heard) -> None:
    all_arrive(heard)
    assert heard.rx["cfo_hz_latest"] == pytest.approx(40_000, abs=100)


def nothing_decoded(heard: Heard) -> None:
    assert heard.rx["fates"]["decoded"] == 0
    assert heard.pictures == (0, 0)
    assert heard.tx["radio"]["acknowledged"] == heard.tx["bursts_sent"] > 0


def harmless(heard: Heard) -> None:
    all_arrive(heard)
    assert heard.snr_db > 35


def watchdog(heard: Heard) -> None:
    assert "uoisc rx ended: the radio went silent after" in heard.failure


def anything(_: Heard) -> None:
    """The fault itself is what is seen; whether it hits a picture is chance."""


def one_picture_suffers(heard: Heard) -> None:
    complete, incomplete = heard.pictures
    assert complete == PICTURES - 1
    assert incomplete <= 1


def wrong_port(heard: Heard) -> None:
    assert heard.level_dbfs == pytest.approx(-52, abs=0.5)


def no_such_rate(heard: Heard) -> None:
    assert "uoisc rx ended: the radio makes" in heard.failure
    assert "it offers" in heard.failure


@dataclass(frozen=True)
class Case:
    """A row of the table, or half of one.

    Args:
        at: the end that it is added to.
        add: what, as printed.
        check: what is seen.
        faults: that are to be counted.
    """

    at: str
    add: tuple[str, ...]
    check: Callable[[Heard], None]
    faults: Mapping[str, int] = field(default_factory=dict)


CASES = (
    Case("rx", (), clean),
    Case("rx", (",loss_db=10",), clipping),
    Case("rx", (",noise_dbfs=-14",), bad_channel),
    Case("rx", (",cfo_hz=40000",), clocks_apart),
    Case("rx", (",cfo_hz=80000",), nothing_decoded),
    Case("rx", (",dc=0.2",), harmless),
    Case("rx", (",dc=0.2", "--set radio.rx.lo_offset_hz=0"), harmless),
    Case("rx", (",stall_after_s=5",), watchdog),
    Case("rx", (",overflow_at_s=5",), anything, {"overflows": 1}),
    Case("tx", (",underflow_burst=2",), one_picture_suffers, {"underflows": 1}),
    Case("tx", (",late_burst=2",), one_picture_suffers, {"late": 1}),
    Case("rx", ("--set radio.rx.antenna=TX/RX",), wrong_port),
    Case("rx", ("--set waveform.symbol_rate_hz=7e5",), no_such_rate),
)


def test_every_row_is_rehearsed() -> None:
    """What the table prints and what is run here are the same; a number alone is a device argument's."""
    printed = set()
    for at, add in re.findall(r"^ +\| `([rt]x)` \| (.*?) \|", REHEARSAL, re.MULTILINE):
        printed |= {(at, word) for word in re.findall(r"`(.*?)`", add)}
    printed |= {
        ("rx", ",cfo_hz=80000"),
        ("rx", "--set radio.rx.lo_offset_hz=0"),
    }  # in the right column
    assert "at 80000" in REHEARSAL
    assert "`--set radio.rx.lo_offset_hz=0`" in REHEARSAL
    assert {(case.at, word) for case in CASES for word in case.add} == printed


@pytest.mark.parametrize("case", CASES, ids=lambda case: " ".join(case.add) or "as printed")
def test_row(bench: Bench, case: Case, tmp_path_factory: pytest.TempPathFactory) -> None:
    for _ in range(3):
        heard = rehearse(bench, tmp_path_factory.mktemp("r"), case.at, case.add)
        if heard.faults == case.faults or heard.failure:
            case.check(heard)
            return
    assert all(heard.faults.get(key, 0) >= count for key, count in case.faults.items()), heard
    pytest.skip(f"this machine is too busy for 4 Msps, as the radio says: {heard.faults}")
