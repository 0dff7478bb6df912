"""Slow, plain layered decoders in floating point: the yardstick for :mod:`blocks.modem.ldpc_decoder`.

Same schedule and same stopping rule as the fixed-point decoder, written as directly as the equations
allow. Not used on the air: tests and benchmarks measure the fixed-point decoder's loss against these.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numba import njit
from numpy.typing import NDArray

from blocks.modem.ldpc_code import LdpcCode, LdpcError
from blocks.modem.ldpc_decoder import BatchDecodeResult
from blocks.modem.ldpc_rate_matching import rows_reached, transmitted_bits

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int32]

_FILLER_LLR = 1e6
# Beyond this a hyperbolic tangent is 1 in double precision and its inverse infinite.
_LARGEST_MESSAGE = 30.0


@njit(nogil=True, cache=True)
def _min_sum(inputs: NDArray[np.float64], outputs: NDArray[np.float64], offset: float) -> None:
    for i in range(inputs.size):
        smallest, negative = np.inf, False
        for j in range(inputs.size):
            if j != i:
                smallest = min(smallest, abs(inputs[j]))
                negative ^= inputs[j] < 0
        outputs[i] = smallest - min(smallest / 2, offset)
        if negative:
            outputs[i] = -outputs[i]


@njit(nogil=True, cache=True)
def _belief(inputs: NDArray[np.float64], outputs: NDArray[np.float64]) -> None:
    half = np.tanh(np.minimum(np.maximum(inputs, -_LARGEST_MESSAGE), _LARGEST_MESSAGE) / 2)
    for i in range(inputs.size):
        product = 1.0
        for j in range(inputs.size):
            if j != i:
                product *= half[j]
        if abs(product) < 1:
            outputs[i] = np.log((1 + product) / (1 - product))
        else:
            outputs[i] = np.sign(product) * _LARGEST_MESSAGE


@njit(nogil=True, cache=True)
def _satisfied(
    posterior: NDArray[np.float64], rows: IntArray, start: IntArray, column: IntArray,
    shift: IntArray, size: int,
) -> bool:  # fmt: skip
    for row in rows:
        for check in range(size):
            odd = False
            for edge in range(start[row], start[row + 1]):
                odd ^= posterior[column[edge] * size + (check + shift[edge]) % size] < 0
            if odd:
                return False
    return True


@njit(nogil=True, cache=True)
def _decode_block(
    posterior: NDArray[np.float64], rows: IntArray, start: IntArray, column: IntArray,
    shift: IntArray, size: int, max_iterations: int, offset: float, belief: bool,
) -> tuple[int, bool]:  # fmt: skip
    """Iterations used and whether all parity checks hold; ``posterior`` in place."""
    messages = np.zeros((column.size, size))
    inputs, outputs = np.empty(64), np.empty(64)
    for iteration in range(max_iterations):
        if _satisfied(posterior, rows, start, column, shift, size):
            return iteration, True
        for row in rows:
            first, degree = start[row], start[row + 1] - start[row]
            for check in range(size):
                for e in range(degree):
                    bit = column[first + e] * size + (check + shift[first + e]) % size
                    inputs[e] = posterior[bit] - messages[first + e, check]
                if belief:
                    _belief(inputs[:degree], outputs[:degree])
                else:
                    _min_sum(inputs[:degree], outputs[:degree], offset)
                for e in range(degree):
                    bit = column[first + e] * size + (check + shift[first + e]) % size
                    messages[first + e, check] = outputs[e]
                    posterior[bit] = inputs[e] + outputs[e]
    return max_iterations, _satisfied(posterior, rows, start, column, shift, size)


def decode_blocks_float(
    code: LdpcCode,
    llrs: FloatArray,
    max_iterations: int,
    redundancy_version: int = 0,
    bits_per_symbol: int = 1,
    algorithm: Literal["offset_min_sum", "belief_propagation"] = "offset_min_sum",
    offset_llr: float = 0.5,
) -> BatchDecodeResult:
    """Decode ``llrs`` float32 [n, E] (positive = bit 0) in double precision.

    ``offset_llr`` belongs to min-sum alone. Raises :class:`LdpcError` for a wrong shape.
    """
    if llrs.ndim != 2 or llrs.shape[1] != code.coded_bits:
        raise LdpcError(f"expected LLRs [n, {code.coded_bits}], got {list(llrs.shape)}")
    index = transmitted_bits(code, redundancy_version, bits_per_symbol)
    rows = rows_reached(code, redundancy_version)
    blocks, size = llrs.shape[0], code.lifting_size
    posteriors = np.zeros((blocks, code.codeword_bits))
    posteriors[:, code.info_bits : code.info_columns * size] = _FILLER_LLR
    parity_ok, iterations = np.empty(blocks, np.bool_), np.empty(blocks, np.int32)
    for block in range(blocks):
        np.add.at(posteriors[block], index, llrs[block])
        iterations[block], parity_ok[block] = _decode_block(
            posteriors[block], rows, code.row_start, code.edge_column, code.edge_shift, size,
            max_iterations, offset_llr, algorithm == "belief_propagation",
        )  # fmt: skip
    information = posteriors[:, : code.info_bits]
    return BatchDecodeResult(
        bits=(information < 0).astype(np.uint8),
        parity_ok=parity_ok,
        iterations=iterations,
        posterior_llrs=information.astype(np.float32),
    )
