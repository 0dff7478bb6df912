"""What is evaluated: a YAML file, checked.

Every mistake ends in one :class:`PlanError`, one line that names file, key, value and what was expected.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from semantic.asked_photos import DEFAULT_QUERY
from semantic.evaluation.rates import ChannelName, PolicyName
from semantic.plain_yaml import read_plain_yaml
from semantic.systems.spec import CodedSpec, ControlSpec, SystemSpec, UoiscSpec

EMBEDDED_JUDGE = "recognition"
_MAX_SHOWN_CHARACTERS = 60
# Keys that say where something lies.
_PLACES = frozenset({"folder", "checkpoint"})
# Part of file and folder names.
SetLabel = Annotated[str, Field(pattern=r"^\w[\w.-]*$", max_length=60)]


class PlanError(ValueError):
    """A plan that cannot be used."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataSet(_Strict):
    """Photos, and what is asked about them.

    Args:
        label: name in tables and figures.
        folder: of photos, or one with a folder ``images``; relative to the plan's file. None: given on
            the command line (``--data LABEL=FOLDER``).
        questions: JSON lines with ``image`` and ``question``, a file in ``folder``; None asks ``query``
            about every photo.
        query: the question where there is no listing.
        limit: so many rows at most, spread evenly.
    """

    label: SetLabel
    folder: Path | None = None
    questions: str | None = None
    query: str = Field(DEFAULT_QUERY, min_length=1)
    limit: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _one_kind_of_question(self) -> DataSet:
        if self.questions is not None and self.query != DEFAULT_QUERY:
            raise ValueError("give either questions or query")
        return self


class Plan(_Strict):
    """The grid: every system over every channel, policy, Es/N0 and seed, on every set.

    "Segment length d" is an axis through systems with other checkpoints.

    Args:
        sets: data sets.
        systems: what is compared, see :mod:`semantic.systems.spec`.
        channels: ``awgn``, ``rayleigh`` (eq. (8)), ``none`` (everything arrives; no policy, no seed).
        snr_db: Es/N0 in dB, the mean one under fading.
        policies: see :mod:`semantic.evaluation.rates`.
        fading_margin_db: what policy ``table`` keeps in hand under fading.
        seeds: of noise, fading and everything else that the air does.
        judge: who answers: ``recognition``, or the folder of a Llava checkpoint, relative to the plan's file.
        keep_pictures: of so many rows of each set, the first ones, all received pictures are kept.
    """

    sets: tuple[DataSet, ...] = Field(min_length=1)
    systems: tuple[SystemSpec, ...] = Field(min_length=1)
    channels: tuple[ChannelName, ...] = Field(("awgn", "rayleigh"), min_length=1)
    snr_db: tuple[Annotated[float, Field(ge=-20, le=60)], ...] = Field(min_length=1)
    policies: tuple[PolicyName, ...] = Field(("fixed",), min_length=1)
    fading_margin_db: float = Field(10.0, ge=0, le=40)
    seeds: tuple[Annotated[int, Field(ge=0, lt=1 << 32)], ...] = Field((0,), min_length=1)
    judge: str = Field(EMBEDDED_JUDGE, min_length=1)
    keep_pictures: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _nothing_twice(self) -> Plan:
        named = {
            "sets": [one.label for one in self.sets],
            "systems": [one.label for one in self.systems],
            "channels": self.channels,
            "snr_db": self.snr_db,
            "policies": self.policies,
            "seeds": self.seeds,
        }
        for key, values in named.items():
            twice = next((value for value in values if values.count(value) > 1), None)
            if twice is not None:
                raise ValueError(f"{key}: {twice} stands there twice")
        return self

    @model_validator(mode="after")
    def _budgets_of_codecs(self) -> Plan:
        codecs = [one.label for one in self.systems if isinstance(one, UoiscSpec)]
        for number, one in enumerate(self.systems):
            wanted = getattr(one, "same_bits_as", None)
            if wanted is not None and wanted not in codecs:
                known = ", ".join(codecs) or "none is there"
                raise ValueError(
                    f"systems.{number}.same_bits_as: {wanted!r} is no uoisc system of this plan ({known})"
                )
        return self

    @property
    def coded(self) -> list[CodedSpec]:
        """Systems that send something."""
        return [one for one in self.systems if isinstance(one, CodedSpec)]

    @property
    def controls(self) -> list[ControlSpec]:
        """Systems that do not."""
        return [one for one in self.systems if isinstance(one, ControlSpec)]


def load_plan(
    file: Path, folders: Mapping[str, Path] | None = None, limit: int | None = None
) -> Plan:
    """Read and check a plan; its paths come out absolute.

    Args:
        file: YAML.
        folders: of sets by label, in place of what the file says.
        limit: rows of each set at most, in addition to what the file says.

    Raises:
        PlanError: naming file, key, value and what was expected.
    """
    plan = _with_paths(_read(file), file.parent.absolute())
    unknown = next(iter((folders or {}).keys() - {one.label for one in plan.sets}), None)
    if unknown is not None:
        labels = ", ".join(one.label for one in plan.sets)
        raise PlanError(f"--data {unknown}: {file} has no such set, expected one of {labels}")
    sets = []
    for number, one in enumerate(plan.sets):
        folder = (folders or {}).get(one.label, one.folder)
        if folder is None:
            raise PlanError(
                f"{file}: sets.{number}.folder: is missing; expected a folder there, or --data "
                f"{one.label}=FOLDER"
            )
        most = min((n for n in (one.limit, limit) if n is not None), default=None)
        sets.append(one.model_copy(update={"folder": folder.absolute(), "limit": most}))
    return plan.model_copy(update={"sets": tuple(sets)})


def dump_plan(plan: Plan) -> str:
    """A plan as YAML that :func:`load_plan` reads, every setting written out."""
    return yaml.safe_dump(plan.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def first_difference(one: Plan, other: Plan) -> str | None:
    """The first key in which two plans would give other tables, and its two values; None where none is.

    Where photos and checkpoints lie does not count: what they hold is looked at.
    """
    return _difference(_without_places(one), _without_places(other), "")


def _without_places(plan: Plan) -> Any:
    data = plan.model_dump(mode="json")
    for entry in (*data["sets"], *data["systems"]):
        for name in _PLACES & entry.keys():
            entry[name] = entry[name] is not None
    return data


def _difference(one: Any, other: Any, key: str) -> str | None:
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        parts = ((name, one[name], other[name]) for name in one)
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        parts = ((str(n), a, b) for n, (a, b) in enumerate(zip(one, other, strict=True)))
    else:
        return None if one == other else f"{key}: {_shorten(one)} there, {_shorten(other)} here"
    found = (_difference(a, b, f"{key}.{name}" if key else name) for name, a, b in parts)
    return next((text for text in found if text is not None), None)


def _read(file: Path) -> Plan:
    try:
        data = read_plain_yaml(file)
    except OSError as error:
        raise PlanError(f"{file}: {error.strerror}") from None
    except ValueError as error:
        raise PlanError(f"{file}: {error}") from None
    if not isinstance(data, dict):
        raise PlanError(
            f"{file}: expected keys ({', '.join(Plan.model_fields)}), found {data!r:.60}"
        )
    try:
        return Plan.model_validate(data)
    except ValidationError as error:
        raise PlanError(f"{file}: {_explain(error)}") from None


def _with_paths(plan: Plan, folder: Path) -> Plan:
    """Paths in a plan are relative to its file."""
    sets = tuple(
        one if one.folder is None else one.model_copy(update={"folder": folder / one.folder})
        for one in plan.sets
    )
    systems = []
    for system in plan.systems:
        places = {
            name: folder / getattr(system, name)
            for name in ("checkpoint", "diffusion")
            if getattr(system, name, None) is not None
        }
        systems.append(system.model_copy(update=places))
    judge = plan.judge if plan.judge == EMBEDDED_JUDGE else str(folder / plan.judge)
    return plan.model_copy(update={"sets": sets, "systems": tuple(systems), "judge": judge})


def _explain(error: ValidationError) -> str:
    """The first mistake: key, value, what was expected; a mistyped key explains missing ones."""
    problems = error.errors(include_url=False)
    first: Any = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    # Pydantic puts the name of the kind behind the number of the system.
    place = [
        part for n, part in enumerate(first["loc"]) if not (n == 2 and first["loc"][0] == "systems")
    ]
    key = ".".join(map(str, place))
    text = str(first["ctx"]["error"]) if first["type"] == "value_error" else str(first["msg"])
    if first["type"] == "extra_forbidden":
        text = f"unknown key{_meant(first['loc'])}"
    elif first["type"] != "missing" and not isinstance(first["input"], dict):
        text += f", found {_shorten(first['input'])}"
    return f"{key}: {text}" if key else text


def _meant(location: Sequence[int | str]) -> str:
    """What could have been meant by an unknown key."""
    kinds: dict[Any, type[BaseModel]] = {
        kind.model_fields["kind"].annotation.__args__[0]: kind
        for kind in (*CodedSpec.__args__, *ControlSpec.__args__)
    }
    kind: type[BaseModel] = Plan
    if location[0] == "sets" and len(location) > 1:
        kind = DataSet
    elif location[0] == "systems" and len(location) > 2:
        kind = kinds.get(location[2], UoiscSpec)
    known = list(kind.model_fields)
    close = difflib.get_close_matches(str(location[-1]), known, n=1)
    return f", did you mean {close[0]}?" if close else f", expected one of {', '.join(known)}"


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN_CHARACTERS else f"{text[:_MAX_SHOWN_CHARACTERS]}..."
