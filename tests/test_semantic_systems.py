"""Specifications, the door to the systems, and the controls."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from semantic.demo_photos import load_photo, photo_names
from semantic.judge import ask_reference, load_judge, matching
from semantic.systems.registry import make_control, make_system, make_systems, resolve_budgets
from semantic.systems.spec import (
    AvifSpec,
    BlankSpec,
    CodedSpec,
    Jpeg2000Spec,
    QueryAwareSpec,
    SystemSpec,
    UoiscSpec,
    WebpSpec,
    WrongPictureSpec,
)
from semantic.systems.system import UnavailableError, UnreachableError
from tests.received import whole

SPECS: TypeAdapter[Any] = TypeAdapter(SystemSpec)

GOOD: list[tuple[dict[str, Any], type]] = [
    ({"kind": "uoisc", "label": "UO-ISC, d = 8"}, UoiscSpec),
    ({"kind": "uoisc", "label": "a", "checkpoint": "x.safetensors", "focus": 0}, UoiscSpec),
    ({"kind": "jpeg2000", "label": "JPEG 2000 (lossless)", "lossless": True}, Jpeg2000Spec),
    ({"kind": "jpeg2000", "label": "a", "same_bits_as": "b"}, Jpeg2000Spec),
    ({"kind": "webp", "label": "a", "bytes": 1}, WebpSpec),
    ({"kind": "avif", "label": "a", "bytes": 131071}, AvifSpec),
    ({"kind": "query_aware", "label": "a", "bytes": 800, "diffusion": None}, QueryAwareSpec),
    ({"kind": "blank", "label": "grey"}, BlankSpec),
    ({"kind": "wrong_picture", "label": "another", "seed": 3}, WrongPictureSpec),
]


@pytest.mark.parametrize(("data", "kind"), GOOD)
def test_every_kind_is_read_and_written_alike(data: dict[str, Any], kind: type) -> None:
    spec = SPECS.validate_python(data)
    assert type(spec) is kind
    assert SPECS.validate_json(SPECS.dump_json(spec)) == spec


@pytest.mark.parametrize(("data", "_kind"), GOOD)
def test_an_unknown_key_is_named(data: dict[str, Any], _kind: type) -> None:
    with pytest.raises(ValidationError, match="bytess") as caught:
        SPECS.validate_python(data | {"bytess": 5})
    assert caught.value.errors()[0]["loc"][-1] == "bytess"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"kind": "png", "label": "a"}, "uoisc.*wrong_picture"),
        ({"kind": "webp", "label": "a"}, "either bytes or same_bits_as"),
        ({"kind": "webp", "label": "a", "bytes": 5, "same_bits_as": "b"}, "either bytes"),
        ({"kind": "webp", "label": "a", "lossless": True}, "lossless"),
        ({"kind": "jpeg2000", "label": "a"}, "lossless: true"),
        ({"kind": "jpeg2000", "label": "a", "bytes": 5, "lossless": True}, "lossless: true"),
        ({"kind": "avif", "label": "a", "bytes": 0}, "bytes"),
        ({"kind": "avif", "label": "a", "bytes": 131072}, "bytes"),
        ({"kind": "uoisc", "label": "a", "focus": 1.5}, "focus"),
        ({"kind": "uoisc", "label": "a/b"}, "label"),
        ({"kind": "uoisc", "label": "a--b"}, "label"),
        ({"kind": "uoisc", "label": ".."}, "label"),
        ({"kind": "uoisc"}, "label"),
        (
            {"kind": "query_aware", "label": "a", "bytes": 9, "steps": 3, "strength": 0.3},
            "one step",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(data: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        SPECS.validate_python(data)


def specs(*entries: dict[str, Any]) -> list[CodedSpec]:
    return [SPECS.validate_python(entry) for entry in entries]


OURS = {"kind": "uoisc", "label": "ours", "bits_per_pixel": 0.5}


def test_same_bits_as_takes_the_bytes_of_the_codec() -> None:
    ours, webp, lossless = resolve_budgets(
        specs(
            OURS,
            {"kind": "webp", "label": "w", "same_bits_as": "ours"},
            {"kind": "jpeg2000", "label": "l", "lossless": True},
        ),
        "cpu",
    )
    assert ours == SPECS.validate_python(OURS)
    assert webp == WebpSpec(kind="webp", label="w", bytes=1600, image_size=160)
    assert lossless.label == "l"


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([OURS, OURS], "label: 'ours' stands 2 times"),
        ([OURS, {"kind": "webp", "label": "w", "same_bits_as": "theirs"}], "'ours'.*got 'theirs'"),
        ([{"kind": "webp", "label": "w", "same_bits_as": "w"}], "there is none.*got 'w'"),
        (
            [OURS, {"kind": "webp", "label": "w", "same_bits_as": "ours", "image_size": 80}],
            "w: image_size: 80, but ours has pictures of 160",
        ),
    ],
)
def test_a_budget_that_cannot_be_resolved_is_refused(
    entries: list[dict[str, Any]], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        resolve_budgets(specs(*entries), "cpu")


def test_every_kind_sends_a_picture_at_equal_bits() -> None:
    built = make_systems(
        specs(
            OURS,
            *(
                {"kind": kind, "label": kind, "same_bits_as": "ours"}
                for kind in ("jpeg2000", "webp", "avif", "query_aware")
            ),
            {"kind": "jpeg2000", "label": "lossless", "lossless": True},
        ),
        "cpu",
    )
    source, query = load_photo("chelsea", 160), "Is this a cat?"
    hears = {system.label: system.hears_query for system in built}
    assert hears == {
        "ours": True,
        "jpeg2000": False,
        "webp": False,
        "avif": False,
        "query_aware": True,
        "lossless": False,
    }
    for system in built:
        frame = system.encode(source, query, 9)
        assert frame.geometry.image_size == system.image_size == 160
        assert system.label == "lossless" or frame.geometry.payload_bits <= 12800
        shown = system.decode(whole(frame), query)
        assert shown is not None
        assert shown.size == (160, 160)
        assert all(system.label in note for note in system.notes())


def test_what_is_not_resolved_or_not_there_is_said(tmp_path: Path) -> None:
    (spec,) = specs({"kind": "avif", "label": "a", "same_bits_as": "ours"})
    with pytest.raises(ValueError, match="a: same_bits_as 'ours' is not resolved"):
        make_system(spec)
    (spec,) = specs(
        {"kind": "query_aware", "label": "q", "bytes": 800, "diffusion": str(tmp_path / "none")}
    )
    with pytest.raises(UnavailableError, match=r"none/model_index\.json"):
        make_system(spec, "cpu")


def test_the_size_of_pictures_is_the_embedded_codecs_unless_said() -> None:
    small, usual = specs(
        {"kind": "webp", "label": "a", "bytes": 300, "image_size": 80},
        {"kind": "webp", "label": "b", "bytes": 300},
    )
    assert make_system(small).image_size == 80
    assert make_system(usual).image_size == 160


def test_a_blank_control_is_grey() -> None:
    control = make_control(BlankSpec(kind="blank", label="grey"))
    sources = [load_photo(name, 64) for name in photo_names()[:2]]
    shown = control.pictures([*sources, sources[0]])
    assert len(shown) == 3
    assert all(picture.size == (64, 64) for picture in shown)
    assert {colour for picture in shown for _, colour in picture.getcolors() or []} == {
        (128, 128, 128)
    }


def test_a_wrong_picture_is_never_the_right_one() -> None:
    photos = [load_photo(name, 64) for name in photo_names()]
    sources = [photo for photo in photos for _ in range(2)]
    for seed in range(3):
        control = make_control(WrongPictureSpec(kind="wrong_picture", label="other", seed=seed))
        shown = control.pictures(sources)
        assert all(one is not other for one, other in zip(sources, shown, strict=True))
        assert [shown[2 * k] is shown[2 * k + 1] for k in range(len(photos))] == [True] * 7
        assert {id(picture) for picture in shown} == {id(photo) for photo in photos}


def test_the_wrong_picture_is_the_one_that_chance_is_about() -> None:
    """With the reference's seed its match rate is the chance floor itself: kappa is 0."""
    judge = load_judge("recognition", self_check=False)
    sources = [load_photo(name, 160) for name in photo_names()]
    queries = ["Is there a cat?"] * len(sources)
    reference = ask_reference(judge, sources, queries, seed=1)
    control = make_control(WrongPictureSpec(kind="wrong_picture", label="other", seed=1))
    matches = matching(reference.answers, judge.answer(control.pictures(sources), queries))
    assert reference.unrelated_matches is not None
    assert matches.tolist() == reference.unrelated_matches.tolist()


def test_one_photo_has_no_wrong_picture() -> None:
    control = make_control(WrongPictureSpec(kind="wrong_picture", label="other"))
    source = load_photo("china", 64)
    with pytest.raises(UnreachableError, match="other: there is no other photo"):
        control.pictures([source, source])


def test_diffusers_is_not_loaded_before_it_is_needed() -> None:
    code = "import sys, semantic.systems.registry; sys.exit('diffusers' in sys.modules)"
    root = Path(__file__).resolve().parent.parent
    assert subprocess.run([sys.executable, "-c", code], cwd=root, timeout=300).returncode == 0
