"""From samples to code blocks: everything that happens to one burst once its preamble is confirmed."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from blocks.modem import ldpc_decoder
from blocks.modem import waveform as wf
from blocks.modem.acquisition import Acquisition
from blocks.modem.crc import check_crc24b
from blocks.modem.equaliser import (
    FILTER_CENTRE,
    FILTER_TAPS,
    equalise,
    estimate_response,
    mmse_filter,
)
from blocks.modem.header import BurstHeader, decode_header, header_symbols
from blocks.modem.known_symbols import (
    KnownSymbols,
    body_positions,
    known_before_header,
    known_behind_header,
)
from blocks.modem.ldpc_code import get_code
from blocks.modem.llr_calibration import failed_block_factor
from blocks.modem.psk import demap_8psk
from blocks.modem.pulse import (
    BANK_MARGIN_SAMPLES,
    derotate,
    matched_filter_bank,
    sample_mean,
    sample_symbols,
)
from blocks.modem.scrambling import descramble
from blocks.modem.tracking import divide_channel, estimate_channel, residual_dc, track_timing

_SPS = wf.RECEIVER_SAMPLES_PER_SYMBOL
# Symbols that the sample clock may have drifted by at the end of the longest burst, and the pulse.
_END_MARGIN_SYMBOLS = 4
# Samples after the first preamble symbol that the header needs.
HEADER_SPAN_SAMPLES = (
    _SPS * (wf.PREAMBLE_SYMBOLS + wf.body_symbols_with_pilots(wf.HEADER_SYMBOLS))
    + BANK_MARGIN_SAMPLES
    + _SPS * _END_MARGIN_SYMBOLS
)
# Samples before the first preamble symbol that every stage may look at.
LEAD_SAMPLES = BANK_MARGIN_SAMPLES + _SPS


# Unbroken runs of known symbols, in groups of 8: the preamble, and with the header and the pilots in it.
_PREAMBLE_GROUPS = wf.PREAMBLE_SYMBOLS // wf.PILOT_SYMBOLS
_HEAD_GROUPS = (
    wf.PREAMBLE_SYMBOLS + wf.body_symbols_with_pilots(wf.HEADER_SYMBOLS)
) // wf.PILOT_SYMBOLS


@dataclass(frozen=True)
class CodeBlock:
    """One code block as received.

    Args:
        number: its place in the frame.
        ok: True where the CRC-24B holds.
        bits: ``uint8 [payload_bits]``, the decoder's best guess where ``ok`` is False.
        llrs: ``float32 [payload_bits]`` posterior log-likelihood ratios ln P(0)/P(1), calibrated.
        iterations: decoder iterations spent.
        llr_factor: what ``llrs`` were multiplied with to calibrate them.
    """

    number: int
    ok: bool
    bits: NDArray[np.uint8]
    llrs: NDArray[np.float32]
    iterations: int
    llr_factor: float = 1.0


@dataclass(frozen=True)
class BurstMeasurement:
    """What the known symbols of one burst say about its way.

    ``snr_db`` is Es/N0, behind the equaliser where echoes were undone; ``cfo`` in cycles per symbol;
    ``level`` the amplitude of one symbol; ``sample_rate_offset_ppm`` positive where the transmitter's
    clock is slow.
    """

    snr_db: float
    cfo: float
    level: float
    sample_rate_offset_ppm: float


@dataclass(frozen=True)
class DemodulatedBurst:
    """A burst whose header passed.

    ``constellation`` holds the equalised payload symbols, ``complex64 [payload_symbols]``.
    """

    header: BurstHeader
    measurement: BurstMeasurement
    blocks: list[CodeBlock]
    constellation: NDArray[np.complex64] = field(repr=False)


@dataclass(frozen=True)
class _Channel:
    """Residual offset, smoothed channel and noise, measured on known symbols."""

    cfo: float
    centres: NDArray[np.float64]
    values: NDArray[np.complex128]
    noise_variance: float

    @cached_property
    def level(self) -> float:
        return math.sqrt(np.vdot(self.values, self.values).real / self.values.size)

    @property
    def snr_db(self) -> float:
        # Finite whatever the input: the figure ends up in JSON.
        return 10 * math.log10(max(self.level**2, 1e-30) / self.noise_variance)

    def divide(
        self, received: NDArray[np.complex64], positions: NDArray[np.float64]
    ) -> tuple[NDArray[np.complex64], NDArray[np.float32]]:
        """Unit-amplitude symbols and the noise variance of each."""
        return divide_channel(
            received, positions, self.values, self.centres, self.cfo, self.noise_variance
        )


def _estimate_channel(received: NDArray[np.complex64], known: KnownSymbols) -> _Channel:
    """Channel from the matched filter's output at the known symbols, ``complex64 [groups, 8]``."""
    cfo, values, noise_variance = estimate_channel(received, known)
    return _Channel(cfo, known.centres, values, noise_variance)


def demodulate_header(
    samples: NDArray[np.complex64], acquisition: Acquisition
) -> tuple[BurstHeader | None, BurstMeasurement]:
    """Read the header of a burst.

    Args:
        samples: ``complex64`` from at least ``LEAD_SAMPLES`` before ``acquisition.start`` to
            ``HEADER_SPAN_SAMPLES`` after it.
        acquisition: with ``start`` relative to ``samples``.
    """
    turned = derotate(samples, acquisition.cfo / _SPS, sample_mean(samples))
    known = known_before_header(wf.HEADER_SYMBOLS)
    timed = _TimedSamples(turned, acquisition.start, float(_SPS))
    positions = _positions(0, wf.HEADER_SYMBOLS)
    channel, symbols, noise = _receive(timed, known, _PREAMBLE_GROUPS, positions)
    relative_noise = float(np.partition(noise, noise.size // 2)[noise.size // 2])
    measurement = BurstMeasurement(
        channel.snr_db, acquisition.cfo + channel.cfo, channel.level, 0.0
    )
    return decode_header(symbols, relative_noise), measurement


@lru_cache(maxsize=64)
def _positions(first: int, last: int) -> NDArray[np.float64]:
    """Of the body symbols ``first .. last - 1``, in symbols from the first preamble symbol."""
    return body_positions(last)[first:].astype(np.float64)


@dataclass(frozen=True)
class _TimedSamples:
    """Samples without DC and carrier offset, and the instants of the symbols in them."""

    samples: NDArray[np.complex64]
    start: float
    step: float

    def at(self, positions: NDArray[np.float64]) -> NDArray[np.complex64]:
        """Matched filter output at symbols counted from the first preamble symbol; same shape."""
        values: NDArray[np.complex64] = sample_symbols(
            self.samples, matched_filter_bank(), self.start, self.step, positions.reshape(-1)
        )
        return values.reshape(positions.shape)


def _receive(
    timed: _TimedSamples, known: KnownSymbols, head_groups: int, positions: NDArray[np.float64]
) -> tuple[_Channel, NDArray[np.complex64], NDArray[np.float32]]:
    """Symbols at ``positions`` with the channel divided out and echoes undone, and the noise of each.

    Args:
        timed: samples.
        known: the known symbols.
        head_groups: how many of them, from the first on, follow each other without a gap.
        positions: of the symbols wanted, ``float64 [n]``.
    """
    received = timed.at(known.indices)
    channel = _estimate_channel(received, known)
    weights = _echo_filter(received, known, channel, head_groups)
    if weights is None:
        return channel, *channel.divide(timed.at(positions), positions)
    # Every symbol up to the last known one, and as far around as the filter reaches.
    count = int(known.indices[-1, -1]) + 1
    every = np.arange(-FILTER_CENTRE, count + FILTER_TAPS - 1 - FILTER_CENTRE)
    clear = equalise(timed.at(every.astype(np.float64)), weights)
    channel = _estimate_channel(clear[known.indices.astype(np.int64)], known)
    return channel, *channel.divide(clear[positions.astype(np.int64)], positions)


def _echo_filter(
    received: NDArray[np.complex64], known: KnownSymbols, channel: _Channel, head_groups: int
) -> NDArray[np.complex128] | None:
    """Equaliser for the echoes that a run of known symbols shows; None where there are none."""
    head, positions, sent = (
        received[:head_groups].reshape(-1),
        known.indices[:head_groups].reshape(-1),
        known.symbols[:head_groups].reshape(-1),
    )
    symbols, _ = channel.divide(head, positions)
    echoes = estimate_response(symbols, sent).echoes()
    return None if echoes is None else mmse_filter(echoes)[0]


def burst_span_samples(header: BurstHeader) -> int:
    """Samples after the first preamble symbol that :func:`demodulate_burst` needs."""
    symbols = header.burst_symbols - wf.RAMP_SYMBOLS
    return _SPS * (symbols + _END_MARGIN_SYMBOLS) + BANK_MARGIN_SAMPLES


def demodulate_burst(
    samples: NDArray[np.complex64],
    acquisition: Acquisition,
    header: BurstHeader,
    max_iterations: int,
) -> DemodulatedBurst:
    """Demodulate and decode a whole burst.

    Args:
        samples: ``complex64`` from at least ``LEAD_SAMPLES`` before ``acquisition.start`` to
            ``burst_span_samples(header)`` after it.
        acquisition: with ``start`` relative to ``samples``.
        header: from :func:`demodulate_header`.
        max_iterations: limit of the LDPC decoder.
    """
    cycles = acquisition.cfo / _SPS
    # A receiver's DC offset and very little of the signal: 1/n of the energy of n symbols.
    mean = sample_mean(samples)
    turned = derotate(samples, cycles, mean)
    body = wf.HEADER_SYMBOLS + header.payload_symbols
    known = known_behind_header(body, header_symbols(header))
    start, step = track_timing(turned, acquisition.start, known)
    first_look = _TimedSamples(turned, start, step).at(known.indices)
    instants = start + step * known.indices
    mean += residual_dc(first_look, known, instants, cycles, samples.size / _SPS)
    timed = _TimedSamples(derotate(samples, cycles, mean), start, step)
    positions = _positions(wf.HEADER_SYMBOLS, body)
    channel, symbols, noise = _receive(timed, known, _HEAD_GROUPS, positions)
    measurement = BurstMeasurement(
        snr_db=channel.snr_db,
        cfo=acquisition.cfo + channel.cfo,
        level=channel.level,
        sample_rate_offset_ppm=(step / _SPS - 1) * 1e6,
    )
    return DemodulatedBurst(
        header, measurement, decode_blocks(header, symbols, noise, max_iterations), symbols
    )


def decode_blocks(
    header: BurstHeader,
    symbols: NDArray[np.complex64],
    noise_variance: NDArray[np.float32],
    max_iterations: int,
) -> list[CodeBlock]:
    """Decode the code blocks of a burst from its equalised symbols.

    Args:
        header: what the burst carries.
        symbols: ``complex64 [payload_symbols]`` of unit amplitude plus noise.
        noise_variance: ``float32 [payload_symbols]``, N0 of each.
        max_iterations: limit of the LDPC decoder.
    """
    plan = header.plan
    code = get_code(plan.info_bits, plan.coded_bits)
    llrs = demap_8psk(symbols, noise_variance).reshape(header.blocks, plan.coded_bits)
    numbers = range(header.first_block, header.first_block + header.blocks)
    for block_llrs, number in zip(llrs, numbers, strict=True):
        descramble(block_llrs, wf.payload_scrambling_seed(number, header.redundancy_version))
    decoded = ldpc_decoder.decode_blocks(
        code,
        llrs,
        max_iterations=max_iterations,
        redundancy_version=header.redundancy_version,
        bits_per_symbol=wf.BITS_PER_SYMBOL,
    )
    blocks = []
    for offset, number in enumerate(numbers):
        result = decoded.block(offset)
        # All zeros pass any CRC, and are what the decoder says where it has heard nothing.
        ok = check_crc24b(result.bits) and (result.parity_ok or bool(result.bits.any()))
        factor = 1.0 if ok else failed_block_factor(result.posterior_llrs, plan.mcs)
        blocks.append(
            CodeBlock(
                number=number,
                ok=ok,
                bits=result.bits[: plan.payload_bits],
                llrs=result.posterior_llrs[: plan.payload_bits] * np.float32(factor),
                iterations=result.iterations,
                llr_factor=factor,
            )
        )
    return blocks
