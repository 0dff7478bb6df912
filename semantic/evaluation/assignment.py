"""What a process needs to know to work on an evaluation: plain data, and what it loads from it once.

An :class:`Assignment` is made once and handed to every process; a :class:`Workplace` is what one process has
loaded for it. Results are named by what determines them, so that neither the number of processes nor an
interruption can mix them up.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from semantic.asked_photos import AskedPhoto, read_photos
from semantic.codec.vq_codec import find_device
from semantic.evaluation.cells import Cell, digest
from semantic.evaluation.plan import DataSet, Plan, PlanError
from semantic.evaluation.quality import Meter
from semantic.judge import Judge, load_judge, refuse_same_judge
from semantic.pictures import load_picture
from semantic.systems.registry import make_control, make_system, resolve_budgets
from semantic.systems.spec import CodedSpec, ControlSpec
from semantic.systems.system import Control, System


@dataclass(frozen=True)
class SystemFacts:
    """What tables say of a system, known without loading its networks.

    Args:
        spec: with its budget in bytes; of a control as in the plan.
        kind, codec_id, segment_length, hears_query: see :class:`semantic.systems.system.System`.
        notes: what a report must say.
    """

    spec: CodedSpec | ControlSpec
    kind: str
    codec_id: str | None = None
    segment_length: int | None = None
    hears_query: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Assignment:
    """An evaluation as its processes see it.

    Args:
        plan: checked, its paths absolute.
        output: folder of the results, on a file system that every process sees.
        device: where networks compute.
        image_size: side of all pictures in pixels.
        systems: by label, controls too.
        set_digests: of photos and questions, by label.
        judge_identity: digest of the judge's weights.
    """

    plan: Plan
    output: Path
    device: str
    image_size: int
    systems: Mapping[str, SystemFacts]
    set_digests: Mapping[str, str]
    judge_identity: str

    def data_set(self, label: str) -> DataSet:
        """By label."""
        return next(one for one in self.plan.sets if one.label == label)

    def reference_file(self, data_set: str) -> Path:
        """What the judge says about the sources of a set, and about a grey picture."""
        name = digest(what="reference", **self._looked_at(data_set))
        return self.output / "cache" / f"{name}.parquet"

    def encoded_file(self, data_set: str, system: str) -> Path:
        """Frames of a system, and what is shown where they arrive whole."""
        name = digest(what="encoded", **self._looked_at(data_set), **self._of(system))
        return self.output / "cache" / f"{name}.parquet"

    def cell_file(self, cell: Cell) -> Path:
        """Rows of a finished cell."""
        where = self._looked_at(cell.set) | self._of(cell.system)
        keeps = self.plan.keep_pictures
        name = digest(what="cell", cell=asdict(cell), keep_pictures=keeps, **where)
        return self.output / "cells" / f"{name}.parquet"

    def _looked_at(self, data_set: str) -> dict[str, Any]:
        return {
            "photos": self.set_digests[data_set],
            "image_size": self.image_size,
            "judge": [self.plan.judge, self.judge_identity],
        }

    def _of(self, system: str) -> dict[str, Any]:
        facts = self.systems[system]
        # The weights count, not where they lie.
        spec = facts.spec.model_dump(mode="json", exclude={"checkpoint"})
        # What a plan leaves open a system says in its notes: a default that changes is another result.
        return {"system": spec, "codec_id": facts.codec_id, "settings": facts.notes}


def assign(plan: Plan, output: Path, device: str = "auto") -> Assignment:
    """Load what a plan names far enough to know that it can be run, and what its results depend on.

    Raises:
        PlanError: systems that do not go together, or a setting that a codec cannot follow.
        PhotosError, PictureError: photos or questions that are missing or damaged.
        UnavailableError, WeightsError, JudgeError, UnreachableError: of a system or the judge.
    """
    try:
        specs = resolve_budgets(plan.coded, device)
        coded = {spec.label: (spec, _system(spec, device)) for spec in specs}
    except ValueError as error:
        raise PlanError(str(error)) from None
    judge = _judge(plan.judge, device)
    for _, system in coded.values():
        refuse_same_judge(judge, system.own_judges)
    systems = {label: _facts(spec, system) for label, (spec, system) in coded.items()}
    for control in plan.controls:
        systems[control.label] = SystemFacts(control, control.kind)
    return Assignment(
        plan,
        output,
        device,
        _image_size([system for _, system in coded.values()]),
        {one.label: systems[one.label] for one in plan.systems},
        {one.label: _set_digest(one) for one in plan.sets},
        judge.identity,
    )


def _facts(spec: CodedSpec, system: System) -> SystemFacts:
    return SystemFacts(
        spec,
        system.kind,
        system.codec_id,
        system.segment_length,
        system.hears_query,
        tuple(system.notes()),
    )


def _image_size(systems: list[System]) -> int:
    """The one side of all pictures: what is compared must be the same picture."""
    sides = {system.image_size: system.label for system in systems}
    if len(sides) != 1:
        found = ", ".join(f"{side} ({label})" for side, label in sides.items())
        raise PlanError(
            f"systems: expected pictures of one size in pixels, found {found or 'no system'}"
        )
    return next(iter(sides))


def _set_digest(data_set: DataSet) -> str:
    """Digest of a set's photos and questions, in order."""
    whole = hashlib.sha256()
    seen: dict[Path, bytes] = {}
    for row in read_rows(data_set):
        if row.file not in seen:
            # Read here as every process will: a set with a bad photo is refused before hours are spent.
            load_picture(row.file, 16)
            seen[row.file] = hashlib.sha256(row.file.read_bytes()).digest()
        whole.update(seen[row.file] + row.question.encode() + b"\n")
    return whole.hexdigest()


def read_rows(data_set: DataSet) -> list[AskedPhoto]:
    """Photos and questions of a set.

    Raises:
        PhotosError: a folder or listing that is missing, empty or malformed.
    """
    folder = data_set.folder
    assert folder is not None  # load_plan insists
    questions = None if data_set.questions is None else folder / data_set.questions
    return read_photos(folder, questions, data_set.query, data_set.limit)


# Loaded once in a process, whether to see that it is there or to work with it.
@lru_cache(maxsize=1)
def _judge(name: str, device: str) -> Judge:
    return load_judge(name, str(find_device(device)))


@lru_cache(maxsize=1)
def _meter(judge: str, image_size: int, device: str) -> Meter:
    return Meter(_judge(judge, device), image_size, find_device(device))


@cache
def _system(spec: CodedSpec, device: str) -> System:
    return make_system(spec, device)


@dataclass
class Workplace:
    """What one process has loaded for an assignment, all of it with the first use."""

    assignment: Assignment
    _rows: dict[str, list[AskedPhoto]] = field(default_factory=dict)
    _sources: dict[str, list[Image.Image]] = field(default_factory=dict)

    @property
    def meter(self) -> Meter:
        """With judge, towers and all."""
        task = self.assignment
        return _meter(task.plan.judge, task.image_size, task.device)

    def system(self, label: str) -> System:
        """One that sends something."""
        spec = self.assignment.systems[label].spec
        assert isinstance(spec, CodedSpec)
        return _system(spec, self.assignment.device)

    def control(self, label: str) -> Control:
        """One that does not."""
        spec = self.assignment.systems[label].spec
        assert isinstance(spec, ControlSpec)
        return make_control(spec)

    def rows(self, data_set: str) -> list[AskedPhoto]:
        """Photos and questions of a set."""
        if data_set not in self._rows:
            self._rows[data_set] = read_rows(self.assignment.data_set(data_set))
        return self._rows[data_set]

    def queries(self, data_set: str) -> list[str]:
        """One per row."""
        return [row.question for row in self.rows(data_set)]

    def sources(self, data_set: str) -> list[Image.Image]:
        """One per row; rows about one photo hold the same object."""
        if data_set not in self._sources:
            side = self.assignment.image_size
            photos = {row.file: None for row in self.rows(data_set)}
            pictures = {file: load_picture(file, side) for file in photos}
            self._sources[data_set] = [pictures[row.file] for row in self.rows(data_set)]
        return self._sources[data_set]


_here: Workplace | None = None


def workplace(assignment: Assignment) -> Workplace:
    """This process's workplace for an assignment; the last one stays loaded."""
    global _here
    if _here is None or _here.assignment != assignment:
        _here = Workplace(assignment)
    return _here
