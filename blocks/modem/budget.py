"""What a frame costs on the air, and how large a frame may be that is to cost no more than so much."""

from __future__ import annotations

from blocks.modem import waveform as wf


def air_symbols(
    payload_bits: int,
    mcs: int,
    max_burst_symbols: int = wf.MAX_BURST_SYMBOLS,
    gap_symbols: int = 0,
) -> int:
    """All symbols of all bursts of a frame: ramps, preambles, headers, pilots, CRCs and padding included.

    Args:
        payload_bits: of the frame, 1..2**20-1.
        mcs: index of the code rate.
        max_burst_symbols: limit on the symbols of one burst.
        gap_symbols: silence between two bursts, counted as well where time is meant.

    Raises:
        WaveformError: a frame that the waveform cannot carry.
    """
    plan = wf.plan_blocks(payload_bits, mcs)
    counts = wf.blocks_per_burst(plan, max_burst_symbols)
    bursts = sum(wf.burst_symbols(count * plan.symbols) for count in counts)
    return bursts + gap_symbols * (len(counts) - 1)


def payload_bits_within(
    symbols: int,
    mcs: int,
    max_burst_symbols: int = wf.MAX_BURST_SYMBOLS,
    gap_symbols: int = 0,
) -> int:
    """The largest number of payload bits, whole bytes, whose frame takes at most so many symbols.

    Args:
        symbols: on the air, as :func:`air_symbols` counts them.
        mcs: index of the code rate.
        max_burst_symbols: limit on the symbols of one burst.
        gap_symbols: as for :func:`air_symbols`.

    Returns:
        A multiple of 8, at most 2**20-8, the longest frame of whole bytes that a header can announce.

    Raises:
        WaveformError: there is no room for a single byte.
    """
    least = air_symbols(8, mcs, max_burst_symbols, gap_symbols)
    if symbols < least:
        raise wf.WaveformError(
            f"{symbols} symbols on the air: a frame of one byte takes {least} at mcs {mcs}"
        )

    def fits(size: int) -> bool:
        try:
            return air_symbols(8 * size, mcs, max_burst_symbols, gap_symbols) <= symbols
        except wf.WaveformError:
            return False

    # A block more can make a frame shorter: equal blocks fill bursts better, or are small enough for one at
    # all. As long as their number stays, more bytes never take fewer symbols.
    room = (wf.max_info_bits(mcs) - wf.CODE_BLOCK_CRC_BITS) // 8
    largest = wf.MAX_PAYLOAD_BITS // 8
    for blocks in range(-(-largest // room), 0, -1):
        low, high = (blocks - 1) * room + 1, min(blocks * room, largest)
        if not fits(low):
            continue
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if fits(middle) else (low, middle - 1)
        return 8 * low
    raise AssertionError("one byte fits")
