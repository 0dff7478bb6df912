"""Following a burst through time: clock drift, carrier phase, amplitude and noise, from known symbols.

Everything here is feed-forward and data-aided: no loop has to settle, and the same samples always give
the same result.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numba import njit
from numpy.typing import NDArray

from blocks.modem import waveform as wf
from blocks.modem.known_symbols import GROUP, KnownSymbols, mean_of_groups, phasors_of_groups
from blocks.modem.pulse import matched_filter_bank

_SPS = wf.RECEIVER_SAMPLES_PER_SYMBOL

# Sample-rate offsets tried, in ppm: two radios of +-25 ppm each, with room.
MAX_SAMPLE_RATE_OFFSET_PPM = 100.0
# How far apart the end of the burst lies for neighbours of the grid.
_GRID_SYMBOLS = 0.4
_EARLY_LATE_SYMBOLS = 0.25
_EARLY_MIDDLE_LATE = _EARLY_LATE_SYMBOLS * _SPS * np.array([-1.0, 0.0, 1.0])
_TIMING_ROUNDS = 2

# Residual carrier offset searched after acquisition, in cycles per symbol: 5 sigma at -2 dB.
_RESIDUAL_CFO_REACH = 6e-4
# Phase noise the tracker is built for, rad^2 per symbol (the waveform's promise is 1e-5; the rest is
# room for what the straight-line fits leave).
_PHASE_WALK = 1.5e-5

# Bounds that keep log-likelihood ratios finite whatever comes in: noise of a symbol that says nothing, noise
# of one that says everything, and the largest amplitude that is taken for a symbol.
_NO_INFORMATION = 1e30
_LEAST_NOISE = 1e-9
_LARGEST_SYMBOL = 1e15


@njit(nogil=True, cache=True)
def _turn_back(received, indices, cfo):  # type: ignore[no-untyped-def]
    """Take a carrier offset (cycles per symbol) out of the known symbols, ``complex64 [groups, 8]``."""
    groups, size = received.shape
    out = np.empty((groups, size), np.complex64)
    step = np.exp(-2j * np.pi * cfo)
    for g in range(groups):
        phasor = np.exp(-2j * np.pi * cfo * indices[g, 0])
        for k in range(size):
            out[g, k] = received[g, k] * phasor
            phasor *= step
    return out


def track_timing(
    samples: NDArray[np.complex64], start: float, known: KnownSymbols
) -> tuple[float, float]:
    """Time of the first symbol and spacing of symbols, in samples.

    A sample-rate offset moves the symbols by up to two periods within a long burst, further than an
    early-late detector can see: first a grid of offsets, then early-late errors with a straight line
    through them.

    Args:
        samples: ``complex64``, carrier offset removed.
        start: instant of the first preamble symbol from acquisition.
        known: the known symbols of the burst.

    Returns:
        ``(start, step)``.
    """
    length = float(known.indices[-1, -1]) + 1
    step = _best_step(samples, start, known, length)
    for _ in range(_TIMING_ROUNDS):
        phasors = known.phasors(samples, start + _EARLY_MIDDLE_LATE, step)
        offset, drift = _timing_error(phasors, known.centres, _early_late_slope())
        start += offset * _SPS
        step += drift * _SPS
    return start, step


def _best_step(
    samples: NDArray[np.complex64], start: float, known: KnownSymbols, length: float
) -> float:
    spacing = _GRID_SYMBOLS / length
    steps = int(np.ceil(MAX_SAMPLE_RATE_OFFSET_PPM * 1e-6 / spacing - 0.5))
    if steps == 0:
        return float(_SPS)
    offsets = np.arange(-steps, steps + 1) * spacing
    # The first quarter hardly moves, whatever the offset: it would cost time and add noise.
    late = known.after(length / 4)
    powers = _powers(
        samples,
        matched_filter_bank(),
        start,
        _SPS * (1 + offsets),
        late.indices.reshape(-1),
        late.symbols,
    )
    peak = int(np.clip(np.argmax(powers), 1, 2 * steps - 1))
    return float(_SPS * (1 + spacing * (peak - steps + _vertex(*powers[peak - 1 : peak + 2]))))


@njit(nogil=True, cache=True)
def _powers(samples, bank, start, steps, indices, symbols):  # type: ignore[no-untyped-def]
    """Power of the groups' phasors, all groups together, for each symbol spacing."""
    powers = np.zeros(steps.size)
    for n in range(steps.size):
        for mean in phasors_of_groups(samples, bank, start, steps[n], indices, symbols):
            powers[n] += _power(mean)
    return powers


@njit(nogil=True, cache=True)
def _vertex(left, middle, right):  # type: ignore[no-untyped-def]
    """Place of the maximum through three equally spaced values, limited to +-1; 0 where there is none."""
    bend = left - 2 * middle + right
    return min(max(0.5 * (left - right) / bend, -1.0), 1.0) if bend < 0 else 0.0


@njit(nogil=True, cache=True)
def _power(value):  # type: ignore[no-untyped-def]
    """Squared magnitude; in double precision, since nothing bounds the receiver's input."""
    return float(value.real) ** 2 + float(value.imag) ** 2


@njit(nogil=True, cache=True)
def _mean_power(values):  # type: ignore[no-untyped-def]
    total = 0.0
    for value in values:
        total += _power(value)
    return total / values.size


@cache
def _early_late_slope() -> float:
    """Slope of the early-late error per symbol of timing error, for unit power.

    A symbol that comes a time t after the instant looked at gives R(d - t) - R(d + t) = -2 R'(d) t with
    the raised cosine R and the distance d of the early and late samples.
    """
    d, a, h = _EARLY_LATE_SYMBOLS, wf.ROLL_OFF, 1e-4

    def raised_cosine(t: float) -> float:
        return float(np.sinc(t) * np.cos(np.pi * a * t) / (1 - (2 * a * t) ** 2))

    return -(raised_cosine(d + h) - raised_cosine(d - h)) / h


@njit(nogil=True, cache=True)
def _timing_error(phasors, centres, unit_slope):  # type: ignore[no-untyped-def]
    """Timing error in symbols and its growth per symbol: a straight line (least squares) through the
    early-late errors of the groups.

    Args:
        phasors: early, in the middle and late, ``complex64 [3, groups]``.
        centres: of the groups in symbols, ``float64 [groups]``.
        unit_slope: early-late error per symbol of timing error, for unit power.
    """
    early, middle, late = phasors
    scale = 1.0 / max(unit_slope * _mean_power(middle), 1e-30)
    errors = np.empty(centres.size)
    for g in range(centres.size):
        errors[g] = (np.conj(np.complex128(middle[g])) * (late[g] - early[g])).real * scale
    centre = centres.mean()
    spread = 0.0
    product = 0.0
    for g in range(centres.size):
        spread += (centres[g] - centre) ** 2
        product += (centres[g] - centre) * errors[g]
    slope = product / spread
    return errors.mean() - slope * centre, slope


def residual_dc(
    received: NDArray[np.complex64],
    known: KnownSymbols,
    instants: NDArray[np.float64],
    cycles_per_sample: float,
    span_symbols: float,
) -> complex:
    """DC that is left of a burst's samples after their mean has been taken away.

    That mean holds 1/n of the energy of a burst of n symbols, which is missing afterwards, as if as much DC
    had been added. Known symbols tell the two apart: least squares for the tone that DC becomes by
    the removal of the carrier offset, jointly with a free channel for every group. Weighted with
    how much can be there (Wiener), the estimate never adds more than it takes away.

    Args:
        received: matched filter outputs of the known symbols, ``complex64 [groups, 8]``.
        known: what they carried.
        instants: of each in samples, ``float64 [groups, 8]``.
        cycles_per_sample: what :func:`derotate` took the samples back by.
        span_symbols: length of the stretch whose mean was removed.

    Returns:
        Amplitude, to be added to the mean.
    """
    correlation, energy, level, noise = _project_tone(
        received, known.symbols, instants, cycles_per_sample
    )
    left = (level + noise) / span_symbols
    variance = noise / max(energy, 1e-30)
    dc = correlation / max(energy, 1e-30) * left / max(left + variance, 1e-60)
    return complex(dc) if np.isfinite(dc) else 0j


@njit(nogil=True, cache=True)
def _project_tone(received, symbols, instants, cycles_per_sample):  # type: ignore[no-untyped-def]
    """Correlation with the tone and the tone's energy, both beside the groups' own channels; mean power
    of the channels; noise.
    """
    groups, size = received.shape
    correlation = 0.0 + 0.0j
    energy = 0.0
    power = 0.0
    scatter = 0.0
    step = np.exp(-2j * np.pi * cycles_per_sample * (instants[0, 1] - instants[0, 0]))
    tone = np.empty(size, np.complex128)
    values = np.empty(size, np.complex128)
    for g in range(groups):
        angle = -2 * np.pi * ((cycles_per_sample * instants[g, 0]) % 1.0)
        phasor = complex(np.cos(angle), np.sin(angle))
        mean = 0.0 + 0.0j
        tone_mean = 0.0 + 0.0j
        for k in range(size):
            turned = np.conj(np.complex128(symbols[g, k]))
            values[k] = received[g, k] * turned
            tone[k] = phasor * turned
            mean += values[k]
            tone_mean += tone[k]
            phasor *= step
        mean /= size
        tone_mean /= size
        power += mean.real**2 + mean.imag**2
        for k in range(size):
            beside = tone[k] - tone_mean
            rest = values[k] - mean
            correlation += rest * np.conj(beside)
            energy += beside.real**2 + beside.imag**2
            scatter += rest.real**2 + rest.imag**2
    noise = scatter / (groups * (size - 1))
    return correlation, energy, max(power / groups - noise / size, 0.0), noise


def residual_cfo(
    phasors: NDArray[np.complex64],
    centres: NDArray[np.float64],
    reach: float = _RESIDUAL_CFO_REACH,
) -> float:
    """Carrier offset that is left, cycles per symbol: peak of the known symbols' spectrum.

    Args:
        phasors: ``complex64 [groups]``.
        centres: of the groups, in symbols, ``float64 [groups]``.
        reach: the largest offset looked for.
    """
    return float(_residual_cfo(phasors, centres, reach))


@njit(nogil=True, cache=True)
def _residual_cfo(phasors, centres, reach):  # type: ignore[no-untyped-def]
    resolution = 1.0 / (8 * (centres[-1] - centres[0] + GROUP))
    steps = max(1, int(np.ceil(reach / resolution)))
    power = _spectrum(phasors.astype(np.complex128), centres, resolution, steps)
    peak = min(max(int(np.argmax(power)), 1), 2 * steps - 1)
    vertex = _vertex(power[peak - 1], power[peak], power[peak + 1])
    return (peak - steps + vertex) * resolution


def tone_powers(
    phasors: NDArray[np.complex64], centres: NDArray[np.float64], cfo: float
) -> list[float]:
    """Power of the known symbols under a carrier offset, for each row of ``complex64 [n, groups]``."""
    powers: NDArray[np.float64] = _tone_powers(phasors, centres, cfo)
    return powers.tolist()


@njit(nogil=True, cache=True)
def _tone_powers(phasors, centres, cfo):  # type: ignore[no-untyped-def]
    totals = np.zeros(phasors.shape[0], np.complex128)
    for g in range(centres.size):
        turn = np.exp(-2j * np.pi * cfo * centres[g])
        for n in range(totals.size):
            totals[n] += phasors[n, g] * turn
    return totals.real**2 + totals.imag**2


@njit(nogil=True, cache=True)
def _spectrum(phasors, centres, resolution, steps):  # type: ignore[no-untyped-def]
    """|sum_g phasors[g] exp(-j 2 pi f centres[g])|^2 at f = k resolution, k = -steps..steps."""
    power = np.empty(2 * steps + 1)
    values = phasors.copy()
    for g in range(values.size):
        values[g] *= np.exp(2j * np.pi * steps * resolution * centres[g])
    turns = np.exp(-2j * np.pi * resolution * centres)
    for k in range(power.size):
        total = values.sum()
        power[k] = total.real**2 + total.imag**2
        values *= turns
    return power


def track_phase(
    phasors: NDArray[np.complex64],
    centres: NDArray[np.float64],
    noise_variance: float,
) -> NDArray[np.complex128]:
    """Channel at each group: random-walk (Kalman, Rauch-Tung-Striebel) smoothing of the phasors.

    Args:
        phasors: ``complex64 [groups]``, residual carrier offset removed.
        centres: ``float64 [groups]``, in symbols.
        noise_variance: N0 of one received symbol.

    Returns:
        ``complex128 [groups]``.
    """
    channel: NDArray[np.complex128] = _track_phase(phasors, centres, noise_variance)
    return channel


@njit(nogil=True, cache=True)
def _track_phase(phasors, centres, noise_variance):  # type: ignore[no-untyped-def]
    level = max(_mean_power(phasors) - noise_variance / GROUP, 1e-30)
    return _smooth(
        phasors.astype(np.complex128), centres, noise_variance / GROUP, _PHASE_WALK * level
    )


@njit(nogil=True, cache=True)
def _smooth(observed, centres, observation_noise, walk):  # type: ignore[no-untyped-def]
    count = observed.size
    state = np.empty(count, np.complex128)
    variance = np.empty(count)
    predicted = np.empty(count)
    state[0] = observed[0]
    variance[0] = observation_noise
    predicted[0] = observation_noise
    for g in range(1, count):
        predicted[g] = variance[g - 1] + walk * (centres[g] - centres[g - 1])
        gain = predicted[g] / (predicted[g] + observation_noise + 1e-300)
        state[g] = state[g - 1] + gain * (observed[g] - state[g - 1])
        variance[g] = (1 - gain) * predicted[g]
    for g in range(count - 2, -1, -1):
        gain = variance[g] / (predicted[g + 1] + 1e-300)
        state[g] += gain * (state[g + 1] - state[g])
    return state


def estimate_channel(
    received: NDArray[np.complex64], known: KnownSymbols
) -> tuple[float, NDArray[np.complex128], float]:
    """Residual carrier offset, the channel at each group behind it, and the noise.

    Args:
        received: matched filter outputs of the known symbols, ``complex64 [groups, 8]``.
        known: what they carried.

    Returns:
        The offset in cycles per symbol, ``complex128 [groups]``, and N0 of one received symbol.
    """
    channel: NDArray[np.complex128]
    cfo, channel, noise_variance = _estimate_channel(
        received, known.indices, known.symbols, known.centres
    )
    return cfo, channel, noise_variance


@njit(nogil=True, cache=True)
def _estimate_channel(received, indices, symbols, centres):  # type: ignore[no-untyped-def]
    means, _ = mean_of_groups(received, symbols)
    cfo = _residual_cfo(means, centres, _RESIDUAL_CFO_REACH)
    phasors, noise_variance = mean_of_groups(_turn_back(received, indices, cfo), symbols)
    return cfo, _track_phase(phasors, centres, noise_variance), noise_variance


def divide_channel(
    received: NDArray[np.complex64],
    positions: NDArray[np.float64],
    channel: NDArray[np.complex128],
    centres: NDArray[np.float64],
    cfo: float,
    noise_variance: float,
) -> tuple[NDArray[np.complex64], NDArray[np.float32]]:
    """Symbols of unit amplitude, and the noise of each.

    Between the groups the channel is a straight line, beyond the first and the last it stands still; the
    carrier offset turns it on top of that.

    Args:
        received: ``complex64 [n]``.
        positions: of the symbols, ascending, in symbols, ``float64 [n]``.
        channel: at each group, ``complex128 [groups]``.
        centres: of the groups, ascending, in symbols, ``float64 [groups]``.
        cfo: cycles per symbol.
        noise_variance: N0 of one received symbol.

    Returns:
        ``complex64 [n]`` and N0 of each after the division, ``float32 [n]``, positive and finite. A symbol
        without a channel, or too large to be one, comes out as 0 in endless noise.
    """
    symbols = np.empty(received.size, np.complex64)
    noise = np.empty(received.size, np.float32)
    _divide_channel(received, positions, channel, centres, cfo, noise_variance, symbols, noise)
    return symbols, noise


@njit(nogil=True, cache=True)
def _divide_channel(  # type: ignore[no-untyped-def]
    received, positions, channel, centres, cfo, noise_variance, symbols, noise
):
    right = 0  # the first group behind the symbol
    last = centres.size - 1
    turn = np.exp(2j * np.pi * cfo)
    phasor = 1.0 + 0.0j
    exact = -1
    for n in range(received.size):
        position = positions[n]
        while right <= last and centres[right] <= position:
            right += 1
        if right == 0:
            value = channel[0]
        elif right > last:
            value = channel[last]
        else:
            low = centres[right - 1]
            share = (position - low) / (centres[right] - low)
            value = channel[right - 1] + share * (channel[right] - channel[right - 1])
        # The phasor is advanced by multiplication and set exactly at every gap and 128 symbols.
        if exact < 0 or n - exact >= 128 or position != positions[n - 1] + 1:
            angle = 2 * np.pi * cfo * position
            phasor = complex(np.cos(angle), np.sin(angle))
            exact = n
        else:
            phasor *= turn
        value *= phasor
        power = value.real**2 + value.imag**2
        symbols[n] = 0.0
        noise[n] = _NO_INFORMATION
        if power > 1e-30 and power < 1e60:
            inverse = 1.0 / power
            x, y = float(received[n].real), float(received[n].imag)
            real = (x * value.real + y * value.imag) * inverse
            imag = (y * value.real - x * value.imag) * inverse
            # False for NaN too.
            if abs(real) + abs(imag) < _LARGEST_SYMBOL:
                symbols[n] = complex(real, imag)
                noise[n] = min(max(noise_variance * inverse, _LEAST_NOISE), _NO_INFORMATION)
