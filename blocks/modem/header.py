"""The burst header: 112 bits that say everything about the burst, and a CRC-16.

Any one burst is enough to place its code blocks in the frame: no burst is more precious than another.
A header whose CRC fails is dropped; nothing is guessed from it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blocks.modem import waveform as wf
from blocks.modem.crc import append_crc16, check_crc16
from blocks.modem.ldpc_code import LdpcCode, get_code
from blocks.modem.ldpc_decoder import decode
from blocks.modem.ldpc_encoder import encode
from blocks.modem.psk import demap_bpsk, modulate_bpsk
from blocks.modem.scrambling import descramble, gold_sequence

# Field widths in bits, in the order of transmission, most significant bit first.
_WIDTHS = {
    "version": 3,
    "mcs": 4,
    "redundancy_version": 2,
    "stream": 5,
    "frame_id": 32,
    "burst_number": 8,
    "frame_bits": 20,
    "first_block": 9,
    "frame_blocks_minus_1": 9,
    "blocks_minus_1": 4,
    "codec_tag": 16,
}
assert sum(_WIDTHS.values()) == wf.HEADER_BITS - 16
STREAMS = 1 << _WIDTHS["stream"]

_MAX_ITERATIONS = 50


@dataclass(frozen=True)
class BurstHeader:
    """What a burst carries.

    Args:
        mcs: index of the payload's code rate.
        frame_id: number of the picture, 32 bits.
        burst_number: number of this burst in its frame.
        frame_bits: payload bits of the whole frame.
        first_block: number in the frame of the first code block in this burst.
        frame_blocks: code blocks of the whole frame, 1..512.
        blocks: code blocks in this burst, 1..16.
        codec_tag: first 16 bits of the codec's id; fixes the picture's geometry.
        redundancy_version: 0..3, of TS 38.212 clause 5.4.2.1.
        stream: 0..31, free for several senders on one channel.

    Raises:
        WaveformError: a field that is out of range or contradicts another.
    """

    mcs: int
    frame_id: int
    burst_number: int
    frame_bits: int
    first_block: int
    frame_blocks: int
    blocks: int
    codec_tag: int
    redundancy_version: int = 0
    stream: int = 0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if type(value) is not int:
                raise wf.WaveformError(f"header {name}: expected an integer, got {value!r}")
        for name, value in self._wire_values().items():
            if not 0 <= value < 1 << _WIDTHS[name]:
                raise wf.WaveformError(
                    f"header {name}: {value} does not go into {_WIDTHS[name]} bits"
                )
        wf.plan_blocks(self.frame_bits, self.mcs, self.frame_blocks)
        if self.first_block + self.blocks > self.frame_blocks:
            raise wf.WaveformError(
                f"header: blocks {self.first_block}..{self.first_block + self.blocks - 1} "
                f"of a frame of {self.frame_blocks}"
            )
        # One header in 65,536 that is noise passes its CRC; it must not make a receiver wait for long.
        if self.burst_symbols > wf.MAX_BURST_SYMBOLS:
            raise wf.WaveformError(
                f"header: a burst of {self.burst_symbols} symbols, at most {wf.MAX_BURST_SYMBOLS}"
            )

    @property
    def plan(self) -> wf.BlockPlan:
        """How the frame is cut into code blocks."""
        return wf.plan_blocks(self.frame_bits, self.mcs, self.frame_blocks)

    @property
    def payload_symbols(self) -> int:
        """8-PSK symbols of this burst, pilots not counted."""
        return self.blocks * self.plan.symbols

    @property
    def burst_symbols(self) -> int:
        """All symbols of this burst, ramps included."""
        return wf.burst_symbols(self.payload_symbols)

    def _wire_values(self) -> dict[str, int]:
        return {
            "version": wf.WAVEFORM_VERSION,
            "mcs": self.mcs,
            "redundancy_version": self.redundancy_version,
            "stream": self.stream,
            "frame_id": self.frame_id,
            "burst_number": self.burst_number,
            "frame_bits": self.frame_bits,
            "first_block": self.first_block,
            "frame_blocks_minus_1": self.frame_blocks - 1,
            "blocks_minus_1": self.blocks - 1,
            "codec_tag": self.codec_tag,
        }

    def to_bits(self) -> NDArray[np.uint8]:
        """The header with its CRC as ``uint8 [128]``."""
        number = 0
        for name, value in self._wire_values().items():
            number = number << _WIDTHS[name] | value
        octets = number.to_bytes(sum(_WIDTHS.values()) // 8, "big")
        return append_crc16(np.unpackbits(np.frombuffer(octets, np.uint8)))

    @classmethod
    def from_bits(cls, bits: NDArray[np.uint8]) -> BurstHeader | None:
        """Read ``uint8 [128]``; None where the CRC, the version or the fields' agreement fails."""
        if not check_crc16(bits):
            return None
        number = int.from_bytes(np.packbits(bits[: sum(_WIDTHS.values())]).tobytes(), "big")
        values = {}
        for name, width in reversed(_WIDTHS.items()):
            values[name] = number & ((1 << width) - 1)
            number >>= width
        if values.pop("version") != wf.WAVEFORM_VERSION:
            return None
        try:
            return cls(
                frame_blocks=values.pop("frame_blocks_minus_1") + 1,
                blocks=values.pop("blocks_minus_1") + 1,
                **values,
            )
        except wf.WaveformError:
            return None


def header_code() -> LdpcCode:
    """The header's LDPC code: K = 128, E = 512, base graph 2."""
    return get_code(wf.HEADER_BITS, wf.HEADER_CODED_BITS)


def header_symbols(header: BurstHeader) -> NDArray[np.complex64]:
    """The header as ``complex64 [512]`` BPSK symbols."""
    coded = encode(header_code(), header.to_bits(), bits_per_symbol=1)
    return modulate_bpsk(coded ^ gold_sequence(wf.HEADER_SCRAMBLING_SEED, coded.size))


def decode_header(symbols: NDArray[np.complex64], noise_variance: float) -> BurstHeader | None:
    """Header of ``complex64 [512]`` equalised symbols; None where it did not survive.

    Args:
        symbols: unit-amplitude BPSK plus noise.
        noise_variance: N0 of one complex symbol.
    """
    llrs = demap_bpsk(symbols, noise_variance)
    descramble(llrs, wf.HEADER_SCRAMBLING_SEED)
    result = decode(header_code(), llrs, max_iterations=_MAX_ITERATIONS, bits_per_symbol=1)
    return BurstHeader.from_bits(result.bits)
