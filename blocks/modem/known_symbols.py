"""What is known of a burst before it is heard: preamble, pilots and, once read, the header, in groups of 8.

Whatever follows a burst through time looks at these groups; within one the channel stands still.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
from numba import njit
from numpy.typing import NDArray

from blocks.modem import waveform as wf
from blocks.modem.pulse import matched_filter_bank, sample_symbols

GROUP = wf.PILOT_SYMBOLS


@dataclass(frozen=True)
class KnownSymbols:
    """Known symbols in groups of 8.

    Args:
        indices: ``float64 [groups, 8]`` positions, in symbols from the first preamble symbol; those of a
            group follow each other without a gap, and the groups are in order.
        symbols: ``complex64 [groups, 8]`` of unit amplitude.
    """

    indices: NDArray[np.float64]
    symbols: NDArray[np.complex64]

    @property
    def centres(self) -> NDArray[np.float64]:
        """Middle of each group, in symbols."""
        return self.indices[:, 0] + 0.5 * (GROUP - 1)

    def phasors(
        self, samples: NDArray[np.complex64], starts: NDArray[np.float64], step: float
    ) -> NDArray[np.complex64]:
        """Mean channel seen by each group, for several instants of the first preamble symbol.

        Args:
            samples: ``complex64``.
            starts: in samples, ``float64 [starts]``.
            step: samples per symbol.

        Returns:
            ``complex64 [starts, groups]``.
        """
        means: NDArray[np.complex64] = _phasors_at(
            samples, matched_filter_bank(), starts, step, self.indices.reshape(-1), self.symbols
        )
        return means

    def after(self, position: float) -> KnownSymbols:
        """The groups that begin at ``position`` or later."""
        keep = self.indices[:, 0] >= position
        return KnownSymbols(self.indices[keep], self.symbols[keep])


def group_means(
    received: NDArray[np.complex64], symbols: NDArray[np.complex64]
) -> tuple[NDArray[np.complex64], float]:
    """Channel that each group saw, and the noise around it.

    Within a group the channel stands still: the scatter around the group's mean is noise.

    Args:
        received: ``complex64 [groups, 8]``.
        symbols: what was sent, of unit amplitude, ``complex64 [groups, 8]``.

    Returns:
        ``complex64 [groups]`` and N0 of one received symbol, more than 0.
    """
    means: NDArray[np.complex64]
    means, noise = mean_of_groups(np.ascontiguousarray(received), symbols)
    return means, noise


@njit(nogil=True, cache=True)
def mean_of_groups(received, symbols):  # type: ignore[no-untyped-def]
    """:func:`group_means` for kernels; ``received`` is contiguous."""
    groups, size = received.shape
    means = np.empty(groups, np.complex64)
    total = 0.0
    for g in range(groups):
        mean = 0.0 + 0.0j
        power = 0.0
        for k in range(size):
            value = received[g, k] * np.conj(symbols[g, k])
            mean += value
            power += float(value.real) ** 2 + float(value.imag) ** 2
        mean /= size
        # Samples near the largest number there is add up to infinity or NaN: a group that says nothing.
        if power < 1e60:
            means[g] = mean
            total += power - size * (mean.real**2 + mean.imag**2)
        else:
            means[g] = 0.0
            total += 1e60
    return means, min(max(total / (groups * (size - 1)), 1e-30), 1e60)


@njit(nogil=True, cache=True)
def phasors_of_groups(samples, bank, start, step, indices, symbols):  # type: ignore[no-untyped-def]
    """:meth:`KnownSymbols.phasors` for kernels, at one instant; ``indices`` is flat."""
    received = sample_symbols(samples, bank, start, step, indices)
    return mean_of_groups(received.reshape(symbols.shape), symbols)[0]


@njit(nogil=True, cache=True)
def _phasors_at(samples, bank, starts, step, indices, symbols):  # type: ignore[no-untyped-def]
    means = np.empty((starts.size, symbols.shape[0]), np.complex64)
    for n in range(starts.size):
        means[n] = phasors_of_groups(samples, bank, starts[n], step, indices, symbols)
    return means


def join(*parts: KnownSymbols) -> KnownSymbols:
    """Several sets of known symbols as one, ordered in time."""
    indices = np.concatenate([part.indices for part in parts])
    symbols = np.concatenate([part.symbols for part in parts])
    order = np.argsort(indices[:, 0], kind="stable")
    return KnownSymbols(indices[order], symbols[order])


@cache
def known_preamble() -> KnownSymbols:
    """The 256 preamble symbols as 32 groups."""
    indices = np.arange(wf.PREAMBLE_SYMBOLS, dtype=np.float64).reshape(-1, GROUP)
    return KnownSymbols(indices, wf.preamble().reshape(-1, GROUP))


@lru_cache(maxsize=64)
def body_positions(body_symbols: int) -> NDArray[np.int64]:
    """Position of each body symbol, counted from the first preamble symbol, ``int64 [body_symbols]``.

    Read-only.
    """
    index = np.arange(body_symbols)
    positions: NDArray[np.int64] = wf.PREAMBLE_SYMBOLS + index + GROUP * (index // wf.PILOT_SPACING)
    positions.flags.writeable = False
    return positions


@lru_cache(maxsize=64)
def known_pilots(body_symbols: int) -> KnownSymbols:
    """All pilot groups of a burst whose header and payload have ``body_symbols`` symbols."""
    groups = -(-body_symbols // wf.PILOT_SPACING)
    ends = np.minimum((np.arange(groups) + 1) * wf.PILOT_SPACING, body_symbols)
    first = wf.PREAMBLE_SYMBOLS + ends + GROUP * np.arange(groups)
    indices = (first[:, None] + np.arange(GROUP)).astype(np.float64)
    return KnownSymbols(indices, wf.pilots(groups))


def known_body(first: int, symbols: NDArray[np.complex64]) -> KnownSymbols:
    """Decided body symbols (the re-encoded header) that start at body position ``first``.

    ``symbols`` is a whole number of groups of 8 that no pilot group cuts.
    """
    positions = body_positions(first + symbols.size)[first:]
    return KnownSymbols(
        positions.astype(np.float64).reshape(-1, GROUP),
        symbols.reshape(-1, GROUP),
    )


@lru_cache(maxsize=64)
def known_before_header(body_symbols: int) -> KnownSymbols:
    """Preamble and pilots of a burst whose header and payload have ``body_symbols`` symbols."""
    return join(known_preamble(), known_pilots(body_symbols))


def known_behind_header(body_symbols: int, header: NDArray[np.complex64]) -> KnownSymbols:
    """All that is known of a burst once its header has been read and encoded again.

    Args:
        body_symbols: of header and payload.
        header: ``complex64 [512]``.
    """
    layout, header_groups = _layout_behind_header(body_symbols)
    symbols = layout.symbols.copy()
    symbols[header_groups] = header.reshape(-1, GROUP)
    return KnownSymbols(layout.indices, symbols)


@lru_cache(maxsize=64)
def _layout_behind_header(body_symbols: int) -> tuple[KnownSymbols, NDArray[np.int64]]:
    """Known symbols with zeros in place of the header, and which groups those are."""
    blank = known_body(0, np.zeros(wf.HEADER_SYMBOLS, np.complex64))
    layout = join(known_before_header(body_symbols), blank)
    return layout, np.flatnonzero(~layout.symbols.any(axis=1))
