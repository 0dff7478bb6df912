"""Thirty-two 16-bit integers side by side, as one value inside Numba kernels.

Numba promotes small integers to 64 bits, and LLVM then gives up on vectorising a layered decoder: what
a check node works out has to stay in registers. An LLVM vector type says so outright. LLVM splits it
into whatever the processor has (one AVX-512 register, two AVX2, four NEON or SSE), so the same code runs
everywhere.

:class:`Lanes` is for code that writes code: operators on it append instructions to a kernel under
construction. The functions below it are the same for ``@njit`` code. Arithmetic wraps at 16 bits:
callers keep their values in range. Offsets count elements and are not checked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic, models, register_model

LANES = 32
_SCALAR = ir.IntType(16)
_VECTOR = ir.VectorType(_SCALAR, LANES)


class Lanes:
    """A vector in a kernel under construction. Comparisons and arithmetic go lane by lane."""

    def __init__(self, builder: Any, value: Any) -> None:
        self._builder = builder
        self.value = value

    @classmethod
    def load(cls, builder: Any, data: Any, at: Any) -> Lanes:
        """LANES elements of the int16 data at pointer ``data``, from element ``at`` on."""
        return cls(builder, builder.load(_pointer(builder, data, at), align=2))

    def store(self, data: Any, at: Any) -> None:
        """Write to element ``at`` of ``data`` and those behind it."""
        self._builder.store(self.value, _pointer(self._builder, data, at), align=2)

    def constant(self, number: int) -> Lanes:
        """The same number in every lane, for the same kernel."""
        return self._of(ir.Constant(_VECTOR, [number] * LANES))

    def __add__(self, other: Lanes) -> Lanes:
        return self._of(self._builder.add(self.value, other.value))

    def __sub__(self, other: Lanes) -> Lanes:
        return self._of(self._builder.sub(self.value, other.value))

    def __mul__(self, other: Lanes) -> Lanes:
        return self._of(self._builder.mul(self.value, other.value))

    def __xor__(self, other: Lanes) -> Lanes:
        return self._of(self._builder.xor(self.value, other.value))

    def __rshift__(self, places: int) -> Lanes:
        return self._of(self._builder.ashr(self.value, self.constant(places).value))

    def minimum(self, other: Lanes) -> Lanes:
        """The smaller one."""
        return self._call("smin", other.value)

    def maximum(self, other: Lanes) -> Lanes:
        """The larger one."""
        return self._call("smax", other.value)

    def subtract_to_zero(self, other: Lanes) -> Lanes:
        """Difference, down to zero and no further; operands count as unsigned."""
        return self._call("usub.sat", other.value)

    def magnitude(self) -> Lanes:
        """Absolute value."""
        return self._call("abs", ir.IntType(1)(0))

    def where_equal(self, other: Lanes, then: Lanes, otherwise: Lanes) -> Lanes:
        """``then`` where this equals ``other``, else ``otherwise``."""
        same = self._builder.icmp_signed("==", self.value, other.value)
        return self._of(self._builder.select(same, then.value, otherwise.value))

    def negate_where_negative(self, sign: Lanes) -> Lanes:
        """The negative of this where ``sign`` < 0, else this."""
        negative = self._builder.icmp_signed("<", sign.value, self.constant(0).value)
        return self._of(self._builder.select(negative, (self.constant(0) - self).value, self.value))

    def any(self, relation: str) -> Any:
        """Whether any lane is "<" or "==" (``relation``) zero, as a bit."""
        found = self._builder.icmp_signed(relation, self.value, self.constant(0).value)
        mask = self._builder.bitcast(found, ir.IntType(LANES))
        return self._builder.icmp_unsigned("!=", mask, ir.IntType(LANES)(0))

    def _of(self, value: Any) -> Lanes:
        return Lanes(self._builder, value)

    def _call(self, name: str, second: Any) -> Lanes:
        kind = ir.FunctionType(_VECTOR, (_VECTOR, second.type))
        function = cgutils.get_or_insert_function(
            self._builder.module, kind, f"llvm.{name}.v{LANES}i16"
        )
        return self._of(self._builder.call(function, (self.value, second)))


def _pointer(builder: Any, data: Any, at: Any) -> Any:
    return builder.bitcast(cgutils.gep_inbounds(builder, data, at), _VECTOR.as_pointer())


class _LanesType(types.Type):
    def __init__(self) -> None:
        super().__init__(name=f"Int16x{LANES}")


_LANES_TYPE = _LanesType()


@register_model(_LanesType)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, _VECTOR)


def flat_int16(array: Any) -> Any:
    """The Numba type of an array, refused at compile time unless one-dimensional, contiguous int16."""
    if not (array.ndim == 1 and array.layout == "C" and array.dtype == types.int16):
        raise TypingError(f"lanes need a flat int16 array, got {array}")
    return array


def data_of(context: Any, builder: Any, kind: Any, array: Any) -> Any:
    """Pointer to the first element of an array of Numba type ``kind``."""
    return context.make_array(kind)(context, builder, array).data


def _one(emit: Callable[[Lanes], Any], result: Any) -> Any:
    def typed(typing_context: Any, a: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return emit(Lanes(builder, args[0]))

        return result(_LANES_TYPE), codegen

    return intrinsic(typed)


def _two(emit: Callable[[Lanes, Lanes], Lanes]) -> Any:
    def typed(typing_context: Any, a: Any, b: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return emit(Lanes(builder, args[0]), Lanes(builder, args[1])).value

        return _LANES_TYPE(_LANES_TYPE, _LANES_TYPE), codegen

    return intrinsic(typed)


exclusive_or = _two(lambda a, b: a ^ b)
minimum = _two(lambda a, b: a.minimum(b))
magnitude = _one(lambda a: a.magnitude().value, _LANES_TYPE)
any_negative = _one(lambda a: a.any("<"), types.boolean)
any_zero = _one(lambda a: a.any("=="), types.boolean)


@intrinsic
def splat(typing_context: Any, value: Any) -> Any:
    """The same integer in every lane."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        empty = ir.Constant(_VECTOR, ir.Undefined)
        index = ir.IntType(32)
        single = builder.insert_element(empty, builder.trunc(args[0], _SCALAR), index(0))
        everywhere = ir.Constant(ir.VectorType(index, LANES), [0] * LANES)
        return builder.shuffle_vector(single, empty, everywhere)

    return _LANES_TYPE(types.int64), codegen


@intrinsic
def load(typing_context: Any, array: Any, at: Any) -> Any:
    """LANES consecutive elements of a flat int16 array."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = data_of(context, builder, signature.args[0], args[0])
        return Lanes.load(builder, data, args[1]).value

    return _LANES_TYPE(flat_int16(array), types.int64), codegen
