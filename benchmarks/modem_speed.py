"""Speed of transmitter and receiver, beside GNU Radio's stock receive chain in the same run.

    python benchmarks/modem_speed.py [--seconds 5] [--seed 0]

Rate 1/2, Es/N0 12 dB, carrier offset 2 % of the symbol rate; bursts of three code blocks of 8448 bits with
64 symbols of silence between. Speeds are million symbols per second of wall time, median of the
repetitions with minimum and maximum; silence counts as symbols, since a receiver has to listen to it.

transmitter      build_bursts and pulse shaping to 4 samples per symbol
receiver         StreamReceiver, samples at 2 per symbol, one thread, LDPC included
search only      the same on noise: what it costs to listen
flowgraph        recorded samples at 4 per symbol -> FrontEnd -> BurstReceiver in GNU Radio's scheduler
stock chain      the same samples -> FrontEnd's filter -> symbol_sync_cc (matched filter bank) ->
                 costas_loop_cc -> soft decisions: no detection, no bursts, no LDPC, for scale
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from gnuradio import blocks as gr_blocks
from gnuradio import digital, filter, gr
from numpy.typing import NDArray

from blocks.burst_receiver import BurstReceiver
from blocks.modem import waveform as wf
from blocks.modem.burst import build_bursts
from blocks.modem.simulated_air import Air, decimate, noise
from blocks.modem.stream_receiver import StreamReceiver
from flowgraphs.front_end import FrontEnd, anti_alias_taps

MCS = 4
SNR_DB = 12.0
CFO = 0.02
GAP_SYMBOLS = 64
AIR_SPS = 4
FRAME_BITS = 3 * (wf.max_info_bits(MCS) - wf.CODE_BLOCK_CRC_BITS)


def transmit(frames: int, seed: int) -> NDArray[np.complex64]:
    generator = np.random.default_rng(seed)
    parts = []
    for frame_id in range(frames):
        bits = generator.integers(0, 2, FRAME_BITS).astype(np.uint8)
        for burst in build_bursts(bits, frame_id=frame_id, codec_tag=1, mcs=MCS):
            parts += [burst.samples(AIR_SPS), np.zeros(GAP_SYMBOLS * AIR_SPS, np.complex64)]
    return np.concatenate(parts)


def receive(samples: NDArray[np.complex64], expected: int) -> None:
    receiver = StreamReceiver()
    found = []
    for start in range(0, samples.size, 65_536):
        found += receiver.push(samples[start : start + 65_536])
    found += receiver.flush()
    good = sum(block.ok for item in found if item.burst for block in item.burst.blocks)
    if good != expected:
        raise SystemExit(f"{good} of {expected} code blocks decoded: the figure would mean nothing")


def run_flowgraph(recording: Path, expected: int) -> None:
    top = gr.top_block()
    source = gr_blocks.file_source(gr.sizeof_gr_complex, str(recording))
    front_end, receiver = FrontEnd(AIR_SPS), BurstReceiver(1e6, when_full="block")
    top.connect(source, front_end, receiver)
    top.run()
    if receiver.statistics.code_blocks_ok != expected:
        raise SystemExit(f"flowgraph: {receiver.statistics.code_blocks_ok} of {expected} blocks")


def run_stock_chain(recording: Path) -> None:
    top = gr.top_block()
    arms = 32
    taps = filter.firdes.root_raised_cosine(arms, arms * 2, 1.0, wf.ROLL_OFF, arms * 2 * 16)
    constellation = digital.constellation_8psk().base()
    sync = digital.symbol_sync_cc(
        digital.TED_SIGNAL_TIMES_SLOPE_ML,
        2,
        0.01,
        1.0,
        1.0,
        0.05,
        1,
        constellation,
        digital.IR_PFB_MF,
        arms,
        taps,
    )
    top.connect(
        gr_blocks.file_source(gr.sizeof_gr_complex, str(recording)),
        filter.fir_filter_ccf(AIR_SPS // 2, anti_alias_taps(AIR_SPS)),
        sync,
        digital.costas_loop_cc(0.01, 8),
        digital.constellation_soft_decoder_cf(constellation),
        gr_blocks.null_sink(gr.sizeof_float),
    )
    top.run()


def measure(work: Callable[[], object], symbols: float, seconds: float) -> list[float]:
    """Million symbols per second of each repetition; the first, uncounted, compiles and warms up."""
    work()
    rates: list[float] = []
    ends = time.monotonic() + seconds
    while len(rates) < 3 or time.monotonic() < ends:
        started = time.perf_counter()
        work()
        rates.append(symbols / (time.perf_counter() - started) / 1e6)
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="per figure")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--frames", type=int, default=20, help="bursts per repetition")
    arguments = parser.parse_args()
    generator = np.random.default_rng(arguments.seed)
    sent = transmit(arguments.frames, arguments.seed)
    symbols = sent.size / AIR_SPS
    turned = sent * np.exp(2j * np.pi * CFO / AIR_SPS * np.arange(sent.size))
    variance = AIR_SPS * 10 ** (-SNR_DB / 10)
    noisy = (turned + noise(sent.size, variance, generator)).astype(np.complex64)
    # Silence behind the last burst, so that the front end's delay cuts nothing off.
    noisy = np.concatenate([noisy, np.zeros(4096, np.complex64)])
    at_two = decimate(noisy.astype(np.complex128)).astype(np.complex64)
    empty = Air(snr_db=SNR_DB).receive(np.zeros(sent.size, np.complex64), generator)
    blocks = 3 * arguments.frames
    folder = tempfile.TemporaryDirectory()
    recording = Path(folder.name) / "recording.cf32"
    noisy.tofile(recording)
    jobs: list[tuple[str, Callable[[], object]]] = [
        ("transmitter", lambda: transmit(arguments.frames, arguments.seed)),
        ("receiver", lambda: receive(at_two, blocks)),
        ("search only", lambda: receive(empty, 0)),
        ("flowgraph", lambda: run_flowgraph(recording, blocks)),
        ("stock chain", lambda: run_stock_chain(recording)),
    ]
    print(
        f"mcs {MCS}, Es/N0 {SNR_DB} dB, {blocks} code blocks of {wf.max_info_bits(MCS)} bits, "
        f"{symbols / 1e3:.0f} thousand symbols, {os.cpu_count()} cores, seed {arguments.seed}"
    )
    medians = {}
    for name, work in jobs:
        rates = measure(work, symbols, arguments.seconds)
        medians[name] = statistics.median(rates)
        ratio = (
            ""
            if name != "stock chain"
            else f"  flowgraph/stock {medians['flowgraph'] / medians[name]:.2f}"
        )
        print(
            f"{name:12} {medians[name]:7.2f} Msym/s  ({min(rates):.2f}..{max(rates):.2f}, "
            f"{len(rates)} runs){ratio}",
            flush=True,
        )


if __name__ == "__main__":
    main()
