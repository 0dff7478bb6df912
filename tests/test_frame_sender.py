"""FrameSender and the transmitter's socket: what is said to be sent was taken, whatever happens between."""

from __future__ import annotations

import threading

import pmt
import pytest
from gnuradio import gr

from blocks.frame_sender import WINDOW, FrameSender, NobodyTakesError, Receipt
from blocks.index_source import IndexSource, pdu_to_bits
from tests.link_parts import ANY_PORT, PATIENCE_S, Collector, post, random_frame, wait_until


class Transmitter:
    """An IndexSource in a flowgraph whose modulator is the test."""

    def __init__(self, address: str = ANY_PORT) -> None:
        self.source = IndexSource(address)
        self.collector = Collector()
        self.top = gr.top_block()
        self.top.msg_connect(self.source, "frames", self.collector, "in")
        self.top.start()

    def take(self, *, sent: bool = True) -> int:
        frame_id = pdu_to_bits(self.collector.get())[0]
        if sent:
            post(self.source, "sent", pmt.PMT_T)
        return frame_id

    def close(self) -> None:
        self.top.stop()
        self.top.wait()
        self.source.close()


def test_no_more_wait_for_a_receipt_than_the_window() -> None:
    transmitter = Transmitter()
    receipts: list[Receipt] = []
    with FrameSender(transmitter.source.address, 0.5, receipts.append) as sender:
        for frame_id in range(WINDOW):
            sender.send(random_frame(frame_id))
        with pytest.raises(NobodyTakesError, match="the transmitter has 4 that it has not sent"):
            sender.send(random_frame(99))
        assert sender.waiting == [0, 1, 2, 3]
        assert receipts == []
        assert [transmitter.take() for _ in range(WINDOW)] == [0, 1, 2, 3]
        sender.finish()
    assert receipts == [Receipt(k, True, "") for k in range(WINDOW)]
    transmitter.close()


@pytest.mark.parametrize("orderly", [True, False])
def test_frames_that_went_with_a_transmitter_are_sent_to_the_next(orderly: bool) -> None:
    """Killed, that is gone without a word, or ended in order, which tells what it gives up."""
    first = Transmitter()
    receipts: list[Receipt] = []
    with FrameSender(first.source.address, PATIENCE_S, receipts.append) as sender:
        for frame_id in range(WINDOW):
            sender.send(random_frame(frame_id))
        assert first.take() == 0
        assert first.take(sent=False) == 1
        assert first.take(sent=False) == 2
        sender._wait(lambda: bool(receipts), lambda: None)
        if not orderly:
            first.source._taken.clear()
        end = threading.Thread(target=first.close)
        end.start()
        if orderly:
            sender._wait(lambda: len(receipts) == 3, lambda: None)
        end.join()
        second = Transmitter(first.source.address)
        if orderly:
            # Told at the end, they are the caller's again; the one that was not taken goes on by itself.
            assert [(one.frame_id, one.reason) for one in receipts[1:]] == [
                (1, "given up"),
                (2, "given up"),
            ]
        expected = [3] if orderly else [1, 2, 3]
        sender._wait(lambda: second.source.frames_accepted >= 1, lambda: None)
        assert second.take() == expected[0]
        for frame_id in expected[1:]:
            sender._wait(lambda: not second.collector.messages.empty(), lambda: None)
            assert second.take() == frame_id
        sender.finish()
    assert [one.frame_id for one in receipts if one.sent] == [0, *expected]
    assert second.source.socket_counts()["malformed"] == 0
    second.close()


def test_nobody_there() -> None:
    with (
        FrameSender("tcp://127.0.0.1:9", 0.2) as sender,
        pytest.raises(NobodyTakesError, match="is uoisc tx running with this profile"),
    ):
        sender.send(random_frame(1))


def test_a_receipt_that_was_lost_does_not_send_a_picture_twice() -> None:
    """The connection goes between taking and answering: the transmitter says that it has had the frame."""
    transmitter = Transmitter()
    receipts: list[Receipt] = []
    with FrameSender(transmitter.source.address, PATIENCE_S, receipts.append) as sender:
        sender.send(random_frame(7))
        assert transmitter.take(sent=False) == 7
        # As if it had been handed over on an earlier connection.
        sender._waiting[0].connection = -1
        sender.finish()
        wait_until(lambda: transmitter.source.socket_counts()["replayed"] == 1, "the second copy")
    assert receipts == [Receipt(7, True, "")]
    assert transmitter.collector.nothing_for(0.2)
    transmitter.close()
