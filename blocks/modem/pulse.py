"""Pulse shaping and matched filtering: the only places where symbols and samples meet.

Numba kernels work on complex samples seen as pairs of floats, in small loops over few arrays, which is
what the compiler turns into vector instructions.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numba import njit
from numpy.typing import NDArray

from blocks.modem import waveform as wf

# Time resolution of the matched filter bank: 1/256 symbol. The residual timing error leaves about
# -50 dB of intersymbol interference.
BANK_PHASES = 128
# Phasors that derotate() tabulates.
_PHASOR_TABLE = 256
_SPS = wf.RECEIVER_SAMPLES_PER_SYMBOL
_HALF_TAPS = wf.PULSE_HALF_SPAN_SYMBOLS * _SPS
BANK_TAPS = 2 * _HALF_TAPS + 1
# Samples needed on either side of a symbol's instant.
BANK_MARGIN_SAMPLES = _HALF_TAPS + 1


@cache
def shaping_taps(samples_per_symbol: int) -> NDArray[np.float32]:
    """Polyphase taps ``float32 [samples_per_symbol, 2 span + 1]`` of the transmit pulse.

    Row p holds the pulse at p/samples_per_symbol past each symbol, newest symbol first. Symbols of unit
    energy give samples of unit mean power.
    """
    span = wf.PULSE_HALF_SPAN_SYMBOLS
    phase = np.arange(samples_per_symbol)[:, None] / samples_per_symbol
    time = phase + np.arange(-span, span + 1)[None, :]
    return wf.root_raised_cosine(time).astype(np.float32)


@cache
def matched_filter_bank() -> NDArray[np.float32]:
    """``float32 [128, 33]``: row p correlates with a pulse p/128 samples after the middle tap.

    Scaled so that a unit symbol comes out as 1.
    """
    fraction = np.arange(BANK_PHASES)[:, None] / BANK_PHASES
    time = (np.arange(-_HALF_TAPS, _HALF_TAPS + 1)[None, :] - fraction) / _SPS
    return (wf.root_raised_cosine(time) / _SPS).astype(np.float32)


def shape(symbols: NDArray[np.complex64], samples_per_symbol: int) -> NDArray[np.complex64]:
    """Symbols to samples: root-raised-cosine pulses, the transient on both sides kept.

    Args:
        symbols: ``complex64 [n]``.
        samples_per_symbol: 2..8.

    Returns:
        ``complex64 [(n + 16) samples_per_symbol]``; symbol k peaks at sample
        ``(k + 8) samples_per_symbol``.
    """
    span = wf.PULSE_HALF_SPAN_SYMBOLS
    padded = np.zeros(symbols.size + 4 * span, np.complex64)
    padded[2 * span : 2 * span + symbols.size] = symbols
    out = np.empty((symbols.size + 2 * span, samples_per_symbol), np.complex64)
    _shape(padded.view(np.float32), shaping_taps(samples_per_symbol), out.view(np.float32))
    return out.reshape(-1)


@njit(nogil=True, cache=True)
def _shape(padded, taps, out):  # type: ignore[no-untyped-def]
    phases, count = taps.shape
    rows = out.shape[0]
    line = np.empty(2 * rows, np.float32)
    for phase in range(phases):
        line[:] = 0.0
        for tap in range(count):
            weight = taps[phase, tap]
            # taps run from the newest symbol (most negative time) to the oldest
            start = 2 * (count - 1 - tap)
            for i in range(2 * rows):
                line[i] += weight * padded[start + i]
        for row in range(rows):
            out[row, 2 * phase] = line[2 * row]
            out[row, 2 * phase + 1] = line[2 * row + 1]


# Reordering the sums lets the compiler use vector instructions; the values are finite by contract.
_FAST = {"reassoc", "contract"}


@njit(nogil=True, cache=True, fastmath=_FAST)
def sample_mean(samples):  # type: ignore[no-untyped-def]
    """Mean of ``complex64 [n]`` in double precision."""
    pairs = samples.view(np.float32)
    real = 0.0
    imag = 0.0
    for n in range(0, pairs.size, 2):
        real += pairs[n]
        imag += pairs[n + 1]
    return complex(real, imag) / samples.size


@njit(nogil=True, cache=True)
def derotate(samples, cycles_per_sample, dc=0.0 + 0.0j):  # type: ignore[no-untyped-def]
    """``(samples[n] - dc) exp(-j 2 pi cycles_per_sample n)`` as ``complex64 [n]``.

    Within 256 samples the phasors are a table turned by the first one, which is set exactly.
    """
    count = samples.size
    out = np.empty(count, np.complex64)
    source = samples.view(np.float32)
    target = out.view(np.float32)
    table_real = np.empty(_PHASOR_TABLE, np.float32)
    table_imag = np.empty(_PHASOR_TABLE, np.float32)
    step = np.exp(-2j * np.pi * cycles_per_sample)
    phasor = 1.0 + 0.0j
    for k in range(_PHASOR_TABLE):
        table_real[k] = phasor.real
        table_imag[k] = phasor.imag
        phasor *= step
    dc_real = np.float32(dc.real)
    dc_imag = np.float32(dc.imag)
    for start in range(0, count, _PHASOR_TABLE):
        angle = -2.0 * np.pi * ((cycles_per_sample * start) % 1.0)
        first_real = np.float32(np.cos(angle))
        first_imag = np.float32(np.sin(angle))
        for k in range(min(_PHASOR_TABLE, count - start)):
            n = 2 * (start + k)
            real = first_real * table_real[k] - first_imag * table_imag[k]
            imag = first_real * table_imag[k] + first_imag * table_real[k]
            x = source[n] - dc_real
            y = source[n + 1] - dc_imag
            target[n] = x * real - y * imag
            target[n + 1] = x * imag + y * real
    return out


@njit(nogil=True, cache=True, fastmath=_FAST)
def sample_symbols(samples, bank, first, step, indices):  # type: ignore[no-untyped-def]
    """Matched filter output at ``first + step * indices[i]`` (in samples), ``complex64 [n]``.

    Instants whose filter would reach outside of ``samples`` give 0.
    """
    count = bank.shape[1]
    half = count // 2
    phases = bank.shape[0]
    out = np.zeros(indices.size, np.complex64)
    for i in range(indices.size):
        ticks = int(np.floor((first + step * indices[i]) * phases + 0.5))
        start = ticks // phases - half
        if start < 0 or start + count > samples.size:
            continue
        taps = bank[ticks % phases]
        real = np.float32(0.0)
        imag = np.float32(0.0)
        for k in range(count):
            value = samples[start + k]
            real += taps[k] * value.real
            imag += taps[k] * value.imag
        out[i] = complex(real, imag)
    return out


@njit(nogil=True, cache=True)
def filter_real(samples, taps):  # type: ignore[no-untyped-def]
    """Valid part of the correlation of complex samples with real taps, ``complex64 [n - taps + 1]``."""
    length = samples.size - taps.size + 1
    out = np.zeros(length, np.complex64)
    pairs = samples.view(np.float32)
    line = out.view(np.float32)
    for k in range(taps.size):
        weight = taps[k]
        for i in range(2 * length):
            line[i] += weight * pairs[2 * k + i]
    return out
