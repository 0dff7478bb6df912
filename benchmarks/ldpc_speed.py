"""Speed and block error rate of the LDPC decoder on one core, with its peers in the same run.

    python -m benchmarks.ldpc_speed                                  # every default point, 100 errors each
    python -m benchmarks.ldpc_speed --point 8448,1/2,3.90 --errors 30
    python -m benchmarks.ldpc_speed --point 1056,1/2,4.30 --reference-blocks 1000 --peer-blocks 200

A block of K bits is encoded at the given rate, sent as Gray 8-PSK over white noise at the given Es/N0 and
demapped exactly; blocks are drawn until the wanted number of block errors. "cpu" speeds divide by the
processor time of the decoding thread, "wall" speeds by the clock: they differ when others use the machine.

``--reference-blocks`` decodes that many of the same blocks in floating point as well (offset min-sum and
belief propagation, same schedule and limit of iterations). ``--peer-blocks`` gives the same code and the
same LLRs to GNU Radio's ``fec.ldpc_decoder``, through an alist file of the expanded matrix.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from blocks.modem.ldpc_code import LdpcCode, get_code
from blocks.modem.ldpc_decoder import DEFAULT_MAX_ITERATIONS, decode_blocks
from blocks.modem.ldpc_encoder import encode
from blocks.modem.ldpc_limits import normal_approximation_snr_db
from blocks.modem.ldpc_rate_matching import rows_reached, transmitted_bits
from blocks.modem.ldpc_reference import decode_blocks_float
from blocks.modem.psk import BITS_PER_SYMBOL, demap_8psk, modulate_8psk

Bits = NDArray[np.uint8]
Llrs = NDArray[np.float32]


@dataclass(frozen=True)
class Point:
    """One code at one Es/N0."""

    info_bits: int
    rate: Fraction
    snr_db: float

    def code(self) -> LdpcCode:
        """The code with E = 3 ceil(K / 3R) coded bits."""
        symbols = math.ceil(Fraction(self.info_bits) / (BITS_PER_SYMBOL * self.rate))
        return get_code(self.info_bits, BITS_PER_SYMBOL * symbols)


# Where the block error rate is about 1e-2.
DEFAULT_POINTS = [
    Point(3840, Fraction(1, 5), -1.69),
    Point(3840, Fraction(1, 4), -0.48),
    Point(8448, Fraction(1, 3), 1.07),
    Point(8448, Fraction(2, 5), 2.25),
    Point(8448, Fraction(1, 2), 3.90),
    Point(8448, Fraction(3, 5), 5.44),
    Point(8448, Fraction(2, 3), 6.48),
    Point(8448, Fraction(3, 4), 7.87),
    Point(8448, Fraction(5, 6), 9.34),
    Point(8448, Fraction(8, 9), 10.57),
    Point(1056, Fraction(1, 2), 4.30),
    Point(120, Fraction(1, 4), 1.07),
]


@dataclass(frozen=True)
class Result:
    """What one decoder did at one point."""

    decoder: str
    info_bits: int
    coded_bits: int
    snr_db: float
    snr_above_normal_approximation_db: float
    seed: int
    max_iterations: int
    blocks: int
    block_errors: int
    per: float
    mean_iterations: float | None
    cpu_s: float
    wall_s: float
    mbps_cpu: float
    mbps_wall: float


class Source:
    """Seeded blocks of one point, in batches."""

    def __init__(self, point: Point, seed: int) -> None:
        self._code = point.code()
        self._noise_variance = 10 ** (-point.snr_db / 10)
        self._rng = np.random.default_rng([seed, point.info_bits, self._code.coded_bits])

    def batch(self, blocks: int) -> tuple[Bits, Bits, Llrs]:
        """Information bits [n, K], coded bits [n, E] and their LLRs [n, E]."""
        info = self._rng.integers(0, 2, (blocks, self._code.info_bits), dtype=np.uint8)
        coded = encode(self._code, info, 0, BITS_PER_SYMBOL)
        symbols = modulate_8psk(coded.ravel())
        noise = self._rng.standard_normal((symbols.size, 2)).astype(np.float32)
        noise *= np.float32(math.sqrt(self._noise_variance / 2))
        received = symbols + noise.view(np.complex64).ravel()
        return info, coded, demap_8psk(received, self._noise_variance).reshape(coded.shape)


class Tally:
    """Adds up blocks, errors and times of one decoder."""

    def __init__(self, decoder: str) -> None:
        self.decoder = decoder
        self.blocks = self.errors = self.iterations = 0
        self.cpu_s = self.wall_s = 0.0

    def add(self, wrong: int, blocks: int, iterations: int, cpu_s: float, wall_s: float) -> None:
        """Count one batch."""
        self.blocks += blocks
        self.errors += wrong
        self.iterations += iterations
        self.cpu_s += cpu_s
        self.wall_s += wall_s

    def result(self, point: Point, seed: int, max_iterations: int) -> Result:
        """The totals so far."""
        code, megabits = point.code(), self.blocks * point.info_bits / 1e6
        bound = normal_approximation_snr_db(code.info_bits, code.coded_bits)
        return Result(
            decoder=self.decoder,
            info_bits=code.info_bits,
            coded_bits=code.coded_bits,
            snr_db=point.snr_db,
            snr_above_normal_approximation_db=round(point.snr_db - bound, 3),
            seed=seed,
            max_iterations=max_iterations,
            blocks=self.blocks,
            block_errors=self.errors,
            per=self.errors / self.blocks,
            mean_iterations=self.iterations / self.blocks if self.iterations else None,
            cpu_s=self.cpu_s,
            wall_s=self.wall_s,
            mbps_cpu=megabits / self.cpu_s,
            mbps_wall=megabits / self.wall_s,
        )


def measure(
    point: Point, errors: int, max_blocks: int, seed: int, max_iterations: int, batch: int = 50
) -> Result:
    """The project's decoder, until ``errors`` block errors or ``max_blocks``."""
    code, source = point.code(), Source(point, seed)
    _, _, warm = Source(point, seed + 1).batch(1)
    decode_blocks(code, warm, 1, bits_per_symbol=BITS_PER_SYMBOL)
    tally = Tally("fixed point, this project")
    while tally.errors < errors and tally.blocks < max_blocks:
        info, _, llrs = source.batch(batch)
        cpu, wall = time.thread_time(), time.perf_counter()
        result = decode_blocks(code, llrs, max_iterations, bits_per_symbol=BITS_PER_SYMBOL)
        cpu, wall = time.thread_time() - cpu, time.perf_counter() - wall
        wrong = int((result.bits != info).any(axis=1).sum())
        tally.add(wrong, batch, int(result.iterations.sum()), cpu, wall)
    return tally.result(point, seed, max_iterations)


def measure_references(point: Point, blocks: int, seed: int, max_iterations: int) -> list[Result]:
    """Floating-point decoders on the first ``blocks`` of the same blocks."""
    code, results = point.code(), []
    for algorithm in ("offset_min_sum", "belief_propagation"):
        source, tally = Source(point, seed), Tally(f"float {algorithm}")
        while tally.blocks < blocks:
            info, _, llrs = source.batch(50)
            cpu, wall = time.thread_time(), time.perf_counter()
            result = decode_blocks_float(
                code, llrs, max_iterations, bits_per_symbol=BITS_PER_SYMBOL, algorithm=algorithm
            )
            cpu, wall = time.thread_time() - cpu, time.perf_counter() - wall
            wrong = int((result.bits != info).any(axis=1).sum())
            tally.add(wrong, len(info), int(result.iterations.sum()), cpu, wall)
        results.append(tally.result(point, seed, max_iterations))
    return results


def write_alist(code: LdpcCode, path: Path) -> int:
    """Write the parity-check matrix of the rows in use in MacKay's alist format; returns its columns."""
    rows, size = rows_reached(code), code.lifting_size
    checks: list[list[int]] = []
    for row in rows:
        edges = slice(code.row_start[row], code.row_start[row + 1])
        start = code.edge_column[edges] * size
        checks += [
            sorted((start + (i + code.edge_shift[edges]) % size + 1).tolist()) for i in range(size)
        ]
    columns = max(map(max, checks))
    bits: list[list[int]] = [[] for _ in range(columns)]
    for number, check in enumerate(checks, start=1):
        for bit in check:
            bits[bit - 1].append(number)
    most_bits, most_checks = max(map(len, checks)), max(map(len, bits))
    lines = [[columns, len(checks)], [most_checks, most_bits]]
    lines += [[len(bit) for bit in bits], [len(check) for check in checks]]
    lines += [bit + [0] * (most_checks - len(bit)) for bit in bits]
    lines += [check + [0] * (most_bits - len(check)) for check in checks]
    path.write_text("\n".join(" ".join(map(str, line)) for line in lines) + "\n", encoding="ascii")
    return columns


def peer_input(code: LdpcCode, coded: Bits, llrs: Llrs, columns: int) -> Llrs:
    """LLRs of whole codewords as gr-fec wants them, as if the all-zero codeword had been sent.

    The peer numbers information bits in an order of its own, so the sent codeword is taken out of the
    LLRs' signs: a linear code decodes one word as well as any other, and every 1 that comes out is an
    error. Positive means bit 1. It works on likelihood ratios and divides by zero where nothing is known
    at all, so unsent bits get a thousandth.
    """
    whole = np.zeros((coded.shape[0], code.codeword_bits), np.float32)
    index = transmitted_bits(code, 0, BITS_PER_SYMBOL)
    towards_zero = llrs * (1 - 2 * coded.astype(np.float32))
    for word, values in zip(whole, towards_zero, strict=True):
        np.add.at(word, index, values)
    whole[whole == 0] = 1e-3
    whole[:, code.info_bits : code.info_columns * code.lifting_size] = 20
    return -whole[:, :columns]


def measure_peer(point: Point, blocks: int, seed: int, max_iterations: int) -> Result:
    """GNU Radio's fec.ldpc_decoder on the first ``blocks`` of the same blocks."""
    from gnuradio import blocks as gr_blocks
    from gnuradio import fec, gr

    code, (_, coded, llrs) = point.code(), Source(point, seed).batch(blocks)
    with tempfile.TemporaryDirectory() as folder:
        alist = Path(folder) / "code.alist"
        columns = write_alist(code, alist)
        peer = fec.ldpc_decoder.make(str(alist), 1 / math.sqrt(2), max_iterations)
    values = peer_input(code, coded, llrs, columns).ravel().tolist()
    top = gr.top_block()
    sink = gr_blocks.vector_sink_b()
    decoder = fec.decoder(peer, gr.sizeof_float, gr.sizeof_char)
    top.connect(gr_blocks.vector_source_f(values, False), decoder, sink)
    cpu, wall = time.process_time(), time.perf_counter()
    top.run()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    out = np.array(sink.data(), np.uint8).reshape(blocks, -1)
    tally = Tally("gr-fec ldpc_decoder")
    tally.add(int(out.any(axis=1).sum()), blocks, 0, cpu, wall)
    return tally.result(point, seed, max_iterations)


def parse_point(text: str) -> Point:
    """``K,rate,snr_db``, the rate as a fraction or a decimal."""
    info_bits, rate, snr_db = text.split(",")
    return Point(int(info_bits), Fraction(rate), float(snr_db))


def processor() -> str:
    """Name of the processor as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if "model name" in line), "unknown")


def print_result(result: Result) -> None:
    iterations = "   -" if result.mean_iterations is None else f"{result.mean_iterations:4.1f}"
    print(
        f"{result.decoder:24} K={result.info_bits:4} E={result.coded_bits:5} "
        f"Es/N0={result.snr_db:6.2f} dB ({result.snr_above_normal_approximation_db:+.2f} dB to normal "
        f"approximation) PER={result.per:.2e} ({result.block_errors}/{result.blocks}, seed "
        f"{result.seed}) iterations={iterations} Mb/s: {result.mbps_cpu:6.2f} cpu "
        f"{result.mbps_wall:6.2f} wall",
        flush=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="LDPC decoder: speed and block error rate")
    parser.add_argument("--point", type=parse_point, action="append", metavar="K,RATE,SNR_DB")
    parser.add_argument("--errors", type=int, default=100)
    parser.add_argument("--max-blocks", type=int, default=20_000)
    parser.add_argument("--max-iterations", type=int, default=DEFAULT_MAX_ITERATIONS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--reference-blocks", type=int, default=0)
    parser.add_argument("--peer-blocks", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    arguments = parser.parse_args()
    results: list[Result] = []

    def keep(result: Result) -> None:
        results.append(result)
        if not arguments.json:
            print_result(result)

    limits = arguments.seed, arguments.max_iterations
    for point in arguments.point or DEFAULT_POINTS:
        keep(measure(point, arguments.errors, arguments.max_blocks, *limits))
        if arguments.reference_blocks:
            for result in measure_references(point, arguments.reference_blocks, *limits):
                keep(result)
        if arguments.peer_blocks:
            keep(measure_peer(point, arguments.peer_blocks, *limits))
    machine = {"processor": processor(), "load_average": os.getloadavg()[0]}
    if arguments.json:
        print(json.dumps({"machine": machine, "results": [asdict(r) for r in results]}))
    else:
        print(f"{machine['processor']}, load average {machine['load_average']:.1f}, one thread")
    return 0


if __name__ == "__main__":
    sys.exit(main())
