"""Values of a recipe changed one by one, and what is said of wrong ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from semantic.codec_config import ConfigError, read_recipe
from semantic.recipes import load_recipe

TINY = Path("tiny")


def test_values_are_changed() -> None:
    assert load_recipe(TINY) == read_recipe(TINY)
    changes = [
        "training.steps=7",
        "training.learning_rate=1e-4",
        "training.intent={weight: 0.5}",
        "training.intent.share=0.25",
        "codec.ladder={grid: 4, levels: [[1, 1], [2, 4]]}",
        "training.ladder_probability=0.5",
        "training.steps=8",
    ]
    recipe = load_recipe(TINY, changes)
    assert recipe.training.steps == 8
    assert recipe.training.learning_rate == 1e-4
    assert recipe.training.intent is not None
    assert recipe.training.intent.share == 0.25
    assert recipe.codec.ladder is not None
    untouched = read_recipe(TINY)
    assert recipe.training.batch_size == untouched.training.batch_size
    assert recipe.codec.layers == untouched.codec.layers


def test_precision_says_more_than_bf16() -> None:
    assert load_recipe(TINY).training.arithmetic(fast_bf16=True) == "fp32"
    where_fast = load_recipe(TINY, ["training.bf16=true"]).training
    assert where_fast.arithmetic(fast_bf16=True) == "bf16"
    assert where_fast.arithmetic(fast_bf16=False) == "fp32"
    exact = load_recipe(TINY, ["training.bf16=true", "training.precision=fp32"]).training
    assert exact.arithmetic(fast_bf16=True) == "fp32"
    emulated = load_recipe(TINY, ["training.precision=bf16"]).training
    assert emulated.arithmetic(fast_bf16=False) == "bf16"
    # A recipe without it reads as it did before there was one, so that older runs resume.
    assert "precision" not in read_recipe(TINY).model_dump_json()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["training.steps"], "--set training.steps: expected section.key=value"),
        (["training steps=1"], "expected section.key=value"),
        (["training.steps=[1"], "training.steps: '[1' is no YAML value"),
        (["training.steps=0"], "--set training.steps=0: training.steps: Input should be greater"),
        (["training.steps=x"], "valid integer, unable to parse string as an integer, found 'x'"),
        (["training.stepz=1"], "training.stepz: unknown key, did you mean steps?"),
        (["zzz.a=1"], "zzz: unknown key, expected one of codec, training"),
        (["training.intent.wait=1"], "unknown key, did you mean weight?"),
        (["training.steps.a=1"], "--set training.steps.a=1: training.steps is 40, not a section"),
        (
            ["training.intent.share=0.5"],
            "--set training.intent.share=0.5: training.intent.weight: Field",
        ),
        (["codec.quantizer.codewords=17"], "codec.quantizer: codewords: expected a power of two"),
        (["training.ladder_probability=1"], "training.ladder_probability: needs codec.ladder"),
        (["training.seed=1", "training.steps=-1"], "--set training.steps=-1: training.steps: "),
    ],
)
def test_a_mistake_names_override_key_value_and_expectation(
    changes: list[str], message: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        load_recipe(TINY, changes)
    assert message in str(raised.value)
