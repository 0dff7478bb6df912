"""The one door to the systems: specifications in, systems and controls out.

>>> specs = [UoiscSpec(kind="uoisc", label="UO-ISC"),                             # doctest: +SKIP
...          AvifSpec(kind="avif", label="AVIF", same_bits_as="UO-ISC")]
>>> uoisc, avif = make_systems(specs)                                            # doctest: +SKIP
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from semantic.codec.vq_codec import find_device
from semantic.geometries import CHECKPOINT_FOLDER, read_geometries
from semantic.judge import load_judge
from semantic.systems.controls import BlankControl, WrongPictureControl
from semantic.systems.diffusion import Redrawer
from semantic.systems.picture_system import LosslessSystem, PictureSystem
from semantic.systems.query_aware import QueryAwareSystem
from semantic.systems.spec import (
    BlankSpec,
    CodedSpec,
    ControlSpec,
    Jpeg2000Spec,
    QueryAwareSpec,
    UoiscSpec,
)
from semantic.systems.system import Control, System
from semantic.systems.uoisc_system import UoiscSystem, size_of

__all__ = ["make_control", "make_system", "make_systems", "resolve_budgets"]


def make_system(spec: CodedSpec, device: str = "auto") -> System:
    """Build a system whose budget is known.

    Args:
        spec: with ``bytes`` in place of ``same_bits_as`` (:func:`resolve_budgets`).
        device: where networks compute, as for :func:`semantic.codec.loader.load_codec`.

    Raises:
        ValueError: ``same_bits_as`` is not resolved, or a setting that the codec cannot follow.
        UnavailableError: a library, file or folder is missing.
        WeightsError, JudgeError: of the codec or judge it is made of.
        UnreachableError: the codec has no rate that low.
    """
    if isinstance(spec, UoiscSpec):
        return UoiscSystem(spec, device)
    side = spec.image_size or _embedded_side()
    if isinstance(spec, Jpeg2000Spec) and spec.lossless:
        return LosslessSystem(spec.label, side)
    if spec.bytes is None:
        raise ValueError(f"{spec.label}: same_bits_as {spec.same_bits_as!r} is not resolved")
    if isinstance(spec, QueryAwareSpec):
        return _query_aware(spec, side, device)
    return PictureSystem(spec.label, spec.kind, spec.bytes, side)


def _query_aware(spec: QueryAwareSpec, side: int, device: str) -> QueryAwareSystem:
    place = find_device(device)
    redrawer = None
    if spec.diffusion is not None:
        redrawer = Redrawer(
            spec.diffusion, place, strength=spec.strength, steps=spec.steps, seed=spec.seed
        )
    return QueryAwareSystem(spec, side, load_judge(spec.answerer, str(place)), redrawer)


def resolve_budgets(specs: Sequence[CodedSpec], device: str = "auto") -> list[CodedSpec]:
    """The same specifications with ``bytes`` and ``image_size`` in place of every ``same_bits_as``.

    Raises:
        ValueError: a label that stands twice; a ``same_bits_as`` that names no ``uoisc`` system of these, or
            one of another picture size.
        UnreachableError, WeightsError: of the system named, as :func:`make_system`.
    """
    label, times = Counter(spec.label for spec in specs).most_common(1)[0] if specs else ("", 0)
    if times > 1:
        raise ValueError(f"label: {label!r} stands {times} times, expected one system of that name")
    codecs = {spec.label: spec for spec in specs if isinstance(spec, UoiscSpec)}
    return [_resolve(spec, codecs, device) for spec in specs]


def _resolve(spec: CodedSpec, codecs: dict[str, UoiscSpec], device: str) -> CodedSpec:
    if isinstance(spec, UoiscSpec) or spec.same_bits_as is None:
        return spec
    named = codecs.get(spec.same_bits_as)
    if named is None:
        raise ValueError(
            f"{spec.label}: same_bits_as: expected the label of a uoisc system "
            f"({', '.join(map(repr, codecs)) or 'there is none'}), got {spec.same_bits_as!r}"
        )
    side, bits = size_of(named, device)
    if spec.image_size not in (None, side):
        raise ValueError(
            f"{spec.label}: image_size: {spec.image_size}, but {named.label} has pictures of {side}"
        )
    known = {"bytes": bits // 8, "same_bits_as": None, "image_size": side}
    return type(spec).model_validate(spec.model_dump() | known)


def make_systems(specs: Sequence[CodedSpec], device: str = "auto") -> list[System]:
    """Build the systems of a plan; errors as of :func:`resolve_budgets` and :func:`make_system`."""
    return [make_system(spec, device) for spec in resolve_budgets(specs, device)]


def make_control(spec: ControlSpec) -> Control:
    """Build a control."""
    if isinstance(spec, BlankSpec):
        return BlankControl(spec.label)
    return WrongPictureControl(spec.label, spec.seed)


def _embedded_side() -> int:
    side = read_geometries(CHECKPOINT_FOLDER / "embedded.json")[-1].image_size
    assert side is not None  # only streams have none
    return side
