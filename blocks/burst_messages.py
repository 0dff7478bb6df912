"""Received bursts as GNU Radio messages: one PDU per burst, bits as data, everything else as metadata.

Between BurstReceiver and IndexSink nothing but PMTs travels, so that other message blocks (a file meta
sink, a message debug, a block of the user's own) can listen in.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pmt
from numpy.typing import NDArray

from blocks.modem.demodulator import CodeBlock
from blocks.modem.header import BurstHeader
from blocks.pmt_arrays import array_to_pmt, pmt_to_array
from semantic.index_frame import quantise_llrs
from semantic.link_statistics import BurstRecord, Fate

_HEADER_KEYS = {name: pmt.intern(name) for name in BurstHeader.__dataclass_fields__}
_KEY_OK = pmt.intern("ok")
_KEY_LLRS = pmt.intern("llrs")
_KEY_FATE = pmt.intern("fate")
_KEY_SNR = pmt.intern("snr_db")
_KEY_CFO = pmt.intern("cfo_hz")

# Sent on the same port once the stream has ended and every burst before it has been published.
END_MESSAGE = pmt.intern("end_of_stream")


@dataclass(frozen=True)
class BurstMessage:
    """The code blocks of one burst as they travel in a message.

    Args:
        header: the burst's header.
        ok: ``bool [blocks]``, True where a block's CRC holds.
        bits: ``uint8 [blocks, payload_bits]``.
        llrs: ``int8 [blocks, payload_bits]`` posterior LLRs in steps of ``LLR_STEP``.
        fate: the burst's fate, as text.
    """

    header: BurstHeader
    ok: NDArray[np.bool_]
    bits: NDArray[np.uint8] = field(repr=False)
    llrs: NDArray[np.int8] = field(repr=False)
    fate: str


def to_pdu(header: BurstHeader, blocks: list[CodeBlock], record: BurstRecord) -> pmt.pmt_base:
    """PDU of a demodulated burst."""
    meta = pmt.make_dict()
    for name, key in _HEADER_KEYS.items():
        meta = pmt.dict_add(meta, key, pmt.from_uint64(getattr(header, name)))
    ok = np.array([block.ok for block in blocks], np.uint8)
    llrs = quantise_llrs(np.concatenate([block.llrs for block in blocks]))
    bits = np.concatenate([block.bits for block in blocks])
    meta = pmt.dict_add(meta, _KEY_OK, array_to_pmt(ok))
    meta = pmt.dict_add(meta, _KEY_LLRS, array_to_pmt(llrs))
    meta = pmt.dict_add(meta, _KEY_FATE, pmt.intern(record.fate.value))
    meta = pmt.dict_add(meta, _KEY_SNR, pmt.from_double(record.snr_db))
    meta = pmt.dict_add(meta, _KEY_CFO, pmt.from_double(record.cfo_hz))
    return pmt.cons(meta, array_to_pmt(bits))


def from_pdu(pdu: pmt.pmt_base) -> BurstMessage:
    """Inverse of :func:`to_pdu`.

    Raises:
        ValueError: not such a PDU, or its parts do not fit each other.
    """
    if not (pmt.is_pair(pdu) and pmt.is_dict(pmt.car(pdu)) and pmt.is_u8vector(pmt.cdr(pdu))):
        raise ValueError("expected a PDU of bytes")
    meta = pmt.car(pdu)
    header = BurstHeader(**{name: int(pmt.to_uint64(_get(meta, name))) for name in _HEADER_KEYS})
    shape = (header.blocks, header.plan.payload_bits)
    ok = pmt_to_array(_get(meta, "ok")).astype(np.bool_)
    llrs = pmt_to_array(_get(meta, "llrs"))
    bits = pmt_to_array(pmt.cdr(pdu))
    if ok.size != shape[0] or bits.size != shape[0] * shape[1] or llrs.size != bits.size:
        raise ValueError(f"PDU of {bits.size} bits does not hold {shape[0]} blocks of {shape[1]}")
    if int(bits.max()) > 1:
        raise ValueError(f"PDU of bits holds the value {int(bits.max())}, expected 0 or 1")
    fate = Fate(pmt.symbol_to_string(_get(meta, "fate"))).value
    return BurstMessage(header, ok, bits.reshape(shape), llrs.reshape(shape), fate)


def _get(meta: pmt.pmt_base, name: str) -> Any:
    value = pmt.dict_ref(meta, pmt.intern(name), pmt.PMT_NIL)
    if pmt.is_null(value):
        raise ValueError(f"PDU lacks {name}")
    return value
