"""Layered decoder for 5G NR LDPC codes in 16-bit fixed point, close to belief propagation.

One layer is one base-graph row: ``lifting_size`` independent check nodes, one per SIMD lane. A layer

1. takes the posteriors of its columns, rotated so that lane i belongs to check i, less the message the
   check sent last time;
2. finds, per check, the *box-plus* of the others for every bit, good to 0.03 LLR
   (:mod:`blocks.modem.ldpc_check_nodes`);
3. sends it to the bit as its message;
4. adds the messages to the posteriors.

That is belief propagation, to within 0.01 dB of the same in floating point. Offset min-sum is less work
per iteration, but needs 0.14 dB more at rate 1/2 and 0.30 dB more at rate 1/5 (``uoisc benchmark ldpc
--crossing``): its offset deletes the small messages that low rates live on.

Rows that see fewer of the two columns that are never sent go first, the parity core last: a check
between two unknown bits says nothing. Decoding stops as soon as every check that was reached by
transmitted bits holds. Bits without any evidence count as a violated check: silence is not the
all-zero codeword.

Numbers: one step is 1/16 in LLR. Messages stay within +-500 steps (31 LLR; a quarter of that gives the
short high-rate codes an error floor); a column has at most 30 edges, so a posterior stays within
490 + 30 x 500 steps, a filler's within 16,000 + 30 x 500, and nothing overflows 16 bits. The sum of two
magnitudes may pass 32,767: it is compared as unsigned.

A layer does not turn its columns back: it writes them as it had them, into spare room, and the next
layer turns by the difference of the shifts. Only reading is unaligned then. Behind a column its first
bits are repeated: every rotation is a plain load, lanes beyond the lifting size compute the same as the
first ones, and no loop has a remainder.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from blocks.modem.base_graphs import CORE_ROWS, PUNCTURED_COLUMNS
from blocks.modem.ldpc_check_nodes import MAX_DEGREE, STEPS_PER_LLR, update_row
from blocks.modem.ldpc_code import LdpcCode, LdpcError
from blocks.modem.ldpc_lanes import (
    LANES,
    any_negative,
    any_zero,
    exclusive_or,
    load,
    magnitude,
    minimum,
    splat,
)
from blocks.modem.ldpc_rate_matching import check_interleaver, rows_reached, transmitted_bits

BitArray = NDArray[np.uint8]
FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int32]
StepArray = NDArray[np.int16]

DEFAULT_MAX_ITERATIONS = 50
# Less than a message, or a wrong parity bit of degree one could never be put right.
CHANNEL_LIMIT = 490  # steps
FILLER_STEPS = 16_000  # a known zero: more than all messages of a column together can turn

_CACHE_LINE = 64  # bytes
_ALIGNED_STEPS = _CACHE_LINE // 2


@dataclass(frozen=True, eq=False)
class DecodeResult:
    """One decoded block. ``posterior_llrs`` are the decoder's own, positive = bit 0."""

    bits: BitArray  # [K], CRC included
    parity_ok: bool
    iterations: int
    posterior_llrs: FloatArray  # [K]


@dataclass(frozen=True, eq=False)
class BatchDecodeResult:
    """Several decoded blocks of one code; the fields of :class:`DecodeResult` with a leading axis."""

    bits: BitArray  # [n, K]
    parity_ok: NDArray[np.bool_]  # [n]
    iterations: NDArray[np.int32]  # [n]
    posterior_llrs: FloatArray  # [n, K]

    def block(self, index: int) -> DecodeResult:
        """One of the blocks."""
        return DecodeResult(
            bits=self.bits[index],
            parity_ok=bool(self.parity_ok[index]),
            iterations=int(self.iterations[index]),
            posterior_llrs=self.posterior_llrs[index],
        )


@dataclass(frozen=True, eq=False)
class _Plan:
    """What the kernels need to know of one code and redundancy version.

    A column of posteriors starts at a multiple of ``stride``; its entry i is bit (i + turn) of the column,
    and behind ``lifting_size`` of them the first LANES are repeated.
    """

    runs: IntArray  # [runs, 3]: first received bit, where among the posteriors, how many bits
    fillers: IntArray  # [runs, 2]: where among the posteriors, how many bits
    row_start: IntArray  # [rows + 1], into the edges
    edge_column: IntArray  # [edges]
    edge_turn: IntArray  # [edges], against the row that wrote the column last
    check_turn: IntArray  # [edges], against the last row of the pass
    column_turn: IntArray  # [columns]
    stride: int


def _schedule(code: LdpcCode, rows: list[int]) -> list[list[int]]:
    """Edges of each row, rows in the order in which they are processed.

    A column of nothing but fillers tells its checks nothing: its edges are left out, and so is a row
    that then has a single edge.
    """
    first_empty = -(-code.info_bits // code.lifting_size)
    edges_of = {
        row: [
            edge
            for edge in range(code.row_start[row], code.row_start[row + 1])
            if not first_empty <= code.edge_column[edge] < code.info_columns
        ]
        for row in rows
    }

    def rank(row: int) -> tuple[bool, int, int]:
        unknown = sum(int(code.edge_column[edge]) < PUNCTURED_COLUMNS for edge in edges_of[row])
        return row < CORE_ROWS, unknown, len(edges_of[row])

    return [edges_of[row] for row in sorted(edges_of, key=rank) if len(edges_of[row]) > 1]


def _runs(positions: IntArray) -> IntArray:
    """Cut ``positions`` into stretches of consecutive numbers: [first index, first number, length]."""
    starts = np.flatnonzero(np.diff(positions, prepend=-2) != 1)
    lengths = np.diff(starts, append=positions.size)
    return np.stack((starts, positions[starts], lengths), axis=1).astype(np.int32)


@lru_cache(maxsize=256)
def _plan(code: LdpcCode, redundancy_version: int) -> _Plan:
    size = code.lifting_size
    # Columns start on cache lines, and there is room for a vector behind the last bit.
    stride = -(-(size + LANES) // _ALIGNED_STEPS) * _ALIGNED_STEPS
    rows = [int(row) for row in rows_reached(code, redundancy_version)]
    layers = _schedule(code, rows)
    edges = np.array([edge for layer in layers for edge in layer])
    column, shift = code.edge_column[edges], code.edge_shift[edges]
    sent = transmitted_bits(code, redundancy_version)
    columns = 1 + max(int(column.max()), code.info_columns - 1, int(sent.max()) // size)
    column_turn = np.zeros(columns, np.int32)
    column_turn[column] = shift  # of several, the last one stays
    now, edge_turn = column_turn.copy(), np.empty_like(shift)
    for edge in range(edges.size):
        edge_turn[edge] = (shift[edge] - now[column[edge]]) % size
        now[column[edge]] = shift[edge]
    entry = (np.arange(size) - column_turn[:, None]) % size
    positions = (np.arange(columns)[:, None] * stride + entry).reshape(-1)
    return _Plan(
        runs=_runs(positions[sent]),
        fillers=_runs(positions[code.info_bits : code.info_columns * size])[:, 1:].copy(),
        row_start=np.cumsum([0, *map(len, layers)], dtype=np.int32),
        edge_column=column,
        edge_turn=edge_turn,
        check_turn=(shift - column_turn[column]) % size,
        column_turn=column_turn,
        stride=stride,
    )


@njit(nogil=True, cache=True)
def _quantise(llrs: FloatArray, steps: StepArray) -> bool:
    """Round to steps and limit. False when an LLR is not a number."""
    numbers = True
    limit = np.float32(CHANNEL_LIMIT)
    for t in range(llrs.size):
        value = llrs[t] * np.float32(STEPS_PER_LLR)
        numbers &= value == value
        # Shifted to be positive, cutting off the fraction rounds to the nearest.
        limited = min(max(value, -limit), limit) + (limit + np.float32(0.5))
        steps[t] = np.int32(limited) - CHANNEL_LIMIT
    return numbers


@njit(nogil=True, cache=True)
def _deinterleave(steps: StepArray, bits_per_symbol: int, selected: StepArray) -> None:
    """Undo TS 38.212 5.4.2.2: every bits_per_symbol-th bit belongs to the same stretch."""
    length = steps.size // bits_per_symbol
    for i in range(bits_per_symbol):
        stretch = selected[i * length : (i + 1) * length]
        if bits_per_symbol == 3:  # 8-PSK: a distance known beforehand lets the compiler vectorise
            for j in range(length):
                stretch[j] = steps[3 * j + i]
        else:
            for j in range(length):
                stretch[j] = steps[j * bits_per_symbol + i]


@njit(nogil=True, cache=True)
def _place(selected: StepArray, runs: IntArray, fillers: IntArray, posterior: StepArray) -> None:
    """Put received bits into their columns, adding up the repeated ones; fillers are known zeros."""
    posterior[:] = 0
    for run in range(runs.shape[0]):
        source = selected[runs[run, 0] : runs[run, 0] + runs[run, 2]]
        target = posterior[runs[run, 1] : runs[run, 1] + runs[run, 2]]
        for i in range(target.size):
            total = np.int32(target[i]) + np.int32(source[i])
            target[i] = min(max(int(total), -CHANNEL_LIMIT), CHANNEL_LIMIT)
    for run in range(fillers.shape[0]):
        posterior[fillers[run, 0] : fillers[run, 0] + fillers[run, 1]] = FILLER_STEPS


@njit(nogil=True, cache=True)
def _repeat_ends(posterior: StepArray, size: int, stride: int, columns: int) -> None:
    """Make every column periodic: LANES places behind it repeat its first bits."""
    for first in range(0, columns * stride, stride):
        for i in range(first + size, first + size + LANES):
            posterior[i] = posterior[i - size]


@njit(nogil=True, cache=True)
def _iterate(
    posterior: StepArray, messages: StepArray, row_start: IntArray, edge_column: IntArray,
    edge_turn: IntArray, place: IntArray, spare: IntArray, size: int, width: int,
) -> None:  # fmt: skip
    """One pass over all layers. ``width`` counts lanes per edge, a multiple of LANES.

    ``place`` says where every column is, ``spare`` where nothing is; a layer swaps its columns' entries.
    """
    sources = np.empty(MAX_DEGREE, np.int32)
    for row in range(row_start.size - 1):
        first, last = row_start[row], row_start[row + 1]
        columns, turns = edge_column[first:last], edge_turn[first:last]
        for edge in range(columns.size):
            sources[edge] = place[columns[edge]]
        update_row(
            columns.size, posterior, messages, first * width, width, size, sources, turns, spare
        )
        for edge in range(columns.size):
            place[columns[edge]] = spare[edge]
            spare[edge] = sources[edge]


@njit(nogil=True, cache=True)
def _row_holds(
    posterior: StepArray, columns: IntArray, turn: IntArray, place: IntArray, size: int, width: int
) -> bool:
    """Whether the checks of a row are even and every bit in them decided (zero decides nothing)."""
    for lane in range(0, width, LANES):
        parity, least = splat(0), splat(FILLER_STEPS)
        for edge in range(columns.size):
            start = lane + turn[edge]
            if start >= size:
                start -= size
            value = load(posterior, place[columns[edge]] + start)
            parity = exclusive_or(parity, value)
            least = minimum(least, magnitude(value))
        if any_negative(parity) or any_zero(least):
            return False
    return True


@njit(nogil=True, cache=True)
def _violated_row(
    posterior: StepArray, row_start: IntArray, edge_column: IntArray, check_turn: IntArray,
    place: IntArray, size: int, width: int, begin: int,
) -> int:  # fmt: skip
    """A row that does not hold, looked for from ``begin`` on (where one failed last time); -1: none."""
    rows = row_start.size - 1
    for i in range(rows):
        row = (begin + i) % rows
        edges = slice(row_start[row], row_start[row + 1])
        if not _row_holds(posterior, edge_column[edges], check_turn[edges], place, size, width):
            return row
    return -1


@njit(nogil=True, cache=True)
def _deliver_run(column: StepArray, bits: BitArray, posterior_llrs: FloatArray) -> None:
    # Two loops of two arrays each: one of three does not vectorise.
    for i in range(bits.size):
        bits[i] = np.uint16(column[i]) >> 15
    for i in range(bits.size):
        posterior_llrs[i] = np.float32(column[i]) * np.float32(1 / STEPS_PER_LLR)


@njit(nogil=True, cache=True)
def _deliver(
    posterior: StepArray, place: IntArray, turn: IntArray, size: int, bits: BitArray,
    posterior_llrs: FloatArray,
) -> None:  # fmt: skip
    """Turn the information columns back: the last ``turn`` entries of each come first."""
    for begin in range(0, bits.size, size):
        column = begin // size
        first, back = place[column], turn[column]
        end = min(begin + size, bits.size)
        cut = min(begin + back, end)
        tail, head = posterior[first + size - back :], posterior[first:]
        _deliver_run(tail, bits[begin:cut], posterior_llrs[begin:cut])
        _deliver_run(head, bits[cut:end], posterior_llrs[cut:end])


@njit(nogil=True, cache=True)
def _aligned(count: int, dtype: type) -> NDArray[Any]:
    """An uninitialised array that starts on a cache line."""
    array: NDArray[Any] = np.empty(count + _CACHE_LINE, dtype)
    begin = -array.ctypes.data % _CACHE_LINE // array.itemsize
    return array[begin : begin + count]


@njit(nogil=True, cache=True)
def _decode_blocks(
    llrs: FloatArray, bits_per_symbol: int, runs: IntArray, fillers: IntArray, row_start: IntArray,
    edge_column: IntArray, edge_turn: IntArray, check_turn: IntArray, column_turn: IntArray,
    size: int, stride: int, max_iterations: int, bits: BitArray, parity_ok: NDArray[np.bool_],
    iterations: IntArray, posterior_llrs: FloatArray,
) -> bool:  # fmt: skip
    """Decode every row of ``llrs``. False when an LLR is not a number."""
    width = (size + LANES - 1) // LANES * LANES
    columns = column_turn.size
    steps, selected = np.empty(llrs.shape[1], np.int16), np.empty(llrs.shape[1], np.int16)
    posterior = _aligned((columns + MAX_DEGREE) * stride, np.int16)
    messages = _aligned(edge_column.size * width, np.int16)
    place, spare = np.empty(columns, np.int32), np.empty(MAX_DEGREE, np.int32)
    for block in range(llrs.shape[0]):
        if not _quantise(llrs[block], steps):
            return False
        _deinterleave(steps, bits_per_symbol, selected)
        _place(selected, runs, fillers, posterior[: columns * stride])
        _repeat_ends(posterior, size, stride, columns)
        place[:] = np.arange(columns) * stride
        spare[:] = np.arange(columns, columns + MAX_DEGREE) * stride
        messages[:] = 0
        violated, count = 0, 0
        while count < max_iterations and violated >= 0:
            _iterate(
                posterior, messages, row_start, edge_column, edge_turn, place, spare, size, width
            )
            count += 1
            violated = _violated_row(
                posterior, row_start, edge_column, check_turn, place, size, width, violated
            )
        parity_ok[block], iterations[block] = violated < 0, count
        _deliver(posterior, place, column_turn, size, bits[block], posterior_llrs[block])
    return True


def decode_blocks(
    code: LdpcCode,
    llrs: FloatArray,
    max_iterations: int = DEFAULT_MAX_ITERATIONS,
    redundancy_version: int = 0,
    bits_per_symbol: int = 1,
) -> BatchDecodeResult:
    """Decode several blocks of one code: ``llrs`` float32 [n, E], positive = bit 0.

    The arguments mirror :func:`blocks.modem.ldpc_encoder.encode`. The global interpreter lock is
    released for the whole batch. Raises :class:`LdpcError` for a wrong shape or type, an LLR that is
    not a number, or a negative number of iterations.
    """
    if llrs.ndim != 2 or llrs.shape[1] != code.coded_bits or llrs.dtype != np.float32:
        raise LdpcError(
            f"expected LLRs float32 [n, {code.coded_bits}], got {llrs.dtype} {list(llrs.shape)}"
        )
    if max_iterations < 0:
        raise LdpcError(f"max_iterations must not be negative, got {max_iterations}")
    order = check_interleaver(code, bits_per_symbol)
    plan = _plan(code, redundancy_version)
    blocks = llrs.shape[0]
    result = BatchDecodeResult(
        bits=np.empty((blocks, code.info_bits), np.uint8),
        parity_ok=np.empty(blocks, np.bool_),
        iterations=np.empty(blocks, np.int32),
        posterior_llrs=np.empty((blocks, code.info_bits), np.float32),
    )
    numbers = _decode_blocks(
        np.ascontiguousarray(llrs), order, plan.runs, plan.fillers, plan.row_start,
        plan.edge_column, plan.edge_turn, plan.check_turn, plan.column_turn, code.lifting_size, plan.stride,
        max_iterations, result.bits, result.parity_ok, result.iterations, result.posterior_llrs,
    )  # fmt: skip
    if not numbers:
        raise LdpcError("an LLR is not a number")
    return result


def decode(
    code: LdpcCode,
    llrs: FloatArray,
    max_iterations: int = DEFAULT_MAX_ITERATIONS,
    redundancy_version: int = 0,
    bits_per_symbol: int = 1,
) -> DecodeResult:
    """Decode one block: ``llrs`` float32 [E], positive = bit 0. See :func:`decode_blocks`."""
    if llrs.ndim != 1:
        raise LdpcError(f"expected LLRs float32 [{code.coded_bits}], got {list(llrs.shape)}")
    batch = decode_blocks(code, llrs[None], max_iterations, redundancy_version, bits_per_symbol)
    return batch.block(0)
