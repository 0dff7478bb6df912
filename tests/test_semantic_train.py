"""A few real training steps: the loss falls, a run resumes as if it had not stopped."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from semantic.checkpoint import read_checkpoint, write_checkpoint
from semantic.codec import WeightsError
from semantic.codec_config import Recipe, read_recipe
from semantic.dataset import DatasetError, PhotoSet, TowerFeatures, read_photo_set
from semantic.demo_photos import load_photo, photo_names
from semantic.train import learning_rate, main, start_run, train

COCO = Path(__file__).parents[2] / "shared" / "data" / "coco_vqa"


@pytest.fixture(scope="module")
def photos() -> PhotoSet:
    """Twenty-eight crops of the demo photos at 32x32."""
    pictures, questions = [], []
    for name in photo_names():
        large = load_photo(name, 64)
        for box in ((0, 0, 32, 32), (32, 0, 64, 32), (0, 32, 32, 64), (32, 32, 64, 64)):
            pictures.append(np.asarray(large.crop(box)).transpose(2, 0, 1))
            questions.append((f"Is this a {name}?", "What is it?"))
    return PhotoSet(torch.from_numpy(np.stack(pictures)), tuple(questions), "0" * 64)


def _recipe(**changes: object) -> Recipe:
    recipe = read_recipe(Path("tiny"))
    return recipe.model_copy(update={"training": recipe.training.model_copy(update=changes)})


def test_seeded_run_lowers_the_loss(photos: PhotoSet, tmp_path: Path) -> None:
    recipe = _recipe(steps=100, batch_size=12, erasure_probability=0, index_error_probability=0)
    run = train(recipe, photos, tmp_path)
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert log == run.history
    assert log[0]["step"] == 1
    assert log[-1]["step"] == 100
    assert log[-1]["l1"] < 0.75 * log[0]["l1"]
    validated = [entry["validation_psnr_db"] for entry in log if "validation_psnr_db" in entry]
    assert len(validated) == 5
    assert np.isfinite(validated).all()


def test_towers_and_standardisation_do_not_move(photos: PhotoSet, tmp_path: Path) -> None:
    recipe = _recipe(steps=15)
    before = start_run(recipe, photos).model.backbone.towers.state_dict()
    run = train(recipe, photos, tmp_path)
    for name, value in run.model.backbone.towers.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("stop_after", [5, 17])
def test_interrupted_run_ends_where_the_uninterrupted_one_does(
    photos: PhotoSet, tmp_path: Path, stop_after: int
) -> None:
    # Both before and after the codebooks start (at step 10).
    recipe = _recipe(steps=25, feature_cache=False)
    whole = train(recipe, photos, tmp_path / "whole")
    train(recipe, photos, tmp_path / "parts", stop_after=stop_after)
    parts = train(recipe, photos, tmp_path / "parts")
    assert parts.step == whole.step == 25
    for name, value in whole.model.state_dict().items():
        assert torch.equal(parts.model.state_dict()[name], value), name


def test_another_recipe_does_not_resume(photos: PhotoSet, tmp_path: Path) -> None:
    train(_recipe(steps=2), photos, tmp_path)
    with pytest.raises(ValueError, match="another recipe"):
        train(_recipe(steps=3), photos, tmp_path)


def test_trained_codec_round_trips_through_its_checkpoint(photos: PhotoSet, tmp_path: Path) -> None:
    recipe = _recipe(steps=15)
    run = train(recipe, photos, tmp_path / "run")
    file = tmp_path / "codec.safetensors"
    geometry = write_checkpoint(file, recipe, run.model, {"psnr_db": 1.0}, photos.digest)
    model, found, metadata = read_checkpoint(file, run.model.backbone)
    assert found == geometry
    assert json.loads(metadata["metrics"]) == {"psnr_db": 1.0}
    pictures = photos.pictures[:1].float() / 255
    indices = model.encode(pictures, ["What is it?"])
    with torch.inference_mode():
        # Weights are stored as float16: nearly, not exactly, the same picture.
        difference = model.decode(indices) - run.model.eval().decode(indices)
    assert float(difference.abs().max()) < 0.02


def test_altered_configuration_is_noticed(photos: PhotoSet, tmp_path: Path) -> None:
    recipe = _recipe(steps=2)
    run = start_run(recipe, photos)
    file = tmp_path / "codec.safetensors"
    write_checkpoint(file, recipe, run.model, {}, photos.digest)
    data = file.read_bytes()
    # The same length, so that only the recomputed codec_id can tell.
    altered = data.replace(rb"\"residual\":false", rb"\"residual\":true ")
    assert altered != data
    file.write_bytes(altered)
    with pytest.raises(WeightsError, match="codec_id"):
        read_checkpoint(file, run.model.backbone)


def test_learning_rate_rises_then_follows_a_cosine() -> None:
    config = _recipe().training
    rates = [learning_rate(config, step, step / 40) for step in range(41)]
    assert rates[0] == pytest.approx(config.learning_rate / 5, rel=0.01)
    assert max(rates) <= config.learning_rate
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert rates[-1] == pytest.approx(config.learning_rate / 100)


def test_kept_features_are_those_of_the_tower(photos: PhotoSet) -> None:
    backbone = start_run(_recipe(), photos).model.backbone
    kept = TowerFeatures(backbone, photos, keep=True)
    fresh = TowerFeatures(backbone, photos, keep=False)
    for numbers, flips in (
        ([3, 5], [False, True]),
        ([5, 3], [True, False]),
        ([5, 3], [False, True]),
    ):
        for index, values in fresh.maps(numbers, flips).items():
            torch.testing.assert_close(
                kept.maps(numbers, flips)[index], values, atol=5e-3, rtol=5e-3
            )


def test_photo_set_from_a_listing(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    Image.new("RGB", (50, 40), (10, 20, 30)).save(tmp_path / "images" / "a.png")
    listing = tmp_path / "train.jsonl"
    rows = [{"image": "a.png", "question": "Is it dark?"}, {"image": "a.png", "question": "Why?"}]
    listing.write_text("\n".join(json.dumps(row) for row in rows))
    photos = read_photo_set(listing, 32)
    assert photos.questions == (("Is it dark?", "Why?"),)
    assert photos.pictures.shape == (1, 3, 32, 32)
    assert photos.pictures[0, :, 16, 16].tolist() == [10, 20, 30]
    listing.write_text(json.dumps({"image": "absent.png", "question": "?"}))
    with pytest.raises(DatasetError, match=r"absent\.png"):
        read_photo_set(listing, 32)
    listing.write_text("no json")
    with pytest.raises(DatasetError, match="not a listing"):
        read_photo_set(listing, 32)


def test_command_writes_a_loadable_checkpoint(tmp_path: Path) -> None:
    if not COCO.is_dir():
        pytest.skip("the COCO-VQA training photos are not on this machine")
    listing = tmp_path / "train.jsonl"
    rows = (COCO / "train.jsonl").read_text().splitlines()[:12]
    listing.write_text("\n".join(rows))
    (tmp_path / "images").symlink_to(COCO / "images")
    before = torch.get_num_threads()
    try:
        main(["tiny", "--data", str(listing), "--output", str(tmp_path / "run"), "--threads", "1"])
    finally:
        torch.set_num_threads(before)
        torch.set_float32_matmul_precision("highest")
    _, geometry, metadata = read_checkpoint(tmp_path / "run" / "codec.safetensors")
    assert geometry.image_size == 32
    assert json.loads(metadata["metrics"])["steps"] == 40
