"""The air between a system's two halves: the real modem over a simulated channel, without GNU Radio.

The same functions that the flowgraph's blocks call, in the same order: bursts as BurstModulator makes
them, the receiver's finder and decoder as in BurstReceiver, frames put together as in IndexSink. What is left
out is the scheduler and the radio; ``tests/test_semantic_link.py`` shows that the same samples give the same
bits.

All bursts of a frame stand in one stream with silence between them, and everything has to be found: the
channel moves the carrier by up to 5 % of the symbol rate and the clock by up to 40 ppm, delays by any
fraction of a sample and lets the phase wander, as for curve A of docs/modem-results.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from blocks.frame_assembler import AssembledFrame, FrameAssembler
from blocks.modem import waveform as wf
from blocks.modem.burst import Burst, build_bursts
from blocks.modem.error_rates import MAX_CLOCK_PPM, PHASE_NOISE
from blocks.modem.header import BurstHeader
from blocks.modem.simulated_air import AIR_SAMPLES_PER_SYMBOL, Air
from blocks.modem.stream_receiver import ReceivedBurst, StreamReceiver
from semantic.frame_geometry import FrameGeometry
from semantic.index_frame import IndexFrame, quantise_llrs
from semantic.systems.system import Received

FadingName = Literal["awgn", "rayleigh"]

# Between two bursts, and behind the last one, which the finder needs to see the end of.
_GAP_SYMBOLS = 100
_TAIL_SYMBOLS = 300


@dataclass(frozen=True)
class LinkResult:
    """One frame sent, and what came of it.

    Args:
        received: as the decoder gets it.
        symbols: on the air, preamble, header, pilots, CRC and ramps included.
        payload_symbols: payload bits / (3 rate), the paper's figure.
        bursts: sent.
        bursts_lost: of which not one code block came through.
        code_blocks: sent.
        code_blocks_ok: received with a good CRC.
    """

    received: Received
    symbols: int
    payload_symbols: float
    bursts: int
    bursts_lost: int
    code_blocks: int
    code_blocks_ok: int


@dataclass(frozen=True)
class Transmission:
    """A frame on the air.

    Args:
        headers: of its bursts, in order.
        samples: ``complex64 [n]`` at 2 per symbol, as a receiver's front end hands them over.
    """

    headers: tuple[BurstHeader, ...]
    samples: NDArray[np.complex64] = field(repr=False)


def send(
    frame: IndexFrame,
    *,
    mcs: int,
    snr_db: float,
    channel: FadingName,
    seed: Sequence[int],
) -> LinkResult:
    """Send a frame through modem and channel and back.

    Args:
        frame: complete, as an encoder made it.
        mcs: index of the code rate.
        snr_db: Es/N0; under fading the mean one.
        channel: ``awgn``, or ``rayleigh``: eq. (8), every burst its own gain h, circular Gaussian with
            mean abs(h)^2 = 1.
        seed: numbers that fix everything random. Two frames of the same number of bits meet the same air,
            and a frame meets the same noise, stronger or weaker, at every Es/N0.

    Raises:
        WaveformError: a frame that the waveform cannot carry.
    """
    sent = transmit(frame, mcs=mcs, snr_db=snr_db, channel=channel, seed=seed)
    bursts = receive(sent.samples)
    through = {number for burst in bursts for number in _good_blocks(burst)}
    frames = assemble(bursts, frame.geometry)
    ours = next((one for one in frames if one.frame_id == frame.frame_id), None)
    received = Received(None if ours is None else ours.frame, ours is not None and ours.complete)
    return _result(sent.headers, received, through)


def deliver(frame: IndexFrame, *, mcs: int) -> LinkResult:
    """A frame that arrives whole, without a channel; what it would take is counted all the same.

    Raises:
        WaveformError: a frame that the waveform cannot carry.
    """
    headers = [burst.header for burst in _bursts(frame, mcs)]
    return _result(headers, Received(frame, True), set(range(headers[0].frame_blocks)))


def _result(headers: Sequence[BurstHeader], received: Received, through: set[int]) -> LinkResult:
    """Counts of a frame, given the code blocks that came through."""
    plan = headers[0].plan
    return LinkResult(
        received=received,
        symbols=sum(header.burst_symbols for header in headers),
        payload_symbols=float(plan.frame_bits / (wf.BITS_PER_SYMBOL * wf.MCS_CODE_RATES[plan.mcs])),
        bursts=len(headers),
        bursts_lost=sum(through.isdisjoint(_blocks(header)) for header in headers),
        code_blocks=plan.blocks,
        code_blocks_ok=len(through),
    )


def transmit(
    frame: IndexFrame,
    *,
    mcs: int,
    snr_db: float,
    channel: FadingName,
    seed: Sequence[int],
) -> Transmission:
    """The first half of :func:`send`: from a frame to what a receiver's front end hands over."""
    bursts = list(_bursts(frame, mcs))
    # One stream of numbers each, so that more bursts do not draw another path, nor a path other noise.
    fading, path, noise = (np.random.default_rng([*seed, part]) for part in range(3))
    parts = []
    for burst in bursts:
        gain = _gain(channel, fading)
        parts += [gain * burst.samples(AIR_SAMPLES_PER_SYMBOL), _silence(_GAP_SYMBOLS)]
    parts.append(_silence(_TAIL_SYMBOLS))
    air = Air(
        snr_db=snr_db,
        cfo=float(path.uniform(-1, 1)) * wf.MAX_CFO_SYMBOL_RATES,
        sro_ppm=float(path.uniform(-1, 1)) * MAX_CLOCK_PPM,
        delay=float(path.uniform(500, 1500)),
        phase=float(path.uniform()),
        phase_noise=PHASE_NOISE,
    )
    samples = air.receive(np.concatenate(parts), noise)
    return Transmission(tuple(burst.header for burst in bursts), samples)


def receive(samples: NDArray[np.complex64]) -> list[ReceivedBurst]:
    """Every burst found in a stream, demodulated and decoded.

    Args:
        samples: ``complex64 [n]`` at 2 per symbol.
    """
    receiver = StreamReceiver()
    return receiver.push(samples) + receiver.flush()


def assemble(bursts: Sequence[ReceivedBurst], geometry: FrameGeometry) -> list[AssembledFrame]:
    """The frames in a stream's bursts."""
    assembler = FrameAssembler([geometry])
    frames: list[AssembledFrame] = []
    for one in bursts:
        # As BurstReceiver and IndexSink do: no header, no place; of an unknown codec, passed over.
        if one.header is None or one.burst is None or not assembler.knows(one.header):
            continue
        blocks = one.burst.blocks
        frames += assembler.add(
            one.header,
            np.array([block.ok for block in blocks], np.bool_),
            np.stack([block.bits for block in blocks]),
            quantise_llrs(np.stack([block.llrs for block in blocks])),
            one.outcome.value,
        )
    return frames + assembler.finish()


def _bursts(frame: IndexFrame, mcs: int) -> Iterator[Burst]:
    tag = frame.geometry.codec_tag
    return build_bursts(frame.to_bits(), frame_id=frame.frame_id, codec_tag=tag, mcs=mcs)


def _gain(channel: FadingName, generator: np.random.Generator) -> complex:
    """The h of one burst, eq. (8)."""
    if channel == "awgn":
        return 1.0
    real, imaginary = generator.standard_normal(2) / math.sqrt(2)
    return complex(real, imaginary)


def _silence(symbols: int) -> NDArray[np.complex64]:
    return np.zeros(symbols * AIR_SAMPLES_PER_SYMBOL, np.complex64)


def _blocks(header: BurstHeader) -> range:
    """Numbers of the code blocks that a burst carries."""
    return range(header.first_block, header.first_block + header.blocks)


def _good_blocks(received: ReceivedBurst) -> set[int]:
    blocks = received.burst.blocks if received.burst is not None else []
    return {block.number for block in blocks if block.ok}
