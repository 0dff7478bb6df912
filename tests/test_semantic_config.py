"""Recipes: what ships is valid, and a mistake is one clear error."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from semantic.codec_config import CONFIG_FOLDER, ConfigError, read_recipe


@pytest.mark.parametrize("path", sorted(CONFIG_FOLDER.glob("*.yaml")), ids=lambda p: p.stem)
def test_shipped_recipes_are_valid(path: Path) -> None:
    assert read_recipe(path).codec.name == path.stem


def test_the_paper_recipe_has_the_paper_numbers() -> None:
    codec = read_recipe(Path("paper_vitb16")).codec
    indices = sum(
        layer.grid**2 * layer.dim // codec.quantizer.segment_length for layer in codec.layers
    )
    assert indices == 12_544
    assert indices * codec.quantizer.bits_per_index == 112_896


def _change(tmp_path: Path, key: str, value: object) -> Path:
    data = yaml.safe_load((CONFIG_FOLDER / "tiny.yaml").read_text())
    place = data
    *parents, last = key.split(".")
    for parent in parents:
        place = place[int(parent)] if isinstance(place, list) else place[parent]
    place[last] = value
    path = tmp_path / "changed.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("codec.quantizer.codeword", 16, "codeword"),
        ("codec.quantizer.codewords", 100, "power of two"),
        ("codec.layers.0.dim", 18, "multiple of segment_length"),
        ("codec.layers.1.grid", 8, "finest comes first"),
        ("codec.image_size", 33, "multiple of the first layer's grid"),
        ("codec.backbone.weights_file", "w.pt", "weights_sha256"),
        ("training.batch_size", 0, "batch_size"),
        ("training.learning_rate", "fast", "learning_rate"),
    ],
)
def test_a_mistake_names_file_and_cause(
    tmp_path: Path, key: str, value: object, expected: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        read_recipe(_change(tmp_path, key, value))
    assert "changed.yaml" in str(caught.value)
    assert expected in str(caught.value)


def test_files_that_are_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_recipe(Path("no_such_recipe"))
    path = tmp_path / "broken.yaml"
    path.write_text("codec: [")
    with pytest.raises(ConfigError, match="not YAML"):
        read_recipe(path)
    path.write_text("just text")
    with pytest.raises(ConfigError, match=r"broken\.yaml"):
        read_recipe(path)
