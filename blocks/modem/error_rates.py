"""Block error rates by simulation: the modem against itself with perfect synchronisation, and theory.

Three curves tell where a receiver loses: A, everything it does, missed bursts counted as errors; B, the same
decoder told time, phase and noise; C, the normal approximation, what the best code of that length could do
(:mod:`blocks.modem.ldpc_limits`). A - B is the price of synchronisation, B - C that of the code.

Every trial is one burst drawn from ``(seed, mcs, snr, number of the trial)`` alone, so that a point can be
cut into pieces, run on any number of processes, continued, and comes out the same.

Es/N0 is the mean received energy of a symbol on the air, every echo counted, over the noise density; pilots,
preamble and header cost energy that this figure leaves out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from blocks.modem import waveform as wf
from blocks.modem.burst import Burst, assemble
from blocks.modem.demodulator import CodeBlock, decode_blocks
from blocks.modem.fading import (
    Awgn,
    Channel,
    ChannelError,
    Path,
    TwoTaps,
    parse_channel,
)
from blocks.modem.header import BurstHeader
from blocks.modem.known_symbols import body_positions
from blocks.modem.ldpc_decoder import DEFAULT_MAX_ITERATIONS
from blocks.modem.psk import bicm_capacity_8psk
from blocks.modem.simulated_air import Air, noise
from blocks.modem.stream_receiver import StreamReceiver

Sync = Literal["full", "ideal"]

# What curve A promises to bear (docs/waveform.md): uniform carrier offset, uniform clock offset, any
# delay, a wandering phase.
MAX_CLOCK_PPM = 40.0
PHASE_NOISE = 1e-5


@dataclass(frozen=True)
class Conditions:
    """What one error-rate point is measured under.

    Args:
        mcs: index of the code rate.
        snr_db: Es/N0.
        sync: ``full`` (curve A) or ``ideal`` (curve B).
        info_bits: size of a code block, CRC included; None takes the largest.
        max_burst_symbols: length of a burst at most.
        max_iterations: limit of the LDPC decoder.
        seed: of everything random.
        channel: what a burst goes through besides noise; perfect synchronisation is not defined for echoes.
    """

    mcs: int
    snr_db: float
    sync: Sync = "full"
    info_bits: int | None = None
    max_burst_symbols: int = wf.MAX_BURST_SYMBOLS
    max_iterations: int = DEFAULT_MAX_ITERATIONS
    seed: int = 0
    channel: Channel = field(default_factory=Awgn)

    def __post_init__(self) -> None:
        if self.sync == "ideal" and isinstance(self.channel, TwoTaps):
            raise ChannelError(
                "two-tap: perfect synchronisation is not defined; use the full receiver"
            )

    @property
    def frame(self) -> tuple[wf.BlockPlan, int]:
        """Plan of a frame that fills one burst, and the number of its code blocks."""
        info = self.info_bits or wf.max_info_bits(self.mcs)
        payload = info - wf.CODE_BLOCK_CRC_BITS
        one = wf.plan_blocks(payload, self.mcs)
        blocks = 1
        while (
            blocks < wf.MAX_BLOCKS_PER_BURST
            and wf.burst_symbols((blocks + 1) * one.symbols) <= self.max_burst_symbols
        ):
            blocks += 1
        return wf.plan_blocks(blocks * payload, self.mcs, blocks), blocks


@dataclass(frozen=True)
class Tally:
    """Counts of a number of trials; adds up.

    ``squared_errors`` sums, over bursts, the square of the burst's block errors: it tells how far the blocks
    of a burst fail together.
    """

    blocks: int = 0
    block_errors: int = 0
    squared_errors: int = 0
    bursts: int = 0
    bursts_missed: int = 0
    headers_failed: int = 0
    undetected_errors: int = 0
    iterations: int = 0

    def __add__(self, other: Tally) -> Tally:
        theirs = vars(other)
        return Tally(**{name: count + theirs[name] for name, count in vars(self).items()})


def wilson_ci95(share: float, trials: float) -> tuple[float, float]:
    """Wilson 95 % interval of a probability that ``share`` of ``trials`` made true; (0, 1) of no trials."""
    if not trials:
        return 0.0, 1.0
    n, z = trials, 1.96
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    spread = math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    # Exactly nothing and exactly all, whatever the rounding.
    low = 0.0 if share == 0 else max(0.0, centre - z * spread)
    return low, 1.0 if share == 1 else min(1.0, centre + z * spread)


@dataclass(frozen=True)
class Point:
    """One measured point of an error-rate curve."""

    conditions: Conditions
    tally: Tally

    @property
    def per(self) -> float:
        """Block error rate; blocks of missed bursts are errors."""
        return self.tally.block_errors / self.tally.blocks if self.tally.blocks else math.nan

    @property
    def effective_blocks(self) -> float:
        """Independent blocks that would tell as much: those of one burst may fail together."""
        tally, per = self.tally, self.per
        if tally.bursts < 2 or not 0 < per < 1:
            return tally.blocks
        variance = tally.squared_errors / tally.bursts - (tally.block_errors / tally.bursts) ** 2
        independent = tally.blocks / tally.bursts * per * (1 - per)
        return tally.blocks / max(1.0, variance / independent)

    @property
    def ci95(self) -> tuple[float, float]:
        """Wilson 95 % interval of the block error rate, bursts taken as independent."""
        return wilson_ci95(self.per, self.effective_blocks)

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary."""
        plan, _ = self.conditions.frame
        return {
            "mcs": self.conditions.mcs,
            "rate": float(wf.MCS_CODE_RATES[self.conditions.mcs]),
            "snr_db": self.conditions.snr_db,
            "sync": self.conditions.sync,
            "channel": str(self.conditions.channel),
            "info_bits": plan.info_bits,
            "coded_bits": plan.coded_bits,
            "max_burst_symbols": self.conditions.max_burst_symbols,
            "max_iterations": self.conditions.max_iterations,
            "seed": self.conditions.seed,
            "blocks": self.tally.blocks,
            "block_errors": self.tally.block_errors,
            "per": self.per,
            "per_ci95": list(self.ci95),
            "bursts": self.tally.bursts,
            "bursts_missed": self.tally.bursts_missed,
            "headers_failed": self.tally.headers_failed,
            "undetected_errors": self.tally.undetected_errors,
            "squared_errors": self.tally.squared_errors,
            "mean_iterations": self.tally.iterations / max(1, self.tally.blocks),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Point:
        """The point that :meth:`to_json` wrote."""
        conditions = Conditions(
            mcs=values["mcs"],
            snr_db=values["snr_db"],
            sync=values["sync"],
            info_bits=values["info_bits"],
            max_burst_symbols=values["max_burst_symbols"],
            max_iterations=values["max_iterations"],
            seed=values["seed"],
            channel=parse_channel(values["channel"]),
        )
        counts = {name: values[name] for name in vars(Tally()) if name != "iterations"}
        iterations = round(values["mean_iterations"] * values["blocks"])
        return cls(conditions, Tally(**counts, iterations=iterations))


@dataclass(frozen=True)
class Trial:
    """One burst, sent and received.

    Args:
        payloads: ``uint8 [blocks, payload_bits]`` as sent.
        blocks: as received; empty where the burst was missed.
        tally: what came of it.
    """

    payloads: NDArray[np.uint8]
    blocks: list[CodeBlock]
    tally: Tally


def send_burst(conditions: Conditions, trial: int) -> Trial:
    """Send one burst and look at what came of it."""
    generator = np.random.default_rng(
        [conditions.seed, conditions.mcs, round(1000 * (conditions.snr_db + 100)), trial]
    )
    plan, count = conditions.frame
    header = BurstHeader(
        mcs=conditions.mcs,
        frame_id=trial % (1 << 32),
        burst_number=0,
        frame_bits=plan.frame_bits,
        first_block=0,
        frame_blocks=plan.blocks,
        blocks=count,
        codec_tag=0,
    )
    payloads = generator.integers(0, 2, (count, plan.payload_bits)).astype(np.uint8)
    burst = Burst(header, assemble(header, payloads))
    path = conditions.channel.path(conditions.seed, trial)
    run = _ideal if conditions.sync == "ideal" else _full
    blocks, tally = run(conditions, burst, path, generator)
    errors = count - len(blocks)
    for block in blocks:
        wrong = not np.array_equal(block.bits, payloads[block.number])
        errors += wrong or not block.ok
        tally += Tally(undetected_errors=int(wrong and block.ok), iterations=block.iterations)
    tally += Tally(blocks=count, block_errors=errors, squared_errors=errors**2, bursts=1)
    return Trial(payloads, blocks, tally)


def _ideal(
    conditions: Conditions, burst: Burst, path: Path, generator: np.random.Generator
) -> tuple[list[CodeBlock], Tally]:
    """Payload symbols plus noise of known strength, nothing else."""
    variance = 10 ** (-conditions.snr_db / 10) / path.gain**2
    body = wf.HEADER_SYMBOLS + burst.header.payload_symbols
    sent = burst.symbols[wf.RAMP_SYMBOLS + body_positions(body)[wf.HEADER_SYMBOLS :]]
    received = (sent + noise(sent.size, variance, generator)).astype(np.complex64)
    known = np.full(sent.size, variance, np.float32)
    return decode_blocks(burst.header, received, known, conditions.max_iterations), Tally()


def _full(
    conditions: Conditions, burst: Burst, path: Path, generator: np.random.Generator
) -> tuple[list[CodeBlock], Tally]:
    """The burst through offset, clock drift, phase noise and noise, and the whole receiver."""
    air = Air(
        snr_db=conditions.snr_db + 20 * math.log10(path.gain),
        cfo=float(generator.uniform(-1, 1)) * wf.MAX_CFO_SYMBOL_RATES,
        sro_ppm=float(generator.uniform(-1, 1)) * MAX_CLOCK_PPM,
        delay=float(generator.uniform(500, 1500)),
        phase=float(generator.uniform()),
        phase_noise=PHASE_NOISE,
        gain=path.gain,
        echoes=path.echoes,
    )
    silence = np.zeros(1200, np.complex64)
    samples = air.receive(np.concatenate([burst.samples(4), silence]), generator)
    receiver = StreamReceiver(conditions.max_iterations)
    found = receiver.push(samples) + receiver.flush()
    ours = [item for item in found if item.header == burst.header and item.burst is not None]
    if not ours or ours[0].burst is None:
        failed = any(item.header is None for item in found)
        return [], Tally(bursts_missed=1, headers_failed=int(failed))
    return ours[0].burst.blocks, Tally()


def run_trial(conditions: Conditions, trial: int) -> Tally:
    """Counts of one burst."""
    return send_burst(conditions, trial).tally


def run_trials(conditions: Conditions, trials: Iterable[int]) -> Tally:
    """Several trials added up."""
    total = Tally()
    for trial in trials:
        total += run_trial(conditions, trial)
    return total


Run = Callable[[Conditions, Iterable[int]], Tally]


def until_errors(
    conditions: Conditions, errors: int, max_blocks: int, batch: int, run: Run = run_trials
) -> Iterator[Point]:
    """Measure until enough errors or blocks are there; yields the point after every batch.

    Args:
        conditions: of the point.
        errors: block errors wanted.
        max_blocks: end, whatever the errors.
        batch: trials between looks; fixed, so that the result does not depend on the machine.
        run: what counts a batch; default :func:`run_trials` in this process.
    """
    total, trial = Tally(), 0
    while total.block_errors < errors and total.blocks < max_blocks:
        total += run(conditions, range(trial, trial + batch))
        trial += batch
        yield Point(conditions, total)


def crossing_segment(points: list[Point], per: float) -> tuple[Point, Point] | None:
    """The neighbouring points between which a measured curve falls below ``per``, None without."""
    ordered = sorted((p for p in points if p.tally.blocks), key=lambda p: p.conditions.snr_db)
    for left, right in pairwise(ordered):
        if left.per >= per > right.per:
            return left, right
    return None


def snr_at_per(points: list[Point], per: float) -> float | None:
    """Es/N0 where a measured curve crosses ``per``; straight line in log PER, None without a crossing."""
    segment = crossing_segment(points, per)
    if segment is None:
        return None
    left, right = segment
    low = max(right.per, 0.3 / right.tally.blocks)
    share = math.log(left.per / per) / math.log(left.per / low)
    step = right.conditions.snr_db - left.conditions.snr_db
    return left.conditions.snr_db + share * step


def bicm_limit_snr_db(rate: float) -> float:
    """Es/N0 in dB below which no code of this rate works on bit-interleaved 8-PSK, whatever its length."""
    low, high = -20.0, 40.0
    while high - low > 1e-3:
        middle = (low + high) / 2
        if bicm_capacity_8psk(middle) / wf.BITS_PER_SYMBOL < rate:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def shannon_limit_snr_db(rate: float) -> float:
    """Es/N0 in dB below which nothing carries 3 R bits per symbol: log2(1 + Es/N0) = 3 R."""
    return 10 * math.log10(2 ** (wf.BITS_PER_SYMBOL * rate) - 1)
