"""YAML files of this project: plain data, in which every key stands once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

# A plan or a recipe is a page of text; anything much longer is some other file.
MAX_FILE_BYTES = 256 * 1024
# What PyYAML raises beside its own errors, for values that carry the wrong tag (!!int "").
WRONG_VALUES = (
    *(ValueError, IndexError, KeyError, TypeError),
    *(AttributeError, OverflowError, RecursionError),
)


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses repeated keys (the last would win, silently) and references (they unfold)."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(
                problem="references (*name) are not used here",
                problem_mark=self.peek_event().start_mark,
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[Any, int] = {}
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                continue  # SafeLoader says what is wrong with it
            line = key_node.start_mark.line + 1
            if key_node.value in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"{key_node.value}: stands here and on line {seen[key_node.value]}",
                    problem_mark=key_node.start_mark,
                )
            seen[key_node.value] = line
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """Refuse what YAML 1.1 reads as octal (010 is 8) or to base 60 (1:30 is 90)."""
        text = str(node.value).replace("_", "").lstrip("+-")
        if ":" in text or (len(text) > 1 and text[0] == "0" and text[1] not in "xXbB"):
            raise yaml.MarkedYAMLError(
                problem=f"{node.value} is not the number it looks like: write it without 0 in front or "
                "colon, or in quotes where text is meant",
                problem_mark=node.start_mark,
            )
        return super().construct_yaml_int(node)

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float:
        """Refuse numbers to base 60 (1:30.5 is 90.5)."""
        if ":" in node.value:
            return float(self.construct_yaml_int(node))
        return super().construct_yaml_float(node)


for _name in ("int", "float"):
    _Loader.add_constructor(
        f"tag:yaml.org,2002:{_name}", getattr(_Loader, f"construct_yaml_{_name}")
    )


def read_plain_yaml(file: Path) -> Any:
    """Data of a YAML file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no such file; the message has the line where there is one.
    """
    with file.open("rb") as opened:
        raw = opened.read(MAX_FILE_BYTES + 1)
    if len(raw) > MAX_FILE_BYTES:
        raise ValueError(f"more than {MAX_FILE_BYTES // 1024} KiB, expected a page of YAML")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("expected YAML text in UTF-8, this is not") from None
    return parse_plain_yaml(text)


def parse_plain_yaml(text: str) -> Any:
    """Data of a YAML text; ValueError as of :func:`read_plain_yaml`."""
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = "" if mark is None else f"line {mark.line + 1}: "
        raise ValueError(f"not YAML ({line}{error.problem})") from None
    except (yaml.YAMLError, *WRONG_VALUES) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"not YAML ({reason})") from None
