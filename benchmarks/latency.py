"""Time from a burst's last sample to its decoded code blocks, through the real flowgraph in real time.

A throttled source feeds front end and receiver at the pace of a radio; silence of random length stands
between the bursts, so that they begin anywhere in the receiver's search blocks. The clock runs from the
call in which the scheduler gives the receiver block a burst's last sample to the message handler that gets
the burst's code blocks: ring, search, demodulator, decoder, both threads and the message queue included.
"""

from __future__ import annotations

import queue
import time
from dataclasses import dataclass

import numpy as np
import pmt
from gnuradio import blocks as gr_blocks
from gnuradio import gr
from numpy.typing import NDArray

from blocks.burst_messages import from_pdu
from blocks.burst_receiver import BurstReceiver
from blocks.modem import waveform as wf
from blocks.modem.acquisition import SEARCH_CONTEXT_AFTER
from blocks.modem.burst import Burst, build_bursts
from blocks.modem.burst_finder import SEARCH_BLOCK_SAMPLES
from blocks.modem.simulated_air import noise
from flowgraphs.front_end import FrontEnd

SYMBOL_RATE_HZ = 1e6
_AIR_SPS = 4
_CFO = 0.02
_LEAD_SYMBOLS = 2000
_MAX_GAP_SYMBOLS = 6000
_TAIL_SYMBOLS = 4000
# Longest wait for a burst after the last sample: a machine under load is slow.
_PATIENCE_S = 10.0
_PORT_IN = pmt.intern("in")


class LatencyError(RuntimeError):
    """Bursts did not come out: the figures would mean nothing."""


@dataclass(frozen=True)
class Latency:
    """Figures of one kind of burst.

    Args:
        mcs: code rate.
        snr_db: Es/N0.
        burst_symbols: length of a burst.
        code_blocks: in a burst.
        bursts: how many were timed.
        code_block_errors: of them all.
        p50_ms: median from the last sample to the code blocks, milliseconds.
        p95_ms: 95th percentile.
        search_ms: of it by design: a burst that is over before the search block it begins in waits for the
            end of that block, at most so long.
    """

    mcs: int
    snr_db: float
    burst_symbols: int
    code_blocks: int
    bursts: int
    code_block_errors: int
    p50_ms: float
    p95_ms: float
    search_ms: float


class _TimedReceiver(BurstReceiver):
    """Notes when it was given each sample that is marked.

    Args:
        marks: ``int64 [m]`` counts of samples, rising.
    """

    def __init__(self, marks: NDArray[np.int64]) -> None:
        BurstReceiver.__init__(self, SYMBOL_RATE_HZ, when_full="drop")
        self.given_s: list[float] = []
        self._marks = marks

    def work(self, inputs: list[NDArray[np.complex64]], outputs: list[object]) -> int:
        """As usual."""
        total = self.nitems_read(0) + len(inputs[0])
        passed = int(np.searchsorted(self._marks, total, side="right"))
        self.given_s += [time.monotonic()] * (passed - len(self.given_s))
        return super().work(inputs, outputs)


class _Clock(gr.basic_block):
    """Notes when each burst's message comes in, and how many of its code blocks failed."""

    def __init__(self) -> None:
        gr.basic_block.__init__(self, name="Clock", in_sig=None, out_sig=None)
        self.heard: queue.Queue[tuple[float, pmt.pmt_base]] = queue.Queue()
        self.message_port_register_in(_PORT_IN)
        self.set_msg_handler(_PORT_IN, self._on_burst)

    def _on_burst(self, message: pmt.pmt_base) -> None:
        self.heard.put((time.monotonic(), message))


def measure(mcs: int, frame_bits: int, snr_db: float, seconds: float, seed: int) -> Latency:
    """Time bursts of ``frame_bits`` bits, one burst each, for about ``seconds``.

    Raises:
        LatencyError: not every burst came out.
    """
    generator = np.random.default_rng(seed)
    samples, ends, burst = _stream(mcs, frame_bits, snr_db, seconds, generator)
    # Over and over: at its end the scheduler would stop the blocks behind message ports as well.
    source = gr_blocks.vector_source_c(samples, True)
    pace = gr_blocks.throttle(gr.sizeof_gr_complex, SYMBOL_RATE_HZ * _AIR_SPS)
    front_end = FrontEnd(_AIR_SPS)
    receiver = _TimedReceiver(ends * wf.RECEIVER_SAMPLES_PER_SYMBOL // _AIR_SPS)
    clock = _Clock()
    top = gr.top_block()
    top.connect(source, pace, front_end, receiver)
    top.msg_connect(receiver, "bursts", clock, "in")
    top.start()
    try:
        heard = [clock.heard.get(timeout=seconds + _PATIENCE_S) for _ in ends]
    except queue.Empty:
        counts = receiver.statistics.to_json(sent=int(ends.size))
        raise LatencyError(f"not every burst was heard: {counts}") from None
    finally:
        top.stop()
        top.wait()
    bursts = [from_pdu(message) for _, message in heard]
    if [one.header.frame_id for one in bursts] != list(range(ends.size)):
        counts = receiver.statistics.to_json(sent=int(ends.size))
        raise LatencyError(f"bursts were missed, as on a machine that is too busy: {counts}")
    waits_ms = 1e3 * (
        np.array([moment for moment, _ in heard]) - np.array(receiver.given_s[: ends.size])
    )
    block_s = (SEARCH_BLOCK_SAMPLES + SEARCH_CONTEXT_AFTER) / wf.RECEIVER_SAMPLES_PER_SYMBOL
    return Latency(
        mcs=mcs,
        snr_db=snr_db,
        burst_symbols=burst.header.burst_symbols,
        code_blocks=burst.header.blocks,
        bursts=int(ends.size),
        code_block_errors=sum(int((~one.ok).sum()) for one in bursts),
        p50_ms=float(np.percentile(waits_ms, 50)),
        p95_ms=float(np.percentile(waits_ms, 95)),
        search_ms=1e3 * max(0.0, block_s - burst.header.burst_symbols) / SYMBOL_RATE_HZ,
    )


def _stream(
    mcs: int, frame_bits: int, snr_db: float, seconds: float, generator: np.random.Generator
) -> tuple[NDArray[np.complex64], NDArray[np.int64], Burst]:
    """Bursts at random distances in noise; how many samples have gone by at the end of each; one of them."""
    parts = [np.zeros(_LEAD_SYMBOLS * _AIR_SPS, np.complex64)]
    ends: list[int] = []
    total = parts[0].size
    while not ends or total < seconds * SYMBOL_RATE_HZ * _AIR_SPS:
        bits = generator.integers(0, 2, frame_bits).astype(np.uint8)
        (burst,) = build_bursts(bits, frame_id=len(ends), codec_tag=1, mcs=mcs)
        shaped = burst.samples(_AIR_SPS)
        gap = np.zeros(int(generator.integers(_MAX_GAP_SYMBOLS)) * _AIR_SPS, np.complex64)
        parts += [shaped, gap]
        ends.append(total + shaped.size)
        total += shaped.size + gap.size
    clean = np.concatenate([*parts, np.zeros(_TAIL_SYMBOLS * _AIR_SPS, np.complex64)])
    turned = clean * np.exp(2j * np.pi * _CFO / _AIR_SPS * np.arange(clean.size))
    noisy = turned + noise(clean.size, _AIR_SPS * 10 ** (-snr_db / 10), generator)
    return noisy.astype(np.complex64), np.array(ends), burst
