"""The codec as a system: its rate, its question, its damage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import at, rate_at

from semantic.checkpoint import write_checkpoint
from semantic.codec.settings import EncoderSettings
from semantic.codec.vq_codec import FOCUS, load_vq_codec
from semantic.codec_config import Recipe, read_recipe
from semantic.demo_photos import load_photo
from semantic.index_frame import IndexFrameError
from semantic.index_search import LIKENESS
from semantic.judge import JudgeError, load_judge, refuse_same_judge
from semantic.metrics import psnr_db
from semantic.model import CodecModel
from semantic.systems.picture_system import PictureSystem
from semantic.systems.spec import UoiscSpec
from semantic.systems.system import Received, UnreachableError
from semantic.systems.uoisc_system import UoiscSystem, cached_codec
from tests.received import whole, with_noise, without_bits

QUERY, OTHER = "Is this a cat?", "What is on the wall behind the table?"


def make(**settings: object) -> UoiscSystem:
    return UoiscSystem(UoiscSpec(kind="uoisc", label="ours", **settings), "cpu")  # type: ignore[arg-type]


def untrained(folder: Path, film: str, *, trainable: bool = False) -> Path:
    """A checkpoint of the tiny codec, as it starts."""
    data = read_recipe(Path("tiny")).model_dump()
    data["codec"]["film"] = film
    data["codec"]["backbone"]["trainable"] = trainable
    data["training"]["feature_cache"] = False
    recipe = Recipe.model_validate(data)
    file = folder / f"{film}-{trainable}.safetensors"
    write_checkpoint(file, recipe, CodecModel(recipe.codec), {}, "0" * 64, "somebody")
    return file


def test_a_picture_crosses_a_perfect_link_as_the_codec_makes_it() -> None:
    system, source = make(bits_per_pixel=0.5), load_photo("chelsea", 160)
    frame = system.encode(source, QUERY, 5)
    assert frame.frame_id == 5
    assert frame.geometry.payload_bits == 0.5 * 160**2
    shown = system.decode(whole(frame), QUERY)
    codec = load_vq_codec(device="cpu")
    expected = codec.decode(codec.encode(source, QUERY, at(rate_at(codec, 0.5))))
    assert shown is not None
    assert shown.tobytes() == expected.tobytes()
    assert psnr_db(source, shown) > 24
    assert system.codec_id == codec.geometry.codec_id
    assert system.image_size == 160
    assert system.segment_length == codec.config.quantizer.segment_length == 8


def test_the_embedded_codec_hears_the_question_unless_told_not_to() -> None:
    source = load_photo("chelsea", 160)
    for focus in (None, 0.0):
        system = make(bits_per_pixel=0.5, focus=focus)
        one, other = (system.encode(source, query, 0).to_bits() for query in (QUERY, OTHER))
        assert system.hears_query == (not np.array_equal(one, other))
        assert any(f"focus {FOCUS if focus is None else 0:g}" in note for note in system.notes())


def test_a_search_makes_a_better_picture_of_as_many_bits() -> None:
    source = load_photo("chelsea", 160)
    shown = {}
    for steps in (0, 3):
        system = make(bits_per_pixel=0.25, focus=0, search_steps=steps)
        frame = system.encode(source, QUERY, 0)
        assert frame.geometry.payload_bits == 0.25 * 160**2
        picture = system.decode(whole(frame), QUERY)
        assert picture is not None
        shown[steps] = psnr_db(source, picture)
        said = f"{steps} steps of search (likeness {LIKENESS:g})" if steps else "no search"
        assert any(said in note for note in system.notes())
    assert shown[3] > shown[0] + 0.2


@pytest.mark.parametrize("trainable", [False, True])
def test_without_text_alignment_no_question_is_heard(tmp_path: Path, trainable: bool) -> None:
    """The two ablations; what they send depends on the picture alone."""
    system = make(checkpoint=untrained(tmp_path, "none", trainable=trainable))
    assert not system.hears_query
    assert system.segment_length == 4
    assert system.own_judges == ("somebody",)
    for photo in ("chelsea", "china"):
        source = load_photo(photo, 32)
        one, other = (system.encode(source, query, 0) for query in (QUERY, OTHER))
        assert np.array_equal(one.to_bits(), other.to_bits())
        assert system.decode(whole(one), QUERY) is not None


def test_with_text_alignment_it_says_that_it_hears(tmp_path: Path) -> None:
    assert make(checkpoint=untrained(tmp_path, "gated")).hears_query


def test_damage_never_raises() -> None:
    hard, soft = make(bits_per_pixel=1), make(bits_per_pixel=1, soft=True)
    source = load_photo("coffee", 160)
    frame = hard.encode(source, QUERY, 0)
    size = frame.geometry.payload_bits
    assert hard.decode(Received(None, False), QUERY) is None
    differs = False
    for start in range(0, size, size // 4):
        received = without_bits(frame, start, size // 2)
        one, other = (system.decode(received, QUERY) for system in (hard, soft))
        assert one is not None
        assert other is not None
        assert one.size == other.size == (160, 160)
        differs |= one.tobytes() != other.tobytes()
    assert differs, "soft decisions make no difference"
    for seed in range(4):
        assert hard.decode(with_noise(frame, seed, 0.02), QUERY) is not None
    assert hard.decode(without_bits(frame, 0, size), QUERY) is not None


def test_a_rate_below_the_lowest_is_out_of_reach() -> None:
    with pytest.raises(UnreachableError, match=r"ours: bits per pixel: 0\.001 is below"):
        make(bits_per_pixel=0.001)


def test_a_focus_that_would_be_ignored_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ours: focus 0\.5: .* sends every cell alike"):
        make(checkpoint=untrained(tmp_path, "none"), focus=0.5)
    assert make(checkpoint=untrained(tmp_path, "none"), focus=0).hears_query is False


def test_only_the_codec_is_shared() -> None:
    one, other = make(bits_per_pixel=0.5), make(bits_per_pixel=1)
    assert cached_codec(None, "cpu", "fidelity") is cached_codec(None, "cpu", "fidelity")
    source = load_photo("flower", 160)
    before = one.encode(source, QUERY, 0).to_bits()
    other.decode(whole(other.encode(load_photo("rocket", 160), OTHER, 1)), OTHER)
    assert np.array_equal(one.encode(source, QUERY, 0).to_bits(), before)


def test_other_pictures_and_other_codecs_frames_are_refused() -> None:
    system = make()
    with pytest.raises(ValueError, match="80x80, expected 160x160"):
        system.encode(load_photo("coffee", 80), QUERY, 0)
    frame = PictureSystem("w", "webp", 500, 160).encode(load_photo("coffee", 160), QUERY, 0)
    with pytest.raises(IndexFrameError, match="made by codec"):
        system.decode(whole(frame), QUERY)


def test_whose_eyes_it_searches_with_must_not_score_it(tmp_path: Path) -> None:
    """Nobody taught this codec, but a search for likeness looks at pictures with its tower."""
    checkpoint = untrained(tmp_path, "none")
    searching = make(checkpoint=checkpoint, search_steps=1)
    (looking,) = set(searching.own_judges) - {"somebody"}
    assert looking == searching._codec.looking_at_itself(EncoderSettings(search_steps=1))
    for blind in ({"search_steps": 0}, {"search_steps": 1, "search_likeness": 0}):
        assert make(checkpoint=checkpoint, **blind).own_judges == ("somebody",)
    trainable = untrained(tmp_path, "none", trainable=True)
    assert make(checkpoint=trainable, search_steps=1).own_judges == ("somebody",)
    assert make(search_steps=1).own_judges == make().own_judges


def test_who_taught_it_must_not_score_it() -> None:
    system = make()
    refuse_same_judge(load_judge("recognition", self_check=False), system.own_judges)
    with pytest.raises(JudgeError, match="recognition_lite0"):
        refuse_same_judge(load_judge("recognition_lite0", self_check=False), system.own_judges)
