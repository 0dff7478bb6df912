"""Training of the detail layer: resumed runs are the same runs, and what it writes is a codec."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from semantic.codec.base_layer import BaseLayer
from semantic.codec.detail_checkpoint import load_two_layer
from semantic.codec.settings import EncoderSettings
from semantic.codec.vq_codec import Codec, WeightsError, load_vq_codec
from semantic.codec_config import ConfigError
from semantic.dataset import PhotoSet
from semantic.demo_photos import load_photo, photo_names
from semantic.geometries import CHECKPOINT_FOLDER
from semantic.training.base_pictures import make_base_pictures
from semantic.training.detail import CHECKPOINT_FILE, detail_loss, train_detail
from semantic.training.detail_batch import draw_batch
from semantic.training.detail_recipe import DetailRecipe, is_detail_recipe, read_detail_recipe
from semantic.training_state import STATE_FILE, TrainingError

SIDE = 64


@pytest.fixture(scope="module")
def base() -> Codec:
    return load_vq_codec(device="cpu")


@pytest.fixture(scope="module")
def photos() -> PhotoSet:
    pictures = [np.asarray(load_photo(name, SIDE)).transpose(2, 0, 1) for name in photo_names()]
    questions = tuple((f"Is there a {name}?",) for name in photo_names())
    return PhotoSet(torch.from_numpy(np.stack(pictures)), questions, "0" * 64)


def recipe(**changes: object) -> DetailRecipe:
    return DetailRecipe.model_validate(
        {
            "base": "embedded.safetensors",
            "detail": {"transform_width": 8, "prior_width": 16, "refine_width": 8},
            "training": {
                "steps": 4,
                "batch_size": 2,
                "validation_photos": 2,
                "warm_up_steps": 0,
                "learning_rate": 0.002,
                **changes,
            },
        }
    )


def weights(file: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(file, weights_only=True)["layer"]
    return state


def test_a_resumed_run_is_the_same_run(base: Codec, photos: PhotoSet, tmp_path: Path) -> None:
    whole = train_detail(recipe(), base, photos, tmp_path / "whole")
    train_detail(recipe(), base, photos, tmp_path / "parts", stop_after=2)
    again = train_detail(recipe(), base, photos, tmp_path / "parts")
    assert whole.step == again.step == 4
    one, other = (weights(tmp_path / name / STATE_FILE) for name in ("whole", "parts"))
    for name, value in one.items():
        assert torch.equal(value, other[name]), name
    # The same weights in the file, and steps that changed something.
    codecs = [load_two_layer_beside(tmp_path / name) for name in ("whole", "parts")]
    assert codecs[0].codec_id == codecs[1].codec_id
    assert float(one["prior.base.weight"].std()) > 0
    with pytest.raises(TrainingError, match="another recipe"):
        train_detail(recipe(seed=3), base, photos, tmp_path / "parts")
    (tmp_path / "parts" / STATE_FILE).write_bytes(b"nothing")
    with pytest.raises(TrainingError, match="damaged"):
        train_detail(recipe(), base, photos, tmp_path / "parts")


def load_two_layer_beside(folder: Path):  # type: ignore[no-untyped-def]
    """A run's codec with its base layer beside it."""
    for name in ("embedded.safetensors", "embedded.json"):
        (folder / name).symlink_to(CHECKPOINT_FOLDER / name)
    return load_two_layer(folder / CHECKPOINT_FILE, "cpu")


def test_what_is_written_is_a_codec(base: Codec, photos: PhotoSet, tmp_path: Path) -> None:
    train_detail(recipe(steps=2), base, photos, tmp_path / "first")
    codec = load_two_layer_beside(tmp_path / "first")
    photo = load_photo("coffee", 96)
    frame = codec.encode(photo, "Is there a cup?", EncoderSettings(bits=4000, focus=0))
    assert codec.decode(frame).size == (96, 96)
    # A new run starts from those weights, as far as eight bits hold them.
    further = recipe(steps=1, learning_rate=1e-9)
    run = train_detail(
        further, base, photos, tmp_path / "next", init_from=tmp_path / "first" / CHECKPOINT_FILE
    )
    average = torch.load(tmp_path / "first" / STATE_FILE, weights_only=True)["average"]
    for name, value in run.task.module.state_dict().items():
        if value.is_floating_point():
            step = max(float(average[name].abs().max()) / 64, 1 / 256)
            torch.testing.assert_close(value, average[name], atol=step, rtol=0.01)
    with pytest.raises(WeightsError, match="cannot be taken up"):
        train_detail(
            recipe(steps=1), base, photos, tmp_path / "none", init_from=tmp_path / "absent"
        )


def test_base_pictures_go_on_where_they_were(base: Codec, photos: PhotoSet, tmp_path: Path) -> None:
    layer = BaseLayer(base)
    made = make_base_pictures(tmp_path, layer, base.codec_id, photos)
    assert made.pictures.shape == (14, 3, SIDE, SIDE)
    before = np.array(made.pictures)
    state = tmp_path / "base.json"
    state.write_text(json.dumps({**json.loads(state.read_text()), "done": 3}))
    made = make_base_pictures(tmp_path, layer, base.codec_id, photos)
    np.testing.assert_allclose(made.pictures, before, atol=1)
    # Even rows are photos, odd ones their mirror images.
    error = np.abs(before[0::2].astype(int) - photos.pictures.numpy()).mean()
    mirrored = np.abs(before[1::2].astype(int) - photos.pictures.numpy()[..., ::-1]).mean()
    assert error == pytest.approx(mirrored, rel=0.2)
    other = make_base_pictures(tmp_path, layer, "another", photos)
    assert json.loads(state.read_text())["done"] == 14
    assert len(other.tokens) == 14


def test_losses_fall_and_gains_are_paid_for(base: Codec, photos: PhotoSet, tmp_path: Path) -> None:
    run = train_detail(recipe(steps=30), base, photos, tmp_path)
    config = recipe().training
    batch = draw_batch(photos, run.bases, np.arange(4), config, np.random.default_rng(0))
    assert batch.log_gain.shape == batch.sent.shape == batch.arrived.shape == (4, 1, 8, 8)
    assert bool((batch.arrived <= batch.sent).all())
    torch.manual_seed(0)
    after = detail_loss(run.task.module, batch, config)[1]["loss"]
    fresh = train_detail(recipe(steps=1, learning_rate=1e-9), base, photos, tmp_path / "fresh")
    torch.manual_seed(0)
    assert after < 0.9 * detail_loss(fresh.task.module, batch, config)[1]["loss"]


def test_too_few_photos(base: Codec, photos: PhotoSet, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="nothing is left to train on"):
        train_detail(recipe(validation_photos=7), base, photos, tmp_path)


def test_recipes(tmp_path: Path) -> None:
    shipped = read_detail_recipe(Path("two_layer"))
    assert shipped.base == Path("embedded.safetensors")
    assert is_detail_recipe(Path("two_layer"))
    assert not is_detail_recipe(Path("embedded"))
    assert not is_detail_recipe(tmp_path / "absent.yaml")
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("base: a.safetensors\ntraining: {steps: none}\n")
    with pytest.raises(ConfigError, match=r"training\.steps"):
        read_detail_recipe(wrong)
    wrong.write_text("base: a.safetensors\ntrainig: {}\n")
    with pytest.raises(ConfigError, match="trainig"):
        read_detail_recipe(wrong)
