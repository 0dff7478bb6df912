"""``uoisc tx`` and ``uoisc rx``: what they say and write. Their life together is in test_virtual_air."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cli import radio_status
from cli.output import OutputError
from cli.radio_status import (
    Latest,
    StatisticsFile,
    packet_error_rate,
    radio_counts,
    rx_line,
    rx_record,
    tx_line,
    tx_record,
)
from semantic.link_statistics import BurstRecord, Fate, LinkStatistics

RunCommand = Callable[..., subprocess.CompletedProcess[str]]


class Counting:
    def __init__(self, **counts: int) -> None:
        self.counts = counts

    def to_json(self) -> dict[str, int]:
        return self.counts


def burst(fate: Fate = Fate.DECODED, snr_db: float = 20.0, **values: Any) -> BurstRecord:
    frame_id = None if fate is Fate.HEADER_FAILED else 1
    return BurstRecord(
        fate, 0, snr_db, values.get("cfo_hz", 100.0), values.get("level", 0.25), frame_id=frame_id
    )


def receiver(records: list[BurstRecord], radio: object = None, **sink: int) -> Any:
    statistics = LinkStatistics()
    for record in records:
        statistics.add(record)
    counts = {"complete": 0, "incomplete": 0, "dropped": 0, "blocks_late": 0, **sink}
    return SimpleNamespace(
        receiver=SimpleNamespace(statistics=statistics, records=records),
        index_sink=SimpleNamespace(
            pictures_counts=lambda: counts, socket_counts=lambda: {"keys_refused": 0}
        ),
        radio=radio,
    )


def test_packet_error_rate_counts_what_went_wrong_on_the_air() -> None:
    statistics = LinkStatistics()
    assert packet_error_rate(statistics) is None
    for fate in Fate:
        statistics.add(burst(fate))
    # Not: decoded, nobody took the picture, codec unknown.
    assert packet_error_rate(statistics) == pytest.approx(4 / 7)


def test_latest_is_of_the_latest_bursts() -> None:
    records = [burst(snr_db=0.0)] * 50 + [burst(snr_db=10.0, cfo_hz=-5.0)] * 20
    latest = Latest.of([*records, burst(Fate.HEADER_FAILED, snr_db=-50.0)])
    assert (latest.snr_db, latest.cfo_hz, latest.level) == (10.0, -5.0, 0.25)
    assert Latest.of([]) == Latest(None, None, None)
    assert Latest.of([burst(snr_db=float("inf"))]).snr_db is None


def test_receiver_line() -> None:
    line = rx_line(rx_record(receiver([])))
    assert line == "0 bursts, PER -, Es/N0 - dB, CFO - Hz, level -, 0 pictures"
    top = receiver(
        [burst(), burst(), burst(Fate.BLOCKS_FAILED)],
        Counting(samples_received=5, overflows=2, keys_refused=1),
        complete=2,
        incomplete=1,
        dropped=4,
        blocks_late=3,
    )
    top.receiver.statistics.samples_dropped = 7
    assert rx_line(rx_record(top)) == (
        "3 bursts, PER 0.333, Es/N0 20.0 dB, CFO +100 Hz, level -12.0 dBFS, 3 pictures, 1 incomplete, "
        "4 dropped, 3 blocks late, 7 samples dropped, 1 keys refused, 2 overflows"
    )


def test_transmitter_line() -> None:
    top: Any = SimpleNamespace(
        modulator=SimpleNamespace(
            frames_sent=2, frames_refused=1, bursts_sent=6, symbols_sent=1000
        ),
        index_source=SimpleNamespace(frames_accepted=3, socket_counts=lambda: {"malformed": 5}),
        radio=Counting(receivers=2, samples_sent=9, malformed=1),
        statistics=None,
    )
    expected = "2 pictures in 6 bursts sent, 1 refused, 6 malformed, 2 receivers"
    assert tx_line(tx_record(top)) == expected
    top.statistics = Counting(underflows=3, late=0)
    assert tx_line(tx_record(top)) == f"{expected}, 3 underflows"
    assert tx_record(top)["radio"]["late"] == 0


def test_a_radio_that_counts_nothing() -> None:
    assert radio_counts(object()) == {}
    assert radio_counts(Counting(a=1), Counting(b=2)) == {"a": 1, "b": 2}


def test_statistics_file_is_renewed_now_and_then_and_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "stats.json"
    count = 0

    def record() -> dict[str, int]:
        nonlocal count
        count += 1
        return {"count": count}

    file = StatisticsFile(path, "rx", "bench", record)
    assert not path.exists()
    for _ in range(5):
        file.renew()
    read = json.loads(path.read_text())
    assert (read["running"], read["count"], read["command"], read["profile"]) == (
        True, 1, "rx", "bench",
    )  # fmt: skip
    monkeypatch.setattr(radio_status, "FILE_PERIOD_S", 0.0)
    file.renew()
    assert json.loads(path.read_text())["count"] == 2
    file.close()
    read = json.loads(path.read_text())
    assert (read["running"], read["count"]) == (False, 3)
    assert [one.name for one in tmp_path.iterdir()] == ["stats.json"]


def test_a_disk_that_fails_while_running_is_told_of_in_the_end(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    file = StatisticsFile(folder / "stats.json", "tx", "bench", dict)
    folder.rmdir()
    file.renew()
    with pytest.raises(OutputError, match=r"stats\.json"):
        file.close()


def test_no_file_is_no_file() -> None:
    file = StatisticsFile(None, "tx", "bench", dict)
    file.renew()
    file.close()


def test_a_file_that_cannot_be_written_is_an_error_before_anything_starts(
    uoisc: RunCommand, tmp_path: Path
) -> None:
    done = uoisc("rx", "-p", "virtual", "--json-stats", tmp_path / "none" / "stats.json")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "none/stats.json: its folder does not exist" in done.stderr


def test_commands_end_in_time_and_write_what_they_counted(
    uoisc: RunCommand, tmp_path: Path
) -> None:
    ports = [
        *("--set", "zmq.frames_in=tcp://127.0.0.1:*", "--set", "radio.address=tcp://127.0.0.1:*"),
    ]
    done = uoisc("tx", "-p", "virtual", "--duration", "1.5", "--json-stats", "tx.json", *ports)
    assert done.returncode == 0, done.stderr
    assert "sending what arrives at tcp://127.0.0.1:" in done.stderr
    assert "0 pictures in 0 bursts sent" in done.stderr
    record = json.loads((tmp_path / "tx.json").read_text())
    assert (record["running"], record["frames_sent"]) == (False, 0)
    assert record["elapsed_s"] >= 1.5
    assert record["socket"] == {
        "oversized": 0, "malformed": 0, "replayed": 0, "out_of_order": 0,
        "keys_refused": 0, "handshakes_failed": 0,
    }  # fmt: skip
    assert record["radio"]["receivers"] == 0
    ports = [
        *("--set", "zmq.pictures_out=tcp://127.0.0.1:*"),
        *("--set", "zmq.watch_out=tcp://127.0.0.1:*", "--set", "radio.address=tcp://127.0.0.1:9"),
    ]
    done = uoisc("rx", "-p", "virtual", "--duration", "1.5", "--json-stats", "rx.json", *ports)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "rx.json").read_text())
    assert (record["bursts_detected"], record["per"], record["running"]) == (0, None, False)
    assert record["radio"]["samples_received"] == 0
