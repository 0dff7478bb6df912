"""Ten times more samples than the receiver can take, for a minute: memory flat, every loss counted.

Ten minutes, with the figures printed:

    UOISC_OVERLOAD_SECONDS=600 pytest -s -m slow tests/test_overload.py
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from gnuradio import blocks as gr_blocks
from gnuradio import gr

from blocks.burst_messages import from_pdu
from blocks.burst_receiver import BurstReceiver
from semantic.link_statistics import Fate
from tests.link_parts import Collector
from tests.simulated_air import Air, bursts_of, on_air, random_bits

SECONDS = float(os.environ.get("UOISC_OVERLOAD_SECONDS", "60"))
# The lists of records and messages fill up and Numba's code is loaded in this part.
SETTLING_SHARE = 0.25
ALLOWED_GROWTH_MB = 16.0


def resident_mb() -> float:
    """Memory of this process that is in use."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


class Listener(Collector):
    """Takes every message and keeps only what a test asks for: how many, and whether they were right."""

    def __init__(self) -> None:
        self.decoded = self.wrong = 0
        Collector.__init__(self)

    def _on_message(self, message: object) -> None:
        burst = from_pdu(message)
        if burst.fate == Fate.DECODED.value:
            self.decoded += 1
            sent = random_bits(2000, burst.header.frame_id)
            self.wrong += not np.array_equal(burst.bits.reshape(-1)[:2000], sent)


@pytest.mark.slow
def test_memory_is_flat_under_tenfold_overload() -> None:
    # Code blocks 1 dB below what the code can do: each costs the decoder all of its iterations, which are
    # many here, so that the overload is tenfold on any machine.
    hard = [bursts_of(random_bits(16_000, seed), mcs=4, frame_id=seed)[0] for seed in range(9)]
    easy = [bursts_of(random_bits(2000, 100), mcs=0, frame_id=100)[0]]
    samples, _ = on_air([*hard, *easy], gap=200)
    received = Air(snr_db=2.5, cfo=0.01).receive(samples, np.random.default_rng(1))
    source = gr_blocks.vector_source_c(received.tolist(), True)
    receiver = BurstReceiver(1e6, ring_samples=200_000, when_full="drop", max_iterations=200)
    listener = Listener()
    top = gr.top_block()
    top.connect(source, receiver)
    top.msg_connect(receiver, "bursts", listener, "in")
    memory_mb = []
    top.start()
    try:
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            time.sleep(SECONDS / 100)
            memory_mb.append(resident_mb())
    finally:
        top.stop()
        top.wait()
    statistics = receiver.statistics
    offered = receiver.nitems_read(0)
    settled = memory_mb[int(SETTLING_SHARE * len(memory_mb)) :]
    sys.stdout.write(
        f"{SECONDS:.0f} s: memory {settled[0]:.1f} MB settled, {settled[-1]:.1f} MB at the end, "
        f"{max(settled):.1f} MB at most; {offered / 1e6:.0f} million samples offered, "
        f"{statistics.samples / 1e6:.0f} taken, {statistics.samples_dropped / 1e6:.0f} dropped; "
        f"{statistics.detected} bursts heard: {statistics.fates}\n"
    )
    assert receiver.failure is None
    assert statistics.samples + statistics.samples_dropped == offered
    assert offered > 10 * statistics.samples
    assert max(settled) - settled[0] < ALLOWED_GROWTH_MB
    assert statistics.fates[Fate.DECODED] > 0
    assert statistics.fates[Fate.OVERFLOW] > 0
    assert listener.decoded > 0
    assert listener.wrong == 0
