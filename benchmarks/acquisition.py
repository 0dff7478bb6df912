"""How surely bursts are found, and that nothing else is taken for one.

Detection: one burst per trial through the whole receiver, under everything that docs/waveform.md promises to
bear, with a DC line of a stated level. A burst counts as missed unless a preamble is confirmed within half
a symbol of where it is; of those that are found, the headers that fail are counted.

False alarms: input without a single burst, of several kinds, each piece with parameters of its own. What
counts are confirmed preambles and, what would do harm, headers and code blocks past their CRC. The time that
the receiver takes is counted along: hostile input must not stop it.

Everything is drawn from the seed and the number of a trial or piece alone, so that it can be cut into parts
and run on any number of processes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray

from blocks.modem import waveform as wf
from blocks.modem.burst import Burst, assemble
from blocks.modem.burst_finder import SEARCH_BLOCK_SAMPLES
from blocks.modem.error_rates import MAX_CLOCK_PPM, PHASE_NOISE, wilson_ci95
from blocks.modem.header import BurstHeader
from blocks.modem.pulse import derotate, shape
from blocks.modem.simulated_air import AIR_SAMPLES_PER_SYMBOL, Air
from blocks.modem.stream_receiver import StreamReceiver

_SPS = wf.RECEIVER_SAMPLES_PER_SYMBOL
# Samples that go through the receiver at once, and how many are drawn under one set of parameters.
_PUSH_SAMPLES = 1 << 16
PIECE_SAMPLES = 1 << 21
# Trials per parcel of work; a constant, so that progress is smooth and the counts depend on nothing.
_PARCEL_TRIALS = 50

# The shortest burst worth sending: detection and header do not depend on what follows.
_MCS = 0
_FRAME_BITS = 200
_LEAD_SYMBOLS = 300
# Instant of the first preamble symbol in air samples behind the lead.
_FIRST_SYMBOL = (wf.PULSE_HALF_SPAN_SYMBOLS + wf.RAMP_SYMBOLS) * AIR_SAMPLES_PER_SYMBOL


def _interval(events: int, trials: int) -> tuple[float, float]:
    return wilson_ci95(events / max(1, trials), trials)


@dataclass(frozen=True)
class DetectionConditions:
    """What bursts are looked for under.

    Args:
        snr_db: Es/N0.
        dc_db: power of a DC line of any phase over the burst's power in dB; None for no line.
        seed: of everything random.
    """

    snr_db: float
    dc_db: float | None = None
    seed: int = 0


@dataclass(frozen=True)
class Detections:
    """Counts of trials; adds up.

    Args:
        trials: bursts sent.
        missed: no preamble confirmed where the burst was.
        headers_failed: of those found, no header past its CRC.
        headers_wrong: of those found, a header past its CRC that was not sent.
        elsewhere: preambles confirmed where there was none.
    """

    trials: int = 0
    missed: int = 0
    headers_failed: int = 0
    headers_wrong: int = 0
    elsewhere: int = 0

    def __add__(self, other: Detections) -> Detections:
        ours, theirs = asdict(self), asdict(other)
        return Detections(**{name: ours[name] + theirs[name] for name in ours})

    def to_json(self) -> dict[str, Any]:
        """Counts, probabilities and their intervals."""
        found = self.trials - self.missed
        low, high = _interval(self.missed, self.trials)
        return {
            **asdict(self),
            "detected": found / self.trials if self.trials else None,
            "detected_ci95": [1 - high, 1 - low],
            "header_error_rate": self.headers_failed / found if found else None,
            "header_error_rate_ci95": list(_interval(self.headers_failed, found)),
        }


@dataclass(frozen=True)
class FalseAlarms:
    """What was heard where nothing was sent, and what listening cost; adds up.

    Args:
        samples: that the receiver was given.
        preambles: confirmed.
        headers: past their CRC.
        code_blocks_ok: past their CRC.
        seconds: of processor time inside the receiver; no part of comparisons.
        slowest: the largest such time per sample of any one piece.
    """

    samples: int = 0
    preambles: int = 0
    headers: int = 0
    code_blocks_ok: int = 0
    seconds: float = field(default=0.0, compare=False)
    slowest: float = field(default=0.0, compare=False)

    def __add__(self, other: FalseAlarms) -> FalseAlarms:
        ours, theirs = asdict(self), asdict(other)
        total = FalseAlarms(**{name: ours[name] + theirs[name] for name in ours})
        return replace(total, slowest=max(self.slowest, other.slowest))

    def to_json(self) -> dict[str, Any]:
        """Counts, and speeds in million symbols per second of processor time."""
        counts = asdict(self)
        del counts["seconds"], counts["slowest"]
        per_sample = self.seconds / self.samples if self.samples else 0.0
        return {
            **counts,
            "msym_per_s": _speed(per_sample),
            "slowest_msym_per_s": _speed(self.slowest),
        }


def _speed(seconds_per_sample: float) -> float | None:
    return 1e-6 / (_SPS * seconds_per_sample) if seconds_per_sample > 0 else None


def detect(conditions: DetectionConditions, trial: int) -> Detections:
    """Send one burst and see whether the receiver finds it."""
    dc_db = -math.inf if conditions.dc_db is None else conditions.dc_db
    names = [
        round(1000 * (value + 200)) if math.isfinite(value) else 0
        for value in (dc_db, conditions.snr_db)
    ]
    generator = np.random.default_rng([conditions.seed, *names, trial])
    burst = _burst(generator)
    lead = int(_LEAD_SYMBOLS * AIR_SAMPLES_PER_SYMBOL)
    silence = np.zeros(lead, np.complex64)
    air = Air(
        snr_db=conditions.snr_db,
        cfo=float(generator.uniform(-1, 1)) * wf.MAX_CFO_SYMBOL_RATES,
        sro_ppm=float(generator.uniform(-1, 1)) * MAX_CLOCK_PPM,
        # Anywhere in a block of the search.
        delay=float(generator.uniform(0, SEARCH_BLOCK_SAMPLES * AIR_SAMPLES_PER_SYMBOL / _SPS)),
        phase=float(generator.uniform()),
        phase_noise=PHASE_NOISE,
        dc=10 ** (dc_db / 20) * complex(np.exp(2j * np.pi * generator.uniform())),
    )
    sent = np.concatenate([silence, burst.samples(AIR_SAMPLES_PER_SYMBOL), silence])
    receiver = StreamReceiver(max_iterations=0)
    found = receiver.push(air.receive(sent, generator)) + receiver.flush()
    true = air.arrival(lead + _FIRST_SYMBOL)
    right = [one for one in found if abs(one.start - true) < _SPS / 2]
    headers = [one.header for one in right if one.header is not None]
    return Detections(
        trials=1,
        missed=int(not right),
        headers_failed=int(bool(right) and not headers),
        headers_wrong=sum(header != burst.header for header in headers),
        elsewhere=len(found) - len(right),
    )


def _burst(generator: np.random.Generator) -> Burst:
    plan = wf.plan_blocks(_FRAME_BITS, _MCS)
    header = BurstHeader(
        mcs=_MCS,
        frame_id=int(generator.integers(1 << 32)),
        burst_number=0,
        frame_bits=plan.frame_bits,
        first_block=0,
        frame_blocks=plan.blocks,
        blocks=plan.blocks,
        codec_tag=int(generator.integers(1 << 16)),
    )
    payload = generator.integers(0, 2, (plan.blocks, plan.payload_bits)).astype(np.uint8)
    return Burst(header, assemble(header, payload))


def detect_all(conditions: DetectionConditions, trials: Iterable[int]) -> Detections:
    """Several trials added up."""
    return sum((detect(conditions, trial) for trial in trials), Detections())


Generator = np.random.Generator
Samples = NDArray[np.complex64]


def _noise(generator: Generator, count: int) -> Samples:
    """White noise of unit power."""
    pairs = generator.standard_normal(2 * count, np.float32)
    pairs *= np.float32(math.sqrt(0.5))
    noise: Samples = pairs.view(np.complex64)
    return noise


def _switching(generator: Generator, count: int) -> NDArray[np.bool_]:
    """On and off in turns of equal length, from a word to a long burst; or always on."""
    length = round(2 ** generator.uniform(4, 15))
    if generator.uniform() < 0.25:
        return np.ones(count, np.bool_)
    return np.resize(np.arange(2 * length) < length, count)


def _level(generator: Generator) -> np.float32:
    """Amplitude over that of the noise: -10 to 40 dB."""
    return np.float32(10 ** generator.uniform(-0.5, 2.0))


def _tone(generator: Generator, count: int) -> Samples:
    tone: Samples = derotate(np.ones(count, np.complex64), generator.uniform(-0.5, 0.5))
    return tone


def _noise_alone(generator: Generator, count: int) -> Samples:
    return _noise(generator, count)


def _tones(generator: Generator, count: int) -> Samples:
    """One to eight tones anywhere in the band, switched."""
    samples = _noise(generator, count)
    for _ in range(generator.integers(1, 9)):
        samples += _level(generator) * (_tone(generator, count) * _switching(generator, count))
    return samples


def _dc(generator: Generator, count: int) -> Samples:
    """A DC line, switched, as when a gain or a frequency is set."""
    return _noise(generator, count) + _level(generator) * _switching(generator, count)


def _sweeps(generator: Generator, count: int) -> Samples:
    """A sawtooth sweep over a part of the band, 64 samples to 131,072 long, up or down."""
    length = round(2 ** generator.uniform(6, 17))
    time = np.arange(length) / length - 0.5
    one = np.exp(1j * np.pi * length * generator.uniform(-1, 1) * time**2).astype(np.complex64)
    sweep = np.resize(one, count) * _tone(generator, count)
    return _noise(generator, count) + _level(generator) * sweep


def _pulsed_noise(generator: Generator, count: int) -> Samples:
    """Noise that rises and falls abruptly."""
    loud = _level(generator) * (_noise(generator, count) * _switching(generator, count))
    return _noise(generator, count) + loud


def _words(generator: Generator, count: int) -> Samples:
    """The waveform's own word without end, or broken off and begun anew, at a carrier offset."""
    word = wf.preamble()[: wf.WORD_SYMBOLS]
    symbols = np.resize(word, count // _SPS) * _switching(generator, count // _SPS)
    offset = generator.uniform(-0.1, 0.1) / _SPS
    samples = derotate(shape(symbols.astype(np.complex64), _SPS), offset)[:count]
    return _noise(generator, count) + _level(generator) * samples


def _payload(generator: Generator, count: int) -> Samples:
    """Random 8-PSK symbols of the waveform's own pulse, as when a burst's start was not heard."""
    eighths = generator.integers(0, 8, count // _SPS)
    symbols = np.exp(0.25j * np.pi * np.arange(8)).astype(np.complex64)[eighths]
    offset = generator.uniform(-1, 1) * wf.MAX_CFO_SYMBOL_RATES / _SPS
    samples = derotate(shape(symbols, _SPS), offset)[:count]
    return _noise(generator, count) + _level(generator) * samples


INPUTS: dict[str, Callable[[Generator, int], Samples]] = {
    "noise": _noise_alone,
    "tones": _tones,
    "dc": _dc,
    "sweeps": _sweeps,
    "pulsed noise": _pulsed_noise,
    "words": _words,
    "payload": _payload,
}


def listen(kind: str, seed: int, piece: int) -> FalseAlarms:
    """One piece of one kind of input through the receiver.

    Args:
        kind: key of :data:`INPUTS`.
        seed: of everything random.
        piece: its number.
    """
    # SFC64 draws single precision fastest.
    bits = np.random.SFC64(np.random.SeedSequence([seed, list(INPUTS).index(kind), piece]))
    samples = INPUTS[kind](np.random.Generator(bits), PIECE_SAMPLES)
    # Whatever has to be compiled or loaded is no part of the speed.
    StreamReceiver().push(_noise(np.random.default_rng(0), _PUSH_SAMPLES))
    receiver = StreamReceiver()
    found = []
    started = time.process_time()
    for start in range(0, samples.size, _PUSH_SAMPLES):
        found += receiver.push(samples[start : start + _PUSH_SAMPLES])
    found += receiver.flush()
    seconds = time.process_time() - started
    bursts = [one.burst for one in found if one.burst is not None]
    return FalseAlarms(
        samples=samples.size,
        preambles=len(found),
        headers=sum(one.header is not None for one in found),
        code_blocks_ok=sum(block.ok for burst in bursts for block in burst.blocks),
        seconds=seconds,
        slowest=seconds / samples.size,
    )


def run_detections(conditions: DetectionConditions, trials: int, jobs: int) -> Iterator[Detections]:
    """Counts of parcels of trials as they come in; their sum does not depend on ``jobs``."""
    parcels = [
        range(start, min(start + _PARCEL_TRIALS, trials))
        for start in range(0, trials, _PARCEL_TRIALS)
    ]
    pool = Parallel(n_jobs=jobs, return_as="generator")
    yield from pool(delayed(detect_all)(conditions, parcel) for parcel in parcels)


def run_false_alarms(kind: str, samples: int, seed: int, jobs: int) -> Iterator[FalseAlarms]:
    """Counts of pieces of input as they come in, at least ``samples`` in all."""
    pool = Parallel(n_jobs=jobs, return_as="generator")
    yield from pool(delayed(listen)(kind, seed, n) for n in range(-(-samples // PIECE_SAMPLES)))
