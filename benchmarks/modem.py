"""Speed of the modem, beside GNU Radio's stock receive chain in the same run.

Bursts of three code blocks of 8448 bits at rate 1/2 (MCS 4), 64 symbols of silence between them, a carrier
offset of 2 % of the symbol rate. Speeds are million symbols per second of wall time; silence counts as
symbols, since a receiver has to listen to it. Where one core is stated, the process was pinned to it with
all of its threads.

A figure is refused where a burst did not come out, or, far above the working point, a code block was wrong.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gnuradio import blocks as gr_blocks
from gnuradio import digital, filter, gr
from numpy.typing import NDArray

from benchmarks import latency
from benchmarks.machine import Spread, machine, repeat
from blocks.burst_receiver import BurstReceiver
from blocks.modem import waveform as wf
from blocks.modem.burst import build_bursts
from blocks.modem.ldpc_decoder import DEFAULT_MAX_ITERATIONS
from blocks.modem.simulated_air import decimate, noise
from blocks.modem.stream_receiver import StreamReceiver
from flowgraphs.front_end import FrontEnd, anti_alias_taps

MCS = 4
BLOCKS_PER_BURST = 3
CLEAR_SNR_DB = 12.0
# Where one block in a hundred fails.
WORKING_SNR_DB = 3.95
CFO = 0.02
GAP_SYMBOLS = 64
AIR_SPS = 4
PAYLOAD_BITS = wf.max_info_bits(MCS) - wf.CODE_BLOCK_CRC_BITS

STOCK_CHAIN = "stock chain"
_PUSH_SAMPLES = 65_536
# Silence behind the last burst, so that the front end's delay cuts nothing off.
_TAIL_SYMBOLS = 1024


class BenchmarkError(RuntimeError):
    """Bursts or code blocks were lost: the figure would mean nothing."""


@dataclass(frozen=True)
class Recording:
    """Bursts in noise.

    Args:
        snr_db: Es/N0.
        bursts: how many.
        symbols: silence included.
        path: file of ``complex64`` at 4 samples per symbol.
        samples: the same at 2 samples per symbol, ``complex64``.
    """

    snr_db: float
    bursts: int
    symbols: int
    path: Path
    samples: NDArray[np.complex64]


@dataclass(frozen=True)
class Figure:
    """One measured speed.

    Args:
        name: what was measured.
        cores: processor cores that the process was allowed.
        snr_db: Es/N0; None where nothing was sent, or nothing received.
        max_iterations: limit of the LDPC decoder, 0 where it was told not to decode; None: has no decoder.
        iterations: mean spent per code block.
        symbols: per run.
        code_blocks: per run.
        code_block_errors: per run, where they were decoded.
        msym_per_s: million symbols per second.
    """

    name: str
    cores: int
    snr_db: float | None
    max_iterations: int | None
    iterations: float | None
    symbols: int
    code_blocks: int
    code_block_errors: int | None
    msym_per_s: Spread


@dataclass(frozen=True)
class Result:
    """What came out of one pass over a recording."""

    bursts: int
    code_blocks: int
    code_block_errors: int
    iterations: float | None = None


def transmit(bursts: int, seed: int) -> Iterator[NDArray[np.complex64]]:
    """Random bits to samples on the air, burst by burst, each with its gap."""
    generator = np.random.default_rng(seed)
    gap = np.zeros(GAP_SYMBOLS * AIR_SPS, np.complex64)
    for frame_id in range(bursts):
        bits = generator.integers(0, 2, BLOCKS_PER_BURST * PAYLOAD_BITS).astype(np.uint8)
        (burst,) = build_bursts(bits, frame_id=frame_id, codec_tag=1, mcs=MCS)
        yield np.concatenate([burst.samples(AIR_SPS), gap])


def record(path: Path, bursts: int, snr_db: float, seed: int) -> Recording:
    """Write bursts with carrier offset and noise to a file."""
    generator = np.random.default_rng([seed, 1])
    clean = [*transmit(bursts, seed), np.zeros(_TAIL_SYMBOLS * AIR_SPS, np.complex64)]
    received = np.concatenate(clean).astype(np.complex128)
    received *= np.exp(2j * np.pi * CFO / AIR_SPS * np.arange(received.size))
    received += noise(received.size, AIR_SPS * 10 ** (-snr_db / 10), generator)
    received.astype(np.complex64).tofile(path)
    samples = decimate(received).astype(np.complex64)
    return Recording(snr_db, bursts, received.size // AIR_SPS, path, samples)


def receive(samples: NDArray[np.complex64], max_iterations: int) -> Result:
    """The receiver as a plain object, in this thread."""
    receiver = StreamReceiver(max_iterations)
    found = []
    for start in range(0, samples.size, _PUSH_SAMPLES):
        found += receiver.push(samples[start : start + _PUSH_SAMPLES])
    found += receiver.flush()
    blocks = [block for item in found if item.burst for block in item.burst.blocks]
    iterations = float(np.mean([block.iterations for block in blocks])) if blocks else None
    errors = sum(not block.ok for block in blocks)
    return Result(len(found), len(blocks), errors, iterations)


def run_flowgraph(path: Path, max_iterations: int) -> Result:
    """Recorded samples -> FrontEnd -> BurstReceiver in GNU Radio's scheduler."""
    top = gr.top_block()
    source = gr_blocks.file_source(gr.sizeof_gr_complex, str(path))
    front_end = FrontEnd(AIR_SPS)
    receiver = BurstReceiver(1e6, when_full="block", max_iterations=max_iterations)
    top.connect(source, front_end, receiver)
    top.run()
    counts = receiver.statistics
    return Result(counts.detected, counts.code_blocks, counts.code_blocks - counts.code_blocks_ok)


def run_stock_chain(path: Path) -> None:
    """What GNU Radio offers for 8-PSK: no detection, no bursts, no LDPC; for scale.

    The front end's filter, matched filter and clock recovery (``symbol_sync_cc`` with its filter bank),
    carrier recovery (``costas_loop_cc``), soft decisions.
    """
    top = gr.top_block()
    arms = 32
    taps = filter.firdes.root_raised_cosine(arms, arms * 2, 1.0, wf.ROLL_OFF, arms * 2 * 16)
    constellation = digital.constellation_8psk().base()
    top.connect(
        gr_blocks.file_source(gr.sizeof_gr_complex, str(path)),
        filter.fir_filter_ccf(AIR_SPS // wf.RECEIVER_SAMPLES_PER_SYMBOL, anti_alias_taps(AIR_SPS)),
        digital.symbol_sync_cc(
            detector_type=digital.TED_SIGNAL_TIMES_SLOPE_ML,
            sps=wf.RECEIVER_SAMPLES_PER_SYMBOL,
            loop_bw=0.01,
            damping_factor=1.0,
            ted_gain=1.0,
            max_deviation=0.05,
            osps=1,
            slicer=constellation,
            interp_type=digital.IR_PFB_MF,
            n_filters=arms,
            taps=taps,
        ),
        digital.costas_loop_cc(0.01, 8),
        digital.constellation_soft_decoder_cf(constellation),
        gr_blocks.null_sink(gr.sizeof_float),
    )
    top.run()


@contextlib.contextmanager
def pinned(cores: int) -> Iterator[None]:
    """This thread, and those it starts, on the first ``cores`` cores that it may use."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(allowed)[:cores])
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def measure_receiver(
    recording: Recording, cores: int, max_iterations: int, seconds: float, flowgraph: bool
) -> Figure:
    """Speed of the receiver over a recording, inside or outside of GNU Radio's scheduler.

    Raises:
        BenchmarkError: bursts or code blocks are missing.
    """
    # Of the same recording through a filter of its own: block errors may differ by one, iterations hardly.
    expected = receive(recording.samples, max_iterations)
    results: list[Result] = []

    def work() -> None:
        if flowgraph:
            results.append(run_flowgraph(recording.path, max_iterations))
        else:
            results.append(receive(recording.samples, max_iterations))

    with pinned(cores):
        spread = repeat(work, recording.symbols / 1e6, seconds)
    sent = recording.bursts * BLOCKS_PER_BURST
    for result in results:
        if (result.bursts, result.code_blocks) != (recording.bursts, sent):
            raise BenchmarkError(f"{recording.bursts} bursts of {sent} blocks sent, {result}")
        if max_iterations and recording.snr_db >= CLEAR_SNR_DB and result.code_block_errors:
            raise BenchmarkError(f"block errors at {recording.snr_db} dB: {result}")
    name = "flowgraph" if flowgraph else "receiver"
    return Figure(
        name=name if max_iterations else f"{name}, not decoding",
        cores=cores,
        snr_db=recording.snr_db,
        max_iterations=max_iterations,
        iterations=expected.iterations,
        symbols=recording.symbols,
        code_blocks=sent,
        code_block_errors=results[-1].code_block_errors if max_iterations else None,
        msym_per_s=spread,
    )


def measure_transmitter(bursts: int, seconds: float, seed: int) -> Figure:
    """Speed from bits to samples at 4 per symbol, one core."""
    symbols = sum(samples.size for samples in transmit(bursts, seed)) // AIR_SPS

    def work() -> None:
        for _ in transmit(bursts, seed):
            pass

    with pinned(1):
        spread = repeat(work, symbols / 1e6, seconds)
    blocks = bursts * BLOCKS_PER_BURST
    return Figure("transmitter", 1, None, None, None, symbols, blocks, None, spread)


def measure_search(symbols: int, seconds: float, seed: int) -> Figure:
    """Speed of listening to noise, one core."""
    generator = np.random.default_rng(seed)
    samples = noise(symbols * wf.RECEIVER_SAMPLES_PER_SYMBOL, 1.0, generator).astype(np.complex64)
    results: list[Result] = []
    with pinned(1):
        spread = repeat(
            lambda: results.append(receive(samples, DEFAULT_MAX_ITERATIONS)), symbols / 1e6, seconds
        )
    if results[-1].code_blocks:
        raise BenchmarkError("noise alone was decoded")
    name = "receiver, noise alone"
    return Figure(name, 1, None, DEFAULT_MAX_ITERATIONS, None, symbols, 0, 0, spread)


def measure_stock_chain(recording: Recording, cores: int, seconds: float) -> Figure:
    """Speed of GNU Radio's own blocks over a recording."""
    with pinned(cores):
        spread = repeat(lambda: run_stock_chain(recording.path), recording.symbols / 1e6, seconds)
    symbols, snr_db = recording.symbols, recording.snr_db
    return Figure(STOCK_CHAIN, cores, snr_db, None, None, symbols, 0, None, spread)


def speeds(seconds: float, seed: int, bursts: int, show: Callable[[str], None]) -> list[Figure]:
    """Every speed, about ``seconds`` each; ``show`` is told what is at work."""
    full = DEFAULT_MAX_ITERATIONS
    with tempfile.TemporaryDirectory() as folder:
        show("making the recordings")
        clear, working = (
            record(Path(folder) / f"{snr_db}.cf32", bursts, snr_db, seed)
            for snr_db in (CLEAR_SNR_DB, WORKING_SNR_DB)
        )

        def receiver(recording: Recording, cores: int, limit: int, flowgraph: bool) -> Figure:
            where = "flowgraph" if flowgraph else "receiver"
            show(f"{where} on {cores} cores at {recording.snr_db:g} dB")
            return measure_receiver(recording, cores, limit, seconds, flowgraph)

        show("transmitter, search")
        figures = [
            measure_transmitter(bursts, seconds, seed),
            measure_search(clear.symbols, seconds, seed),
            receiver(clear, 1, full, False),
            receiver(working, 1, full, False),
            receiver(clear, 1, 0, False),
        ]
        for cores in range(1, min(2, len(os.sched_getaffinity(0))) + 1):
            figures += [
                receiver(clear, cores, full, True),
                receiver(working, cores, full, True),
                receiver(clear, cores, 0, True),
            ]
            show(f"{STOCK_CHAIN} on {cores} cores")
            figures.append(measure_stock_chain(clear, cores, seconds))
    return figures


def latencies(seconds: float, seed: int, show: Callable[[str], None]) -> list[latency.Latency]:
    """Bursts of 1,000 bits, of one and of three of the largest code blocks, about ``seconds`` each."""
    found = []
    for frame_bits, snr_db in (
        (1000, CLEAR_SNR_DB),
        (PAYLOAD_BITS, CLEAR_SNR_DB),
        (BLOCKS_PER_BURST * PAYLOAD_BITS, CLEAR_SNR_DB),
        (BLOCKS_PER_BURST * PAYLOAD_BITS, WORKING_SNR_DB),
    ):
        show(f"latency of {frame_bits} bits at {snr_db:g} dB")
        found.append(latency.measure(MCS, frame_bits, snr_db, seconds, seed))
    return found


def run(seconds: float, seed: int, bursts: int, show: Callable[[str], None]) -> dict[str, Any]:
    """Measure everything: a dictionary for JSON.

    Args:
        seconds: per figure.
        seed: of everything random.
        bursts: in the recordings.
        show: told what is at work.

    Raises:
        BenchmarkError: a receiver lost bursts or blocks.
        benchmarks.latency.LatencyError: the same in real time.
    """
    figures = speeds(seconds, seed, bursts, show)
    stock = {one.cores: one.msym_per_s.median for one in figures if one.name == STOCK_CHAIN}
    return {
        "command": "uoisc benchmark modem",
        "arguments": {"seconds": seconds, "seed": seed, "bursts": bursts},
        "machine": machine(),
        "mcs": MCS,
        "code_rate": float(wf.MCS_CODE_RATES[MCS]),
        "code_block_bits": wf.max_info_bits(MCS),
        "cfo_symbol_rates": CFO,
        "speed": [
            {
                "mcs": MCS,
                **asdict(one),
                "over_stock_chain": one.msym_per_s.median / stock[one.cores],
            }
            for one in figures
        ],
        "latency_symbol_rate_hz": latency.SYMBOL_RATE_HZ,
        "latency": [asdict(one) for one in latencies(seconds, seed, show)],
    }
