"""From a YAML file and ``a.b=c`` overrides to a checked :class:`~sdr_config.schema.Profile`.

Every mistake ends in one :class:`ConfigError`, one line that says where, which key, what was found
and what was expected.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from sdr_config.schema import Profile

# A profile is a page of text; anything much longer is some other file.
MAX_FILE_BYTES = 256 * 1024
_MAX_SHOWN_CHARACTERS = 60
# What PyYAML raises beside its own errors, for values that carry the wrong tag (!!int "").
_WRONG_VALUES = (
    *(ValueError, IndexError, KeyError, TypeError),
    *(AttributeError, OverflowError, RecursionError),
)

Key = tuple[str | int, ...]


class ConfigError(ValueError):
    """A profile that cannot be used.

    Args:
        source: the file (with line) or the override the value comes from.
        key: dotted key, empty where the file as a whole is meant.
        problem: what was found and what was expected.
    """

    def __init__(self, source: str, key: str, problem: str) -> None:
        self.source, self.key, self.problem = source, key, problem
        # File names and values come from outside: whatever they hold, the message is one line.
        super().__init__(_one_line(": ".join(part for part in (source, key, problem) if part)))


def shipped_profiles() -> list[str]:
    """Names of the profiles that come with the package."""
    folder = resources.files("sdr_config") / "profiles"
    return sorted(
        Path(entry.name).stem for entry in folder.iterdir() if entry.name.endswith(".yaml")
    )


def load_profile(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Profile:
    """Read, override and check a profile.

    Args:
        name_or_path: the name of a shipped profile (``loopback``), or the path of a YAML file.
            What ends in .yaml or .yml or holds a slash is a path.
        overrides: ``section.key=value`` each, the value as YAML; later ones win.

    Raises:
        ConfigError: one line naming file, key, value and what was expected.
    """
    source, text = _read(name_or_path)
    data, lines = _parse(source, text)
    if not isinstance(data, dict):
        raise ConfigError(source, "", f"expected sections with keys, found {_show(data)}")
    origins: dict[Key, str] = {}
    for override in overrides:
        key = _apply_override(data, override)
        origins[key] = f"--set {_shorten(override)}"
    try:
        return Profile.model_validate(data)
    except ValidationError as error:
        raise _explain(error, source, lines, origins) from None


def _read(name_or_path: str | Path) -> tuple[str, str]:
    name = str(name_or_path)
    if isinstance(name_or_path, Path) or "/" in name or name.endswith((".yaml", ".yml")):
        path = Path(name_or_path)
    else:
        known = shipped_profiles()
        if name not in known:
            raise ConfigError(
                f"profile {_shorten(name)!r}",
                "",
                f"unknown, expected one of {', '.join(known)} or the path of a .yaml file",
            )
        path = Path(str(resources.files("sdr_config") / "profiles" / f"{name}.yaml"))
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(str(path), "", f"cannot be read: {reason}") from None
    if len(raw) > MAX_FILE_BYTES:
        raise ConfigError(
            str(path), "", f"expected a profile of at most {MAX_FILE_BYTES} bytes, this is longer"
        )
    try:
        return str(path), raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(str(path), "", "expected YAML text in UTF-8, this is not") from None


class _Loader(yaml.SafeLoader):
    """Plain data alone (SafeLoader), 1e6 is a number, and nothing refers to anything else."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        # A page of text that aliases unfold to gigabytes is the classic way to stop a YAML reader.
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(
                problem="references (*name) are not used here", problem_mark=mark
            )
        return super().compose_node(parent, index)

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


# YAML 1.1, which PyYAML follows, wants 1.0e+6; nobody writes it, and "1e6" would become text.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d[\d_]*)(\.[\d_]*)?[eE][-+]?\d+$"),
    list("-+0123456789"),
)


def _parse(source: str, text: str) -> tuple[Any, dict[Key, int]]:
    """Data of a YAML text, and for every key the line it stands on."""
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None, {}
            lines: dict[Key, int] = {}
            _walk(node, (), source, lines)
            return loader.construct_document(node), lines
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark and not source.startswith("--set") else ""
        raise ConfigError(f"{source}{line}", "", f"not valid YAML: {error.problem}") from None
    except ConfigError:
        raise
    except (yaml.YAMLError, *_WRONG_VALUES) as error:
        reason = _one_line(str(error)) or type(error).__name__
        raise ConfigError(source, "", f"not valid YAML: {reason}") from None


def _walk(node: yaml.Node, key: Key, source: str, lines: dict[Key, int]) -> None:
    """Note the line of every key; refuse duplicates (the last would win, silently)."""
    lines.setdefault(key, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _walk(item, (*key, index), source, lines)
    if not isinstance(node, yaml.MappingNode):
        return
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode) or key_node.tag != "tag:yaml.org,2002:str":
            raise ConfigError(f"{source}:{line}", _dotted(key), "expected a name as key")
        inner = (*key, str(key_node.value))
        if inner in lines:
            raise ConfigError(
                f"{source}:{line}", _dotted(inner), f"stands here and on line {lines[inner]}"
            )
        lines[inner] = line
        _walk(value_node, inner, source, lines)


def _apply_override(data: dict[str, Any], override: str) -> Key:
    shown = f"--set {_shorten(override)}"
    name, equals, text = override.partition("=")
    key = tuple(name.strip().split("."))
    if not equals or not all(re.fullmatch(r"\w+", part) for part in key):
        raise ConfigError(shown, "", "expected section.key=value")
    value, _ = _parse(shown, text)
    section = data
    for depth, part in enumerate(key[:-1], start=1):
        if section.get(part) is None:
            section[part] = {}
        section = section[part]
        if not isinstance(section, dict):
            raise ConfigError(
                shown, _dotted(key[:depth]), f"is {_show(section)}, not a section with keys"
            )
    section[key[-1]] = value
    return key


def _explain(
    error: ValidationError, source: str, lines: dict[Key, int], origins: dict[Key, str]
) -> ConfigError:
    """The first mistake as one line; a mistyped key first, for it explains missing ones."""
    problems = sorted(error.errors(include_url=False), key=lambda p: p["type"] != "extra_forbidden")
    problem = problems[0]
    key = _plain_key(problem["loc"])
    text = _describe(problem, key)
    if len(problems) > 1:
        text += f" (and {len(problems) - 1} more)"
    return ConfigError(_origin(key, source, lines, origins), _dotted(key), text)


def _origin(key: Key, source: str, lines: dict[Key, int], origins: dict[Key, str]) -> str:
    for overridden, origin in reversed(origins.items()):
        shared = min(len(key), len(overridden))
        if key and key[:shared] == overridden[:shared]:
            return origin
    if not key:
        # A combination of several sections: an override may well be the cause, so name them too.
        return " ".join([source, *origins.values()])
    depth = len(key)
    while depth and key[:depth] not in lines:
        depth -= 1
    return f"{source}:{lines[key[:depth]]}" if depth else source


def _plain_key(location: tuple[int | str, ...]) -> Key:
    """Pydantic's location without the name of the union member it puts after ``radio``."""
    if len(location) > 1 and location[0] == "radio":
        return ("radio", *location[2:])
    return location


def _describe(problem: Any, key: Key) -> str:
    kind, found = problem["type"], problem["input"]
    if kind == "extra_forbidden":
        siblings = _keys_beside(problem["loc"])
        close = difflib.get_close_matches(str(key[-1]), siblings, n=1)
        expected = f"did you mean {close[0]}?" if close else f"expected {', '.join(siblings)}"
        return f"unknown key, {expected}"
    if kind == "value_error":
        reason = str(problem["ctx"]["error"])
        # Where several keys are at odds the message names them itself.
        return reason if isinstance(found, dict) else f"{_show(found)}: {reason}"
    if kind == "union_tag_not_found":
        return f"radio.kind is missing, expected one of {_radio_kinds()}"
    if kind == "union_tag_invalid":
        return f"radio.kind is {_show(found.get('kind'))}, expected one of {_radio_kinds()}"
    expected = expected_text(_schema_of(problem["loc"]))
    if kind == "missing":
        return f"is missing, expected {expected}"
    return f"{_show(found)} does not fit, expected {expected}"


def _radio_kinds() -> str:
    radio = Profile.model_json_schema()["properties"]["radio"]
    return ", ".join(radio["discriminator"]["mapping"])


def _schema_of(location: tuple[int | str, ...]) -> dict[str, Any]:
    """The part of the JSON schema that describes a key; empty where the schema ends."""
    schema = Profile.model_json_schema()
    definitions = schema["$defs"]
    node: dict[str, Any] = schema
    for part in location:
        node = _resolve(node, definitions)
        if "discriminator" in node:
            node = {"$ref": node["discriminator"]["mapping"][part]}
        elif isinstance(part, int):
            node = node.get("items", {})
        else:
            node = node.get("properties", {}).get(part, {})
    return _resolve(node, definitions)


def _resolve(node: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Follow a reference; of ``X or null`` take X, whose keys are the ones that matter."""
    if "anyOf" in node:
        members = [member for member in node["anyOf"] if member.get("type") != "null"]
        if len(members) == 1:
            outer = {name: value for name, value in node.items() if name != "anyOf"}
            return {**_resolve(members[0], definitions), **outer, "nullable": True}
    if "$ref" in node:
        outer = {name: value for name, value in node.items() if name != "$ref"}
        return {**definitions[node["$ref"].rpartition("/")[2]], **outer}
    return node


def _keys_beside(location: tuple[int | str, ...]) -> list[str]:
    return list(_schema_of(location[:-1]).get("properties", {}))


def expected_text(schema: dict[str, Any]) -> str:
    """What a key's value may be, in words, from its JSON schema."""
    if "enum" in schema:
        text = f"one of {', '.join(map(str, schema['enum']))}"
    elif "properties" in schema:
        return f"a section with {', '.join(schema['properties'])}"
    else:
        names = {
            "integer": "an integer",
            "number": "a number",
            "string": "text",
            "boolean": "true or false",
            "array": "a list",
        }
        text = names.get(schema.get("type", ""), "another value") + _limits(schema)
    if schema.get("nullable"):
        text += " or null"
    note = schema.get("description")
    return f"{text} ({note})" if note else text


def _limits(schema: dict[str, Any]) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f" from {_number(low)} to {_number(high)}"
    limits = [
        f"{words} {_number(schema[name])}"
        for name, words in (
            ("minimum", "of at least"),
            ("exclusiveMinimum", "above"),
            ("maximum", "of at most"),
            ("exclusiveMaximum", "below"),
        )
        if name in schema
    ]
    if schema.get("minLength"):
        limits.append("that is not empty")
    if "pattern" in schema:
        limits.append(f"like {schema['pattern']}")
    return (" " + " and ".join(limits)) if limits else ""


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


def _dotted(key: Key) -> str:
    return ".".join(map(str, key))


def _show(value: Any) -> str:
    if isinstance(value, dict):
        return "a section"
    return _shorten(repr(value)) if value is not None else "nothing"


def _shorten(text: str) -> str:
    text = _one_line(text)
    if len(text) <= _MAX_SHOWN_CHARACTERS:
        return text
    return text[:_MAX_SHOWN_CHARACTERS] + "..."


def _one_line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
