"""Recipes as TOML, and as `section.key` settings of a command line."""

from __future__ import annotations

import dataclasses
import json
import tomllib
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cutaway.training.errors import TrainingError
from cutaway.training.recipe import FREE, Recipe, hint, read


def load(path: Path, base: Recipe | None = None) -> Recipe:
    """The recipe in a file.

    Raises:
        TrainingError: it is not there, no TOML, or no recipe.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(f"the recipe {path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    try:
        return loads(text, base)
    except tomllib.TOMLDecodeError as error:
        data = "" if path.suffix == ".toml" else "; data are given by --data.path"
        raise TrainingError(f"{path} is no recipe, which is TOML: {error}{data}") from None
    except TrainingError as error:
        raise TrainingError(f"{path}: {error}") from None


def loads(text: str, base: Recipe | None = None) -> Recipe:
    """The recipe that this TOML says."""
    return read(tomllib.loads(text), base)


def settings(given: Mapping[str, str], base: Recipe) -> Recipe:
    """`base` with settings as a shell gives them: `{"loop.steps": "100", "optimizer.betas": "0.9,0.99"}`."""
    sections: dict[str, dict[str, Any]] = {}
    for name, text in given.items():
        section, _, key = name.partition(".")
        sections.setdefault(section, {})[key] = _value(hint(section, key), text)
    return read(sections, base)


def _value(kind: Any, text: str) -> Any:
    inner = typing.get_args(kind)
    if typing.get_origin(kind) is tuple:
        return [_value(inner[0], each.strip()) for each in text.split(",") if each.strip()]
    if text == "none" and type(None) in inner:
        return None
    if kind is str or str in inner or any(isinstance(each, str) for each in inner):
        return text
    try:
        return tomllib.loads(f"x = {text}")["x"] if "\n" not in text else text
    except tomllib.TOMLDecodeError:
        return text


def dump(recipe: Recipe, *, explained: bool = False) -> str:
    """The recipe as TOML that `load` reads back as the same. `explained`: every key, each with what it means."""
    lines: list[str] = []
    for section in dataclasses.fields(recipe):
        value = getattr(recipe, section.name)
        lines += [f"[{section.name}]"]
        for each in dataclasses.fields(value):
            inner = getattr(value, each.name)
            entries = inner if each.name in FREE else {each.name: inner}
            about = f"  # {each.metadata['about']}" if explained else ""
            for name, x in entries.items():
                if x is not None:
                    lines += [f"{_name(name)} = {_text(x)}{about}"]
                elif explained:
                    lines += [f"# {name} ={about}"]
        lines += [""]
    return "\n".join(lines)


def _name(name: str) -> str:
    plain = name.isascii() and name.replace("_", "").replace("-", "").isalnum()
    return name if plain else _text(name)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_text(each) for each in value) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_name(name)} = {_text(each)}" for name, each in value.items()) + "}"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)
