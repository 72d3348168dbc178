"""What the sizes of all families have in common: their check, and how some follow from others.

A `Sizes` is checked when it is made, by the type and the name of each field, so nobody else needs to: a preset, a
published configuration, a GGUF file's fields and what a user asks `build` for all come through here.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

from cutaway.errors import ConfigError
from cutaway.keys import LARGEST

LAYERS = 10_000  # each is made before any memory is asked for; the deepest ever published has a tenth
MAY_BE_0 = ("mscale", "mscale_all_dim")  # of YaRN, where 0 means none


@dataclass(frozen=True)
class Checked:
    """Base of every `Sizes`.

    Raises:
        ConfigError: a value of another type than its field's; a count below 1 (ids: below 0), a dropout outside
            [0, 1), any other number that is not positive and finite; a width that its heads do not divide.
    """

    def __post_init__(self) -> None:
        for name, hint in hints(type(self)).items():
            value = getattr(self, name)
            if hint is float and type(value) is int:
                value = float(value) if abs(value) <= LARGEST else value
                object.__setattr__(self, name, value)
            if not _fits(value, hint):
                raise ConfigError(f"{name} cannot be {value!r}; it is of type {_spelled(hint)}")
            for part, inner in value.items() if isinstance(value, dict) else ():
                _check(f"{name}[{part!r}]", str(part), inner)
            _check(name, name, value)
        if "rotary_scaling" in hints(type(self)):
            object.__setattr__(self, "rotary_scaling", _spelled_once(self.rotary_scaling))  # type: ignore[attr-defined]
        if "heads" in hints(type(self)) and "head_width" not in hints(type(self)):
            divided(self.width, self.heads)  # type: ignore[attr-defined]


@lru_cache
def hints(kind: type) -> dict[str, Any]:
    """The type of each size."""
    known = typing.get_type_hints(kind)
    return {f.name: known[f.name] for f in fields(kind)}


def divided(width: int, heads: int) -> int:
    """The width of each of so many heads."""
    if width % heads:
        raise ConfigError(f"width {width} does not divide into {heads} heads; choose a multiple")
    return width // heads


def derived(kind: type, base: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """`base` changed as `given` says, and what follows from it where that is not given as well.

    Another width or number of heads makes heads of width / heads; another width scales `hidden`, and another number
    of heads `kv_heads`, so that their ratio stays.
    """
    sizes = {**base, **given}
    changed = {n for n in ("width", "heads") if type(given.get(n)) is int and given[n] > 0 and given[n] != base.get(n)}
    numbers = {name for name in ("width", "heads") if type(sizes.get(name)) is int and sizes[name] > 0}

    def follows(name: str, *needed: str) -> bool:
        return name in hints(kind) and name not in given and changed & set(needed) != set() and numbers >= set(needed)

    if follows("head_width", "width", "heads"):
        sizes["head_width"] = divided(sizes["width"], sizes["heads"])
    for name, whole in (("hidden", "width"), ("kv_heads", "heads")):
        if follows(name, whole) and {name, whole} <= base.keys():
            sizes[name] = max(1, base[name] * sizes[whole] // base[whole])
    return sizes


def _spelled_once(scaling: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A rotary scaling without what it leaves open and under its newer name: equal models have equal sizes."""
    given = {key: value for key, value in (scaling or {}).items() if value is not None}
    kind = {"rope_type": given.pop("type", "default"), **given}
    return None if kind["rope_type"] == "default" else kind


def _check(where: str, name: str, value: Any) -> None:
    if type(value) is int:
        least = 0 if name in ("start", *MAY_BE_0) else 1
        most = LAYERS if name.endswith("layers") else LARGEST
        if not least <= value <= most:
            raise ConfigError(f"{where} cannot be {value}; it is at least {least} and at most {most}")
    elif type(value) is float:
        if not abs(value) < float("inf"):
            raise ConfigError(f"{where} cannot be {value}; a finite number is needed")
        if name.endswith("dropout") and not 0 <= value < 1:
            raise ConfigError(f"{where} cannot be {value}; it is a probability from 0 to below 1")
        if not name.endswith("dropout") and value <= 0 and name not in MAY_BE_0:
            raise ConfigError(f"{where} cannot be {value}; it is above 0")


def _fits(value: Any, hint: Any) -> bool:
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        return any(_fits(value, each) for each in typing.get_args(hint))
    if origin is typing.Literal:
        return value in typing.get_args(hint)
    return type(value) is (origin or hint)


def _spelled(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")
