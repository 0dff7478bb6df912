"""Building bursts: a frame's bits to code blocks, code blocks to symbols, symbols to samples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from blocks.modem import waveform as wf
from blocks.modem.crc import append_crc24b
from blocks.modem.header import BurstHeader, header_symbols
from blocks.modem.ldpc_code import get_code
from blocks.modem.ldpc_encoder import encode
from blocks.modem.psk import modulate_8psk
from blocks.modem.pulse import shape
from blocks.modem.scrambling import gold_sequence


@dataclass(frozen=True)
class Burst:
    """One burst ready for the air: its header and all its symbols, ramps included."""

    header: BurstHeader
    symbols: NDArray[np.complex64] = field(repr=False)

    def samples(self, samples_per_symbol: int) -> NDArray[np.complex64]:
        """Shaped samples of unit mean power, ``complex64 [(symbols + 16) samples_per_symbol]``."""
        return shape(self.symbols, samples_per_symbol)


def build_bursts(
    bits: NDArray[np.uint8],
    *,
    frame_id: int,
    codec_tag: int,
    mcs: int,
    max_burst_symbols: int = wf.MAX_BURST_SYMBOLS,
    stream: int = 0,
) -> Iterator[Burst]:
    """Bursts of one frame, in order.

    Args:
        bits: ``uint8 [n]`` of 0 and 1, the payload of the frame.
        frame_id: 32-bit number of the frame.
        codec_tag: 16-bit tag of the codec.
        mcs: index of the code rate.
        max_burst_symbols: limit on the symbols of one burst.
        stream: 0..31.

    Raises:
        WaveformError: a value that the waveform cannot express. Raised by the call itself: the bursts
            are made one by one as they are asked for, in a place that could not refuse them.
    """
    plan = wf.plan_blocks(int(bits.size), mcs)
    if int(bits.max()) > 1:
        raise wf.WaveformError(f"payload bits: expected 0 or 1, got {int(bits.max())}")
    padded = np.zeros(plan.blocks * plan.payload_bits, np.uint8)
    padded[: bits.size] = bits
    payloads = padded.reshape(plan.blocks, plan.payload_bits)
    counts = wf.blocks_per_burst(plan, max_burst_symbols)
    headers = [
        BurstHeader(
            mcs=mcs,
            frame_id=frame_id,
            burst_number=number,
            frame_bits=plan.frame_bits,
            first_block=sum(counts[:number]),
            frame_blocks=plan.blocks,
            blocks=count,
            codec_tag=codec_tag,
            stream=stream,
        )
        for number, count in enumerate(counts)
    ]
    return (
        Burst(header, assemble(header, payloads[header.first_block :][: header.blocks]))
        for header in headers
    )


def assemble(header: BurstHeader, payloads: NDArray[np.uint8]) -> NDArray[np.complex64]:
    """Symbols of one burst.

    Args:
        header: describes ``payloads``.
        payloads: ``uint8 [blocks, payload_bits]``.

    Returns:
        ``complex64 [header.burst_symbols]``.
    """
    data = [encode_block(header, header.first_block + i, row) for i, row in enumerate(payloads)]
    body = insert_pilots(np.concatenate([header_symbols(header), *data]))
    # The ramps continue the word and the last pilots, so that they add nothing new to the spectrum.
    window = wf.ramp_window()
    rise = wf.preamble()[: wf.RAMP_SYMBOLS] * window
    fall = body[-wf.RAMP_SYMBOLS :] * window[::-1]
    return np.concatenate([rise, wf.preamble(), body, fall]).astype(np.complex64)


def encode_block(
    header: BurstHeader, number: int, payload: NDArray[np.uint8]
) -> NDArray[np.complex64]:
    """One code block as 8-PSK symbols: CRC-24B, LDPC, rate matching, scrambling, Gray mapping."""
    plan = header.plan
    code = get_code(plan.info_bits, plan.coded_bits)
    coded = encode(
        code,
        append_crc24b(payload),
        redundancy_version=header.redundancy_version,
        bits_per_symbol=wf.BITS_PER_SYMBOL,
    )
    seed = wf.payload_scrambling_seed(number, header.redundancy_version)
    return modulate_8psk(coded ^ gold_sequence(seed, coded.size))


def insert_pilots(body: NDArray[np.complex64]) -> NDArray[np.complex64]:
    """Body with 8 pilots after every 128 symbols and after the last symbol."""
    groups = -(-body.size // wf.PILOT_SPACING)
    known = wf.pilots(groups)
    parts: list[NDArray[np.complex64]] = []
    for group in range(groups):
        parts.append(body[group * wf.PILOT_SPACING : (group + 1) * wf.PILOT_SPACING])
        parts.append(known[group])
    return np.concatenate(parts)
