"""Block error rates by simulation: the modem against itself with perfect synchronisation, and theory.

Three curves tell where a receiver loses: A, everything it does, missed bursts counted as errors; B, the same
decoder told time, phase and noise; C, the normal approximation, what the best code of that length could do
(:mod:`blocks.modem.ldpc_limits`). A - B is the price of synchronisation, B - C that of the code.

Every trial is one burst drawn from ``(seed, mcs, snr, number of the trial)`` alone, so that a point can be
cut into pieces, run on any number of processes, continued, and comes out the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from blocks.modem import waveform as wf
from blocks.modem.burst import Burst, assemble
from blocks.modem.demodulator import CodeBlock, decode_blocks
from blocks.modem.header import BurstHeader
from blocks.modem.ldpc_decoder import DEFAULT_MAX_ITERATIONS
from blocks.modem.psk import bicm_capacity_8psk
from blocks.modem.simulated_air import Air, noise
from blocks.modem.stream_receiver import StreamReceiver
from blocks.modem.tracking import body_positions

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
    """

    mcs: int
    snr_db: float
    sync: Sync = "full"
    info_bits: int | None = None
    max_burst_symbols: int = wf.MAX_BURST_SYMBOLS
    max_iterations: int = DEFAULT_MAX_ITERATIONS
    seed: int = 0

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
    """Counts of a number of trials; adds up."""

    blocks: int = 0
    block_errors: int = 0
    bursts: int = 0
    bursts_missed: int = 0
    headers_failed: int = 0
    undetected_errors: int = 0
    iterations: int = 0

    def __add__(self, other: Tally) -> Tally:
        ours, theirs = asdict(self), asdict(other)
        return Tally(**{name: ours[name] + theirs[name] for name in ours})


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
    def ci95(self) -> tuple[float, float]:
        """Wilson 95 % interval of the block error rate (blocks taken as independent)."""
        n, z = self.tally.blocks, 1.96
        if not n:
            return 0.0, 1.0
        centre = (self.per + z * z / (2 * n)) / (1 + z * z / n)
        spread = math.sqrt(self.per * (1 - self.per) / n + z * z / (4 * n * n)) / (1 + z * z / n)
        return max(0.0, centre - z * spread), min(1.0, centre + z * spread)

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary."""
        plan, _ = self.conditions.frame
        return {
            "mcs": self.conditions.mcs,
            "rate": float(wf.MCS_CODE_RATES[self.conditions.mcs]),
            "snr_db": self.conditions.snr_db,
            "sync": self.conditions.sync,
            "info_bits": plan.info_bits,
            "coded_bits": plan.coded_bits,
            "seed": self.conditions.seed,
            "blocks": self.tally.blocks,
            "block_errors": self.tally.block_errors,
            "per": self.per,
            "per_ci95": list(self.ci95),
            "bursts": self.tally.bursts,
            "bursts_missed": self.tally.bursts_missed,
            "headers_failed": self.tally.headers_failed,
            "undetected_errors": self.tally.undetected_errors,
            "mean_iterations": self.tally.iterations / max(1, self.tally.blocks),
        }


def run_trial(conditions: Conditions, trial: int) -> Tally:
    """Send one burst and count what came of it."""
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
    run = _ideal if conditions.sync == "ideal" else _full
    blocks, tally = run(conditions, burst, generator)
    for block in blocks:
        wrong = not np.array_equal(block.bits, payloads[block.number])
        tally += Tally(
            block_errors=int(wrong or not block.ok),
            undetected_errors=int(wrong and block.ok),
            iterations=block.iterations,
        )
    lost = count - len(blocks)
    return tally + Tally(blocks=count, block_errors=lost, bursts=1)


def _ideal(
    conditions: Conditions, burst: Burst, generator: np.random.Generator
) -> tuple[list[CodeBlock], Tally]:
    """Payload symbols plus noise of known strength, nothing else."""
    variance = 10 ** (-conditions.snr_db / 10)
    body = wf.HEADER_SYMBOLS + burst.header.payload_symbols
    sent = burst.symbols[wf.RAMP_SYMBOLS + body_positions(body)[wf.HEADER_SYMBOLS :]]
    received = (sent + noise(sent.size, variance, generator)).astype(np.complex64)
    known = np.full(sent.size, variance, np.float32)
    return decode_blocks(burst.header, received, known, conditions.max_iterations), Tally()


def _full(
    conditions: Conditions, burst: Burst, generator: np.random.Generator
) -> tuple[list[CodeBlock], Tally]:
    """The burst through offset, clock drift, phase noise and noise, and the whole receiver."""
    air = Air(
        snr_db=conditions.snr_db,
        cfo=float(generator.uniform(-1, 1)) * wf.MAX_CFO_SYMBOL_RATES,
        sro_ppm=float(generator.uniform(-1, 1)) * MAX_CLOCK_PPM,
        delay=float(generator.uniform(500, 1500)),
        phase=float(generator.uniform()),
        phase_noise=PHASE_NOISE,
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


def run_trials(conditions: Conditions, trials: Iterable[int]) -> Tally:
    """Several trials added up."""
    total = Tally()
    for trial in trials:
        total += run_trial(conditions, trial)
    return total


def until_errors(
    conditions: Conditions, errors: int, max_blocks: int, batch: int, run: Any = None
) -> Iterator[Point]:
    """Measure until enough errors or blocks are there; yields the point after every batch.

    Args:
        conditions: of the point.
        errors: block errors wanted.
        max_blocks: end, whatever the errors.
        batch: trials between looks; fixed, so that the result does not depend on the machine.
        run: ``run(conditions, trials) -> Tally``; default :func:`run_trials` in this process.
    """
    measure = run or run_trials
    total, trial = Tally(), 0
    while total.block_errors < errors and total.blocks < max_blocks:
        total += measure(conditions, range(trial, trial + batch))
        trial += batch
        yield Point(conditions, total)


def snr_at_per(points: list[Point], per: float) -> float | None:
    """Es/N0 where a measured curve crosses ``per``; straight line in log PER, None without a crossing."""
    ordered = sorted((p for p in points if p.tally.blocks), key=lambda p: p.conditions.snr_db)
    for left, right in pairwise(ordered):
        if left.per >= per > right.per and left.per > 0:
            low = max(right.per, 0.3 / right.tally.blocks)
            share = math.log(left.per / per) / math.log(left.per / low)
            step = right.conditions.snr_db - left.conditions.snr_db
            return left.conditions.snr_db + share * step
    return None


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
