"""Putting code blocks back together: bursts in, index frames out. No GNU Radio, no sockets.

Any burst says which frame and which code blocks it carries, so bursts may be missing, doubled or late, and
those of several senders may alternate.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from blocks.modem.header import BurstHeader
from semantic.geometries import GeometryTable
from semantic.index_frame import FrameGeometry, IndexFrame

# Frames that are open at a time: the ninth that begins closes the first.
MOST_OPEN = 8
_REMEMBERED = 256

_Key = tuple[int, int, int, int, int, int]


@dataclass(frozen=True)
class AssembledFrame:
    """A frame as far as it was received.

    Args:
        frame: with an erasure mask unless complete; None where not one code block survived.
        frame_id: its number.
        blocks: code blocks of the frame.
        blocks_ok: code blocks received with a good CRC.
        bursts: bursts that contributed, by fate.
        stream: of the sender, 0..31.
    """

    frame: IndexFrame | None
    frame_id: int
    blocks: int
    blocks_ok: int
    bursts: dict[str, int]
    stream: int = 0

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
    first_burst: int
    last_burst: int = 0
    last_s: float = 0.0
    bursts: dict[str, int] = field(default_factory=dict)


class FrameAssembler:
    """Collects the code blocks of frames, of several at a time.

    A frame is handed on when it is complete, when another of its stream that began after its last burst is
    complete (its sender has moved on), when too many are open, when it is overdue, or at the end.

    Args:
        geometries: of the codecs and rates that are known; a stream stands for every whole number of bytes.

    Attributes:
        blocks_late: code blocks that came after their frame was handed on without them.
        blocks_repeated: code blocks of frames that were complete: the frame was sent twice.

    Raises:
        IndexFrameError: two geometries that a burst header cannot tell apart.
    """

    def __init__(self, geometries: Iterable[FrameGeometry]) -> None:
        self._geometries = GeometryTable(geometries)
        self._open: OrderedDict[_Key, _OpenFrame] = (
            OrderedDict()
        )  # in the order in which they began
        self._finished: OrderedDict[_Key, bool] = OrderedDict()  # and whether they were complete
        self._bursts = 0
        self.blocks_late = 0
        self.blocks_repeated = 0

    @property
    def waiting(self) -> bool:
        """True while a frame is begun and not complete."""
        return bool(self._open)

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
        now_s: float = 0.0,
    ) -> list[AssembledFrame]:
        """Take the code blocks of one burst; returns the frames that this closes.

        Args:
            header: the burst's header; its codec must be known.
            ok: ``bool [blocks]``.
            bits: ``uint8 [blocks, payload_bits]``.
            llrs: ``int8 [blocks, payload_bits]``.
            fate: the burst's fate, counted with the frame.
            now_s: when it came, for :meth:`overdue`.

        Raises:
            ValueError: the codec is not known.
        """
        geometry = self._geometries.find(header.codec_tag, header.frame_bits)
        if geometry is None:
            raise ValueError(
                f"no codec with tag {header.codec_tag:04x} and {header.frame_bits} bits"
            )
        key = _key(header)
        if key in self._finished:
            if self._finished[key]:
                self.blocks_repeated += header.blocks
            else:
                self.blocks_late += header.blocks
            return []
        self._bursts += 1
        if key not in self._open:
            self._open[key] = _begin(header, geometry, self._bursts)
        frame = self._open[key]
        self._store(frame, header, ok, bits, llrs)
        frame.bursts[fate] = frame.bursts.get(fate, 0) + 1
        frame.last_burst, frame.last_s = self._bursts, now_s
        if frame.ok.all():
            passed = [
                other
                for other, one in self._open.items()
                if one.header.stream == header.stream and one.last_burst < frame.first_burst
            ]
            return self._close([*passed, key])
        return self._close(list(self._open)[: max(0, len(self._open) - MOST_OPEN)])

    def overdue(self, before_s: float) -> list[AssembledFrame]:
        """Close the frames whose last burst came before a time."""
        return self._close([key for key, one in self._open.items() if one.last_s < before_s])

    def finish(self) -> list[AssembledFrame]:
        """Close all open frames, complete or not, in the order in which they began."""
        return self._close(list(self._open))

    def _close(self, keys: list[_Key]) -> list[AssembledFrame]:
        return [self._close_one(key) for key in keys]

    def _close_one(self, key: _Key) -> AssembledFrame:
        one = self._open.pop(key)
        header, good = one.header, int(one.ok.sum())
        self._finished[key] = good == header.frame_blocks
        if len(self._finished) > _REMEMBERED:
            self._finished.popitem(last=False)
        frame = _to_index_frame(one) if good else None
        return AssembledFrame(
            frame, header.frame_id, header.frame_blocks, good, one.bursts, header.stream
        )

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


def _begin(header: BurstHeader, geometry: FrameGeometry, first_burst: int) -> _OpenFrame:
    plan = header.plan
    shape = (plan.blocks, plan.payload_bits)
    return _OpenFrame(
        geometry=geometry,
        header=header,
        bits=np.zeros(shape, np.uint8),
        llrs=np.zeros(shape, np.int8),
        ok=np.zeros(plan.blocks, np.bool_),
        first_burst=first_burst,
    )


def _key(header: BurstHeader) -> _Key:
    """What bursts of one frame have in common."""
    return (
        header.stream,
        header.frame_id,
        header.frame_bits,
        header.frame_blocks,
        header.mcs,
        header.codec_tag,
    )


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
