"""Undoing echoes: a short filter, made from the known symbols, and only where there is something to undo.

An echo a symbol late and 10 dB down is a disturbance of -10 dB, whatever the noise. The known symbols at the
head of a burst tell the impulse response of the way at symbol spacing (least squares); where nothing
but the main tap stands out of the estimate's own noise, the burst is left as it is. Otherwise the filter
with the least mean square error (Wiener) is put in front of everything else that happens to the burst.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

# Reach of the impulse response, in symbols around the main tap. Echoes come late; what comes early is
# the foot of the pulse where an echo is no whole number of symbols away.
TAPS_BEFORE = 6
TAPS_AFTER = 10
_TAPS = TAPS_BEFORE + 1 + TAPS_AFTER
_IS_ECHO = np.arange(_TAPS) != TAPS_BEFORE

# An echo is believed where a tap stands out of the estimate's noise by this factor (power): noise alone does
# that with probability exp(-16) per tap, 2e-6 per burst.
DETECTION_FACTOR = 16.0
# ... and is no less than this against the main tap (power, -40 dB): less costs next to nothing at 20 dB, and
# cut pulses and filters leave up to -50 dB.
DETECTION_FLOOR = 1e-4
# Once there is an echo, taps of less than this factor are noise rather than the foot of a pulse.
_KEEP_FACTOR = 3.0

# Length of the equaliser in symbols, and the place in it of the symbol it is for: most echoes come late, and
# what undoes them reaches back by several times their delay.
FILTER_TAPS = 49
FILTER_CENTRE = 30
# Noise assumed at least, against the main tap's power, so that a burst without noise can be solved.
_LEAST_NOISE = 1e-5


@dataclass(frozen=True)
class ImpulseResponse:
    """What one symbol does to its neighbours, relative to the main tap.

    Args:
        taps: ``complex128 [17]``; entry ``TAPS_BEFORE`` is the symbol itself.
        variances: of the estimation error of each, ``float64 [17]``.
        noise_variance: N0 of one received symbol, echoes not counted.
    """

    taps: NDArray[np.complex128]
    variances: NDArray[np.float64]
    noise_variance: float

    def echoes(self) -> ImpulseResponse | None:
        """The same with all taps that are noise at zero; None where only the main tap is left."""
        power = self.taps.real**2 + self.taps.imag**2
        main = float(power[TAPS_BEFORE])
        least = np.maximum(DETECTION_FACTOR * self.variances, DETECTION_FLOOR * main)
        if not (_IS_ECHO & (power > least)).any():
            return None
        keep = (power > _KEEP_FACTOR * self.variances) | ~_IS_ECHO
        return ImpulseResponse(np.where(keep, self.taps, 0.0), self.variances, self.noise_variance)


def estimate_response(
    received: NDArray[np.complex64], known: NDArray[np.complex64]
) -> ImpulseResponse:
    """Least-squares impulse response from an unbroken run of known symbols.

    Args:
        received: ``complex64 [n]``, carrier phase and amplitude of the main tap taken out.
        known: what was sent, of unit amplitude, ``complex64 [n]``; some 100 symbols of it random.
    """
    return ImpulseResponse(*_least_squares(received, known))


@njit(nogil=True, cache=True)
def _least_squares(received, known):  # type: ignore[no-untyped-def]
    gram, correlation, energy, rows = _normal_equations(
        received.astype(np.complex128), known.astype(np.complex128)
    )
    inverse = _inverse(gram)
    taps = np.zeros(_TAPS, np.complex128)
    left = energy
    for i in range(_TAPS):
        for j in range(_TAPS):
            taps[i] += inverse[i, j] * correlation[j]
        left -= (np.conj(taps[i]) * correlation[i]).real
    noise = max(left / (rows - _TAPS), 1e-30)
    return taps, noise * np.diag(inverse).real, noise


@njit(nogil=True, cache=True)
def _normal_equations(received, known):  # type: ignore[no-untyped-def]
    """Gram matrix, right-hand side, energy and number of the equations whose known symbols are all there.

    Row k says received[k] = sum_d taps[d + TAPS_BEFORE] known[k - d].
    """
    first = TAPS_AFTER
    last = received.size - TAPS_BEFORE
    gram = np.zeros((_TAPS, _TAPS), np.complex128)
    correlation = np.zeros(_TAPS, np.complex128)
    energy = 0.0
    for i in range(_TAPS):
        shift = TAPS_BEFORE - i
        lag = 0.0 + 0.0j
        cross = 0.0 + 0.0j
        for k in range(first, last):
            # The first row of the matrix; the others follow from it.
            lag += np.conj(known[k + TAPS_BEFORE]) * known[k + shift]
            cross += np.conj(known[k + shift]) * received[k]
        gram[0, i] = lag
        correlation[i] = cross
    # Going down the diagonal, one product comes in at the front and one leaves at the end.
    for i in range(1, _TAPS):
        a = TAPS_BEFORE - i
        for j in range(i, _TAPS):
            b = TAPS_BEFORE - j
            comes = np.conj(known[first + a]) * known[first + b]
            leaves = np.conj(known[last + a]) * known[last + b]
            gram[i, j] = gram[i - 1, j - 1] + comes - leaves
    for i in range(1, _TAPS):
        for j in range(i):
            gram[i, j] = np.conj(gram[j, i])
    for k in range(first, last):
        energy += received[k].real ** 2 + received[k].imag ** 2
    return gram, correlation, energy, last - first


@njit(nogil=True, cache=True)
def _inverse(matrix):  # type: ignore[no-untyped-def]
    """Inverse of a positive definite matrix (Gauss-Jordan, no pivot needed).

    LAPACK wakes a thread per core for any size, which takes a busy machine milliseconds; this takes
    microseconds.
    """
    size = matrix.shape[0]
    work = matrix.copy()
    inverse = np.eye(size).astype(np.complex128)
    for i in range(size):
        scale = 1.0 / work[i, i]
        for j in range(size):
            work[i, j] *= scale
            inverse[i, j] *= scale
        for row in range(size):
            if row != i:
                factor = work[row, i]
                for j in range(size):
                    work[row, j] -= factor * work[i, j]
                    inverse[row, j] -= factor * inverse[i, j]
    return inverse


def mmse_filter(response: ImpulseResponse) -> tuple[NDArray[np.complex128], float]:
    """The equaliser with the least mean square error, scaled so that it does not shrink the symbols.

    Returns:
        Weights ``complex128 [FILTER_TAPS]``, for :func:`equalise`, and the signal-to-noise ratio at
        their output (not in dB), what is left of the echoes counted as noise.
    """
    taps = response.taps
    noise = max(response.noise_variance, _LEAST_NOISE * float(np.abs(taps[TAPS_BEFORE]) ** 2))
    # How received values hang together: Toeplitz, entry (m, n) is the autocorrelation at m - n.
    lags = np.zeros(2 * FILTER_TAPS - 1, np.complex128)
    lags[FILTER_TAPS - _TAPS : FILTER_TAPS + _TAPS - 1] = np.correlate(taps, taps, "full")
    lags[FILTER_TAPS - 1] += noise
    place = np.arange(FILTER_TAPS)
    covariance = lags[FILTER_TAPS - 1 + place[:, None] - place]
    # Value m of the filter's input holds the wanted symbol through the tap m - FILTER_CENTRE.
    wanted = np.zeros(FILTER_TAPS, np.complex128)
    wanted[FILTER_CENTRE - TAPS_BEFORE : FILTER_CENTRE + TAPS_AFTER + 1] = taps
    weights = (_inverse(covariance) @ wanted).conj()
    share = float((weights @ wanted).real)
    return weights / max(share, 1e-30), share / max(1 - share, 1e-30)


@njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})
def _equalise(stream, weights, out):  # type: ignore[no-untyped-def]
    for n in range(out.size):
        real = np.float32(0.0)
        imag = np.float32(0.0)
        for k in range(weights.size):
            value = stream[n + k]
            weight = weights[k]
            real += weight.real * value.real - weight.imag * value.imag
            imag += weight.real * value.imag + weight.imag * value.real
        out[n] = complex(real, imag)


def equalise(
    stream: NDArray[np.complex64], weights: NDArray[np.complex128]
) -> NDArray[np.complex64]:
    """Filter received values, one per symbol without a gap.

    Args:
        stream: ``complex64 [n + FILTER_TAPS - 1]``, from ``FILTER_CENTRE`` symbols before the first one.
        weights: from :func:`mmse_filter`.

    Returns:
        ``complex64 [n]``.
    """
    out = np.empty(stream.size - weights.size + 1, np.complex64)
    _equalise(stream, weights.astype(np.complex64), out)
    return out
