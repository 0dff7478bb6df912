"""The books: every burst has one fate, and sent = sum of fates + undetected."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semantic.link_statistics import BurstRecord, Fate, LinkStatistics

RECORD = BurstRecord(
    fate=Fate.DECODED,
    start_sample=100,
    snr_db=10.0,
    cfo_hz=50.0,
    level=0.2,
    frame_id=1,
    burst_number=0,
    mcs=4,
    code_blocks=3,
    code_blocks_ok=3,
)
DEAF = BurstRecord(Fate.HEADER_FAILED, 5, snr_db=-20.0, cfo_hz=1e4, level=0.1)


def combine(records: Iterable[BurstRecord]) -> LinkStatistics:
    statistics = LinkStatistics()
    for record in records:
        statistics.add(record)
    return statistics


@given(st.lists(st.sampled_from(list(Fate)), max_size=40), st.integers(0, 20))
def test_the_books_balance(fates: list[Fate], lost: int) -> None:
    statistics = combine(replace(RECORD, fate=fate) for fate in fates)
    sent = len(fates) + lost
    report = statistics.to_json(sent)
    assert statistics.detected == len(fates)
    assert report["bursts_sent"] == sum(report["fates"].values()) + report["undetected"]
    assert statistics.undetected(sent) == lost
    assert report["fates"] == {fate.value: fates.count(fate) for fate in Fate}
    assert report["code_blocks"] == 3 * len(fates)


def test_means_count_only_bursts_whose_header_passed() -> None:
    """What a failed header measured may be anything."""
    statistics = combine([RECORD, replace(RECORD, snr_db=20.0, cfo_hz=-150.0), DEAF])
    assert statistics.snr_db_mean == pytest.approx(15.0)
    assert statistics.cfo_hz_mean == pytest.approx(-50.0)
    assert statistics.detected == 3


def test_nothing_heard_has_no_mean() -> None:
    report = LinkStatistics().to_json(sent=4)
    assert report["snr_db_estimated"] is None
    assert report["cfo_hz_estimated"] is None
    assert report["undetected"] == 4
    assert combine([DEAF]).snr_db_mean is None


def test_a_burst_changes_its_fate_and_is_not_counted_twice() -> None:
    statistics = combine([RECORD, RECORD])
    statistics.refate(Fate.DECODED, Fate.QUEUE_FULL)
    assert statistics.fates[Fate.DECODED] == 1
    assert statistics.fates[Fate.QUEUE_FULL] == 1
    assert statistics.detected == 2
    with pytest.raises(ValueError, match="no burst with fate overflow"):
        statistics.refate(Fate.OVERFLOW, Fate.DECODED)


def test_json_is_plain() -> None:
    report = json.loads(json.dumps(combine([RECORD]).to_json(1)))
    assert report["fates"]["decoded"] == 1
    record = json.loads(json.dumps(RECORD.to_json()))
    assert record["fate"] == "decoded"
    assert record["frame_id"] == 1


def test_threads_may_count_together() -> None:
    statistics = LinkStatistics()

    def count() -> None:
        for _ in range(2000):
            statistics.add(RECORD)
            statistics.refate(Fate.DECODED, Fate.QUEUE_FULL)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert statistics.fates[Fate.QUEUE_FULL] == 8000
    assert statistics.fates[Fate.DECODED] == 0
    assert statistics.code_blocks == 24_000
    assert statistics.snr_db_mean == pytest.approx(10.0)
