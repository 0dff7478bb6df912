"""Arrays as PMT vectors: exactly what GNU Radio's own, slower functions make and read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pmt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from blocks.pmt_arrays import array_to_pmt, pmt_to_array

BYTES = np.arange(256).astype(np.uint8)
CASES = [
    (BYTES, pmt.init_u8vector, pmt.u8vector_elements),
    (BYTES.view(np.int8), pmt.init_s8vector, pmt.s8vector_elements),
    (
        (np.linspace(-1e30, 1e30, 77) + 1j * np.linspace(3, 1e-30, 77)).astype(np.complex64),
        pmt.init_c32vector,
        pmt.c32vector_elements,
    ),
]


@pytest.mark.parametrize(("array", "init", "elements"), CASES)
@pytest.mark.parametrize("count", [0, 1, 7, 77])
def test_same_as_the_functions_of_gnu_radio(
    array: NDArray[Any], init: Any, elements: Any, count: int
) -> None:
    part = array[:count]
    made = array_to_pmt(part)
    assert pmt.equal(made, init(count, part.tolist()))
    assert np.array_equal(np.array(elements(made), part.dtype), part)
    back = pmt_to_array(init(count, part.tolist()))
    assert back.dtype == part.dtype
    assert np.array_equal(back, part)


@given(st.binary(max_size=300), st.integers(1, 3))
def test_round_trip(data: bytes, stride: int) -> None:
    """Of views too, whatever their stride; what comes back may be written to."""
    array = np.frombuffer(data, np.uint8)[::stride]
    back = pmt_to_array(array_to_pmt(array))
    assert np.array_equal(back, array)
    assert back.flags.writeable


@pytest.mark.parametrize(
    "array", [np.zeros(3), np.zeros(3, np.int32), np.zeros((2, 2), np.uint8), np.array(["a"])]
)
def test_arrays_without_a_vector(array: NDArray[Any]) -> None:
    with pytest.raises(ValueError, match="no PMT vector"):
        array_to_pmt(array)


@pytest.mark.parametrize("message", [pmt.PMT_NIL, pmt.intern("x"), pmt.init_f32vector(2, [1, 2])])
def test_messages_that_are_no_such_vector(message: pmt.pmt_base) -> None:
    with pytest.raises(ValueError, match="PMT vector"):
        pmt_to_array(message)
