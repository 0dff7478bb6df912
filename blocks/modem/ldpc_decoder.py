"""Layered offset min-sum decoder for 5G NR LDPC codes, in 16-bit fixed point.

One layer is one base-graph row: ``lifting_size`` independent check nodes, one per SIMD lane. A layer

1. gathers the posteriors of its columns, rotated so that lane i belongs to check i, less the message
   the check sent last time;
2. finds, per check, the two smallest magnitudes and the product of the signs;
3. sends every bit the smallest magnitude among the *others*, less an offset that makes up for
   min-sum's overconfidence (half the magnitude for small ones), and adds it to the posterior;
4. puts the posteriors back where they came from.

Decoding stops as soon as every parity check that was reached by transmitted bits holds. Bits without any
evidence count as a violated check: silence is not the all-zero codeword.

Numbers: one step is 1/8 in LLR. Messages stay within +-127 (8 bits); a column has at most 30 edges, so
a posterior stays below 1023 + 30 x 127 steps and nothing can overflow 16 bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numba import njit
from numpy.typing import NDArray

from blocks.modem.ldpc_code import LdpcCode, LdpcError
from blocks.modem.ldpc_lanes import (
    LANES,
    add,
    exclusive_or,
    load,
    magnitude,
    maximum,
    minimum,
    negate_where_negative,
    shift_right,
    splat,
    store,
    subtract,
    where_equal,
)
from blocks.modem.ldpc_rate_matching import rows_reached, transmitted_bits

BitArray = NDArray[np.uint8]
FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int32]
StepArray = NDArray[np.int16]
MessageArray = NDArray[np.int8]

DEFAULT_MAX_ITERATIONS = 25
STEPS_PER_LLR = 8
CHANNEL_LIMIT = 1023  # steps
MESSAGE_LIMIT = 127  # steps
FILLER_STEPS = 8191  # a known zero: more than all messages of a column together can turn
# Correction of min-sum: a message of size m becomes m - min(m / 2, 0.5 LLR). Halving the small ones is
# what belief propagation does; a plain offset would delete them, and low rates live on them.
DAMPING_SHIFT = 1
OFFSET_STEPS = 4


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


@dataclass(frozen=True, eq=False)
class _Plan:
    """What the kernels need to know of one code and redundancy version.

    Posteriors lie in columns of ``stride`` int16: the lifting size and a spare vector, because the
    last store of a column may run over its end.
    """

    index: IntArray  # [E], where each received LLR belongs among the posteriors
    filler: IntArray  # [fillers], same
    row_start: IntArray  # [rows + 1], into the edges
    edge_offset: IntArray  # [edges], start of the column among the posteriors
    edge_shift: IntArray  # [edges]
    stride: int
    message_stride: int


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


@lru_cache(maxsize=256)
def _plan(code: LdpcCode, redundancy_version: int, bits_per_symbol: int) -> _Plan:
    size = code.lifting_size
    stride = _round_up(size, LANES) + LANES
    rows = rows_reached(code, redundancy_version)
    # A column of nothing but fillers tells its checks nothing: leave its edges out.
    first_empty = -(-code.info_bits // size)
    empty = range(first_empty, code.info_columns)
    edges = [
        [e for e in range(code.row_start[row], code.row_start[row + 1])
         if code.edge_column[e] not in empty]
        for row in rows
    ]  # fmt: skip
    flat = np.concatenate([np.array(row, np.int64) for row in edges])
    bits = transmitted_bits(code, redundancy_version, bits_per_symbol)
    filler = np.arange(code.info_bits, first_empty * size)
    return _Plan(
        index=(bits // size * stride + bits % size).astype(np.int32),
        filler=(filler // size * stride + filler % size).astype(np.int32),
        row_start=np.cumsum([0, *map(len, edges)], dtype=np.int32),
        edge_offset=(code.edge_column[flat] * stride).astype(np.int32),
        edge_shift=code.edge_shift[flat],
        stride=stride,
        message_stride=_round_up(size, LANES),
    )


@njit(nogil=True, cache=True)
def _collect(llrs: FloatArray, index: IntArray, filler: IntArray, posterior: StepArray) -> bool:
    """Add up what was received of every bit, in steps. False when an LLR is not a number."""
    total = np.zeros(posterior.size, np.float32)
    for t in range(index.size):
        total[index[t]] += llrs[t]
    numbers = True
    limit = np.float32(CHANNEL_LIMIT)
    for i in range(total.size):
        value = total[i] * np.float32(STEPS_PER_LLR)
        if value != value:
            numbers = False
        posterior[i] = np.int16(np.rint(min(max(value, -limit), limit))) if value == value else 0
    for i in range(filler.size):
        posterior[filler[i]] = FILLER_STEPS
    return numbers


@njit(nogil=True, cache=True)
def _gather(
    posterior: StepArray, column: int, shift: int, size: int,
    messages: MessageArray, m: int, extrinsic: StepArray, t: int,
) -> None:  # fmt: skip
    """extrinsic[i] = posterior[(i + shift) mod size] - messages[i], in whole vectors.

    What the first run writes past its end the second puts right; what the second writes past its end
    belongs to the next edge, which is gathered later.
    """
    head = size - shift
    for i in range(0, head, LANES):
        value = subtract(load(posterior, column + shift + i), load(messages, m + i))
        store(extrinsic, t + i, value)
    for i in range(0, shift, LANES):
        value = subtract(load(posterior, column + i), load(messages, m + head + i))
        store(extrinsic, t + head + i, value)


@njit(nogil=True, cache=True)
def _scatter(
    posterior: StepArray, column: int, shift: int, size: int, updated: StepArray, t: int
) -> None:
    """The way back: posterior[(i + shift) mod size] = updated[i]. Order matters, as in _gather."""
    head = size - shift
    for i in range(0, shift, LANES):
        store(posterior, column + i, load(updated, t + head + i))
    for i in range(0, head, LANES):
        store(posterior, column + shift + i, load(updated, t + i))


@njit(nogil=True, cache=True)
def _check_nodes(
    extrinsic: StepArray, messages: MessageArray, m: int, stride: int, degree: int, lane: int,
    damping: int, offset: int,
) -> None:  # fmt: skip
    """LANES check nodes: new messages, and extrinsic + message in place of extrinsic."""
    smallest = splat(FILLER_STEPS)
    second = splat(FILLER_STEPS)
    product = splat(0)
    for edge in range(degree):
        value = load(extrinsic, edge * stride + lane)
        size = magnitude(value)
        second = minimum(second, maximum(smallest, size))
        smallest = minimum(smallest, size)
        product = exclusive_or(product, value)
    to_others = _reduced(smallest, damping, offset)
    to_smallest = _reduced(second, damping, offset)
    for edge in range(degree):
        value = load(extrinsic, edge * stride + lane)
        chosen = where_equal(magnitude(value), smallest, to_smallest, to_others)
        message = negate_where_negative(chosen, exclusive_or(product, value))
        store(messages, m + edge * stride + lane, message)
        store(extrinsic, edge * stride + lane, add(value, message))


@njit(nogil=True, cache=True)
def _reduced(size, shift, offset):  # type: ignore[no-untyped-def]
    """Message of magnitude ``size`` before correction: size - min(size / 2^shift, offset), limited."""
    correction = minimum(shift_right(size, shift), splat(offset))
    return minimum(subtract(size, correction), splat(MESSAGE_LIMIT))


@njit(nogil=True, cache=True)
def _iterate(
    posterior: StepArray, messages: MessageArray, extrinsic: StepArray, row_start: IntArray,
    edge_offset: IntArray, edge_shift: IntArray, size: int, stride: int, damping: int,
    offset: int,
) -> None:  # fmt: skip
    """One pass over all layers. ``stride`` counts lanes per edge in messages and extrinsic."""
    for row in range(row_start.size - 1):
        first, last = row_start[row], row_start[row + 1]
        for edge in range(first, last):
            _gather(
                posterior, edge_offset[edge], edge_shift[edge], size,
                messages, edge * stride, extrinsic, (edge - first) * stride,
            )  # fmt: skip
        for lane in range(0, size, LANES):
            _check_nodes(
                extrinsic, messages, first * stride, stride, last - first, lane, damping, offset
            )  # fmt: skip
        for edge in range(first, last):
            _scatter(
                posterior, edge_offset[edge], edge_shift[edge], size,
                extrinsic, (edge - first) * stride,
            )  # fmt: skip


@njit(nogil=True, cache=True)
def _parity_holds(
    posterior: StepArray, row_start: IntArray, edge_offset: IntArray, edge_shift: IntArray,
    size: int,
) -> bool:  # fmt: skip
    """Whether every check is even and every bit in it decided (a posterior of zero decides nothing)."""
    parity = np.empty(size, np.int16)
    for row in range(row_start.size - 1):
        parity[:] = 0
        undecided = False
        for edge in range(row_start[row], row_start[row + 1]):
            column, shift = edge_offset[edge], edge_shift[edge]
            for i in range(size - shift):
                parity[i] ^= posterior[column + shift + i]
            for i in range(shift):
                parity[size - shift + i] ^= posterior[column + i]
            for i in range(size):
                undecided |= posterior[column + i] == 0
        if undecided:
            return False
        for i in range(size):
            if parity[i] < 0:
                return False
    return True


@njit(nogil=True, cache=True)
def _decode_blocks(
    llrs: FloatArray, index: IntArray, filler: IntArray, row_start: IntArray,
    edge_offset: IntArray, edge_shift: IntArray, size: int, columns: int, stride: int,
    message_stride: int, damping: int, offset: int, max_iterations: int, bits: BitArray, parity_ok: NDArray[np.bool_],
    iterations: IntArray, posterior_llrs: FloatArray,
) -> bool:  # fmt: skip
    """Decode every row of ``llrs``. False when an LLR is not a number."""
    posterior = np.empty(columns * stride, np.int16)
    messages = np.empty(edge_offset.size * message_stride + LANES, np.int8)
    degree = np.max(row_start[1:] - row_start[:-1])
    extrinsic = np.zeros(degree * message_stride + LANES, np.int16)
    for block in range(llrs.shape[0]):
        if not _collect(llrs[block], index, filler, posterior):
            return False
        messages[:] = 0
        done, count = False, 0
        while count < max_iterations and not done:
            _iterate(
                posterior, messages, extrinsic, row_start, edge_offset, edge_shift, size,
                message_stride, damping, offset,
            )  # fmt: skip
            count += 1
            done = _parity_holds(posterior, row_start, edge_offset, edge_shift, size)
        parity_ok[block], iterations[block] = done, count
        for i in range(bits.shape[1]):
            value = posterior[i // size * stride + i % size]
            bits[block, i] = value < 0
            posterior_llrs[block, i] = value / np.float32(STEPS_PER_LLR)
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
    plan = _plan(code, redundancy_version, bits_per_symbol)
    blocks = llrs.shape[0]
    result = BatchDecodeResult(
        bits=np.empty((blocks, code.info_bits), np.uint8),
        parity_ok=np.empty(blocks, np.bool_),
        iterations=np.empty(blocks, np.int32),
        posterior_llrs=np.empty((blocks, code.info_bits), np.float32),
    )
    numbers = _decode_blocks(
        np.ascontiguousarray(llrs), plan.index, plan.filler, plan.row_start, plan.edge_offset,
        plan.edge_shift, code.lifting_size, code.columns, plan.stride, plan.message_stride,
        DAMPING_SHIFT, OFFSET_STEPS, max_iterations, result.bits, result.parity_ok, result.iterations,
        result.posterior_llrs,
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
    return DecodeResult(
        bits=batch.bits[0],
        parity_ok=bool(batch.parity_ok[0]),
        iterations=int(batch.iterations[0]),
        posterior_llrs=batch.posterior_llrs[0],
    )
