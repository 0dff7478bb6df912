"""What is left of a picture when code blocks are lost: the codecs beside JPEG 2000, as many bits each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.bootstrap import PhotoMean
from benchmarks.machine import machine
from blocks.modem import waveform as wf
from semantic.codec.loader import PictureCodec
from semantic.codec.settings import EncoderSettings
from semantic.index_frame import IndexFrame, NothingReceivedError
from semantic.metrics import psnr_db
from semantic.systems.controls import grey_picture
from semantic.systems.picture_system import PictureSystem
from semantic.systems.system import Received

SHARES = (0.0, 0.05, 0.1, 0.2, 0.4)
SIDE = 160
RIVAL = "JPEG 2000"

Encode = Callable[[Image.Image, int], IndexFrame]
Decode = Callable[[IndexFrame], Image.Image | None]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class LossReport:
    """Result of :func:`benchmark_losses`.

    Args:
        bits: of every picture.
        blocks: code blocks that carry them.
        photos: how many.
        draws: of lost blocks, per photo and share.
        shares: of blocks that are lost, each by itself.
        psnr_db: by system, one per share.
        no_picture: by system, how many of the pictures were nothing but grey, one per share.
    """

    bits: int
    blocks: int
    photos: int
    draws: int
    shares: tuple[float, ...]
    psnr_db: dict[str, list[PhotoMean]]
    no_picture: dict[str, list[int]]

    def to_json(self) -> dict[str, Any]:
        """One JSON object."""
        return {
            "bits": self.bits,
            "blocks": self.blocks,
            "photos": self.photos,
            "draws": self.draws,
            "shares": self.shares,
            "systems": {
                name: {
                    "psnr_db": [one.mean for one in values],
                    "ci95": [one.ci95 for one in values],
                    "no_picture": self.no_picture[name],
                }
                for name, values in self.psnr_db.items()
            },
            "machine": machine(),
        }


def benchmark_losses(
    codecs: dict[str, PictureCodec],
    photos: Sequence[tuple[Path, Image.Image, str]],
    *,
    bits: int,
    mcs: int = 4,
    draws: int = 4,
    shares: Sequence[float] = SHARES,
    seed: int = 0,
    progress: Progress = lambda done, total: None,
) -> LossReport:
    """Lose code blocks at random, the same ones for every system.

    Args:
        codecs: by name; those that can are measured with and without copies of the base layer.
        photos: file, square picture and question.
        bits: of a picture, whole bytes.
        mcs: code rate, which decides how many blocks there are.
        draws: of lost blocks, per photo and share.
        shares: of blocks that are lost.
        seed: of the draws and of the bootstrap.
        progress: called with photos done, out of how many.
    """
    blocks = wf.plan_blocks(bits, mcs).blocks
    room = wf.max_info_bits(mcs) - wf.CODE_BLOCK_CRC_BITS
    settings = EncoderSettings(bits=bits, slice_bits=room)
    rival = PictureSystem(RIVAL, "jpeg2000", bits // 8, SIDE)
    found: dict[str, list[list[float]]] = {}
    grey: dict[str, list[int]] = {}
    owners: list[int] = []
    for number, (_, source, query) in enumerate(photos):
        progress(number, len(photos))
        generator = np.random.default_rng([seed, number])
        lost = [generator.random((draws, blocks)) < share for share in shares]
        owners += [number] * draws
        frames: dict[str, tuple[IndexFrame, Decode]] = {}
        for name, codec in codecs.items():
            for copies in (False, True) if codec.geometry.is_stream else (False,):
                frame = codec.encode(source, query, replace(settings, base_copies=copies), number)
                label = f"{name}, base copied" if copies else name
                frames[label] = frame, codec.decode
        frames[RIVAL] = rival.encode(source, query, number), _decoder(rival, query)
        for name, (frame, decode) in frames.items():
            values = found.setdefault(name, [[] for _ in shares])
            count = grey.setdefault(name, [0] * len(shares))
            for k, drawn in enumerate(lost):
                for one in drawn:
                    shown = _shown(frame, one, decode)
                    count[k] += shown is None
                    values[k].append(psnr_db(source, shown or grey_picture(SIDE)))
    means = {
        name: [mean for one in values if (mean := PhotoMean.of(one, owners, seed)) is not None]
        for name, values in found.items()
    }
    return LossReport(bits, blocks, len(photos), draws, tuple(shares), means, grey)


def _decoder(system: PictureSystem, query: str) -> Decode:
    return lambda frame: system.decode(Received(frame, False), query)


def _shown(frame: IndexFrame, lost: NDArray[np.bool_], decode: Decode) -> Image.Image | None:
    """What a receiver shows; None where it has nothing to show."""
    bits = frame.to_bits()
    part = -(-len(bits) // len(lost))
    erased = np.repeat(lost, part)[: len(bits)]
    if lost.all():
        return None
    received = IndexFrame.from_bits(frame.geometry, bits, frame_id=0, erased_bits=erased)
    try:
        return decode(received)
    except NothingReceivedError:
        return None
