"""Every constant of the air interface, in one place.

A receiver that agrees with this module, with TS 38.212 (codes) and with TS 38.211 clause 5.2.1 (Gold
sequence) can be written without looking at anything else; ``docs/waveform.md`` says the same in prose.

A burst, in symbols::

    ramp 8 | 16 x word of 8 | PN 128 | body with pilots | ramp 8

The body is the header (512 BPSK symbols) followed by the code blocks (8-PSK). After every 128 symbols
of the body, and after its last symbol, stand 8 pilots.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray

from blocks.modem.scrambling import gold_sequence

WAVEFORM_VERSION = 1

# --- pulse ---------------------------------------------------------------------------------------
ROLL_OFF = 0.25
# Half length of the truncated root-raised-cosine pulse. +-8 symbols leave about -45 dB of
# intersymbol interference, well under the noise of the highest useful Es/N0 (20 dB).
PULSE_HALF_SPAN_SYMBOLS = 8
# The receiver works at the lowest rate that holds the signal and its carrier offset without loss.
RECEIVER_SAMPLES_PER_SYMBOL = 2
# Front end: flat up to here (0.625 of signal + 0.05 of offset), in symbol rates ...
ANTI_ALIAS_PASS_SYMBOL_RATES = 0.7
# ... and silent from here on, since 2 - 1.3 = 0.7: what folds stays outside the pass band.
ANTI_ALIAS_STOP_SYMBOL_RATES = 1.3

# --- burst ---------------------------------------------------------------------------------------
RAMP_SYMBOLS = 8
WORD_SYMBOLS = 8
WORD_REPEATS = 16
PN_SYMBOLS = 128
PILOT_SPACING = 128
PILOT_SYMBOLS = 8
MAX_BURST_SYMBOLS = 20_000
MAX_CFO_SYMBOL_RATES = 0.05

# Quarter turns of the repeated word. Zero mean, so that it has no line where a receiver's DC offset
# sits; the largest side lobe of its periodic autocorrelation is 1/4, the least a zero-mean
# quaternary word of 8 can have.
_WORD_QUARTER_TURNS = (0, 1, 3, 2, 3, 0, 2, 1)

# Initialisation values of the Gold sequences (31 bits each). They only have to differ.
_PN_SEED = 0x5A0_0001
_PILOT_SEED = 0x5A0_0002
HEADER_SCRAMBLING_SEED = 0x5A0_0003
_PAYLOAD_SCRAMBLING_SEED = 0x1000_0000

# --- header --------------------------------------------------------------------------------------
HEADER_BITS = 128  # CRC-16 included
HEADER_CODED_BITS = 512  # BPSK, rate 1/4, base graph 2
HEADER_SYMBOLS = HEADER_CODED_BITS

# --- payload -------------------------------------------------------------------------------------
BITS_PER_SYMBOL = 3
CODE_BLOCK_CRC_BITS = 24
MAX_BLOCKS_PER_BURST = 16
MAX_BLOCKS_PER_FRAME = 512
MAX_BURSTS_PER_FRAME = 256
MAX_PAYLOAD_BITS = (1 << 20) - 1

MCS_CODE_RATES: tuple[Fraction, ...] = tuple(
    Fraction(text)
    for text in ("1/5", "1/4", "1/3", "2/5", "1/2", "3/5", "2/3", "3/4", "5/6", "8/9")
)


class WaveformError(ValueError):
    """A value that the waveform cannot express."""


@dataclass(frozen=True)
class BlockPlan:
    """How one frame's payload is cut into code blocks.

    Every block carries ``payload_bits`` bits of the frame (the last one is padded with zeros) and a
    CRC-24B, together ``info_bits``, coded to ``coded_bits`` and sent as ``symbols`` 8-PSK symbols.
    """

    mcs: int
    frame_bits: int
    blocks: int
    payload_bits: int
    info_bits: int
    coded_bits: int

    @property
    def symbols(self) -> int:
        """8-PSK symbols of one code block."""
        return self.coded_bits // BITS_PER_SYMBOL


def check_mcs(mcs: int) -> int:
    """Return ``mcs``; raises WaveformError where it names no code rate."""
    if type(mcs) is not int or not 0 <= mcs < len(MCS_CODE_RATES):
        raise WaveformError(f"mcs: expected an integer 0..{len(MCS_CODE_RATES) - 1}, got {mcs!r}")
    return mcs


def max_info_bits(mcs: int) -> int:
    """Largest code block (CRC included) of an MCS: 3840 where base graph 2 is used whatever the size
    (rate <= 1/4), else 8448 (TS 38.212 clauses 5.2.2 and 7.2.2).
    """
    return 3840 if MCS_CODE_RATES[check_mcs(mcs)] <= Fraction(1, 4) else 8448


def coded_bits(info_bits: int, mcs: int) -> int:
    """E = 3 ceil(K / 3R): coded bits of a block of K information bits, whole 8-PSK symbols."""
    rate = MCS_CODE_RATES[check_mcs(mcs)]
    return BITS_PER_SYMBOL * -(-info_bits * rate.denominator // (BITS_PER_SYMBOL * rate.numerator))


# Not without limit: headers from the air name any length.
@lru_cache(maxsize=4096, typed=True)
def plan_blocks(frame_bits: int, mcs: int, blocks: int | None = None) -> BlockPlan:
    """Cut ``frame_bits`` into equal code blocks.

    Args:
        frame_bits: payload of the whole frame, 1..2**20-1.
        mcs: index of the code rate.
        blocks: number of code blocks; None (the transmitter) takes the fewest that fit, a receiver
            passes the number that the header announces.

    Raises:
        WaveformError: a value out of range, or a number of blocks that does not fit.
    """
    if type(frame_bits) is not int or not 1 <= frame_bits <= MAX_PAYLOAD_BITS:
        raise WaveformError(f"frame bits: expected 1..{MAX_PAYLOAD_BITS}, got {frame_bits!r}")
    room = max_info_bits(mcs) - CODE_BLOCK_CRC_BITS
    fewest = -(-frame_bits // room)
    count = fewest if blocks is None else blocks
    if not fewest <= count <= min(MAX_BLOCKS_PER_FRAME, frame_bits):
        raise WaveformError(f"{frame_bits} bits do not go into {count} code blocks at mcs {mcs}")
    payload = -(-frame_bits // count)
    if payload * (count - 1) >= frame_bits:
        raise WaveformError(f"{frame_bits} bits leave the last of {count} code blocks empty")
    info = payload + CODE_BLOCK_CRC_BITS
    return BlockPlan(mcs, frame_bits, count, payload, info, coded_bits(info, mcs))


def body_symbols_with_pilots(body_symbols: int) -> int:
    """Length of header and payload once the pilots are in."""
    return body_symbols + PILOT_SYMBOLS * -(-body_symbols // PILOT_SPACING)


PREAMBLE_SYMBOLS = WORD_SYMBOLS * WORD_REPEATS + PN_SYMBOLS


def burst_symbols(payload_symbols: int) -> int:
    """All symbols on the air of a burst with ``payload_symbols`` 8-PSK data symbols."""
    body = body_symbols_with_pilots(HEADER_SYMBOLS + payload_symbols)
    return 2 * RAMP_SYMBOLS + PREAMBLE_SYMBOLS + body


def blocks_per_burst(plan: BlockPlan, max_burst_symbols: int = MAX_BURST_SYMBOLS) -> list[int]:
    """Number of code blocks in each burst of a frame, as equal as possible.

    Raises:
        WaveformError: not even one code block fits, or the frame needs too many bursts.
    """
    most = 0
    while (
        most < MAX_BLOCKS_PER_BURST
        and burst_symbols((most + 1) * plan.symbols) <= max_burst_symbols
    ):
        most += 1
    if most == 0:
        raise WaveformError(
            f"max_burst_symbols {max_burst_symbols}: one code block of mcs {plan.mcs} needs "
            f"{burst_symbols(plan.symbols)}"
        )
    bursts = -(-plan.blocks // most)
    if bursts > MAX_BURSTS_PER_FRAME:
        raise WaveformError(f"frame needs {bursts} bursts, at most {MAX_BURSTS_PER_FRAME}")
    short, extra = divmod(plan.blocks, bursts)
    return [short + 1] * extra + [short] * (bursts - extra)


def payload_scrambling_seed(block: int, redundancy_version: int) -> int:
    """Seed of a code block's scrambling: its number in the frame and its redundancy version, so that
    any burst may carry any block and a repetition does not look like the first sending.
    """
    return _PAYLOAD_SCRAMBLING_SEED | (redundancy_version << 16) | block


def _quaternary(seed: int, length: int) -> NDArray[np.complex64]:
    bits = gold_sequence(seed, 2 * length).reshape(-1, 2).astype(np.int64)
    turns = 2 * bits[:, 0] + (bits[:, 0] ^ bits[:, 1])
    return _unit(turns * 2 + 1)


def _unit(eighth_turns: NDArray[np.int64]) -> NDArray[np.complex64]:
    return np.exp(0.25j * np.pi * eighth_turns).astype(np.complex64)


@cache
def preamble() -> NDArray[np.complex64]:
    """The 256 known symbols at the start: 16 words, then the PN sequence. Unit energy, read-only."""
    word = _unit(2 * np.array(_WORD_QUARTER_TURNS))
    symbols = np.concatenate([np.tile(word, WORD_REPEATS), _quaternary(_PN_SEED, PN_SYMBOLS)])
    symbols.flags.writeable = False
    return symbols


@cache
def pilots(groups: int) -> NDArray[np.complex64]:
    """Pilot symbols of the first ``groups`` pilot groups, ``complex64 [groups, 8]``, read-only."""
    symbols = _quaternary(_PILOT_SEED, groups * PILOT_SYMBOLS).reshape(groups, PILOT_SYMBOLS)
    symbols.flags.writeable = False
    return symbols


@cache
def ramp_window() -> NDArray[np.float32]:
    """Amplitude of the 8 rising ramp symbols; the falling ramp is its mirror image."""
    steps = (np.arange(RAMP_SYMBOLS) + 0.5) / RAMP_SYMBOLS
    window = np.sin(0.5 * np.pi * steps).astype(np.float32) ** 2
    window.flags.writeable = False
    return window


def root_raised_cosine(time_symbols: NDArray[np.float64]) -> NDArray[np.float64]:
    """Root-raised-cosine pulse h(t) of unit energy, t in symbol periods (h(0) = 1 - a + 4a/pi)."""
    a = ROLL_OFF
    t = np.asarray(time_symbols, np.float64)
    result = np.empty_like(t)
    at_zero = np.abs(t) < 1e-9
    at_pole = np.abs(np.abs(4 * a * t) - 1) < 1e-9
    plain = ~(at_zero | at_pole)
    x = t[plain]
    result[plain] = (np.sin(np.pi * x * (1 - a)) + 4 * a * x * np.cos(np.pi * x * (1 + a))) / (
        np.pi * x * (1 - (4 * a * x) ** 2)
    )
    result[at_zero] = 1 - a + 4 * a / np.pi
    result[at_pole] = (a / np.sqrt(2)) * (
        (1 + 2 / np.pi) * np.sin(np.pi / (4 * a)) + (1 - 2 / np.pi) * np.cos(np.pi / (4 * a))
    )
    return result
