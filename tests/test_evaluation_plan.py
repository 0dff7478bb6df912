"""Plans: what may stand in one, and errors that say where and what was expected."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import semantic.evaluation
from semantic.evaluation.cells import Cell, digest, enumerate_cells
from semantic.evaluation.plan import Plan, PlanError, dump_plan, first_difference, load_plan

GOOD: dict[str, Any] = {
    "sets": [{"label": "animals", "folder": "photos", "limit": 40}],
    "systems": [
        {"kind": "uoisc", "label": "UO-ISC", "checkpoint": "../a.safetensors"},
        {"kind": "avif", "label": "AVIF", "same_bits_as": "UO-ISC"},
        {"kind": "blank", "label": "blank"},
    ],
    "snr_db": [0, 4],
}
SHIPPED = sorted((Path(semantic.evaluation.__file__).parent / "plans").glob("*.yaml"))


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Plan]:
    def load(data: Any, *arguments: Any) -> Plan:
        file = tmp_path / "plan.yaml"
        file.write_text(data if isinstance(data, str) else yaml.safe_dump(data))
        return load_plan(file, *arguments)

    return load


def test_paths_are_relative_to_the_file(load: Callable[..., Plan], tmp_path: Path) -> None:
    plan = load(GOOD | {"judge": "llava"})
    assert plan.sets[0].folder == tmp_path / "photos"
    assert plan.systems[0].checkpoint == tmp_path / "../a.safetensors"  # type: ignore[union-attr]
    assert plan.judge == str(tmp_path / "llava")
    assert load(GOOD).judge == "recognition"


def test_a_tilde_is_a_name_like_any_other(load: Callable[..., Plan], tmp_path: Path) -> None:
    plan = load(GOOD | {"sets": [{"label": "animals", "folder": "~/x"}]})
    assert plan.sets[0].folder == tmp_path / "~/x"


def test_the_command_line_has_the_last_word(load: Callable[..., Plan], tmp_path: Path) -> None:
    plan = load(GOOD, {"animals": tmp_path / "other"}, 7)
    assert (plan.sets[0].folder, plan.sets[0].limit) == (tmp_path / "other", 7)
    assert load(GOOD, None, 100).sets[0].limit == 40


def test_a_plan_written_out_is_the_same_plan(load: Callable[..., Plan]) -> None:
    plan = load(GOOD)
    assert load(dump_plan(plan)) == plan


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"snr": [0]}, "snr: unknown key, did you mean snr_db?"),
        ({"snr_db": [0, "x"]}, "snr_db.1: Input should be a valid number.*found 'x'"),
        ({"snr_db": []}, "snr_db: .*at least 1"),
        ({"snr_db": [0, 0.0]}, "snr_db: 0.0 stands there twice"),
        (
            {"policies": ["best"]},
            "policies.0: Input should be 'fixed', 'lowest' or 'table', found 'best'",
        ),
        ({"channels": ["fog"]}, "channels.0: .*'awgn', 'rayleigh' or 'none', found 'fog'"),
        ({"seeds": [-1]}, "seeds.0: .*greater than or equal to 0, found -1"),
        ({"sets": [{"label": "a/b", "folder": "x"}]}, "sets.0.label: .*match pattern.*found 'a/b'"),
        (
            {"sets": [{"label": "a", "foldr": "x"}]},
            "sets.0.foldr: unknown key, did you mean folder?",
        ),
        ({"sets": [{"label": "a"}]}, "sets.0.folder: is missing; .*--data a=FOLDER"),
        (
            {"sets": [{"label": "a", "folder": "x", "questions": "q", "query": "What?"}]},
            "sets.0: give either questions or query",
        ),
        ({"systems": [{"kind": "jpg", "label": "J"}]}, "systems.0: .*'jpg'.*'jpeg2000', 'webp'"),
        (
            {"systems": [{"kind": "avif", "label": "A", "byte": 3}]},
            "systems.0.byte: unknown key, did you mean bytes?",
        ),
        (
            {"systems": [{"kind": "avif", "label": "A"}]},
            "systems.0: give either bytes or same_bits_as",
        ),
        (
            {"systems": [{"kind": "avif", "label": "A", "same_bits_as": "B"}]},
            "systems.0.same_bits_as: 'B' is no uoisc system",
        ),
        (
            {"systems": [{"kind": "blank", "label": "A"}, {"kind": "wrong_picture", "label": "A"}]},
            "systems: A stands there twice",
        ),
    ],
)
def test_mistakes_name_file_key_and_what_was_expected(
    load: Callable[..., Plan], change: dict[str, Any], expected: str
) -> None:
    with pytest.raises(PlanError, match=rf"plan\.yaml: {expected.replace('?', '[?]')}"):
        load(GOOD | change)


@pytest.mark.parametrize("text", ["- a", "a: [", "", "\x00"])
def test_what_is_no_plan_at_all(load: Callable[..., Plan], text: str) -> None:
    with pytest.raises(PlanError, match=r"plan\.yaml: (not YAML|expected keys)"):
        load(text)


def test_files_and_sets_that_are_not_there(load: Callable[..., Plan], tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"none\.yaml: No such file"):
        load_plan(tmp_path / "none.yaml")
    with pytest.raises(PlanError, match=r"--data birds: .* expected one of animals"):
        load(GOOD, {"birds": tmp_path})


def test_the_first_difference_is_named(load: Callable[..., Plan]) -> None:
    plan = load(GOOD)
    assert first_difference(plan, load(GOOD)) is None
    assert first_difference(plan, load(GOOD | {"seeds": [1]})) == "seeds.0: 0 there, 1 here"
    moved = load(GOOD | {"sets": [{"label": "animals", "folder": "elsewhere", "limit": 40}]})
    assert first_difference(plan, moved) is None
    longer = first_difference(plan, load(GOOD | {"snr_db": [0, 4, 8]}))
    assert longer == "snr_db: [0.0, 4.0] there, [0.0, 4.0, 8.0] here"


def test_policies_that_take_the_same_rate_share_a_cell(load: Callable[..., Plan]) -> None:
    cells = enumerate_cells(
        load(
            GOOD | {"policies": ["fixed", "lowest", "table"], "channels": ["awgn"], "seeds": [0, 1]}
        )
    )
    mine = [(c.snr_db, c.mcs, c.policies) for c in cells if c.system == "AVIF" and c.seed == 1]
    assert mine == [
        (0, 4, ("fixed",)),
        (0, 1, ("lowest", "table")),
        (4, 4, ("fixed", "table")),
        (4, 1, ("lowest",)),
    ]
    assert [c for c in cells if c.system == "blank"] == [
        Cell("animals", "blank", "none", None, None, ("fixed",), 0)
    ]


def test_a_digest_hangs_on_every_part() -> None:
    one = digest(what="cell", seed=0)
    assert one == digest(seed=0, what="cell")
    assert len({one, digest(what="cell", seed=1), digest(what="other", seed=0)}) == 3


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_shipped_plans_can_be_read_and_hold_no_machine_paths(file: Path, tmp_path: Path) -> None:
    data = yaml.safe_load(file.read_text())
    folders = {one["label"]: tmp_path for one in data["sets"]}
    plan = load_plan(file, folders)
    assert {"blank", "wrong_picture", "uoisc"} <= {one.kind for one in plan.systems}
    for one in data["sets"]:
        assert "folder" not in one  # given with --data
    for one in data["systems"]:
        assert not Path(one.get("checkpoint", "relative")).is_absolute()
