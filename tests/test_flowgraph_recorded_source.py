"""A recording that ends: every burst comes out as a message, the last one too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pmt
import pytest
from gnuradio import gr

from blocks.burst_messages import END_MESSAGE, from_pdu
from blocks.burst_receiver import BurstReceiver
from flowgraphs.front_end import FrontEnd
from flowgraphs.recorded_source import RecordedSource
from tests.link_parts import Collector
from tests.simulated_air import bursts_of, noise, on_air, random_bits


@pytest.mark.parametrize("tail", [0, 5, 3000])
def test_every_burst_is_heard_of(tmp_path: Path, tail: int) -> None:
    """The recording ends with the last sample of its last burst, or a little later."""
    bursts = [bursts_of(random_bits(3000, seed), mcs=4, frame_id=seed)[0] for seed in range(5)]
    samples, _ = on_air(bursts, tail=tail)
    samples += noise(samples.size, 0.1, np.random.default_rng(1))
    path = tmp_path / "recording.cf32"
    samples.astype(np.complex64).tofile(path)
    source, front_end = RecordedSource(path), FrontEnd(4)
    receiver, heard = BurstReceiver(1e6, when_full="block"), Collector()
    top = gr.top_block()
    top.connect(source, front_end, receiver)
    top.msg_connect(receiver, "bursts", heard, "in")
    top.start()
    messages = []
    try:
        while not pmt.equal(message := heard.get(), END_MESSAGE):
            messages.append(from_pdu(message))
    finally:
        top.stop()
        top.wait()
    assert [message.header.frame_id for message in messages] == list(range(5))
    assert all(message.ok.all() for message in messages)
    # The silence up to the mark belongs to the stream, what follows does not.
    assert receiver.statistics.samples == pytest.approx((samples.size + 8192) / 2, abs=1)


@pytest.mark.parametrize("size", [0, 7, 8001])
def test_files_that_are_no_recording(tmp_path: Path, size: int) -> None:
    path = tmp_path / "bad.cf32"
    path.write_bytes(bytes(size))
    with pytest.raises(ValueError, match="samples"):
        RecordedSource(path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        RecordedSource(tmp_path / "nothing")
