"""Speed, latency and block error rate of the LDPC decoder on one core, with its peers in the same run.

A block of K bits is encoded at the given rate, sent as Gray 8-PSK over white noise at the given Es/N0 and
demapped exactly; blocks are drawn until the wanted number of block errors. "cpu" speeds divide by the
processor time of the decoding thread, "wall" speeds by the clock: they differ when others use the machine.

Peers get the first of the same blocks and the same limit of iterations: offset min-sum and belief
propagation in floating point (:mod:`blocks.modem.ldpc_reference`), and GNU Radio's ``fec.ldpc_decoder``
through an alist file of the expanded matrix, at codes that it can be set up for.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from gnuradio import blocks as gr_blocks
from gnuradio import fec, gr
from numpy.typing import NDArray

from blocks.modem import waveform as wf
from blocks.modem.ldpc_code import LdpcCode, LdpcError, get_code
from blocks.modem.ldpc_decoder import BatchDecodeResult, decode, decode_blocks
from blocks.modem.ldpc_encoder import encode
from blocks.modem.ldpc_limits import normal_approximation_snr_db
from blocks.modem.ldpc_rate_matching import rows_reached, transmitted_bits
from blocks.modem.ldpc_reference import decode_blocks_float
from blocks.modem.psk import BITS_PER_SYMBOL, demap_8psk, modulate_8psk

Bits = NDArray[np.uint8]
Llrs = NDArray[np.float32]
Decode = Callable[[LdpcCode, Llrs, int], BatchDecodeResult]

PROJECT = "fixed point, this project"
MIN_SUM = "float offset min-sum"
BELIEF = "float belief propagation"
GR_FEC = "gr-fec ldpc_decoder"

# gr-fec eliminates the whole parity-check matrix, dense, before it decodes anything: a second at 1344 checks
# (1056 bits at rate 1/2), more than three minutes at 9216 (8448 bits at rate 1/2).
GR_FEC_MOST_CHECKS = 2000

# Blocks drawn at once; a constant, so that the counts depend on the seed alone.
_BATCH = 50


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

    @classmethod
    def parse(cls, text: str) -> Point:
        """``K,RATE,SNR_DB`` with the rate as a fraction or a decimal, e.g. ``8448,1/2,3.9``.

        Raises:
            LdpcError: not of that form, or no such code.
        """
        try:
            info_bits, rate, snr_db = text.split(",")
            point = cls(int(info_bits), Fraction(rate), float(snr_db))
        except (ValueError, ZeroDivisionError):
            raise LdpcError(
                f"point {text!r}: expected K,RATE,SNR_DB such as 8448,1/2,3.9"
            ) from None
        if not 0 < point.rate < 1:
            raise LdpcError(f"point {text!r}: the rate must lie between 0 and 1")
        if not -20 <= point.snr_db <= 60:
            raise LdpcError(f"point {text!r}: Es/N0 must lie between -20 and 60 dB")
        point.code()
        return point

    def to_json(self) -> dict[str, Any]:
        """What identifies the point."""
        code = self.code()
        known = self.rate in wf.MCS_CODE_RATES
        return {
            "mcs": wf.MCS_CODE_RATES.index(self.rate) if known else None,
            "rate": str(self.rate),
            "info_bits": code.info_bits,
            "coded_bits": code.coded_bits,
            "snr_db": self.snr_db,
        }


# Where the block error rate is about 1e-2; the four sizes and rates that the promises name.
DEFAULT_POINTS = (
    Point(8448, Fraction(1, 2), 3.90),
    Point(1056, Fraction(1, 2), 4.30),
    Point(3840, Fraction(1, 5), -1.69),
    Point(8448, Fraction(8, 9), 10.57),
)


class Source:
    """Seeded blocks of one point. The same seed draws the same bits and noise at every Es/N0."""

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


@dataclass(frozen=True)
class Tally:
    """Blocks, errors and times of one decoder; adds up."""

    blocks: int = 0
    errors: int = 0
    iterations: int = 0
    cpu_s: float = 0.0
    wall_s: float = 0.0

    def __add__(self, other: Tally) -> Tally:
        ours, theirs = asdict(self), asdict(other)
        return Tally(**{name: ours[name] + theirs[name] for name in ours})

    @property
    def per(self) -> float:
        """Block error rate."""
        return self.errors / self.blocks


@dataclass(frozen=True)
class Result:
    """What one decoder did at one point. ``tally.iterations`` is 0 where a decoder does not tell."""

    decoder: str
    point: Point
    max_iterations: int
    seed: int
    tally: Tally

    @property
    def mbps_cpu(self) -> float:
        """Million information bits per second of processor time."""
        return self.tally.blocks * self.point.info_bits / self.tally.cpu_s / 1e6

    @property
    def mbps_wall(self) -> float:
        """Million information bits per second by the clock."""
        return self.tally.blocks * self.point.info_bits / self.tally.wall_s / 1e6

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary."""
        code, tally = self.point.code(), self.tally
        bound = normal_approximation_snr_db(code.info_bits, code.coded_bits)
        return {
            "decoder": self.decoder,
            **self.point.to_json(),
            "snr_above_normal_approximation_db": round(self.point.snr_db - bound, 3),
            "max_iterations": self.max_iterations,
            "mean_iterations": tally.iterations / tally.blocks if tally.iterations else None,
            "seed": self.seed,
            "blocks": tally.blocks,
            "block_errors": tally.errors,
            "per": tally.per,
            "information_bits": tally.blocks * code.info_bits,
            "cores": 1,
            "cpu_s": tally.cpu_s,
            "wall_s": tally.wall_s,
            "mbps_cpu": self.mbps_cpu,
            "mbps_wall": self.mbps_wall,
        }


def _project(code: LdpcCode, llrs: Llrs, max_iterations: int) -> BatchDecodeResult:
    return decode_blocks(code, llrs, max_iterations, bits_per_symbol=BITS_PER_SYMBOL)


# Every decoder that runs in this process.
DECODERS: dict[str, Decode] = {
    PROJECT: _project,
    MIN_SUM: partial(
        decode_blocks_float, bits_per_symbol=BITS_PER_SYMBOL, algorithm="offset_min_sum"
    ),
    BELIEF: partial(
        decode_blocks_float, bits_per_symbol=BITS_PER_SYMBOL, algorithm="belief_propagation"
    ),
}


def tallies(
    decoder: str, point: Point, seed: int, max_iterations: int, batch: int = _BATCH
) -> Iterator[Tally]:
    """One batch of blocks after another, without end."""
    code, source, run = point.code(), Source(point, seed), DECODERS[decoder]
    run(code, Source(point, seed + 1).batch(1)[2], 1)  # compiled before the clock starts
    while True:
        info, _, llrs = source.batch(batch)
        cpu, wall = time.thread_time(), time.perf_counter()
        result = run(code, llrs, max_iterations)
        cpu, wall = time.thread_time() - cpu, time.perf_counter() - wall
        wrong = int((result.bits != info).any(axis=1).sum())
        yield Tally(batch, wrong, int(result.iterations.sum()), cpu, wall)


def measure(
    decoder: str,
    point: Point,
    *,
    errors: int | None,
    max_blocks: int,
    seed: int,
    max_iterations: int,
) -> Result:
    """Run a decoder until ``errors`` block errors (None: regardless of errors) or ``max_blocks``."""
    total = Tally()
    for tally in tallies(decoder, point, seed, max_iterations, min(_BATCH, max_blocks)):
        total += tally
        if total.blocks >= max_blocks or (errors is not None and total.errors >= errors):
            break
    return Result(decoder, point, max_iterations, seed, total)


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


def gr_fec_input(code: LdpcCode, coded: Bits, llrs: Llrs, columns: int) -> Llrs:
    """LLRs of whole codewords as gr-fec wants them, as if the all-zero codeword had been sent.

    gr-fec numbers information bits in an order of its own, so the sent codeword is taken out of the
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


def gr_fec_can(point: Point) -> bool:
    """Whether gr-fec can be set up for this code in seconds."""
    code = point.code()
    return len(rows_reached(code)) * code.lifting_size <= GR_FEC_MOST_CHECKS


def measure_gr_fec(point: Point, blocks: int, seed: int, max_iterations: int) -> Result:
    """GNU Radio's fec.ldpc_decoder on the first ``blocks`` of the same blocks."""
    code, (_, coded, llrs) = point.code(), Source(point, seed).batch(blocks)
    with tempfile.TemporaryDirectory() as folder:
        alist = Path(folder) / "code.alist"
        columns = write_alist(code, alist)
        peer = fec.ldpc_decoder.make(str(alist), 1 / math.sqrt(2), max_iterations)
    values = gr_fec_input(code, coded, llrs, columns).ravel().tolist()
    top = gr.top_block()
    sink = gr_blocks.vector_sink_b()
    decoder = fec.decoder(peer, gr.sizeof_float, gr.sizeof_char)
    top.connect(gr_blocks.vector_source_f(values, False), decoder, sink)
    cpu, wall = time.process_time(), time.perf_counter()
    top.run()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    out = np.array(sink.data(), np.uint8).reshape(blocks, -1)
    tally = Tally(blocks, int(out.any(axis=1).sum()), 0, cpu, wall)
    return Result(GR_FEC, point, max_iterations, seed, tally)


@dataclass(frozen=True)
class Latency:
    """Time from LLRs to bits of one block by itself, in milliseconds by the clock."""

    point: Point
    max_iterations: int
    seed: int
    blocks: int
    mean_iterations: float
    p50_ms: float
    p95_ms: float

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary."""
        values = asdict(self)
        del values["point"]
        return {**self.point.to_json(), **values}


def measure_latency(point: Point, blocks: int, seed: int, max_iterations: int) -> Latency:
    """Decode ``blocks`` blocks one by one."""
    code, (_, _, llrs) = point.code(), Source(point, seed).batch(blocks)
    decode(code, llrs[0], 1, bits_per_symbol=BITS_PER_SYMBOL)
    seconds, iterations = [], 0
    for block in llrs:
        started = time.perf_counter()
        result = decode(code, block, max_iterations, bits_per_symbol=BITS_PER_SYMBOL)
        seconds.append(time.perf_counter() - started)
        iterations += result.iterations
    p50, p95 = np.percentile(seconds, [50, 95]) * 1e3
    return Latency(point, max_iterations, seed, blocks, iterations / blocks, float(p50), float(p95))


# The largest block at rate 1/2: far above its threshold, and where one in a hundred fails.
LATENCY_POINTS = (Point(8448, Fraction(1, 2), 12.0), Point(8448, Fraction(1, 2), 3.90))


@dataclass(frozen=True)
class Report:
    """All decoders at all points."""

    results: list[Result]
    latencies: list[Latency]

    def ratios(self) -> list[dict[str, Any]]:
        """How many times as fast as its peers the project's decoder is, point by point."""
        ours = {result.point: result for result in self.results if result.decoder == PROJECT}
        return [
            {
                **peer.point.to_json(),
                "peer": peer.decoder,
                "cpu": ours[peer.point].mbps_cpu / peer.mbps_cpu,
                "wall": ours[peer.point].mbps_wall / peer.mbps_wall,
            }
            for peer in self.results
            if peer.decoder != PROJECT
        ]

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary."""
        return {
            "results": [result.to_json() for result in self.results],
            "ratios": self.ratios(),
            "latency": [latency.to_json() for latency in self.latencies],
        }


def run(
    points: tuple[Point, ...],
    *,
    errors: int,
    max_blocks: int,
    reference_blocks: int,
    peer_blocks: int,
    latency_blocks: int,
    seed: int,
    max_iterations: int,
    show: Callable[[Result], None] = lambda result: None,
) -> Report:
    """Measure everything; ``show`` is given every result as soon as it is there.

    Args:
        points: where to measure.
        errors: block errors wanted of the project's decoder.
        max_blocks: end for it, whatever the errors.
        reference_blocks: blocks for the floating-point decoders, 0 for none.
        peer_blocks: blocks for gr-fec where it can, 0 for none.
        latency_blocks: blocks decoded one by one, 0 for none.
        seed: of all bits and noise.
        max_iterations: limit of every decoder.
        show: progress.
    """
    results: list[Result] = []

    def keep(result: Result) -> None:
        results.append(result)
        show(result)

    for point in points:
        limits = {"seed": seed, "max_iterations": max_iterations}
        keep(measure(PROJECT, point, errors=errors, max_blocks=max_blocks, **limits))
        for decoder in (MIN_SUM, BELIEF) if reference_blocks else ():
            keep(measure(decoder, point, errors=None, max_blocks=reference_blocks, **limits))
        if peer_blocks and gr_fec_can(point):
            keep(measure_gr_fec(point, peer_blocks, **limits))
    latencies = [
        measure_latency(point, latency_blocks, seed, max_iterations)
        for point in (LATENCY_POINTS if latency_blocks else ())
    ]
    return Report(results, latencies)
