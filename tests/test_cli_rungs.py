"""``uoisc rungs``: the same weights at other rates, and nothing else of a codec changed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cli.main import run
from semantic.checkpoint import read_checkpoint, read_metadata, write_checkpoint
from semantic.geometries import read_geometries
from semantic.model import CodecModel
from semantic.recipes import load_recipe

LADDER = "codec.ladder={grid: 4, levels: [[1, 1], [2, 2], [4, 4]], rungs: [{levels: [0]}]}"
OTHER = "codec.ladder.rungs=[{levels: [0]}, {levels: [0, 2], payload_bits: 384}]"


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """Random weights will do."""
    recipe = load_recipe(Path("tiny"), [LADDER, "training.steps=77"])
    torch.manual_seed(0)
    file = tmp_path / "trained.safetensors"
    write_checkpoint(
        file, recipe, CodecModel(recipe.codec), {"psnr": 1.5}, "a" * 64, intent_judge="somebody"
    )
    return file


def test_the_weights_stay_and_the_rates_change(trained: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.safetensors"
    assert (
        run(["rungs", str(trained), "tiny", "-o", str(new), "--set", LADDER, "--set", OTHER]) == 0
    )
    before, _, old_metadata = read_checkpoint(trained)
    after, geometry, metadata = read_checkpoint(new)
    for name, tensor in before.state_dict().items():
        torch.testing.assert_close(after.state_dict()[name], tensor, rtol=0, atol=0)
    assert [one.payload_bits for one in read_geometries(new.with_suffix(".json"))] == [
        128,
        384,
        512,
    ]
    assert metadata["codec_id"] == geometry.codec_id != old_metadata["codec_id"]
    for kept in ("training", "metrics", "data_sha256", "intent_judge"):
        assert metadata[kept] == old_metadata[kept]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "codec.layers=[{features: [1], grid: 4, dim: 16}, {features: [2], grid: 4, dim: 16}]",
            "only",
        ),
        ("codec.ladder.levels=[[1, 1], [2, 2], [3, 4]]", "only ladder.rungs"),
        ("codec.ladder.rungs=[{levels: [0, 9], payload_bits: 384}]", "expected 0 to 2"),
    ],
)
def test_another_codec_is_refused(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: str, message: str
) -> None:
    new = tmp_path / "new.safetensors"
    assert (
        run(["rungs", str(trained), "tiny", "-o", str(new), "--set", LADDER, "--set", change]) == 1
    )
    assert message in capsys.readouterr().err
    assert not new.exists()
    assert read_metadata(trained)
