"""How a plan names the systems it compares: one entry with a ``kind`` and a ``label`` each.

An unknown key is an error, so that a misspelt setting is never silently ignored.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from semantic.codec.settings import DecodeFor
from semantic.frame_geometry import MAX_PAYLOAD_BITS

__all__ = [
    "AvifSpec",
    "BlankSpec",
    "BudgetSpec",
    "CodedSpec",
    "ControlSpec",
    "Jpeg2000Spec",
    "QueryAwareSpec",
    "SystemSpec",
    "UoiscSpec",
    "WebpSpec",
    "WrongPictureSpec",
]

# It is part of file names, in which "--" parts it from what follows.
Label = Annotated[str, Field(pattern=r"^\w(-?[\w .,+=()])*$", max_length=60)]


class _Spec(BaseModel):
    """What all have: a name in tables and figures."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    label: Label


class UoiscSpec(_Spec):
    """A trained codec.

    "Without text alignment" and "without pretrained VLM" are checkpoints of their own.

    Args:
        checkpoint: a safetensors file; None means the embedded codec.
        bits_per_pixel: the highest rate of its ladder that is not above this; None means its usual rate.
        focus: how far bits follow the question, 0..1; None means the codec's usual.
        search_steps: of a search for better indices, at the transmitter.
        search_likeness: how much it minds how pictures look to the image tower, beside their squared
            error; None means the codec's usual.
        soft: estimate what was lost from its LLRs.
        base_copies: the two-layer codec's slices repeat each other's base tokens.
        decode_for: which of the two-layer codec's heads makes the pictures.
        image_size: side of its pictures in pixels, for a codec that takes any.
    """

    kind: Literal["uoisc"]
    checkpoint: Path | None = None
    bits_per_pixel: float | None = Field(None, gt=0)
    focus: float | None = Field(None, ge=0, le=1)
    search_steps: int = Field(0, ge=0, le=1000)
    search_likeness: float | None = Field(None, ge=0, le=1000)
    soft: bool = False
    base_copies: bool = False
    decode_for: DecodeFor = "fidelity"
    image_size: int | None = Field(None, ge=16, le=1024)


class BudgetSpec(_Spec):
    """A system that is held to a number of bytes per picture.

    Args:
        bytes: at most so many.
        same_bits_as: or as many as that system sends, the label of a ``uoisc`` entry of the same plan.
        image_size: side of its pictures in pixels; None means that of ``same_bits_as``, or else of the
            embedded codec.
    """

    bytes: int | None = Field(None, ge=1, le=MAX_PAYLOAD_BITS // 8)
    same_bits_as: str | None = None
    image_size: int | None = Field(None, ge=16, le=2048)

    @model_validator(mode="after")
    def _one_budget(self) -> BudgetSpec:
        if (self.bytes is None) == (self.same_bits_as is None):
            raise ValueError("give either bytes or same_bits_as")
        return self


class WebpSpec(BudgetSpec):
    """WebP (lossy VP8)."""

    kind: Literal["webp"]


class AvifSpec(BudgetSpec):
    """AVIF (AV1 key frame)."""

    kind: Literal["avif"]


class Jpeg2000Spec(BudgetSpec):
    """JPEG 2000.

    Args:
        lossless: in place of a budget: the picture bit for bit, however many bytes that takes.
    """

    kind: Literal["jpeg2000"]
    lossless: bool = False

    @model_validator(mode="after")
    def _one_budget(self) -> Jpeg2000Spec:
        given = [self.bytes is not None, self.same_bits_as is not None, self.lossless]
        if sum(given) != 1:
            raise ValueError("give either bytes, same_bits_as or lossless: true")
        return self


class QueryAwareSpec(BudgetSpec):
    """The paper's [7] (arXiv 2408.12616): an answer to the question and a strongly compressed picture.

    Args:
        answerer: who answers at the transmitter, a judge by name (:func:`semantic.judge.load_judge`); not
            the one that scores.
        coder: of the picture.
        diffusion: folder of an image-to-image pipeline in the format of diffusers, which redraws the
            picture at the receiver; None shows it as it came.
        strength: how far it may depart from the picture, 0..1.
        steps: of the noise schedule, of which the share ``strength`` is run.
        seed: of its noise.
    """

    kind: Literal["query_aware"]
    answerer: str = "recognition_lite0"
    coder: Literal["jpeg2000", "webp", "avif"] = "avif"
    diffusion: Path | None = None
    strength: float = Field(0.5, gt=0, le=1)
    steps: int = Field(40, ge=1, le=1000)
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _runs_a_step(self) -> QueryAwareSpec:
        if int(self.strength * self.steps) < 1:
            raise ValueError(
                f"steps {self.steps} x strength {self.strength:g}: not one step would be run"
            )
        return self


class BlankSpec(_Spec):
    """Control: a grey picture."""

    kind: Literal["blank"]


class WrongPictureSpec(_Spec):
    """Control: the source of another photo of the set.

    Args:
        seed: of the choice; with the seed of :func:`semantic.judge.ask_reference` it is the photo that
            its chance floor is about.
    """

    kind: Literal["wrong_picture"]
    seed: int = Field(0, ge=0)


CodedSpec = UoiscSpec | Jpeg2000Spec | WebpSpec | AvifSpec | QueryAwareSpec
ControlSpec = BlankSpec | WrongPictureSpec
SystemSpec = Annotated[CodedSpec | ControlSpec, Field(discriminator="kind")]
