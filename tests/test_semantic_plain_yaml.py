"""YAML of recipes and plans: every key stands once."""

from __future__ import annotations

from pathlib import Path

import pytest

from semantic.codec_config import ConfigError, read_recipe
from semantic.evaluation.plan import PlanError, load_plan
from semantic.plain_yaml import read_plain_yaml

BAD = {
    b"a: 1\nb: 2\na: 3\n": r"not YAML \(line 3: a: stands here and on line 1\)",
    b"- {x: {y: 1, y: 1}}\n": r"not YAML \(line 1: y: stands here and on line 1\)",
    b"a: [\n": r"not YAML \(line 2: ",
    b"? [1, 2]\n: 3\n": r"not YAML \(line 1: found unhashable key\)",
    b"\xff\xfe": "expected YAML text in UTF-8",
    b"a: \x00": r"not YAML \(unacceptable character",
    b"[" * 5000: r"not YAML \(",
    b'a: !!int ""\n': r"not YAML \(",
    b"a: !!timestamp x\n": r"not YAML \(",
    b"a: &a [1]\nb: [*a, *a]\n": r"not YAML \(line 2: references",
    b"a: " + b"1:" * 100_000 + b"1\n": r"not YAML \(line 1: ",
    b"#" * 300_000: "more than 256 KiB",
}


@pytest.mark.parametrize("content", BAD, ids=lambda content: repr(content)[:20])
def test_what_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "plan.yaml"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=BAD[content]) as caught:
        read_plain_yaml(file)
    assert "\n" not in str(caught.value)
    with pytest.raises(PlanError, match=f"plan.yaml: {BAD[content]}"):
        load_plan(file)
    with pytest.raises(ConfigError, match=f"plan.yaml: {BAD[content]}"):
        read_recipe(file)


def test_what_is_read(tmp_path: Path) -> None:
    file = tmp_path / "some.yaml"
    file.write_text("a: {x: 1, y: [2, {x: 3}]}\nb: {x: ünicode}\n", encoding="utf-8")
    assert read_plain_yaml(file) == {"a": {"x": 1, "y": [2, {"x": 3}]}, "b": {"x": "ünicode"}}
    with pytest.raises(FileNotFoundError):
        read_plain_yaml(tmp_path / "none.yaml")
