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
    check_sha256,
    load_backbone,
    towers_digest,
)
from semantic.codec_config import OpenClipModel, PackagedTowers, read_recipe


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


def test_towers_stay_frozen(packaged: Backbone) -> None:
    packaged.train()
    assert not any(module.training for module in packaged.modules())
    assert not any(parameter.requires_grad for parameter in packaged.parameters())
    assert not packaged.image_features(torch.rand(1, 3, 160, 160))[0].requires_grad


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
