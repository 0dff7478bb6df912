"""A few real training steps: the loss falls, a run resumes as if it had not stopped."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from semantic import train as training
from semantic import training_state
from semantic.alignment import TextForm
from semantic.checkpoint import (
    EMBEDDED_CHECKPOINT,
    read_checkpoint,
    read_metadata,
    write_checkpoint,
)
from semantic.codec.vq_codec import WeightsError
from semantic.codec_config import IntentConfig, Recipe, read_recipe
from semantic.dataset import PhotoSet, TowerFeatures
from semantic.demo_photos import load_photo, photo_names
from semantic.intent_judge import IntentJudge, load_intent_judge
from semantic.losses import loss_terms
from semantic.processes import DeviceError, Processes
from semantic.train import learning_rate, train
from semantic.training_state import Run, TrainingError, check_folder, save, start_run


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


@pytest.fixture(scope="module")
def judge() -> IntentJudge:
    """The real one, loaded once."""
    return load_intent_judge(IntentConfig(weight=1.0), 32)


def _recipe(codec: dict[str, object] | None = None, **changes: object) -> Recipe:
    data = read_recipe(Path("tiny")).model_dump()
    data["codec"] |= codec or {}
    data["training"] |= changes
    return Recipe.model_validate(data)


def _log(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def _same_weights(one: Run, other: Run) -> None:
    for name, value in one.model.state_dict().items():
        assert torch.equal(other.model.state_dict()[name], value), name


def _discriminator(run: Run) -> dict[str, torch.Tensor]:
    assert run.adversary is not None
    return {n: value.clone() for n, value in run.adversary.network.named_parameters()}


ALL_TERMS = {
    "intent": {"weight": 0.5},
    "adversarial": {"weight": 0.1, "begins": 0.5, "channels": 8},
}


def test_seeded_run_lowers_the_loss(photos: PhotoSet, tmp_path: Path) -> None:
    recipe = _recipe(steps=100, batch_size=12, erasure_probability=0, index_error_probability=0)
    run = train(recipe, photos, tmp_path)
    log = _log(tmp_path)
    assert log == run.history
    assert log[0]["step"] == 1
    assert log[-1]["step"] == 100
    assert log[-1]["l1"] < 0.75 * log[0]["l1"]
    validated = [entry["validation_psnr_db"] for entry in log if "validation_psnr_db" in entry]
    assert len(validated) == 5
    assert np.isfinite(validated).all()
    # Two layers of four segments with sixteen codewords each.
    last = log[-1]
    assert np.shape(last["usage_by_segment"]) == np.shape(last["perplexity_by_segment"]) == (2, 4)
    assert last["usage"] == pytest.approx(np.mean(last["usage_by_segment"]), abs=1e-3)
    assert 0.5 < last["usage"] <= 1
    assert 1 < last["perplexity"] <= 16
    for number, quantizer in enumerate(run.model.segment_quantizers):
        assert last["usage_by_segment"][number] == pytest.approx(quantizer.use().usage, abs=1e-3)


def test_a_recipe_without_the_new_terms_trains_as_before(photos: PhotoSet, tmp_path: Path) -> None:
    """Distortion of the first steps, as it was before there were any other terms."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "LOG_EVERY", 1)
        plain = train(_recipe(steps=20), photos, tmp_path / "plain", stop_after=12).history
        idle = _recipe(steps=20, intent={"weight": 0}, adversarial={"weight": 0, "begins": 0})
        weightless = train(idle, photos, tmp_path / "idle", stop_after=12).history
    assert [e["l1"] for e in plain[:4]] == pytest.approx(
        [0.242589, 0.202271, 0.263887, 0.254129], rel=1e-3
    )
    for one, other in zip(plain, weightless, strict=True):
        assert {**one, "elapsed_s": 0} == {**other, "elapsed_s": 0}


@pytest.mark.slow
def test_every_term_falls(
    photos: PhotoSet, tmp_path: Path, judge: IntentJudge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both phases with all terms, and a gate on the query."""
    monkeypatch.setattr(training, "LOG_EVERY", 1)
    monkeypatch.setattr(training_state, "load_intent_judge", lambda *_: judge)
    adversarial = {"weight": 0.1, "begins": 0.5, "channels": 8, "learning_rate": 2e-3}
    recipe = _recipe(
        {"film": "gated"}, steps=80, batch_size=8, intent={"weight": 0.5}, adversarial=adversarial
    )
    run = train(recipe, photos, tmp_path)
    log = run.history
    assert "adversarial" not in log[39]
    assert {"adversarial", "adversarial_weight", "discriminator", "told_apart"} <= log[40].keys()

    def fall(name: str, start: int) -> float:
        values = [entry[name] for entry in log[start:]]
        return float(np.mean(values[-8:]) / np.mean(values[:8]))

    # Quantisation from its first step on, the discriminator from the start of phase II.
    falls = {"l1": fall("l1", 0), "intent": fall("intent", 0)}
    falls |= {"quantization": fall("quantization", 10), "discriminator": fall("discriminator", 40)}
    assert max(falls.values()) < 0.95, falls
    assert all(np.isfinite(list(_floats(entry))).all() for entry in log)


def _floats(entry: dict[str, Any]) -> Iterator[float]:
    return (value for value in entry.values() if isinstance(value, float))


@pytest.mark.parametrize("stop_after", [pytest.param(11, marks=pytest.mark.slow), 14])
def test_a_run_with_every_term_resumes_to_the_bit(
    photos: PhotoSet,
    tmp_path: Path,
    judge: IntentJudge,
    monkeypatch: pytest.MonkeyPatch,
    stop_after: int,
) -> None:
    # In phase I, and in phase II, which begins at step 12.
    terms = {**ALL_TERMS, "adversarial": {"weight": 0.1, "begins": 0.75, "channels": 8}}
    monkeypatch.setattr(training_state, "load_intent_judge", lambda *_: judge)
    recipe = _recipe({"film": "cross_attention"}, steps=16, feature_cache=False, **terms)
    fresh = _discriminator(start_run(recipe, photos))
    whole = train(recipe, photos, tmp_path / "whole")
    first = train(recipe, photos, tmp_path / "parts", stop_after=stop_after)
    # Section III: the discriminator rests in phase I and moves in phase II.
    for name, value in _discriminator(first).items():
        assert torch.equal(value, fresh[name]) == (stop_after < 12), name
    parts = train(recipe, photos, tmp_path / "parts")
    _same_weights(whole, parts)
    for name, value in _discriminator(whole).items():
        assert torch.equal(_discriminator(parts)[name], value), name


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_state(
    photos: PhotoSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = _recipe(steps=20, feature_cache=False)
    whole = train(recipe, photos, tmp_path / "whole")
    folder = tmp_path / "broken"
    train(recipe, photos, folder, stop_after=12)
    good = (folder / "state.pt").read_bytes()

    def poisoned(*arguments: Any) -> dict[str, torch.Tensor]:
        terms = loss_terms(*arguments)
        return {**terms, "total": terms["total"] * float("inf")}

    monkeypatch.setattr(training, "loss_terms", poisoned)
    with pytest.raises(
        FloatingPointError, match=r"step 12: .*total inf.*last good state.*init-from"
    ):
        train(recipe, photos, folder)
    assert (folder / "state.pt").read_bytes() == good
    monkeypatch.undo()
    _same_weights(whole, train(recipe, photos, folder))


def test_weights_that_are_not_finite_are_never_saved(photos: PhotoSet, tmp_path: Path) -> None:
    # The first step throws the weights beyond all bounds.
    recipe = _recipe(steps=5, learning_rate=1e30, warm_up_steps=0)
    with pytest.raises(FloatingPointError, match=r"not finite.*lower the learning_rate"):
        train(recipe, photos, tmp_path)
    assert not (tmp_path / "state.pt").exists()
    run = start_run(_recipe(), photos)
    with torch.no_grad():
        run.model.last_layer[0, 0, 0, 0] = float("nan")
    with pytest.raises(FloatingPointError, match="left as it was"):
        save(run, tmp_path / "state.pt")
    assert not (tmp_path / "state.pt").exists()


def test_start_from_a_checkpoint_with_a_fresh_optimiser(photos: PhotoSet, tmp_path: Path) -> None:
    recipe = _recipe(steps=50, batch_size=8, feature_cache=False)
    first = train(recipe, photos, tmp_path / "first")
    file = tmp_path / "codec.safetensors"
    geometry = write_checkpoint(file, recipe, first.model, {}, photos.digest)
    again = train(recipe, photos, tmp_path / "again", init_from=file, stop_after=1)
    entry = _log(tmp_path / "again")[0]
    assert "fresh optimiser" in entry["event"]
    assert entry["codec_id"] == geometry.codec_id
    assert entry["tensors_fresh"] == entry["tensors_unused"] == []
    assert entry["codebooks"] == "taken"
    # No phase without quantiser, and no start from noise.
    assert again.history[0]["quantization"] > 0
    assert again.history[0]["l1"] < 0.8 * first.history[0]["l1"]
    for name, value in first.model.state_dict().items():
        if ".standardize." in name:
            assert torch.equal(again.model.state_dict()[name], value)
    # Resuming needs no second look at the checkpoint, and ends at the same place.
    file.unlink()
    resumed = train(recipe, photos, tmp_path / "again", init_from=file, stop_after=5)
    write_checkpoint(file, recipe, first.model, {}, photos.digest)
    _same_weights(train(recipe, photos, tmp_path / "whole", init_from=file, stop_after=5), resumed)


def test_what_a_checkpoint_does_not_have_starts_anew_and_is_named(
    photos: PhotoSet, tmp_path: Path
) -> None:
    train(_recipe(steps=12), photos, tmp_path / "first")
    gated = _recipe(
        {
            "film": "gated",
            "quantizer": {"segment_length": 4, "codewords": 32, "decay": 0.95},
        },
        steps=12,
    )
    state = tmp_path / "first" / "state.pt"
    run = train(gated, photos, tmp_path / "gated", init_from=state, stop_after=2)
    entry = _log(tmp_path / "gated")[0]
    assert "layers.0.film.match.weight" in entry["tensors_fresh"]
    assert "quantizers.0.codebook" in entry["tensors_fresh"]
    assert "decoder.head.refine.2.weight" not in entry["tensors_fresh"]
    assert entry["codebooks"] == "start anew"
    assert run.history[0]["quantization"] == 0
    other = {"weights": torch.zeros(3)}
    torch.save({"average": other}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="no tensor of it fits"):
        train(gated, photos, tmp_path / "none", init_from=tmp_path / "other.pt")


def test_start_from_the_shipped_codec(tmp_path: Path) -> None:
    pictures = [np.asarray(load_photo(name, 160)).transpose(2, 0, 1) for name in photo_names()[:3]]
    few = PhotoSet(torch.from_numpy(np.stack(pictures)), (("What is it?",),) * 3, "0" * 64)
    recipe = read_recipe(Path("embedded"))
    short = {"steps": 1, "batch_size": 2, "validation_photos": 1, "validate_every": 1}
    changed = recipe.model_copy(update={"training": recipe.training.model_copy(update=short)})
    train(changed, few, tmp_path, init_from=EMBEDDED_CHECKPOINT)
    start, *_, first = _log(tmp_path)  # between them, on some processors, that there is no bfloat16
    assert start["codec_id"] == read_metadata(EMBEDDED_CHECKPOINT)["codec_id"]
    assert start["tensors_fresh"] == start["tensors_unused"] == []
    # Trained weights from the first step on: the untrained codec is at about 12 dB.
    assert first["validation_psnr_db"] > 22


@pytest.mark.parametrize("film", ["none", "cross_attention"])
def test_random_towers_are_trained_with_the_codec(
    photos: PhotoSet, tmp_path: Path, film: str
) -> None:
    data = read_recipe(Path("tiny")).codec.backbone.model_dump() | {"trainable": True}
    recipe = _recipe({"film": film, "backbone": data}, steps=15, feature_cache=False)
    before = start_run(recipe, photos).model.state_dict()
    run = train(recipe, photos, tmp_path / "run")
    towers = ["image_tower."] + (["text_tower."] if film != "none" else [])
    assert any(name.startswith("text_tower.") for name in before) == (film != "none")
    for tower in towers:
        assert any(
            not torch.equal(value, before[name])
            for name, value in run.model.state_dict().items()
            if name.startswith(tower)
        )
    file = tmp_path / "codec.safetensors"
    write_checkpoint(file, recipe, run.model, {}, photos.digest, intent_judge="someone")
    loaded, _, metadata = read_checkpoint(file)
    assert metadata["intent_judge"] == "someone"
    pictures = photos.pictures[:2].float() / 255
    with torch.inference_mode():
        one, other = (m.eval().backbone.image_features(pictures)[3] for m in (run.model, loaded))
    torch.testing.assert_close(one, other, atol=0.05, rtol=0.05)


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


@pytest.mark.parametrize("form", ["pooled", "tokens", "none"])
def test_kept_text_is_that_of_the_tower(photos: PhotoSet, form: TextForm) -> None:
    backbone = start_run(_recipe(), photos).model.backbone
    kept = TowerFeatures(backbone, photos, keep=True, text_form=form)
    fresh = TowerFeatures(backbone, photos, keep=False, text_form=form)
    for queries in (["What is it?", "Is this a cat, or a dog?"], ["cat", "What is it?", "cat"]):
        found, expected = kept.text(queries), fresh.text(queries)
        assert torch.equal(found.mask, expected.mask)
        torch.testing.assert_close(
            found.vectors[found.mask], expected.vectors[expected.mask], atol=1e-6, rtol=1e-5
        )


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


def test_every_validation_leaves_weights_and_pictures(photos: PhotoSet, tmp_path: Path) -> None:
    ladder = {"grid": 4, "levels": [[1, 1], [1, 3], [2, 4]]}
    changes = {"validation_photos": 3, "validate_every": 5, "ladder_probability": 0.5}
    recipe = _recipe({"ladder": ladder}, steps=25, feature_cache=False, **changes)
    best: list[float] = []
    for stop_after in (10, 12, 25):
        # Without quantiser, up to step 10, nothing can be sent: no weights yet.
        run = train(recipe, photos, tmp_path, stop_after=stop_after)
        assert (tmp_path / "best.safetensors").exists() == (stop_after > 14), stop_after
        best.append(run.best_psnr_db)
    assert best[0] == best[1] == float("-inf")
    validated = [e for e in _log(tmp_path) if e["step"] % 5 == 0]
    assert [e["step"] for e in validated] == [5, 10, 15, 20, 25]
    quantized = [e["validation_psnr_db"] for e in validated[2:]]
    assert best[-1] == max(quantized)
    for name, expected in (("best", max(quantized)), ("last", quantized[-1])):
        _, geometry, metadata = read_checkpoint(tmp_path / f"{name}.safetensors")
        metrics = json.loads(metadata["metrics"])
        assert metrics["validation_psnr_db"] == expected
        assert metrics["steps"] == 5 * (3 + quantized.index(expected))
        assert metadata["data_sha256"] == photos.digest
        assert (
            Recipe.model_validate({k: json.loads(metadata[k]) for k in ("codec", "training")})
            == recipe
        )
        assert json.loads((tmp_path / f"{name}.json").read_text()), geometry
    pictures = sorted((tmp_path / "samples").iterdir())
    assert [file.name for file in pictures] == [f"step-{s:07d}.png" for s in range(5, 30, 5)]
    # Three photos; sources, everything, levels 1 and 0.
    with Image.open(pictures[-1]) as grid:
        assert grid.size == (3 * 32, 4 * 32)
        shown = np.asarray(grid)
    source = photos.pictures[run.validation_numbers[1]].permute(1, 2, 0).numpy()
    assert np.array_equal(shown[:32, 32:64], source)
    errors = [
        np.square(shown[32 * row : 32 * row + 32] - shown[:32] * 1.0).mean() for row in (1, 3)
    ]
    assert 0 < errors[0] < errors[1]


def test_figures_and_pictures_go_to_tensorboard(photos: PhotoSet, tmp_path: Path) -> None:
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is an extra"
    )
    run = train(_recipe(steps=20, validate_every=10), photos, tmp_path)
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    found = [(event.step, event.value) for event in events.Scalars("validation_psnr_db")]
    logged = [(e["step"], e["validation_psnr_db"]) for e in run.history if e["step"] > 1]
    assert found == [(step, pytest.approx(value)) for step, value in logged]
    assert [event.step for event in events.Images("samples")] == [10, 20]


def test_training_needs_no_tensorboard(
    photos: PhotoSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    reported: list[dict[str, Any]] = []
    run = train(_recipe(steps=1), photos, tmp_path, report=reported.append)
    assert "tensorboard is not installed" in reported[0]["event"]
    assert _log(tmp_path) == run.history == reported[1:]


def test_a_resumed_run_logs_every_step_once(photos: PhotoSet, tmp_path: Path) -> None:
    recipe = _recipe(steps=12, validate_every=3, feature_cache=False)
    train(recipe, photos, tmp_path, stop_after=7)
    state = (tmp_path / "state.pt").read_bytes()
    train(recipe, photos, tmp_path, stop_after=10)
    # As if it had died at step 10, three after its last state, in the middle of a line.
    (tmp_path / "state.pt").write_bytes(state)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 10')
    train(recipe, photos, tmp_path)
    assert [entry["step"] for entry in _log(tmp_path)] == [1, 3, 6, 9, 12]


def test_a_folder_holds_one_run(photos: PhotoSet, tmp_path: Path) -> None:
    check_folder(tmp_path / "new", resume=False)
    with pytest.raises(TrainingError, match="no run to resume"):
        check_folder(tmp_path, resume=True)
    train(_recipe(steps=3), photos, tmp_path, stop_after=2)
    check_folder(tmp_path, resume=True)
    with pytest.raises(TrainingError, match=r"a run already.*--resume"):
        check_folder(tmp_path, resume=False)


def test_nothing_left_to_train_on(photos: PhotoSet, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"28 photos.*holds out 28.*nothing is left"):
        train(_recipe(validation_photos=28), photos, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_differs_from_the_run_in_the_folder_is_named(photos: PhotoSet, tmp_path: Path) -> None:
    train(_recipe(steps=2), photos, tmp_path)
    with pytest.raises(TrainingError, match=r"training\.learning_rate was 0\.003, is 0\.1\b"):
        train(_recipe(steps=2, learning_rate=0.1), photos, tmp_path)
    other = PhotoSet(photos.pictures, photos.questions, "1" * 64)
    with pytest.raises(TrainingError, match="other training data"):
        train(_recipe(steps=2), other, tmp_path)


@pytest.mark.parametrize("damage", ["cut", "noise", "other"])
def test_a_damaged_state_is_one_clear_error(photos: PhotoSet, tmp_path: Path, damage: str) -> None:
    recipe = _recipe(steps=2)
    state = tmp_path / "state.pt"
    if damage == "other":
        torch.save([1, 2], state)
    else:
        train(recipe, photos, tmp_path)
        data = state.read_bytes()
        state.write_bytes(data[: len(data) // 2] if damage == "cut" else b"no state" * 100)
    with pytest.raises(TrainingError, match=r"state\.pt: .*not the state of a training run"):
        train(recipe, photos, tmp_path)
    with pytest.raises(TrainingError, match=r"state\.pt: .*not the state of a training run"):
        train(recipe, photos, tmp_path / "second", init_from=state)


def test_weights_of_another_codec_are_refused(photos: PhotoSet, tmp_path: Path) -> None:
    # One bias fits by chance.
    with pytest.raises(TrainingError, match="another codec than this recipe's: 1 of its"):
        train(_recipe(), photos, tmp_path, init_from=EMBEDDED_CHECKPOINT)
    run = train(_recipe(steps=2), photos, tmp_path / "first")
    file = tmp_path / "codec.safetensors"
    write_checkpoint(file, _recipe(), run.model, {}, photos.digest)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="damaged checkpoint"):
        train(_recipe(), photos, tmp_path / "second", init_from=file)


def test_fp16_leaves_out_steps_whose_gradient_overflows(
    photos: PhotoSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a GPU would do, with a scaler that is there and gradients that are not finite."""
    recipe = _recipe(steps=40)
    monkeypatch.setattr(training, "LOG_EVERY", 1)
    monkeypatch.setattr(Processes, "scaler", torch.amp.GradScaler("cpu", enabled=False))
    clip, overflows = Processes.clip, {3, 4}

    def overflowing(self: Processes, parameters: Any, limit: float) -> torch.Tensor:
        norm = clip(self, parameters, limit)
        if len(norms) in overflows:
            norm = torch.tensor(torch.inf)
        norms.append(float(norm))
        return norm

    norms: list[float] = []
    monkeypatch.setattr(Processes, "clip", overflowing)
    run = train(recipe, photos, tmp_path / "some", stop_after=6)
    assert [entry["step"] for entry in run.history if "revived" not in entry] == [4, 5]
    assert run.skipped == 0
    norms.clear()
    overflows |= set(range(100))
    with pytest.raises(FloatingPointError, match=r"step 20: .*not finite"):
        train(recipe, photos, tmp_path / "all")


def test_devices_that_are_not_there() -> None:
    with pytest.raises(DeviceError, match=r"device 'tpu': expected one of auto, cpu, cuda, mps"):
        Processes("tpu")
    with pytest.raises(DeviceError, match="fp16 needs device cuda"):
        Processes("cpu", "fp16")
    if not torch.cuda.is_available():
        assert Processes("auto").device == torch.device("cpu")
        with pytest.raises(DeviceError, match="'cuda' is not there; on this machine: cpu"):
            Processes("cuda")
