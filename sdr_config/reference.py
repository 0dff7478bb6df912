"""The reference of all keys as Markdown, made from the schema so that it cannot go stale."""

from __future__ import annotations

from typing import Any

from sdr_config.load import expected_text
from sdr_config.schema import Profile

_RADIO_KINDS = {
    "channel": "ChannelRadio",
    "uhd": "UhdRadio",
    "soapy": "SoapyRadio",
    "zmq": "ZmqRadio",
    "file": "FileRadio",
}


def reference_markdown() -> str:
    """One table for every section: key, default, what it may be."""
    schema = Profile.model_json_schema()
    definitions = schema["$defs"]
    top = {
        name: node
        for name, node in schema["properties"].items()
        if _section_of(node, definitions) is None and name != "radio"
    }
    parts = [_table("(top level)", {"properties": top, "required": schema["required"]})]
    for name, node in schema["properties"].items():
        section = _section_of(node, definitions)
        if section is not None:
            parts.append(_table(f"`{name}`", section))
            parts += [
                _table(f"`{name}.{key}`", inner)
                for key, value in section["properties"].items()
                if (inner := _section_of(value, definitions)) is not None
            ]
    for kind, definition in _RADIO_KINDS.items():
        section = definitions[definition]
        parts.append(_table(f"`radio`, `kind: {kind}`", _without_paths(section)))
        path = section["properties"].get("tx")
        if path is not None:
            inner = _section_of(path, definitions)
            assert inner is not None
            parts.append(_table(f"`radio.tx` and `radio.rx`, `kind: {kind}`", inner))
    return "\n".join(parts)


def _section_of(node: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any] | None:
    references = [member.get("$ref") for member in node.get("anyOf", [node])]
    for reference in filter(None, references):
        section: dict[str, Any] = definitions[reference.rpartition("/")[2]]
        return section
    return None


def _without_paths(section: dict[str, Any]) -> dict[str, Any]:
    properties = {
        name: {"description": node["description"]} if name in ("tx", "rx") else node
        for name, node in section["properties"].items()
    }
    return {**section, "properties": properties}


def _table(title: str, section: dict[str, Any]) -> str:
    required = section.get("required", [])
    lines = [f"### {title}", "", "| key | default | value |", "|---|---|---|"]
    for name, node in section["properties"].items():
        default = "required" if name in required else f"`{_literal(node.get('default'))}`"
        lines.append(f"| `{name}` | {default} | {_value(node)} |")
    return "\n".join(lines) + "\n"


def _value(node: dict[str, Any]) -> str:
    if "const" in node:
        return f"`{node['const']}`"
    members = [member for member in node.get("anyOf", []) if member.get("type") != "null"]
    if members:
        node = {**node, **members[0], "nullable": True}
    if "type" not in node and "enum" not in node:
        return str(node["description"])
    return expected_text(node).replace("|", "\\|")


def _literal(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return '""' if value == "" else str(value)
