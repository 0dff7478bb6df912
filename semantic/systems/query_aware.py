"""Query-aware semantic coding, the paper's [7] (arXiv 2408.12616): an answer and a small picture.

At the transmitter a vision-language model answers the question. Its answer and a picture in what is left of
the bytes are sent; at the receiver a pretrained diffusion model redraws the picture, told the answer and the
question. What the models are is open here: any judge answers, any image-to-image pipeline of diffusers draws.

A frame holds the answer's length in bytes (one byte), the answer as UTF-8, and the picture as
:mod:`semantic.systems.picture_system` sends it.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from semantic.index_frame import IndexFrame
from semantic.judge import Judge
from semantic.systems.picture_system import ScaledFrames, get_coder, require_side
from semantic.systems.spec import QueryAwareSpec
from semantic.systems.system import Received, UnreachableError

# What one byte can announce.
MAXIMUM_ANSWER_BYTES = 255


class Redraw(Protocol):
    """What :class:`semantic.systems.diffusion.Redrawer` does."""

    def redraw(self, picture: Image.Image, prompt: str) -> Image.Image:
        """A picture of the same size."""

    def notes(self) -> list[str]:
        """What a report must say about it."""


class QueryAwareSystem:
    """Answer and picture within a number of bytes.

    Args:
        spec: coder and label; its budget is in bytes.
        image_size: side of the pictures in pixels.
        answerer: answers at the transmitter.
        redrawer: draws at the receiver; None shows the compressed picture as it came.

    Raises:
        UnavailableError: this Pillow was built without the coder.
    """

    kind = "query_aware"
    codec_id: str | None = None
    segment_length: int | None = None
    hears_query = True

    def __init__(
        self, spec: QueryAwareSpec, image_size: int, answerer: Judge, redrawer: Redraw | None
    ) -> None:
        if spec.bytes is None:
            raise ValueError(f"{spec.label}: its budget in bytes is not known")
        self.label = spec.label
        self.image_size = image_size
        self.own_judges: tuple[str, ...] = (answerer.identity,)
        self._spec = spec
        self._budget_bytes = spec.bytes
        self._answerer = answerer
        self._redrawer = redrawer
        self._coder = get_coder(spec.coder)
        self._frames = ScaledFrames(f"query_aware/{spec.coder}", image_size)

    def encode(self, picture: Image.Image, query: str, frame_id: int) -> IndexFrame:
        """See :class:`semantic.systems.system.System`."""
        require_side(picture, self.image_size)
        answer = pack_answer(self._answerer.answer([picture], [query])[0].text)
        room = self._budget_bytes - len(answer)
        coded = self._coder.code_within(picture, room, container=False) if room > 0 else None
        if coded is None:
            raise UnreachableError(
                f"{self.label}: no {self._spec.coder} picture fits into the {max(room, 0)} of "
                f"{self._budget_bytes} bytes that the answer leaves"
            )
        payload = self._coder.strip(coded.data, coded.side)
        return self._frames.pack(answer + payload, coded.side, frame_id)

    def decode(self, received: Received, query: str) -> Image.Image | None:
        """See :class:`semantic.systems.system.System`."""
        if received.frame is None:
            return None
        data, side = self._frames.unpack(received.frame)
        parts = unpack_answer(data, _lost_bytes(received.frame))
        if parts is None:
            return None
        answer, payload = parts
        picture = self._coder.receive(payload, side, self.image_size)
        if picture is None or self._redrawer is None:
            return picture
        return self._redrawer.redraw(picture, make_prompt(answer, query))

    def notes(self) -> list[str]:
        """See :class:`semantic.systems.system.System`."""
        said = [
            f"{self._answerer.name} answers, {self._spec.coder} codes the picture; together at most "
            f"{self._budget_bytes} bytes"
        ]
        if self._redrawer is None:
            said.append(
                "no diffusion step (diffusion: null, no weights at hand): the compressed picture is shown as "
                "it came, and the answer is paid for but not used"
            )
        else:
            said += self._redrawer.notes()
        return [f"{self.label}: {clause}" for clause in said]


def make_prompt(answer: str | None, query: str) -> str:
    """What the diffusion model is told; the question alone where the answer was damaged."""
    return query if answer is None else f"{answer}. {query}"


def pack_answer(text: str) -> bytes:
    """Length and UTF-8 of an answer, as one line, cut at a whole character where it is too long."""
    line = "".join(c for c in " ".join(text.split()) if c.isprintable())
    kept = line.encode()[:MAXIMUM_ANSWER_BYTES].decode(errors="ignore").encode()
    return bytes([len(kept)]) + kept


def unpack_answer(data: bytes, lost: NDArray[np.bool_]) -> tuple[str | None, bytes] | None:
    """Answer and picture of a received frame, whoever sent it.

    Args:
        data: bytes of the frame, at least one; what was lost reads 0.
        lost: bool ``[len(data)]``.

    Returns:
        An answer of None where it is empty, damaged or not one line of UTF-8 text. None where its length
        was lost or leaves no picture.
    """
    end = 1 + data[0]
    if lost[0] or end >= len(data):
        return None
    answer: str | None = None
    if not lost[1:end].any():
        try:
            text = data[1:end].decode()
        except UnicodeDecodeError:
            text = ""
        answer = text if text and text.isprintable() else None
    return answer, data[end:]


def _lost_bytes(frame: IndexFrame) -> NDArray[np.bool_]:
    if frame.erased is None:
        return np.zeros(frame.geometry.indices, np.bool_)
    return frame.erased[0].reshape(-1)
