"""The reference of the GNU Radio Companion blocks as Markdown, made from the files that Companion reads."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml


def reference_markdown(folder: Path) -> str:
    """One section for every block: what it is for, its ports, one table of its parameters.

    Args:
        folder: with the ``*.block.yml`` files.

    Raises:
        ValueError: a parameter that the block's documentation does not explain.
    """
    blocks = [yaml.safe_load(file.read_text()) for file in sorted(folder.glob("*.block.yml"))]
    return "\n".join(_section(block) for block in blocks)


def explain(block: dict[str, Any]) -> tuple[list[str], dict[str, str]]:
    """A block's documentation taken apart: paragraphs, and what it says about each parameter, by id.

    Explanations begin with the parameter's label, without its unit, and a colon: ``Gap: silence after``.

    Raises:
        ValueError: a parameter that is not explained.
    """
    names = {_name(one): str(one["id"]) for one in block.get("parameters", [])}
    labels = "|".join(re.escape(name) for name in names)
    parts = re.split(rf"^({labels}): ", str(block["documentation"]), flags=re.MULTILINE)
    found = {names[name]: " ".join(text.split()) for name, text in _pairs(parts[1:])}
    missing = set(names.values()) - set(found)
    if missing:
        raise ValueError(f"block {block['id']}: documentation does not explain {sorted(missing)}")
    return [" ".join(paragraph.split()) for paragraph in parts[0].strip().split("\n\n")], found


def _pairs(parts: list[str]) -> Iterator[tuple[str, str]]:
    yield from zip(parts[::2], parts[1::2], strict=True)


def _name(parameter: dict[str, Any]) -> str:
    return re.sub(r" \(.*\)$", "", str(parameter["label"]))


def _section(block: dict[str, Any]) -> str:
    paragraphs, explained = explain(block)
    lines = [f"### {block['label']}", ""]
    for paragraph in paragraphs:
        lines += [paragraph, ""]
    lines += [f"In: {_ports(block, 'inputs')}. Out: {_ports(block, 'outputs')}.", ""]
    if explained:
        lines += ["| parameter | id | default | |", "|---|---|---|---|"]
    for one in block.get("parameters", []):
        text = explained[one["id"]].replace("|", "\\|")
        default = str(one["default"])
        lines.append(
            f"| {one['label']} | `{one['id']}` | {f'`{default}`' if default else 'empty'} | {text} |"
        )
    return "\n".join(lines) + "\n"


def _ports(block: dict[str, Any], side: str) -> str:
    return ", ".join(_port(port) for port in block.get(side, [])) or "nothing"


def _port(port: dict[str, Any]) -> str:
    if port["domain"] == "message":
        return f"messages `{port['id']}`"
    return f"{port['dtype']} samples"
