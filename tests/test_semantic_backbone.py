"""The one door to the frozen towers."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from semantic.backbone import (
    Backbone,
    WeightsError,
    _pixel_statistics,
    check_sha256,
    load_backbone,
    towers_digest,
)
from semantic.codec_config import OpenClipModel, PackagedTowers, read_recipe
from semantic.model import CodecModel

# Of the data that OpenAI's CLIP was trained on (github.com/openai/CLIP, clip/clip.py).
OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)


@pytest.fixture(scope="module")
def packaged() -> Backbone:
    config = read_recipe(Path("embedded")).codec
    return load_backbone(config.backbone, [0, 1, 2, 3, 4], 160)


def _tiny() -> OpenClipModel:
    config = read_recipe(Path("tiny")).codec.backbone
    assert isinstance(config, OpenClipModel)
    return config


def test_packaged_image_tower_gives_a_pyramid(packaged: Backbone) -> None:
    maps = packaged.image_features(torch.rand(2, 3, 160, 160))
    shapes = {index: tuple(m.shape) for index, m in maps.items()}
    assert shapes == {
        0: (2, 16, 80, 80),
        1: (2, 24, 40, 40),
        2: (2, 40, 20, 20),
        3: (2, 112, 10, 10),
        4: (2, 320, 5, 5),
    }


def test_packaged_text_tower_knows_that_a_kitten_is_a_cat(packaged: Backbone) -> None:
    cat, kitten, truck = packaged.text_features(["cat", "kitten", "truck"])
    assert float(cat @ kitten) == pytest.approx(0.77, abs=0.05)
    assert float(cat @ truck) < 0.5
    torch.testing.assert_close(cat.norm(), torch.tensor(1.0))


def test_text_features_do_not_depend_on_the_rest_of_the_batch(packaged: Backbone) -> None:
    alone = packaged.text_features(["Is there a cat?"])[0]
    beside = packaged.text_features(
        ["Is there a cat?", "Is this a photo of a very long table with many plates and glasses?"]
    )[0]
    torch.testing.assert_close(alone, beside, atol=1e-5, rtol=0)


def test_packaged_text_tower_gives_its_word_pieces(packaged: Backbone) -> None:
    queries = ["Is there a cat?", "cat"]
    found = packaged.text_tokens(queries)
    # [CLS] is there a cat ? [SEP] and [CLS] cat [SEP]
    assert found.mask.sum(dim=1).tolist() == [7, 3]
    assert found.vectors.shape == (2, 7, 384)
    ids = packaged.tokenize(queries)[:, :7]
    text = packaged.towers.text
    with torch.inference_mode():
        hidden = text.transformer(input_ids=ids, attention_mask=(ids != 0).long()).last_hidden_state
    torch.testing.assert_close(
        found.vectors[0], torch.nn.functional.normalize(hidden[0], dim=-1), atol=1e-5, rtol=0
    )
    alone = packaged.text_tokens(["cat"])
    torch.testing.assert_close(found.vectors[1, :3], alone.vectors[0], atol=1e-5, rtol=0)
    # This tower pools by the mean of its word pieces.
    mean = torch.nn.functional.normalize(hidden[0].mean(0), dim=0)
    torch.testing.assert_close(packaged.text_features(queries)[0], mean, atol=1e-5, rtol=0)


def test_clip_text_tower_gives_its_word_pieces() -> None:
    backbone = load_backbone(_tiny(), [3], 32)
    # "!" has the id that also pads.
    found = backbone.text_tokens(["a cat!", "a cat", "wow ! a cat"])
    assert found.mask.sum(dim=1).tolist() == [5, 4, 6]
    assert found.vectors.shape == (3, 6, 32)
    torch.testing.assert_close(found.vectors.norm(dim=-1), torch.ones(3, 6))
    # CLIP pools at the end mark: its vector is the last word piece's.
    pooled = backbone.text_features(["a cat!", "a cat", "wow ! a cat"])
    for number, last in enumerate((4, 3, 5)):
        torch.testing.assert_close(found.vectors[number, last], pooled[number])


def test_what_a_modulation_does_not_need_is_not_computed() -> None:
    backbone = load_backbone(_tiny(), [3], 32)
    assert backbone.query_features(["a cat"], "pooled").vectors.shape == (1, 1, 32)
    assert backbone.query_features(["a cat"], "tokens").vectors.shape == (1, 4, 32)
    backbone.tokenize = lambda queries: (_ for _ in ()).throw(AssertionError("asked"))
    assert backbone.query_features(["a cat"], "none").vectors.shape == (1, 0, 0)


def test_a_query_in_a_row_is_heard_once(packaged: Backbone) -> None:
    heard = []
    hook = packaged.towers.text.transformer.register_forward_hook(lambda *_: heard.append(1))
    with torch.inference_mode():
        words = packaged.text_tokens(["Is there a zebra?"]).vectors
        whole = packaged.text_features(["Is there a zebra?"])
        assert len(heard) == 1
        other = packaged.text_features(["Is there a horse?"])
        assert len(heard) == 2
        torch.testing.assert_close(packaged.text_features(["Is there a zebra?"]), whole)
    hook.remove()
    assert not torch.allclose(whole, other)
    # What was heard while nothing was learnt may be learnt from: no tensor of inference mode is kept.
    learning = torch.nn.Linear(384, 1)
    with torch.inference_mode():
        packaged.text_tokens(["Is there a zebra?"])
    learning(packaged.text_tokens(["Is there a zebra?"]).vectors).sum().backward()
    assert learning.weight.grad is not None
    assert words.shape[-1] == 384


def test_towers_stay_frozen(packaged: Backbone) -> None:
    packaged.train()
    assert not any(module.training for module in packaged.modules())
    assert not any(parameter.requires_grad for parameter in packaged.parameters())
    assert not packaged.image_features(torch.rand(1, 3, 160, 160))[0].requires_grad


def test_frozen_towers_survive_training_steps_bit_by_bit(packaged: Backbone) -> None:
    torch.manual_seed(0)
    model = CodecModel(read_recipe(Path("embedded")).codec, packaged)
    # Folded away: their running statistics are what could move without any gradient.
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in packaged.modules())
    before = {name: value.clone() for name, value in packaged.state_dict().items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(2):
        model.train()
        packaged.train()
        maps = packaged.image_features(torch.rand(2, 3, 160, 160))
        result = model(maps, model.query_features(["Is there a cat?", "How many?"]))
        (result.pictures.square().mean() + result.quantization_loss).backward()
        optimizer.step()
    after = packaged.state_dict()
    assert len(before) > 150
    for name, value in before.items():
        assert torch.equal(after[name], value), name
    assert all(p.grad is None and not p.requires_grad for p in packaged.parameters())
    assert not any(module.training for module in packaged.modules())


def test_random_packaged_towers_for_the_baseline_without_pretraining() -> None:
    config = read_recipe(Path("embedded")).codec.backbone
    assert isinstance(config, PackagedTowers)
    state = torch.random.get_rng_state()
    fresh = load_backbone(config.model_copy(update={"trainable": True}), [0, 4], 160)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(p.requires_grad for p in fresh.parameters())
    fresh.train()
    maps = fresh.image_features(torch.rand(2, 3, 160, 160))
    maps[4].square().mean().backward()
    stem = fresh.towers.visual.trunk.conv_stem.weight
    assert float(stem.grad.abs().sum()) > 0
    pretrained = load_backbone(config, [0, 4], 160).towers.visual.trunk.conv_stem.weight
    assert not torch.allclose(stem, pretrained)


@pytest.mark.parametrize(
    ("model", "size", "mean"),
    [
        ("ViT-B-16-quickgelu", 224, OPENAI_MEAN),
        ("RN50", 224, OPENAI_MEAN),
        ("ViT-B-16-SigLIP", 224, (0.5, 0.5, 0.5)),
    ],
)
def test_pixel_statistics_are_the_models(model: str, size: int, mean: tuple[float, ...]) -> None:
    config = OpenClipModel(kind="open_clip", model=model)
    assert _pixel_statistics(config)[0] == pytest.approx(mean)
    stated = config.model_copy(update={"pixel_mean": (0.1, 0.2, 0.3), "pixel_std": (1.0, 1.0, 1.0)})
    assert _pixel_statistics(stated)[0] == (0.1, 0.2, 0.3)


def test_ambiguous_pixel_statistics_are_asked_for(tmp_path: Path) -> None:
    config = OpenClipModel(
        kind="open_clip",
        model="ViT-L-14",
        weights_file=tmp_path / "w.pt",
        weights_sha256="0" * 64,
    )
    with pytest.raises(WeightsError, match="pixel_mean"):
        _pixel_statistics(config)


@pytest.mark.parametrize(
    ("model", "size", "expected"),
    [
        ("no-such-model", 32, "knows no model"),
        ("ViT-B-16-quickgelu", 160, "takes 224 pixels"),
        ("coca_ViT-B-32", 224, "CoCa"),
        ("roberta-ViT-B-32", 224, "Hugging Face hub"),
    ],
)
def test_open_clip_models_that_cannot_be_had(model: str, size: int, expected: str) -> None:
    with pytest.raises(WeightsError, match=expected):
        load_backbone(OpenClipModel(kind="open_clip", model=model), [0], size)


def test_vit_comes_through_the_same_door() -> None:
    backbone = load_backbone(_tiny(), [1, 3], 32)
    maps = backbone.image_features(torch.rand(2, 3, 32, 32))
    assert {index: tuple(m.shape) for index, m in maps.items()} == {
        1: (2, 32, 4, 4),
        3: (2, 32, 4, 4),
    }
    assert backbone.text_features(["a cat", "a dog"]).shape == (2, 32)


def test_vit_weights_from_a_local_file(tmp_path: Path) -> None:
    random_towers = load_backbone(_tiny(), [3], 32)
    state = {name: value + 0.01 for name, value in random_towers.towers.state_dict().items()}
    file = tmp_path / "weights.safetensors"
    save_file(state, file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    config = _tiny().model_copy(update={"weights_file": file, "weights_sha256": digest})
    loaded = load_backbone(config, [3], 32)
    for name, value in loaded.towers.state_dict().items():
        torch.testing.assert_close(value, state[name])
    assert towers_digest(config) != towers_digest(_tiny())
    damaged = bytearray(file.read_bytes())
    damaged[-1] ^= 1
    file.write_bytes(damaged)
    with pytest.raises(WeightsError, match=r"sha256.*weights_file in the recipe"):
        load_backbone(config, [3], 32)


def test_missing_package_is_one_clear_error() -> None:
    config = read_recipe(Path("embedded")).codec.backbone
    assert isinstance(config, PackagedTowers)
    tower = config.image_tower.model_copy(update={"package": "no_such_package_here"})
    with pytest.raises(WeightsError, match=r"no_such_package_here.*make setup"):
        load_backbone(config.model_copy(update={"image_tower": tower}), [0], 160)


def test_wrong_sha256_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "weights.bin"
    file.write_bytes(b"weights")
    check_sha256(file, hashlib.sha256(b"weights").hexdigest())
    with pytest.raises(WeightsError, match=r"weights\.bin.*sha256"):
        check_sha256(file, "0" * 64)
    with pytest.raises(WeightsError, match="No such file"):
        check_sha256(tmp_path / "absent.bin", "0" * 64)


def test_importing_the_border_types_loads_no_torch() -> None:
    code = (
        "import sys, semantic, semantic.index_frame, semantic.geometries\n"
        "assert not {'torch', 'PIL', 'timm', 'open_clip'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])
