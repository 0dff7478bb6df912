"""Sixty-four 16-bit integers side by side, as one value inside Numba kernels.

Numba promotes small integers to 64 bits, and LLVM then gives up on vectorising a layered decoder: the
running minimum and sign of a check node have to stay in registers while the loop runs over its edges.
These few intrinsics say so outright with an LLVM vector type. LLVM splits it into whatever the
processor has (two AVX-512 registers, four AVX2, eight NEON or SSE), so the same code runs everywhere;
two registers at once also hide the latency of the arithmetic.

All functions here can be called from ``@njit`` code only. Arithmetic wraps at 16 bits: callers
keep their values in range. Offsets count elements and are not checked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic, models, register_model

LANES = 64
_SCALAR = ir.IntType(16)
_VECTOR = ir.VectorType(_SCALAR, LANES)


class _LanesType(types.Type):
    def __init__(self) -> None:
        super().__init__(name="Int16x64")


_LANES_TYPE = _LanesType()


@register_model(_LanesType)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, _VECTOR)


def _flat_int16(array: Any) -> Any:
    """The Numba type of an array, refused at compile time unless one-dimensional, contiguous int16."""
    if not (array.ndim == 1 and array.layout == "C" and array.dtype == types.int16):
        raise TypingError(f"lanes need a flat int16 array, got {array}")
    return array


def _pointer(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    """Address of element ``args[1]`` of array ``args[0]``, as that of a vector."""
    data = context.make_array(signature.args[0])(context, builder, args[0]).data
    return builder.bitcast(cgutils.gep_inbounds(builder, data, args[1]), _VECTOR.as_pointer())


def _splat(builder: Any, value: Any) -> Any:
    narrow = builder.trunc(value, _SCALAR)
    single = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), narrow, ir.IntType(32)(0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(single, ir.Constant(_VECTOR, ir.Undefined), zeros)


def _any(builder: Any, conditions: Any) -> Any:
    mask = builder.bitcast(conditions, ir.IntType(LANES))
    return builder.icmp_unsigned("!=", mask, ir.IntType(LANES)(0))


def _elementwise(emit: Callable[[Any, Any, Any], Any]) -> Any:
    """Intrinsic of two vectors."""

    def typed(typing_context: Any, a: Any, b: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return emit(builder, args[0], args[1])

        return _LANES_TYPE(_LANES_TYPE, _LANES_TYPE), codegen

    return intrinsic(typed)


def _llvm_binary(name: str) -> Callable[[Any, Any, Any], Any]:
    def emit(builder: Any, a: Any, b: Any) -> Any:
        kind = ir.FunctionType(_VECTOR, (_VECTOR, _VECTOR))
        function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}.v{LANES}i16")
        return builder.call(function, (a, b))

    return emit


add = _elementwise(lambda builder, a, b: builder.add(a, b))
subtract = _elementwise(lambda builder, a, b: builder.sub(a, b))
# Down to zero and no further; operands count as unsigned.
subtract_to_zero = _elementwise(_llvm_binary("usub.sat"))
multiply = _elementwise(lambda builder, a, b: builder.mul(a, b))
exclusive_or = _elementwise(lambda builder, a, b: builder.xor(a, b))
minimum = _elementwise(_llvm_binary("smin"))
maximum = _elementwise(_llvm_binary("smax"))


@intrinsic
def splat(typing_context: Any, value: Any) -> Any:
    """The same integer in every lane."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _splat(builder, args[0])

    return _LANES_TYPE(types.int64), codegen


@intrinsic
def load(typing_context: Any, array: Any, offset: Any) -> Any:
    """LANES consecutive elements of a flat int16 array."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(_pointer(context, builder, signature, args), align=2)

    return _LANES_TYPE(_flat_int16(array), types.int64), codegen


@intrinsic
def store(typing_context: Any, array: Any, offset: Any, value: Any) -> Any:
    """Write LANES consecutive elements of a flat int16 array."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[2], _pointer(context, builder, signature, args), align=2)
        return context.get_dummy_value()

    return types.void(_flat_int16(array), types.int64, _LANES_TYPE), codegen


@intrinsic
def magnitude(typing_context: Any, a: Any) -> Any:
    """Absolute value of every lane."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(_VECTOR, (_VECTOR, ir.IntType(1)))
        name = f"llvm.abs.v{LANES}i16"
        function = cgutils.get_or_insert_function(builder.module, kind, name)
        return builder.call(function, (args[0], ir.IntType(1)(0)))

    return _LANES_TYPE(_LANES_TYPE), codegen


@intrinsic
def where_equal(typing_context: Any, a: Any, b: Any, then: Any, otherwise: Any) -> Any:
    """Lane by lane: ``then`` where a == b, else ``otherwise``."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(builder.icmp_signed("==", args[0], args[1]), args[2], args[3])

    return _LANES_TYPE(*[_LANES_TYPE] * 4), codegen


@intrinsic
def negate_where_negative(typing_context: Any, value: Any, sign: Any) -> Any:
    """Lane by lane: ``-value`` where ``sign`` < 0, else ``value``."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        zero = ir.Constant(_VECTOR, None)
        negative = builder.icmp_signed("<", args[1], zero)
        return builder.select(negative, builder.sub(zero, args[0]), args[0])

    return _LANES_TYPE(_LANES_TYPE, _LANES_TYPE), codegen


@intrinsic
def shift_right(typing_context: Any, a: Any, places: Any) -> Any:
    """Arithmetic shift of every lane by the same number of places."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ashr(args[0], _splat(builder, args[1]))

    return _LANES_TYPE(_LANES_TYPE, types.int64), codegen


@intrinsic
def any_negative(typing_context: Any, a: Any) -> Any:
    """Whether any lane is below zero."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _any(builder, builder.icmp_signed("<", args[0], ir.Constant(_VECTOR, None)))

    return types.boolean(_LANES_TYPE), codegen


@intrinsic
def any_zero(typing_context: Any, a: Any) -> Any:
    """Whether any lane is zero."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _any(builder, builder.icmp_signed("==", args[0], ir.Constant(_VECTOR, None)))

    return types.boolean(_LANES_TYPE), codegen
