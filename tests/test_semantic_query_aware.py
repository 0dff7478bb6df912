"""Query-aware coding: answer and picture in one budget, hostile until checked, redrawn by a real pipeline."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from semantic.demo_photos import load_photo
from semantic.index_frame import IndexFrame
from semantic.judge import Answer, load_judge
from semantic.systems.diffusion import Redrawer
from semantic.systems.picture_coders import PICTURE_CODERS
from semantic.systems.query_aware import (
    MAXIMUM_ANSWER_BYTES,
    QueryAwareSystem,
    make_prompt,
    pack_answer,
    unpack_answer,
)
from semantic.systems.spec import QueryAwareSpec
from semantic.systems.system import Received, UnavailableError, UnreachableError
from tests.received import by_bytes, whole, with_noise, without_bits
from tests.tiny_diffusion import save_tiny_pipeline

QUERY = "Is this a cat?"
# Half of four steps is two.
FEW_STEPS = {"strength": 0.5, "steps": 4}


class Says:
    """A judge with one answer for everything."""

    name = "says"
    identity = "says"

    def __init__(self, text: str) -> None:
        self.text = text

    def answer(self, pictures: Sequence[Image.Image], queries: Sequence[str]) -> list[Answer]:
        return [Answer(self.text, 1.0) for _ in zip(pictures, queries, strict=True)]


def make(
    text: str = "tabby cat",
    budget: int = 800,
    coder: str = "webp",
    redrawer: Redrawer | None = None,
) -> QueryAwareSystem:
    data = {"kind": "query_aware", "label": "theirs", "bytes": budget, "coder": coder}
    return QueryAwareSystem(QueryAwareSpec.model_validate(data), 160, Says(text), redrawer)


def sent_bytes(frame: IndexFrame) -> bytes:
    return np.packbits(frame.to_bits()).tobytes()


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if find_spec("diffusers") is None:
        pytest.skip("diffusers is not installed (pip install '.[diffusion]')")
    folder = tmp_path_factory.mktemp("diffusion") / "tiny"
    save_tiny_pipeline(folder)
    return folder


def load(folder: Path, seed: int = 0) -> Redrawer:
    return Redrawer(folder, torch.device("cpu"), seed=seed, **FEW_STEPS)  # type: ignore[arg-type]


@pytest.mark.parametrize("coder", list(PICTURE_CODERS))
def test_answer_and_picture_share_the_budget(coder: str) -> None:
    system, source = make(coder=coder), load_photo("chelsea", 160)
    frame = system.encode(source, QUERY, 3)
    data = sent_bytes(frame)
    assert frame.frame_id == 3
    assert 0.8 * 800 < len(data) <= 800
    assert data[:10] == b"\x09tabby cat"
    shown = system.decode(whole(frame), QUERY)
    expected = PICTURE_CODERS[coder].code_within(source, 790, container=False)
    assert shown is not None
    assert expected is not None
    assert shown.tobytes() == expected.decoded.tobytes()


def test_the_answer_is_the_answerers() -> None:
    """The second recognition judge on the source."""
    source = load_photo("chelsea", 160)
    judge = load_judge("recognition_lite0", self_check=False)
    data = {"kind": "query_aware", "label": "theirs", "bytes": 800, "coder": "webp"}
    system = QueryAwareSystem(QueryAwareSpec.model_validate(data), 160, judge, None)
    frame = system.encode(source, QUERY, 0)
    text = judge.answer([source], [QUERY])[0].text
    assert "cat" in text
    assert sent_bytes(frame)[1 : 1 + len(text)].decode() == text
    assert system.own_judges == (judge.identity,)


def test_a_budget_that_the_answer_uses_up_is_out_of_reach() -> None:
    source = load_photo("chelsea", 160)
    with pytest.raises(UnreachableError, match=r"theirs: .* the 0 of 10 bytes"):
        make("tabby cat", budget=10).encode(source, QUERY, 0)
    with pytest.raises(UnreachableError, match=r"the 1 of 11 bytes"):
        make("tabby cat", budget=11).encode(source, QUERY, 0)


@given(st.text(max_size=400))
def test_any_answer_arrives_as_a_line_of_bounded_text(text: str) -> None:
    text = text.encode(errors="ignore").decode()
    packed = pack_answer(text)
    assert len(packed) == 1 + packed[0] <= 1 + MAXIMUM_ANSWER_BYTES
    parts = unpack_answer(packed + b"x", np.zeros(len(packed) + 1, np.bool_))
    assert parts is not None
    answer, rest = parts
    assert rest == b"x"
    line = "".join(c for c in " ".join(text.split()) if c.isprintable())
    assert line.startswith(answer or "")
    assert len(line.encode()) <= MAXIMUM_ANSWER_BYTES or len(packed) > MAXIMUM_ANSWER_BYTES - 3


@given(st.binary(min_size=1, max_size=300), st.integers(0, 299))
def test_any_bytes_are_an_answer_or_none(data: bytes, place: int) -> None:
    lost = np.zeros(len(data), np.bool_)
    lost[place % len(data)] = True
    for mask in (lost, ~lost, np.zeros_like(lost)):
        parts = unpack_answer(data, mask)
        if parts is None:
            continue
        answer, rest = parts
        assert rest
        assert answer is None or (answer.isprintable() and len(answer.encode()) == data[0])
        assert 1 + data[0] + len(rest) == len(data)


def test_a_hostile_answer_is_left_out_and_the_picture_stays() -> None:
    system, source = make("tabby cat"), load_photo("chelsea", 160)
    frame = system.encode(source, QUERY, 0)
    data = sent_bytes(frame)
    shown = system.decode(whole(frame), QUERY)
    assert shown is not None
    for answer in (b"\xff\xfebby cat", b"tabby\ncat", b"tabby\x00cat"):
        received = by_bytes(frame, b"\x09" + answer + data[10:])
        parts = unpack_answer(b"\x09" + answer + data[10:], np.zeros(len(data), np.bool_))
        assert parts == (None, data[10:])
        again = system.decode(received, QUERY)
        assert again is not None
        assert again.tobytes() == shown.tobytes()
    # An answer longer than the frame, and one that leaves no picture.
    assert unpack_answer(b"\xff" + data[1:200], np.zeros(200, np.bool_)) is None
    assert system.decode(by_bytes(frame, bytes([255]) * len(data)), QUERY) is None


def test_damage_shows_a_picture_or_nothing() -> None:
    system = make(coder="jpeg2000")
    frame = system.encode(load_photo("coffee", 160), QUERY, 0)
    size = frame.geometry.payload_bits
    assert system.decode(Received(None, False), QUERY) is None
    assert system.decode(without_bits(frame, 0, 8), QUERY) is None, "the length is lost"
    # The answer is lost, but where the picture begins is known.
    assert system.decode(without_bits(frame, 16, 16), QUERY) is not None
    damaged = [without_bits(frame, start, size // 3) for start in range(0, size, size // 6)]
    damaged += [with_noise(frame, seed, 0.01) for seed in range(20)]
    for received in damaged:
        shown = system.decode(received, QUERY)
        assert shown is None or shown.size == (160, 160)


def test_the_prompt_is_answer_and_question() -> None:
    assert make_prompt("tabby cat", QUERY) == "tabby cat. Is this a cat?"
    assert make_prompt(None, QUERY) == QUERY


def test_without_weights_the_report_says_so() -> None:
    notes = make().notes()
    assert "says answers, webp codes the picture" in notes[0]
    assert "no diffusion step" in notes[1]


def test_a_diffusion_pipeline_redraws_the_picture(pipeline: Path) -> None:
    """Same seed, same picture; another answer, question or seed another one; the size is kept."""
    drawer = load(pipeline)
    plain, drawing = make(), make(redrawer=drawer)
    frame = drawing.encode(load_photo("chelsea", 160), QUERY, 0)
    compressed = plain.decode(whole(frame), QUERY)
    other_answer = make("a dog", redrawer=drawer).encode(load_photo("chelsea", 160), QUERY, 0)
    found = [
        drawing.decode(whole(frame), QUERY),
        drawing.decode(whole(frame), QUERY),
        make(redrawer=load(pipeline)).decode(whole(frame), QUERY),
        drawing.decode(whole(other_answer), QUERY),
        drawing.decode(whole(frame), "Is this a dog?"),
        make(redrawer=load(pipeline, seed=1)).decode(whole(frame), QUERY),
    ]
    pixels = []
    for shown in [compressed, *found]:
        assert shown is not None
        assert shown.size == (160, 160)
        assert shown.mode == "RGB"
        pixels.append(shown.tobytes())
    came, first, again, elsewhere, answered, asked, seeded = pixels
    assert first == again == elsewhere
    assert len({came, first, answered, asked, seeded}) == 5
    assert drawing.notes()[1:] == [
        "theirs: StableDiffusionImg2ImgPipeline redraws at 16x16 pixels, strength 0.5, 4 steps, seed 0"
    ]


def test_a_lost_answer_draws_from_the_question_alone(pipeline: Path) -> None:
    drawer = load(pipeline)
    system = make(redrawer=drawer)
    frame = system.encode(load_photo("chelsea", 160), QUERY, 0)
    shown = system.decode(without_bits(frame, 16, 16), QUERY)
    compressed = make().decode(whole(frame), QUERY)
    assert shown is not None
    assert compressed is not None
    assert shown.tobytes() == drawer.redraw(compressed, QUERY).tobytes()


@pytest.mark.usefixtures("pipeline")
def test_what_the_safety_checker_refuses_is_shown_as_it_came(tmp_path: Path) -> None:
    save_tiny_pipeline(tmp_path / "prudish", refusing=True)
    drawer, source = load(tmp_path / "prudish"), load_photo("chelsea", 160)
    assert drawer.redraw(source, QUERY).tobytes() == source.tobytes()
    assert any("safety checker" in note for note in drawer.notes())


def test_a_prompt_longer_than_the_text_tower_takes_is_cut(pipeline: Path) -> None:
    assert load(pipeline).redraw(load_photo("coffee", 160), "cat " * 500).size == (160, 160)


def _without_index(folder: Path) -> None:
    (folder / "model_index.json").unlink()


def _index_of_another_kind(folder: Path) -> None:
    (folder / "model_index.json").write_text('{"_class_name": "NoSuchPipeline"}', "utf-8")


def _index_that_is_no_json(folder: Path) -> None:
    (folder / "model_index.json").write_text("{", "utf-8")


def _with_code(folder: Path) -> None:
    (folder / "unet" / "mine.py").write_text("raise SystemExit('code was run')", "utf-8")


def _cut_short(folder: Path) -> None:
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


def _without_text_encoder_tensor(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    file = folder / "text_encoder" / "model.safetensors"
    tensors = load_file(file)
    tensors.pop(sorted(tensors)[0])
    save_file(tensors, file, {"format": "pt"})


def _without_unet_tensor(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    tensors.pop(sorted(tensors)[0])
    save_file(tensors, file, {"format": "pt"})


def _pickled(folder: Path) -> None:
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save({}, file.with_suffix(".bin"))
    file.unlink()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_without_index, "No such file"),
        (_index_of_another_kind, "cannot be loaded"),
        (_index_that_is_no_json, "not JSON"),
        (_with_code, "is not run"),
        (_cut_short, "cannot be loaded"),
        (_without_text_encoder_tensor, "1 tensors are missing"),
        (_without_unet_tensor, "cannot be loaded"),
        (_pickled, "cannot be loaded"),
    ],
)
def test_a_folder_that_is_no_sound_pipeline_is_refused(
    pipeline: Path, tmp_path: Path, spoil: object, said: str
) -> None:
    folder = tmp_path / "spoilt"
    shutil.copytree(pipeline, folder)
    spoil(folder)  # type: ignore[operator]
    with pytest.raises(UnavailableError, match=f"diffusion: .*spoilt.*{said}"):
        load(folder)


def test_without_diffusers_the_error_says_what_to_install(
    pipeline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(UnavailableError, match=r"pip install '\.\[diffusion\]'.*diffusion: null"):
        load(pipeline)
