"""Check nodes of the LDPC decoder, as straight-line code for every row degree.

A row of the base graph is ``lifting_size`` independent check nodes of the same degree. Code written for
one degree keeps all that belongs to LANES of them in registers; a loop over the edges would write every
intermediate value to memory, which takes as long as the arithmetic.

What a check says to a bit is the *box-plus* of its other bits (the LLR of a modulo-2 sum: product of
the signs, and a magnitude below the smallest):

* :func:`_exact` gives every bit the box-plus of all others: of those before it and those after it.
* :func:`_a_min_star` (Jones, Valles, Smith, Villasenor 2003) gives the least reliable bit, which matters
  most, the box-plus of all others, and every other bit that of all, its own small share included.

Numba keeps compiled callers: after a change here, :mod:`blocks.modem.ldpc_decoder` needs one as well
(or its cache in ``__pycache__`` emptied).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from blocks.modem.ldpc_lanes import LANES, Lanes, data_of, flat_int16

STEPS_PER_LLR = 16
MESSAGE_LIMIT = 500  # steps

# Longest row whose messages are exact. It covers everything but the core of base graph 1 (degree 19),
# where A-min* loses nothing measurable and takes half the time.
EXACT_DEGREE = 10
MAX_DEGREE = 19
# A box-plus waits for the one before it; that many sequences at once keep the processor busy.
_SEQUENCES = 3

# log(1 + exp(-x)) in steps is about (knee - x)^2 / 2^shift below the knee: off by 0.03 LLR at most.
_KNEE = 53
_KNEE_SHIFT = 8


def _box_plus(a: Lanes, b: Lanes) -> Lanes:
    """min(a, b) + log(1 + exp(-(a + b))) - log(1 + exp(-|a - b|)), rounded to steps.

    The difference of the two squares is taken as a product of sum and difference.
    """
    knee = a.constant(_KNEE)
    of_sum = knee.subtract_to_zero(a + b)
    of_difference = knee.subtract_to_zero((a - b).magnitude())
    correction = (of_sum - of_difference) * (of_sum + of_difference)
    return a.minimum(b) + ((correction + a.constant(1 << (_KNEE_SHIFT - 1))) >> _KNEE_SHIFT)


def _exact(reliabilities: Sequence[Lanes]) -> list[Lanes]:
    """Box-plus of all others, for each of two or more: those before it and those after it."""
    last = len(reliabilities) - 1
    before, after = [reliabilities[0]], [reliabilities[last]]
    # From both ends at once: two chains keep the processor busy.
    for edge in range(1, last):
        before.append(_box_plus(before[-1], reliabilities[edge]))
        after.append(_box_plus(after[-1], reliabilities[last - edge]))
    after.reverse()
    inner = [_box_plus(before[edge - 1], after[edge]) for edge in range(1, last)]
    return [after[0], *inner, before[-1]]


def _smallest_and_others(reliabilities: Sequence[Lanes]) -> tuple[Lanes, Lanes]:
    """The smallest, and the box-plus of the others."""
    smallest = reliabilities[0].minimum(reliabilities[1])
    others = reliabilities[0].maximum(reliabilities[1])
    for reliability in reliabilities[2:]:
        others = _box_plus(others, smallest.maximum(reliability))
        smallest = smallest.minimum(reliability)
    return smallest, others


def _a_min_star(reliabilities: Sequence[Lanes]) -> list[Lanes]:
    """Box-plus of all others for the smallest, of all for each of the rest."""
    parts = [_smallest_and_others(reliabilities[i::_SEQUENCES]) for i in range(_SEQUENCES)]
    smallest, others = parts[0]
    for other_smallest, more in parts[1:]:
        others = _box_plus(_box_plus(others, more), smallest.maximum(other_smallest))
        smallest = smallest.minimum(other_smallest)
    everything = _box_plus(smallest, others)
    return [each.where_equal(smallest, others, everything) for each in reliabilities]


def _emit_lanes(
    builder: Any, posterior: Any, messages: Any, sources: list[Any], targets: list[Any],
    sent: list[Any],
) -> None:  # fmt: skip
    """LANES checks: take the bits less what was said last time, say something new, keep both."""
    said = [Lanes.load(builder, messages, at) for at in sent]
    values = [
        Lanes.load(builder, posterior, at) - old for at, old in zip(sources, said, strict=True)
    ]
    product = values[0]
    for value in values[1:]:
        product = product ^ value
    rule = _exact if len(values) <= EXACT_DEGREE else _a_min_star
    strengths = rule([value.magnitude() for value in values])
    limit = product.constant(MESSAGE_LIMIT)
    for value, strength, to, at in zip(values, strengths, targets, sent, strict=True):
        message = strength.minimum(limit).negate_where_negative(product ^ value)
        message.store(messages, at)
        (value + message).store(posterior, to)


def _emit_row(
    builder: Any, posterior: Any, messages: Any, first_message: Any, width: Any, size: Any,
    tables: list[list[Any]],
) -> None:  # fmt: skip
    """All checks of a row, LANES at a time. ``tables``: source, turn, target of every edge."""
    word = width.type
    sources, turns, targets = tables
    with cgutils.for_range_slice(builder, word(0), width, word(LANES), intp=word) as (lane, _):
        read = []
        for source, turn in zip(sources, turns, strict=True):
            turned = builder.add(lane, turn)
            past = builder.icmp_signed(">=", turned, size)
            start = builder.select(past, builder.sub(turned, size), turned)
            read.append(builder.add(source, start))
        written = [builder.add(target, lane) for target in targets]
        # The messages of these checks lie together: one stream to fetch instead of one per edge.
        first = builder.add(first_message, builder.mul(lane, word(len(sources))))
        sent = [builder.add(first, word(edge * LANES)) for edge in range(len(sources))]
        _emit_lanes(builder, posterior, messages, read, written, sent)
    for target in targets:
        repeated = Lanes.load(builder, posterior, target)
        repeated.store(posterior, builder.add(target, size))


@intrinsic
def update_row(
    typing_context: Any, degree: Any, posterior: Any, messages: Any, first_message: Any, width: Any,
    size: Any, sources: Any, turns: Any, targets: Any,
) -> Any:  # fmt: skip
    """Process one row: ``update_row(degree, posterior, messages, first_message, width, size, sources,
    turns, targets)``, from ``@njit`` code.

    Args:
        typing_context: Numba's own, not passed.
        degree: edges of the row, 2 to MAX_DEGREE; nothing happens with another.
        posterior: int16, all columns; each is ``size`` long with its first LANES repeated behind.
        messages: int16, what every check said last time, replaced.
        first_message: where those of this row start; they take ``degree * width``.
        width: ``size`` rounded up to a multiple of LANES.
        size: lifting size.
        sources: int32 [degree], where the columns start among the posteriors.
        turns: int32 [degree], entry of the column that belongs to check 0, below ``size``.
        targets: int32 [degree], where the columns are written, turned so that entry i belongs to check
            i. No target may be a source: a row reads what it has not written.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        bits, said, *tables = (
            data_of(context, builder, signature.args[number], args[number])
            for number in (1, 2, 6, 7, 8)
        )
        word = args[4].type
        end = builder.append_basic_block("end")
        switch = builder.switch(args[0], end)
        for count in range(2, MAX_DEGREE + 1):
            block = builder.append_basic_block(f"degree_{count}")
            switch.add_case(ir.Constant(args[0].type, count), block)
            with builder.goto_block(block):
                cells = [
                    [cgutils.gep_inbounds(builder, table, word(edge)) for edge in range(count)]
                    for table in tables
                ]
                numbers = [
                    [builder.sext(builder.load(cell), word) for cell in row] for row in cells
                ]
                _emit_row(builder, bits, said, args[3], args[4], args[5], numbers)
                builder.branch(end)
        builder.position_at_end(end)
        return context.get_dummy_value()

    index = types.int64
    return types.void(
        index, flat_int16(posterior), flat_int16(messages), index, index, index, sources, turns,
        targets,
    ), codegen  # fmt: skip
