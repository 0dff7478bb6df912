"""Bursts as PMTs: what goes in comes out, and parts that do not fit are one error."""

from __future__ import annotations

import numpy as np
import pmt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.burst_messages import END_MESSAGE, from_pdu, to_pdu
from blocks.modem.demodulator import CodeBlock
from blocks.modem.header import BurstHeader
from semantic.index_frame import LLR_STEP, quantise_llrs
from semantic.link_statistics import BurstRecord, Fate

HEADER = BurstHeader(
    mcs=4,
    frame_id=0xFFFF_FFFF,
    burst_number=255,
    frame_bits=500,
    first_block=2,
    frame_blocks=5,
    blocks=3,
    codec_tag=0xABCD,
    redundancy_version=3,
    stream=31,
)
RECORD = BurstRecord(Fate.BLOCKS_FAILED, 17, snr_db=3.5, cfo_hz=-120.0, level=0.1)


def code_blocks(seed: int = 1) -> list[CodeBlock]:
    generator = np.random.default_rng(seed)
    blocks = []
    for offset in range(3):
        llrs = (generator.standard_normal(100) * 20).astype(np.float32)
        blocks.append(CodeBlock(2 + offset, offset != 1, (llrs < 0).astype(np.uint8), llrs, 5))
    return blocks


def changed(key: str, value: pmt.pmt_base) -> pmt.pmt_base:
    pdu = to_pdu(HEADER, code_blocks(), RECORD)
    return pmt.cons(pmt.dict_add(pmt.car(pdu), pmt.intern(key), value), pmt.cdr(pdu))


def test_round_trip() -> None:
    blocks = code_blocks()
    message = from_pdu(to_pdu(HEADER, blocks, RECORD))
    assert message.header == HEADER
    assert message.ok.tolist() == [True, False, True]
    assert np.array_equal(message.bits, [block.bits for block in blocks])
    assert np.array_equal(message.llrs, [quantise_llrs(block.llrs) for block in blocks])
    assert message.fate == "blocks_failed"


def test_round_trip_through_the_wire_format() -> None:
    """As a file meta sink or a socket of GNU Radio would carry it."""
    pdu = to_pdu(HEADER, code_blocks(), RECORD)
    assert from_pdu(pmt.deserialize_str(pmt.serialize_str(pdu))).header == HEADER


@given(st.lists(st.floats(-200, 200, width=32), min_size=1, max_size=50))
def test_quantised_llrs(values: list[float]) -> None:
    llrs = np.array(values, np.float32)
    steps = quantise_llrs(llrs)
    assert steps.dtype == np.int8
    inside = np.abs(llrs) < 127 * LLR_STEP
    assert np.all(np.abs(steps[inside] * LLR_STEP - llrs[inside]) <= LLR_STEP / 2)
    assert np.all(np.abs(steps[~inside]) == 127)
    assert np.all((steps >= 0) | (llrs < 0))


def test_infinite_llrs_saturate() -> None:
    assert quantise_llrs(np.array([np.inf, -np.inf], np.float32)).tolist() == [127, -127]


@pytest.mark.parametrize(
    "pdu",
    [
        pmt.PMT_NIL,
        pmt.PMT_T,
        END_MESSAGE,
        pmt.from_long(3),
        pmt.make_dict(),
        pmt.cons(pmt.make_dict(), pmt.init_u8vector(3, [0, 1, 0])),
        pmt.cons(pmt.PMT_NIL, pmt.init_u8vector(0, [])),
        pmt.cons(pmt.make_dict(), pmt.init_f32vector(1, [0.0])),
        pmt.cons(pmt.intern("a"), pmt.intern("b")),
    ],
)
def test_messages_that_are_no_bursts(pdu: pmt.pmt_base) -> None:
    with pytest.raises(ValueError, match=r"PDU|wrong_type"):
        from_pdu(pdu)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mcs", pmt.from_long(12)),
        ("mcs", pmt.from_long(-1)),
        ("mcs", pmt.intern("4")),
        ("frame_id", pmt.from_uint64(1 << 40)),
        ("frame_bits", pmt.from_long(0)),
        ("blocks", pmt.from_long(2)),
        ("blocks", pmt.from_long(4)),
        ("ok", pmt.init_u8vector(2, [1, 1])),
        ("ok", pmt.PMT_T),
        ("llrs", pmt.init_s8vector(5, [0] * 5)),
        ("llrs", pmt.PMT_NIL),
        ("fate", pmt.from_long(1)),
        ("fate", pmt.intern("abducted")),
    ],
)
def test_parts_that_do_not_fit(key: str, value: pmt.pmt_base) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - GNU Radio's own messages are of many kinds
        from_pdu(changed(key, value))


def test_a_missing_part_is_named() -> None:
    pdu = to_pdu(HEADER, code_blocks(), RECORD)
    meta = pmt.dict_delete(pmt.car(pdu), pmt.intern("llrs"))
    with pytest.raises(ValueError, match="lacks llrs"):
        from_pdu(pmt.cons(meta, pmt.cdr(pdu)))


def test_bits_are_bits() -> None:
    pdu = to_pdu(HEADER, code_blocks(), RECORD)
    with pytest.raises(ValueError, match="0 or 1"):
        from_pdu(pmt.cons(pmt.car(pdu), pmt.init_u8vector(300, [7] * 300)))
