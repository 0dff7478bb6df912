"""The one door to the systems: specifications in, systems and controls out.

>>> specs = [UoiscSpec(kind="uoisc", label="UO-ISC"),                             # doctest: +SKIP
...          AvifSpec(kind="avif", label="AVIF", same_bits_as="UO-ISC")]
>>> uoisc, avif = make_systems(specs)                                            # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Sequence

from semantic.systems.spec import (
    CodedSpec,
    ControlSpec,
)
from semantic.systems.system import Control, System


def make_system(spec: CodedSpec, device: str = "auto") -> System:
    """Build a system whose budget is known.

    Args:
        spec: with ``bytes`` in place of ``same_bits_as`` (:func:`resolve_budgets`).
        device: where networks compute, as for :func:`semantic.codec.load_codec`.

    Raises:
        ValueError: ``same_bits_as`` is not resolved.
        UnavailableError: a library, file or folder is missing.
        WeightsError, JudgeError: of the codec or judge it is made of.
        UnreachableError: the codec has no rate that low.
    """
    raise NotImplementedError


def resolve_budgets(specs: Sequence[CodedSpec], device: str = "auto") -> list[CodedSpec]:
    """The same specifications with ``bytes`` and ``image_size`` in place of every ``same_bits_as``.

    Raises:
        ValueError: a label that stands twice, or a ``same_bits_as`` that names no ``uoisc`` system of these;
            naming both labels.
    """
    raise NotImplementedError


def make_systems(specs: Sequence[CodedSpec], device: str = "auto") -> list[System]:
    """Build the systems of a plan; errors as of :func:`resolve_budgets` and :func:`make_system`."""
    return [make_system(spec, device) for spec in resolve_budgets(specs, device)]


def make_control(spec: ControlSpec) -> Control:
    """Build a control."""
    raise NotImplementedError
