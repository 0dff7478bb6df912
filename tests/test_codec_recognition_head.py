"""The second decoder head: the same bits, another picture, and a training of its own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from semantic.codec.base_layer import BaseLayer
from semantic.codec.detail_checkpoint import TWO_LAYER_CHECKPOINT, load_detail_of, load_two_layer
from semantic.codec.loader import load_codec
from semantic.codec.recognition_head import RecognitionHead, head_file, load_head, write_head
from semantic.codec.settings import EncoderSettings
from semantic.codec.vq_codec import Codec, WeightsError, load_vq_codec
from semantic.codec_config import ConfigError
from semantic.dataset import PhotoSet
from semantic.demo_photos import load_photo, photo_names
from semantic.judge import load_judge
from semantic.metrics import psnr_db
from semantic.training.detail_recipe import (
    RecognitionRecipe,
    is_detail_recipe,
    read_detail_recipe,
)
from semantic.training.recognition import HEAD_FILE, train_recognition
from semantic.training_state import STATE_FILE, TrainingError

HEAD = head_file(TWO_LAYER_CHECKPOINT)
QUERY = "What animal is this?"


@pytest.fixture(scope="module")
def base() -> Codec:
    return load_vq_codec(device="cpu")


@pytest.fixture(scope="module")
def photos() -> PhotoSet:
    pictures = [np.asarray(load_photo(name, 64)).transpose(2, 0, 1) for name in photo_names()]
    questions = tuple((f"Is there a {name}?",) for name in photo_names())
    return PhotoSet(torch.from_numpy(np.stack(pictures)), questions, "0" * 64)


def recipe(**changes: object) -> RecognitionRecipe:
    training = {
        "steps": 4,
        "batch_size": 2,
        "validation_photos": 2,
        "warm_up_steps": 0,
        "tower_sides": [64],
        "adversarial": {"weight": 0.1, "begins": 0.5},
        "validate_every": 4,
        **changes,
    }
    return RecognitionRecipe.model_validate(
        {"codec": "two_layer.safetensors", "extra_blocks": 1, "training": training}
    )


def test_the_same_bits_make_another_picture() -> None:
    fidelity, recognition = (
        load_codec(None, "cpu", decode_for=p) for p in ("fidelity", "recognition")
    )  # type: ignore[arg-type]
    photo = load_photo("chelsea", 160)
    frame = fidelity.encode(photo, QUERY, EncoderSettings(bits_per_pixel=0.1, focus=0))
    again = recognition.encode(photo, QUERY, EncoderSettings(bits_per_pixel=0.1, focus=0))
    np.testing.assert_array_equal(frame.to_bits(), again.to_bits())
    near, shown = (codec.decode(frame) for codec in (fidelity, recognition))
    assert np.abs(np.asarray(near, float) - np.asarray(shown, float)).mean() > 1
    assert psnr_db(photo, near) > psnr_db(photo, shown) > psnr_db(photo, near) - 3


def test_the_judge_over_its_tower_may_not_score_it() -> None:
    fidelity, recognition = (
        load_codec(None, "cpu", decode_for=p) for p in ("fidelity", "recognition")
    )  # type: ignore[arg-type]
    lite0 = load_judge("recognition_lite0", self_check=False)
    assert recognition.looking_at_itself(EncoderSettings()) == lite0.identity
    assert fidelity.looking_at_itself(EncoderSettings()) is None


def test_a_codec_without_a_head_says_so(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="none for recognition"):
        load_codec("embedded", "cpu", decode_for="recognition")
    for name in ("embedded.safetensors", "embedded.json", "two_layer.safetensors"):
        (tmp_path / name).symlink_to(TWO_LAYER_CHECKPOINT.with_name(name))
    with pytest.raises(WeightsError, match=r"two_layer_recognition\.safetensors"):
        load_codec(tmp_path / "two_layer.safetensors", "cpu", decode_for="recognition")


def test_heads_that_do_not_fit(tmp_path: Path, base: Codec) -> None:
    _, codec_id = load_detail_of(TWO_LAYER_CHECKPOINT, BaseLayer(base))
    with pytest.raises(WeightsError, match="expected 00000000"):
        load_head(HEAD, "00000000")
    data = bytearray(HEAD.read_bytes())
    data[-100] ^= 1
    for content, expected in (
        (data, "altered"),
        (data[:3000], "cannot be read"),
        (TWO_LAYER_CHECKPOINT.read_bytes(), "format"),
    ):
        (tmp_path / "head.safetensors").write_bytes(content)
        with pytest.raises(WeightsError, match=expected):
            load_head(tmp_path / "head.safetensors", codec_id)


def test_a_new_head_is_the_layer_s_own(base: Codec, tmp_path: Path) -> None:
    layer, codec_id = load_detail_of(TWO_LAYER_CHECKPOINT, BaseLayer(base))
    head = RecognitionHead.from_layer(layer, 2)
    codec = load_two_layer(device="cpu", towers=False)
    photo = load_photo("coffee", 96)
    received = codec.receive(codec.encode(photo, QUERY, EncoderSettings(bits=6000, focus=0)))
    picture = torch.rand(1, 3, 96, 96) * 255
    planes = picture, received.log_gain, received.inside
    with torch.no_grad():
        own, other = (layer.synthesise(received.values, *planes, one) for one in (None, head))
    torch.testing.assert_close(own, other)
    # As a file: eight bits a weight.
    write_head(tmp_path / "head.safetensors", head, codec_id, {"steps": 0})
    kept = load_head(tmp_path / "head.safetensors", codec_id)
    with torch.no_grad():
        rounded = layer.synthesise(received.values, *planes, kept)
    assert float((rounded - own).square().mean().sqrt()) < 1


def test_a_resumed_run_is_the_same_run(base: Codec, photos: PhotoSet, tmp_path: Path) -> None:
    start = TWO_LAYER_CHECKPOINT
    whole = train_recognition(recipe(), start, base, photos, tmp_path / "whole")
    # Left off within phase II, whose discriminator must come back as well.
    train_recognition(recipe(), start, base, photos, tmp_path / "parts", stop_after=3)
    again = train_recognition(recipe(), start, base, photos, tmp_path / "parts")
    assert whole.step == again.step == 4
    one, other = (
        torch.load(tmp_path / name / STATE_FILE, weights_only=True) for name in ("whole", "parts")
    )
    for part in ("layer", "average"):
        for name, value in one[part].items():
            assert torch.equal(value, other[part][name]), name
    for name, value in one["task"]["adversary"]["network"].items():
        assert torch.equal(value, other["task"]["adversary"]["network"][name]), name
    entry = json.loads((tmp_path / "whole" / "log.jsonl").read_text().splitlines()[-1])
    assert {"adversarial", "told_apart", "unlikeness_at_-1.8"} <= set(entry)
    with safe_open(tmp_path / "whole" / HEAD_FILE, framework="pt") as opened:
        assert opened.metadata()["codec_id"] == load_two_layer(device="cpu", towers=False).codec_id
    with pytest.raises(TrainingError, match="another recipe"):
        train_recognition(recipe(log_mse_weight=9.0), start, base, photos, tmp_path / "parts")


def test_it_learns_what_the_tower_sees(base: Codec, photos: PhotoSet, tmp_path: Path) -> None:
    """Forty steps on five photos bring what the tower sees nearer, which the layer itself does not do."""
    run = train_recognition(
        recipe(
            steps=40,
            batch_size=4,
            tower_sides=[224],
            learning_rate=2e-4,
            adversarial={"weight": 0.1, "begins": 1.0},
            weight_average=0.5,
        ),
        TWO_LAYER_CHECKPOINT,
        base,
        photos,
        tmp_path,
    )
    run.validation_numbers = run.train_numbers
    found = run.task.validate(run)
    assert found["unlikeness_at_-1.8"] < found["fidelity_unlikeness_at_-1.8"]
    assert found["classes_at_-1.8"] < 0.95 * found["fidelity_classes_at_-1.8"]
    assert found["fidelity_psnr_db_at_-1.8"] > 18


def test_recipes(tmp_path: Path) -> None:
    shipped = read_detail_recipe(Path("two_layer_recognition"))
    assert isinstance(shipped, RecognitionRecipe)
    assert shipped.codec == Path("two_layer.safetensors")
    assert is_detail_recipe(Path("two_layer_recognition"))
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("codec: two_layer.safetensors\ntraining: {tower_sides: [3]}\n")
    with pytest.raises(ConfigError, match="tower_sides"):
        read_detail_recipe(wrong)
