"""Putting code blocks back together: bursts in, index frames out. No GNU Radio, no sockets.

Any burst says which frame and which code blocks it carries, so bursts may be missing, doubled or late. A
frame is handed on when it is complete, when a burst of another frame arrives, or when it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from blocks.modem.header import BurstHeader
from semantic.geometries import GeometryTable
from semantic.index_frame import FrameGeometry, IndexFrame


@dataclass(frozen=True)
class AssembledFrame:
    """A frame as far as it was received.

    Args:
        frame: with an erasure mask unless complete; None where not one code block survived.
        frame_id: its number.
        blocks: code blocks of the frame.
        blocks_ok: code blocks received with a good CRC.
        bursts: bursts that contributed, by fate.
    """

    frame: IndexFrame | None
    frame_id: int
    blocks: int
    blocks_ok: int
    bursts: dict[str, int]

    @property
    def complete(self) -> bool:
        """True when every code block is there."""
        return self.blocks_ok == self.blocks


@dataclass
class _OpenFrame:
    geometry: FrameGeometry
    header: BurstHeader
    bits: NDArray[np.uint8]
    llrs: NDArray[np.int8]
    ok: NDArray[np.bool_]
    bursts: dict[str, int] = field(default_factory=dict)


class FrameAssembler:
    """Collects the code blocks of one frame at a time.

    Args:
        geometries: of the codecs and rates that are known; a stream stands for every whole number of bytes.

    Raises:
        IndexFrameError: two geometries that a burst header cannot tell apart.
    """

    def __init__(self, geometries: Iterable[FrameGeometry]) -> None:
        self._geometries = GeometryTable(geometries)
        self._open: _OpenFrame | None = None
        self._last_finished: tuple[int, int] | None = None
        self.blocks_late = 0

    @property
    def waiting(self) -> bool:
        """True while a frame is begun and not complete."""
        return self._open is not None

    def knows(self, header: BurstHeader) -> bool:
        """True where the burst's codec tag names a geometry that has its number of bits."""
        return self._geometries.find(header.codec_tag, header.frame_bits) is not None

    def add(
        self,
        header: BurstHeader,
        ok: NDArray[np.bool_],
        bits: NDArray[np.uint8],
        llrs: NDArray[np.int8],
        fate: str,
    ) -> list[AssembledFrame]:
        """Take the code blocks of one burst; returns the frames that this closes.

        Args:
            header: the burst's header; its codec must be known.
            ok: ``bool [blocks]``.
            bits: ``uint8 [blocks, payload_bits]``.
            llrs: ``int8 [blocks, payload_bits]``.
            fate: the burst's fate, counted with the frame.

        Raises:
            ValueError: the codec is not known.
        """
        geometry = self._geometries.find(header.codec_tag, header.frame_bits)
        if geometry is None:
            raise ValueError(
                f"no codec with tag {header.codec_tag:04x} and {header.frame_bits} bits"
            )
        if self._last_finished == (header.stream, header.frame_id):
            self.blocks_late += header.blocks
            return []
        finished = []
        if self._open is not None and not _same_frame(self._open.header, header):
            finished += self.finish()
        if self._open is None:
            self._open = _begin(header, geometry)
        self._store(self._open, header, ok, bits, llrs)
        self._open.bursts[fate] = self._open.bursts.get(fate, 0) + 1
        if self._open.ok.all():
            finished += self.finish()
        return finished

    def finish(self) -> list[AssembledFrame]:
        """Close the open frame, complete or not; an empty list where there is none."""
        if self._open is None:
            return []
        open_frame, self._open = self._open, None
        header = open_frame.header
        self._last_finished = (header.stream, header.frame_id)
        good = int(open_frame.ok.sum())
        frame = _to_index_frame(open_frame) if good else None
        return [
            AssembledFrame(frame, header.frame_id, header.frame_blocks, good, open_frame.bursts)
        ]

    @staticmethod
    def _store(
        frame: _OpenFrame,
        header: BurstHeader,
        ok: NDArray[np.bool_],
        bits: NDArray[np.uint8],
        llrs: NDArray[np.int8],
    ) -> None:
        for row in range(header.blocks):
            number = header.first_block + row
            if frame.ok[number]:
                continue
            frame.bits[number] = bits[row]
            frame.llrs[number] = llrs[row]
            frame.ok[number] = ok[row]


def _begin(header: BurstHeader, geometry: FrameGeometry) -> _OpenFrame:
    plan = header.plan
    shape = (plan.blocks, plan.payload_bits)
    return _OpenFrame(
        geometry=geometry,
        header=header,
        bits=np.zeros(shape, np.uint8),
        llrs=np.zeros(shape, np.int8),
        ok=np.zeros(plan.blocks, np.bool_),
    )


def _same_frame(one: BurstHeader, other: BurstHeader) -> bool:
    keys = ("stream", "frame_id", "frame_bits", "frame_blocks", "mcs", "codec_tag")
    return all(getattr(one, key) == getattr(other, key) for key in keys)


def _to_index_frame(open_frame: _OpenFrame) -> IndexFrame:
    size = open_frame.geometry.payload_bits
    bits = open_frame.bits.reshape(-1)[:size]
    if open_frame.ok.all():
        return IndexFrame.from_bits(open_frame.geometry, bits, frame_id=open_frame.header.frame_id)
    erased = np.repeat(~open_frame.ok, open_frame.bits.shape[1])[:size]
    return IndexFrame.from_bits(
        open_frame.geometry,
        bits,
        frame_id=open_frame.header.frame_id,
        erased_bits=erased,
        bit_llrs=open_frame.llrs.reshape(-1)[:size].copy(),
    )
