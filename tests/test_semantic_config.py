"""Recipes: what ships is valid, and a mistake is one clear error."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from semantic.checkpoint import EMBEDDED_CHECKPOINT, read_metadata
from semantic.codec_config import (
    CONFIG_FOLDER,
    CodecConfig,
    ConfigError,
    TrainingConfig,
    read_recipe,
)
from semantic.training.detail_recipe import (
    DetailRecipe,
    RecognitionRecipe,
    is_detail_recipe,
    read_detail_recipe,
)


@pytest.mark.parametrize("path", sorted(CONFIG_FOLDER.glob("*.yaml")), ids=lambda p: p.stem)
def test_shipped_recipes_are_valid(path: Path) -> None:
    if is_detail_recipe(path):
        assert isinstance(read_detail_recipe(path), DetailRecipe | RecognitionRecipe)
        return
    assert read_recipe(path).codec.name == path.stem


def test_the_paper_recipe_has_the_paper_numbers() -> None:
    codec = read_recipe(Path("paper_vitb16")).codec
    indices = codec.geometries("00000000")[-1].indices
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
        ("codec.layers.0.stages", 3, "residual quantiser"),
        ("codec.quantizer.residual", True, "segment_length"),
        ("codec.ladder", {"grid": 4, "levels": [[1, 1], [1, 0]]}, "does not add"),
        ("codec.ladder", {"grid": 4, "levels": [[1, 9]]}, "at most"),
        ("codec.ladder", {"grid": 3, "levels": [[1, 1], [2, 1]]}, "no multiple"),
        ("codec.ladder", {"grid": 4, "levels": [[1, 1]], "rungs": [{"levels": [1]}]}, "0 to 0"),
        (
            "codec.ladder",
            {"grid": 4, "levels": [[1, 1]], "rungs": [{"levels": [0], "payload_bits": 9}]},
            "several levels",
        ),
        (
            "codec.ladder",
            {"grid": 4, "levels": [[1, 1], [2, 2]], "rungs": [{"levels": [0, 1]}]},
            "several levels",
        ),
        (
            "codec.ladder",
            {
                "grid": 4,
                "levels": [[1, 1], [2, 2]],
                "rungs": [{"levels": [0, 1], "payload_bits": 99}],
            },
            "do not hold",
        ),
        (
            "codec.ladder",
            {"grid": 4, "levels": [[1, 1], [2, 2]], "rungs": [{"levels": [1]}, {"levels": [0]}]},
            "bits must rise",
        ),
        ("training.ladder_probability", 0.5, "codec.ladder"),
        ("codec.layers.1.grid", 8, "finest comes first"),
        ("codec.image_size", 33, "multiple of the first layer's grid"),
        ("codec.backbone.weights_file", "w.pt", "weights_sha256"),
        ("codec.film", "both", "film"),
        ("codec.backbone.pixel_mean", [0.5, 0.5, 0.5], "come together"),
        ("codec.backbone.trainable", True, "feature_cache"),
        ("training.intent", {"weight": 1, "judge": "recognition"}, "must not teach"),
        ("training.intent", {"weight": 1, "judge": "llava"}, "folder of a Llava"),
        (
            "training.intent",
            {"weight": 1, "judge": "llava", "path": "x", "answer_weight": 1},
            "answer_weight, side: for judge tower",
        ),
        ("training.adversarial", {"weight": 1, "form": "cubic"}, "adversarial.form"),
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


def test_a_trainable_tower_reads_no_weights(tmp_path: Path) -> None:
    path = _change(tmp_path, "codec.backbone.trainable", True)
    data = yaml.safe_load(path.read_text())
    data["training"]["feature_cache"] = False
    path.write_text(yaml.safe_dump(data))
    assert read_recipe(path).codec.backbone.trainable
    data["codec"]["backbone"] |= {"weights_file": "w.pt", "weights_sha256": "0" * 64}
    path.write_text(yaml.safe_dump(data))
    with pytest.raises(ConfigError, match="random weights"):
        read_recipe(path)


def test_settings_added_later_leave_older_codecs_alone() -> None:
    """At their defaults they are not written, so that a codec from before them keeps its name."""
    older = read_recipe(Path("embedded_start"))
    for part, added in (
        (older.codec, {"film", "ladder"}),
        (older.training, {"intent", "adversarial", "ladder_probability", "log_mse_weight"}),
    ):
        written = json.loads(part.model_dump_json())
        assert not added & written.keys()
        assert type(part).model_validate_json(part.model_dump_json()) == part
    assert older.codec.film == "pooled"
    for name, value in (("film", "gated"), ("film", "none")):
        changed = older.codec.model_copy(update={name: value})
        assert json.loads(changed.model_dump_json())[name] == value
        assert CodecConfig.model_validate_json(changed.model_dump_json()) == changed


def test_the_shipped_codec_reads_as_it_was_written() -> None:
    metadata = read_metadata(EMBEDDED_CHECKPOINT)
    codec = CodecConfig.model_validate_json(metadata["codec"])
    assert codec.model_dump_json() == metadata["codec"]
    assert codec == read_recipe(Path("embedded")).codec
    training = TrainingConfig.model_validate_json(metadata["training"])
    assert training.model_dump_json() == metadata["training"]


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
