"""JPEG 2000, WebP and AVIF at a given number of bytes: what the codec is compared with at equal bits.

Each coder gets what a careful user would give it at some hundred bytes a picture: it may scale the picture
down first, its settings are those that measured best there, the finest quality that fits is searched for,
and only bytes that a receiver could not make itself are counted (:mod:`semantic.systems.picture_containers`).
The receiver is told, at no cost, which coder and which side were used. Best means PSNR at the size of the
source.

JPEG 2000 for the air at kilobytes, as the demo sends it, is :mod:`semantic.systems.jpeg2000`.
"""

from __future__ import annotations

import io
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

from PIL import Image, features

from semantic.metrics import psnr_db
from semantic.systems.picture_containers import (
    PictureCoderError,
    drop_jpeg2000_comments,
    jpeg2000_header,
    restore_avif,
    restore_jpeg2000,
    restore_webp,
    strip_avif,
    strip_jpeg2000,
    strip_webp,
)

__all__ = [
    "PICTURE_CODERS",
    "CodedPicture",
    "PictureCoder",
    "PictureCoderError",
    "coded_sides",
]

# Sides to which a picture may be scaled, in sixteenths of its own: 160, 120, 80, 60, 40, 30, 20 of 160.
_SIXTEENTHS = (16, 12, 8, 6, 4, 3, 2)
# Below this a picture is not scaled: the coders' smallest blocks are 4 and 8 pixels wide.
_LEAST_SIDE = 8
# A search ends after so many trials at one side at the latest.
_MOST_TRIALS = 12
# The slow setting of a coder is tried at the best side by the fast one, and at the next if it is this close.
_REFINED_SIDES, _CLOSE_DB = 2, 0.5


@dataclass(frozen=True)
class CodedPicture:
    """A picture as a file of a coder, and what a receiver shows of it.

    Args:
        name: name of the coder, a key of :data:`PICTURE_CODERS`.
        data: the complete file, as any decoder of the format reads it.
        container_bytes: how many of its bytes follow from coder, settings, side and length; a receiver
            that knows the coder does not need them.
        side: pixels to which the picture was scaled before it was coded.
        decoded: RGB, the size of the source.
    """

    name: str
    data: bytes
    container_bytes: int
    side: int
    decoded: Image.Image

    @property
    def payload_bytes(self) -> int:
        """Bytes of the file that depend on the picture."""
        return len(self.data) - self.container_bytes


class PictureCoder(Protocol):
    """A coder of square pictures that can be held to a number of bytes."""

    @property
    def name(self) -> str:
        """Key in :data:`PICTURE_CODERS`."""

    def code_within(
        self, picture: Image.Image, payload_bytes: int, *, container: bool
    ) -> CodedPicture | None:
        """The picture with the best PSNR that fits into a number of bytes.

        Args:
            picture: a square; coded as RGB.
            payload_bytes: what is allowed, at least 1.
            container: count the complete file instead of the payload.

        Returns:
            None where not even the smallest and coarsest picture fits.

        Raises:
            PictureCoderError: not a square or smaller than 16 pixels; fewer than 1 byte; this Pillow
                lacks the format.
        """

    def strip(self, data: bytes, side: int) -> bytes:
        """The payload of a file that this coder made of a picture of ``side`` pixels.

        Raises:
            PictureCoderError: it is no such file.
        """

    def restore(self, stripped: bytes, side: int) -> bytes:
        """The complete file, given its payload and the side."""

    def receive(self, stripped: bytes, side: int, size: int) -> Image.Image | None:
        """What a receiver shows of a payload that may be damaged.

        Args:
            stripped: any bytes, at least one.
            side: to which the picture was scaled before it was coded.
            size: side of the source.

        Returns:
            RGB of ``size`` pixels a side, or None where nothing decodes. Never raises for damaged bytes.
        """


@dataclass(frozen=True)
class _Trial:
    """A picture coded at a level of quality: what it costs, and what it is worth if it fits."""

    level: int
    counted_bytes: int
    coded: CodedPicture | None
    psnr_db: float = -math.inf

    @property
    def fits(self) -> bool:
        """Whether the budget allows it."""
        return self.coded is not None


@dataclass(frozen=True)
class _Task:
    """A source at one side, and what may be spent on it."""

    source: Image.Image
    small: Image.Image
    allowed_bytes: int
    container: bool


class _ScaledCoder(ABC):
    """Search over sides and levels of quality. A coder adds its file format and its levels.

    Levels are whole numbers from 0, the coarsest, to ``highest_level(side)``. ``growth`` is the usual rise of
    the natural logarithm of the payload from one to the next; it only says where the search starts.
    """

    name: str
    pillow_format: str
    pillow_feature: str
    growth: float

    @abstractmethod
    def highest_level(self, side: int) -> int:
        """The finest level of quality."""

    @abstractmethod
    def encode(self, small: Image.Image, level: int) -> bytes:
        """Complete file of a picture at a level of quality."""

    @abstractmethod
    def strip(self, data: bytes, side: int) -> bytes:
        """See :class:`PictureCoder`."""

    @abstractmethod
    def restore(self, stripped: bytes, side: int) -> bytes:
        """See :class:`PictureCoder`."""

    def code_within(
        self, picture: Image.Image, payload_bytes: int, *, container: bool
    ) -> CodedPicture | None:
        """See :class:`PictureCoder`."""
        if not features.check(self.pillow_feature):
            raise PictureCoderError(f"this Pillow was built without {self.name}")
        trials = self.trials(_checked(picture, payload_bytes), payload_bytes, container)
        best = max(trials, key=_psnr_db, default=None)
        return None if best is None else best.coded

    def trials(self, source: Image.Image, allowed: int, container: bool) -> list[_Trial]:
        """The best at each side that was worth a trial, from the largest side to the smallest."""
        found: list[_Trial] = []
        for side in coded_sides(source.width):
            small = _scaled(source, side)
            # What is lost by scaling is lost: no coding makes up for it.
            ceiling_db = psnr_db(source, _scaled(small, source.width))
            if any(trial.psnr_db >= ceiling_db for trial in found):
                continue
            best = self._search(_Task(source, small, allowed, container))
            if best is not None:
                found.append(best)
        return found

    def _search(self, task: _Task) -> _Trial | None:
        """The best trial at one side, or None where the coarsest does not fit.

        The payload grows about exponentially with the level. Where it should meet the budget is estimated,
        by ``growth`` at first and then between the nearest trials below and above; every third step
        halves what is left instead.
        """
        below = self._try(task, 0)
        if not below.fits:
            return None
        best = below
        end, end_bytes = self.highest_level(task.small.width) + 1, 0
        for step in range(1, _MOST_TRIALS):
            width = end - below.level
            if width <= 1:
                break
            rise = math.log(end_bytes / below.counted_bytes) / width if end_bytes else self.growth
            room = math.log(task.allowed_bytes / below.counted_bytes)
            ahead = width // 2 if step % 3 == 0 else int(room / max(rise, 1e-6))
            level = below.level + min(max(ahead, 1), width - 1)
            trial = self._try(task, level)
            if trial.fits:
                below = trial
                best = max(best, trial, key=_psnr_db)
            else:
                end, end_bytes = level, trial.counted_bytes
        return best

    def _try(self, task: _Task, level: int) -> _Trial:
        """Code at a level; decode and compare only what fits."""
        side = task.small.width
        data = self.encode(task.small, level)
        payload = len(self.strip(data, side))
        counted = len(data) if task.container else payload
        if counted > task.allowed_bytes:
            return _Trial(level, counted, None)
        decoded = _scaled(self.decode(data), task.source.width)
        coded = CodedPicture(self.name, data, len(data) - payload, side, decoded)
        return _Trial(level, counted, coded, psnr_db(task.source, decoded))

    def receive(self, stripped: bytes, side: int, size: int) -> Image.Image | None:
        """See :class:`PictureCoder`."""
        try:
            picture = self.decode(self.restore(stripped, side))
        except Exception:  # noqa: BLE001
            # Pillow and its libraries answer damaged bytes with many kinds of exception: no picture.
            return None
        return None if picture.size != (side, side) else _scaled(picture, size)

    def decode(self, data: bytes) -> Image.Image:
        """What Pillow makes of a complete file, as RGB."""
        with Image.open(io.BytesIO(data), formats=(self.pillow_format,)) as picture:
            return picture.convert("RGB")

    def save(self, small: Image.Image, **settings: Any) -> bytes:
        """A file as Pillow writes it."""
        buffer = io.BytesIO()
        small.save(buffer, self.pillow_format, **settings)
        return buffer.getvalue()


class _Jpeg2000(_ScaledCoder):
    """OpenJPEG through Pillow.

    Raw codestream, one tile, one layer, irreversible 9/7 wavelet and colour transform, the largest code
    blocks (64x64) and precincts, no SOP, EPH or comment. Five resolutions rather than OpenJPEG's six,
    because every packet costs at least a byte (6: 19.39 dB, 5: 19.64, 4: 19.55, 3: 19.50 at 125 bytes, means
    over the seven photos of the demo with the best side; 5 is best at 800 and 1600 bytes, and 0.04 dB
    below 4 at 320). Smaller code blocks gained nothing.

    A level is a step in the logarithm of the size that OpenJPEG's rate control aims at.
    """

    name = "jpeg2000"
    pillow_format = "JPEG2000"
    pillow_feature = "jpg_2000"
    growth = math.log(2) / 256

    _RESOLUTIONS = 5
    _COARSEST_BYTES = 16

    def highest_level(self, side: int) -> int:
        """Level whose size is that of the pixels."""
        return round(math.log(3 * side * side / self._COARSEST_BYTES) / self.growth)

    def encode(self, small: Image.Image, level: int) -> bytes:
        """A codestream of about ``16 * 2 ** (level / 256)`` bytes after the headers."""
        headers = 160  # with comment and tile, a little above the truth at few resolutions
        aim = headers + self._COARSEST_BYTES * math.exp(self.growth * level)
        pixels = 3 * small.width * small.height
        # OpenJPEG halves a side once less than it has resolutions; one pixel must remain.
        resolutions = min(self._RESOLUTIONS, small.width.bit_length())
        data = self.save(
            small,
            no_jp2=True,
            irreversible=True,
            mct=1,
            num_resolutions=resolutions,
            codeblock_size=(64, 64),
            progression="LRCP",
            quality_mode="rates",
            quality_layers=[max(1.0, pixels / aim)],
        )
        return drop_jpeg2000_comments(data)

    def strip(self, data: bytes, side: int) -> bytes:
        """See :class:`PictureCoder`."""
        return strip_jpeg2000(data, self._header(side))

    def restore(self, stripped: bytes, side: int) -> bytes:
        """See :class:`PictureCoder`."""
        return restore_jpeg2000(stripped, self._header(side))

    def _header(self, side: int) -> bytes:
        return jpeg2000_header(_example(self, side))


class _Webp(_ScaledCoder):
    """libwebp through Pillow: lossy VP8, the slowest and best method 6.

    A level is half a step of libwebp's quality of 0 to 100. Pillow offers none of libwebp's other settings,
    so its weighting for the eye (spatial noise shaping 50) stays on.
    """

    name = "webp"
    pillow_format = "WEBP"
    pillow_feature = "webp"
    growth = 0.02

    def highest_level(self, side: int) -> int:
        """Quality 100."""
        return 200

    def encode(self, small: Image.Image, level: int) -> bytes:
        """A file of quality ``level / 2``."""
        return self.save(small, quality=level / 2, method=6)

    def strip(self, data: bytes, side: int) -> bytes:
        """See :class:`PictureCoder`."""
        return strip_webp(data, side)

    def restore(self, stripped: bytes, side: int) -> bytes:
        """See :class:`PictureCoder`."""
        return restore_webp(stripped, side)


class _FastAvif(_ScaledCoder):
    """libaom through libavif and Pillow, all colours at full resolution, tuned for PSNR, at its speed 6.

    Means over the seven photos of the demo with the best side, interpolated to 125, 320, 800 and 1600 bytes:
    20.4, 22.9, 25.8 and 28.3 dB as Pillow sets it (speed 6, 4:2:0, tuned for the eye); 20.7, 23.1, 26.0,
    28.5 tuned for PSNR; 20.7, 23.2, 26.2, 29.0 at speed 4 as well; 20.9, 23.3, 26.5, 29.4 with 4:4:4 as well.

    A level is one of libaom's 64 quantisers, of which libavif's quality of 0 to 100 chooses one.
    """

    name = "avif"
    pillow_format = "AVIF"
    pillow_feature = "avif"
    growth = 0.04

    def highest_level(self, side: int) -> int:
        """Quantiser 0."""
        return 63

    def encode(self, small: Image.Image, level: int) -> bytes:
        """A file coded with quantiser ``63 - level``."""
        return self.save(
            small,
            quality=math.ceil(level * 100 / 63),
            speed=self.speed(small.width),
            subsampling="4:4:4",
            codec="aom",
            max_threads=1,
            autotiling=False,
            advanced={"tune": "psnr"},
        )

    def speed(self, side: int) -> int:
        """Speed setting of libaom, 0 (slow) to 10."""
        return 6

    def strip(self, data: bytes, side: int) -> bytes:
        """See :class:`PictureCoder`."""
        return strip_avif(data, _example(self, side))

    def restore(self, stripped: bytes, side: int) -> bytes:
        """See :class:`PictureCoder`."""
        return restore_avif(stripped, _example(self, side))


class _Avif(_FastAvif):
    """AVIF at speed 2 up to 80x80 pixels and 4 above, at the sides that speed 6 found best.

    Speed 2 is ahead of 4 by another 0.2 dB at 125 and at 320 bytes (four of the photos). It is too slow to
    try everywhere.
    """

    def __init__(self) -> None:
        self._fast = _FastAvif()

    def speed(self, side: int) -> int:
        """Speed setting of libaom, 0 (slow) to 10."""
        return 2 if side <= 80 else 4

    def trials(self, source: Image.Image, allowed: int, container: bool) -> list[_Trial]:
        """The best at the most promising sides; at others only where nothing fits there."""
        surveyed = self._fast.trials(source, allowed, container)
        surveyed.sort(key=_psnr_db, reverse=True)
        found: list[_Trial] = []
        for hint in surveyed:
            assert hint.coded is not None  # what a search returns fits
            if found and hint.psnr_db < surveyed[0].psnr_db - _CLOSE_DB:
                break
            small = _scaled(source, hint.coded.side)
            best = self._near(_Task(source, small, allowed, container), hint.level)
            if best is not None:
                found.append(best)
            if len(found) == _REFINED_SIDES:
                break
        return found

    def _near(self, task: _Task, level: int) -> _Trial | None:
        """The finest level that fits, sought from one that should be near it."""
        trial = self._try(task, level)
        if not trial.fits:
            while not trial.fits and trial.level > 0:
                trial = self._try(task, trial.level - 1)
            # The level above this one has been tried: it is too large.
            return trial if trial.fits else None
        best = trial
        while trial.fits and trial.level < self.highest_level(task.small.width):
            trial = self._try(task, trial.level + 1)
            best = max(best, trial, key=_psnr_db)
        return best


def coded_sides(source_side: int) -> tuple[int, ...]:
    """Sides in pixels to which a square of ``source_side`` pixels may be scaled, largest first."""
    sides = {max(_LEAST_SIDE, round(source_side * share / 16)) for share in _SIXTEENTHS}
    return tuple(sorted(sides, reverse=True))


def _psnr_db(trial: _Trial) -> float:
    return trial.psnr_db


def _checked(picture: Image.Image, payload_bytes: int) -> Image.Image:
    """The picture as RGB without profile and metadata, which would be written into files.

    Raises:
        PictureCoderError: as :meth:`PictureCoder.code_within` says.
    """
    if payload_bytes < 1:
        raise PictureCoderError(f"{payload_bytes} bytes allowed, expected at least 1")
    width, height = picture.size
    if width != height or width < 2 * _LEAST_SIDE:
        raise PictureCoderError(
            f"a picture of {width}x{height} pixels, expected a square of at least {2 * _LEAST_SIDE}"
        )
    return Image.frombytes("RGB", picture.size, picture.convert("RGB").tobytes())


def _scaled(picture: Image.Image, side: int) -> Image.Image:
    """The picture at another side (Lanczos, which measured 0.04 dB above bicubic for enlarging)."""
    return picture.resize((side, side), Image.Resampling.LANCZOS)


@lru_cache(maxsize=64)
def _example(coder: _ScaledCoder, side: int) -> bytes:
    """A file of a grey picture, from which the bytes are read that all files of a side share."""
    return coder.encode(Image.new("RGB", (side, side), (128, 128, 128)), 0)


PICTURE_CODERS: dict[str, PictureCoder] = {
    coder.name: coder for coder in (_Jpeg2000(), _Webp(), _Avif())
}
