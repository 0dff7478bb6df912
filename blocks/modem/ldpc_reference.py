"""Plain layered decoders in floating point: the yardstick for :mod:`blocks.modem.ldpc_decoder`.

Rows in the order of the standard, the same stopping rule (checked before every iteration), written as
directly as the equations allow. Not used on the air: tests and benchmarks measure the fixed-point
decoder's loss against these.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from blocks.modem.ldpc_code import LdpcCode, LdpcError
from blocks.modem.ldpc_decoder import BatchDecodeResult
from blocks.modem.ldpc_rate_matching import rows_reached, transmitted_bits

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int32]
Reals = NDArray[np.float64]
Algorithm = Literal["offset_min_sum", "belief_propagation"]

_FILLER_LLR = 1e6
# Beyond this a hyperbolic tangent is 1 in double precision and its inverse infinite.
_LARGEST_MESSAGE = 30.0
_LARGEST_PRODUCT = float(np.tanh(_LARGEST_MESSAGE / 2))


@intrinsic
def _bits_of(typing_context: Any, value: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.IntType(64))

    return types.int64(types.float64), codegen


@intrinsic
def _float_of(typing_context: Any, value: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.DoubleType())

    return types.float64(types.int64), codegen


# The library's exp and log are function calls, one number at a time. These two are plain arithmetic
# without loops, so that the compiler can take eight numbers at once.
@njit(nogil=True, cache=True, error_model="numpy")
def exp_of_negative(x: float) -> float:
    """exp(-x) for 0 <= x <= 30, to 1e-9 of it: (series of exp(-x / 64))^64."""
    y = x * (-1 / 64)
    high = 1 / 5040 + y * (1 / 40320 + y * (1 / 362880 + y * (1 / 3628800)))
    low = 1 / 6 + y * (1 / 24 + y * (1 / 120 + y * (1 / 720 + y * high)))
    total = 1.0 + y * (1.0 + y * (1 / 2 + y * low))
    total *= total
    total *= total
    total *= total
    total *= total
    total *= total
    return total * total


@njit(nogil=True, cache=True, error_model="numpy")
def log_of_positive(x: float) -> float:
    """log(x) for a normal x > 0, to 1e-12: exponent, and the series of 2 artanh((m - 1) / (m + 1))."""
    # Shifted by the bits of sqrt(1/2), so that the mantissa lies between sqrt(1/2) and sqrt(2).
    bits = _bits_of(x) - 0x3FE6A09E667F3BCD
    exponent = bits >> 52
    mantissa = _float_of((bits & 0xFFFFFFFFFFFFF) + 0x3FE6A09E667F3BCD)
    z = (mantissa - 1.0) / (mantissa + 1.0)
    s = z * z
    high = 1 / 9 + s * (1 / 11 + s * (1 / 13 + s * (1 / 15)))
    return exponent * 0.6931471805599453 + 2.0 * z * (
        1.0 + s * (1 / 3 + s * (1 / 5 + s * (1 / 7 + s * high)))
    )


@njit(nogil=True, cache=True, error_model="numpy")
def belief(inputs: Reals, outputs: Reals, forward: Reals) -> None:
    """What each of ``inputs`` [degree, checks] hears from the others: 2 artanh of the product of tanh(x/2).

    The product of those before, times the product of those after: a tanh may be zero.
    """
    degree, checks = inputs.shape
    for edge in range(degree):
        for check in range(checks):
            value = inputs[edge, check]
            small = exp_of_negative(min(abs(value), _LARGEST_MESSAGE))
            half = (1.0 - small) / (1.0 + small)
            outputs[edge, check] = -half if value < 0 else half
    forward[0] = 1.0
    for edge in range(degree - 1):
        for check in range(checks):
            forward[edge + 1, check] = forward[edge, check] * outputs[edge, check]
    backward = np.ones(checks)
    for edge in range(degree - 1, -1, -1):
        for check in range(checks):
            product = forward[edge, check] * backward[check]
            backward[check] *= outputs[edge, check]
            product = min(max(product, -_LARGEST_PRODUCT), _LARGEST_PRODUCT)
            outputs[edge, check] = log_of_positive((1.0 + product) / (1.0 - product))


@njit(nogil=True, cache=True)
def min_sum(inputs: Reals, outputs: Reals, offset: float) -> None:
    """The same by offset min-sum: the smallest of the others less ``offset``, or half of it."""
    degree, checks = inputs.shape
    smallest, second, sign = np.full(checks, np.inf), np.full(checks, np.inf), np.ones(checks)
    for edge in range(degree):
        for check in range(checks):
            magnitude = abs(inputs[edge, check])
            second[check] = min(second[check], max(smallest[check], magnitude))
            smallest[check] = min(smallest[check], magnitude)
            sign[check] = -sign[check] if inputs[edge, check] < 0 else sign[check]
    for edge in range(degree):
        for check in range(checks):
            value = inputs[edge, check]
            others = second[check] if abs(value) == smallest[check] else smallest[check]
            message = (others - min(others / 2, offset)) * sign[check]
            outputs[edge, check] = -message if value < 0 else message


@njit(nogil=True, cache=True)
def _satisfied(
    posterior: Reals, rows: IntArray, start: IntArray, column: IntArray, shift: IntArray
) -> bool:
    size = posterior.shape[1]
    for row in rows:
        odd = np.zeros(size, np.uint8)
        for edge in range(start[row], start[row + 1]):
            bits, cut = posterior[column[edge]], size - shift[edge]
            for check in range(cut):
                odd[check] ^= bits[check + shift[edge]] < 0
            for check in range(cut, size):
                odd[check] ^= bits[check - cut] < 0
        if odd.any():
            return False
    return True


@njit(nogil=True, cache=True)
def _decode_block(
    posterior: Reals, rows: IntArray, start: IntArray, column: IntArray, shift: IntArray,
    max_iterations: int, offset: float, exact: bool,
) -> tuple[int, bool]:  # fmt: skip
    """Iterations used and whether all parity checks hold; ``posterior`` [columns, size] in place."""
    size = posterior.shape[1]
    messages = np.zeros((column.size, size))
    inputs, outputs, scratch = np.empty((19, size)), np.empty((19, size)), np.empty((19, size))
    for iteration in range(max_iterations):
        if _satisfied(posterior, rows, start, column, shift):
            return iteration, True
        for row in rows:
            first, degree = start[row], start[row + 1] - start[row]
            for edge in range(degree):
                bits, cut = posterior[column[first + edge]], size - shift[first + edge]
                inputs[edge, :cut] = bits[size - cut :] - messages[first + edge, :cut]
                inputs[edge, cut:] = bits[: size - cut] - messages[first + edge, cut:]
            if exact:
                belief(inputs[:degree], outputs[:degree], scratch)
            else:
                min_sum(inputs[:degree], outputs[:degree], offset)
            for edge in range(degree):
                bits, cut = posterior[column[first + edge]], size - shift[first + edge]
                messages[first + edge] = outputs[edge]
                bits[size - cut :] = inputs[edge, :cut] + outputs[edge, :cut]
                bits[: size - cut] = inputs[edge, cut:] + outputs[edge, cut:]
    return max_iterations, _satisfied(posterior, rows, start, column, shift)


def decode_blocks_float(
    code: LdpcCode,
    llrs: FloatArray,
    max_iterations: int,
    redundancy_version: int = 0,
    bits_per_symbol: int = 1,
    algorithm: Algorithm = "offset_min_sum",
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
            posteriors[block].reshape(-1, size), rows, code.row_start, code.edge_column,
            code.edge_shift, max_iterations, offset_llr, algorithm == "belief_propagation",
        )  # fmt: skip
    information = posteriors[:, : code.info_bits]
    return BatchDecodeResult(
        bits=(information < 0).astype(np.uint8),
        parity_ok=parity_ok,
        iterations=iterations,
        posterior_llrs=information.astype(np.float32),
    )
