"""What gr-uhd's sink says about bursts is counted, event by event; what it does not say is not invented."""

from __future__ import annotations

import logging

import pmt
import pytest
from gnuradio import gr

from blocks.transmit_monitor import TransmitMonitor
from semantic.link_statistics import TransmitStatistics
from tests.link_parts import post, wait_until


def message(*events: str) -> pmt.pmt_base:
    """As gr-uhd's sink sends it."""
    names = pmt.PMT_NIL
    for event in events:
        names = pmt.list_add(names, pmt.intern(event))
    values = pmt.dict_add(pmt.make_dict(), pmt.intern("event_code"), names)
    values = pmt.dict_add(values, pmt.intern("channel"), pmt.from_uint64(0))
    return pmt.cons(pmt.intern("uhd_async_msg"), values)


def run(messages: list[pmt.pmt_base]) -> TransmitStatistics:
    statistics = TransmitStatistics()
    monitor = TransmitMonitor(statistics)
    top = gr.top_block()
    # A message block alone makes no flowgraph: hang it on an ear of its own.
    ear = TransmitMonitor(TransmitStatistics())
    ear.message_port_register_out(pmt.intern("out"))
    top.msg_connect(ear, "out", monitor, "async_msgs")
    top.start()
    for one in messages:
        post(monitor, "async_msgs", one)
    wait_until(lambda: monitor.nmsgs(pmt.intern("async_msgs")) == 0, "the messages")
    top.stop()
    top.wait()
    return statistics


def test_every_event_has_its_counter() -> None:
    statistics = run(
        [
            message("burst_ack"),
            message("burst_ack"),
            message("underflow"),
            message("underflow_in_packet"),
            message("time_error"),
            message("seq_error"),
            message("seq_error_in_burst", "underflow"),
        ]
    )
    assert statistics.to_json() == {
        "acknowledged": 2,
        "underflows": 3,
        "late": 1,
        "sequence_errors": 2,
    }
    assert statistics.failed == 6


def test_what_is_not_known_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        statistics = run(
            [message("something_new"), pmt.intern("no event"), pmt.cons(pmt.PMT_T, pmt.PMT_T)]
        )
    assert sum(statistics.to_json().values()) == 0
    assert "unknown event something_new" in caplog.text
    assert caplog.text.count("no event") >= 2


def test_no_such_counter() -> None:
    with pytest.raises(ValueError, match="no counter 'lost'"):
        TransmitStatistics().count("lost")
