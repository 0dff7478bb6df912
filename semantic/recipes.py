"""Recipes with single values changed on the command line, ``training.steps=100``."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from semantic.codec_config import ConfigError, Recipe, read_recipe
from semantic.plain_yaml import parse_plain_yaml

MAX_SHOWN_CHARACTERS = 60


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and change some of its values.

    Args:
        path: see :func:`semantic.codec_config.read_recipe`.
        overrides: ``section.key=value`` each, the value as YAML; later ones win.

    Raises:
        ConfigError: naming the override, the key, what was found and what was expected.
    """
    recipe = read_recipe(path)
    if not overrides:
        return recipe
    data = recipe.model_dump()
    changed = [(_change(data, override), override) for override in overrides]
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        raise ConfigError(_explain(error, changed)) from None


def _change(data: dict[str, Any], override: str) -> tuple[str, ...]:
    """Write an override's value into the recipe's data; its key."""
    where = f"--set {_shorten(override)}"
    name, equals, text = override.partition("=")
    keys = tuple(name.strip().split("."))
    if not equals or not all(re.fullmatch(r"\w+", key) for key in keys):
        raise ConfigError(f"{where}: expected section.key=value, e.g. training.steps=1000")
    try:
        value = parse_plain_yaml(text)
    except ValueError:
        raise ConfigError(f"{where}: {name}: {_shorten(text)!r} is no YAML value") from None
    section = data
    for depth, key in enumerate(keys[:-1], 1):
        if section.get(key) is None:
            section[key] = {}
        section = section[key]
        if not isinstance(section, dict):
            known = ".".join(keys[:depth])
            raise ConfigError(f"{where}: {known} is {_shorten(repr(section))}, not a section")
    section[keys[-1]] = value
    return keys


def _explain(error: ValidationError, changed: Sequence[tuple[tuple[str, ...], str]]) -> str:
    """The first mistake: override, key, value, what was expected; a mistyped key explains missing ones."""
    problems = error.errors(include_url=False)
    first = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    location = tuple(map(str, first["loc"]))
    guilty = _responsible(location, changed) or _responsible(location[:-1], changed)
    where = " ".join(f"--set {_shorten(override)}" for override in guilty)
    key = ".".join(location)
    if first["type"] == "extra_forbidden":
        return f"{where}: {key}: unknown key{_known_beside(location)}"
    if first["type"] == "value_error":
        # What several keys together make wrong has no key of its own; the message names them.
        return ": ".join(part for part in (where, key, str(first["ctx"]["error"])) if part)
    return f"{where}: {key}: {first['msg']}, found {_shorten(repr(first['input']))}"


def _responsible(
    location: tuple[str, ...], changed: Sequence[tuple[tuple[str, ...], str]]
) -> list[str]:
    """Overrides that wrote to a place, above it or below it."""
    return [
        override
        for keys, override in changed
        if all(one == other for one, other in zip(keys, location, strict=False))
    ]


def _known_beside(location: tuple[str, ...]) -> str:
    """What could have been meant by an unknown key."""
    kind: type[BaseModel] = Recipe
    for key in location[:-1]:
        field = kind.model_fields.get(key)
        annotation = None if field is None else field.annotation
        kinds = [k for k in (annotation, *get_args(annotation)) if _is_section(k)]
        if not kinds:
            return ""
        kind = kinds[0]
    known = list(kind.model_fields)
    close = difflib.get_close_matches(location[-1], known, n=1)
    return f", did you mean {close[0]}?" if close else f", expected one of {', '.join(known)}"


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _shorten(text: str) -> str:
    return text if len(text) <= MAX_SHOWN_CHARACTERS else f"{text[:MAX_SHOWN_CHARACTERS]}..."
