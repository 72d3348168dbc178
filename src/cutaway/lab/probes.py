"""Models of other sizes than the published: each size changed by itself, as far as a family's sizes may differ."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from math import prod
from types import ModuleType
from typing import Any

import torch

from cutaway import families
from cutaway.errors import CutawayError

FIXED = ("start", "hash_seed", "redraw_every")  # whole numbers that count nothing
PROBES = 7
# Multiples of the preset's own sizes, so that what divided still divides. The model's width takes all that heads take.
MULTIPLES = {
    "width": (12, 24, 36, 60, 84), "heads": (2, 4, 6), "kv_heads": (1, 2), "decoder_heads": (2, 4, 6),
    "head_width": (1, 2, 3), "expand": (1, 2, 3), "groups": (1, 2, 3), "blocks": (1, 2), "kernel": (1, 3, 5),
}  # fmt: skip
OTHERS = (1, 2, 3, 5, 7)
DEPTHS = {"layers": (2, 4, 6), "decoder_layers": (3, 5)}

Shape = tuple[int, ...]


def others(family: str, sizes: Any, number: int = PROBES, seed: int = 0) -> list[Any]:
    """Other sizes that compose. Those that refuse to change together are changed one by one, and some not at all."""
    draw, module = random.Random(seed), families.get(family)

    def choice(name: str) -> int:
        if name in DEPTHS:
            return draw.choice(DEPTHS[name])
        return getattr(sizes, name) * draw.choice(MULTIPLES.get(name, OTHERS))

    def tried(base: Any, names: Iterable[str]) -> Any | None:
        try:
            changed = {name: choice(name) for name in names}
            chosen = replace(base, **changed, **_split(base, changed))
            shapes(module, chosen)
        except (CutawayError, ValueError, RuntimeError, IndexError, AssertionError, ZeroDivisionError):
            return None
        return chosen

    found: list[Any] = []
    stubborn: set[str] = set()
    for _ in range(number):
        names = [name for name in whole(sizes) if name not in stubborn]
        probe = next(filter(None, (tried(sizes, names) for _ in range(4))), None)
        if probe is None:
            probe = sizes
            for name in names:
                changed = next(filter(None, (tried(probe, [name]) for _ in range(4))), None)
                probe = probe if changed is None else changed
                stubborn |= {name} if changed is None else set()
        found.append(probe)
    return found


def _split(sizes: Any, changed: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """Tuples that a size is the sum or the product of, changed with it: Reformer's grid of positions."""
    found: dict[str, tuple[int, ...]] = {}
    for field in fields(sizes):
        given = getattr(sizes, field.name)
        if not isinstance(given, tuple) or len(given) < 2 or not all(type(each) is int for each in given):
            continue
        for name, value in changed.items():
            times, rest = divmod(value, getattr(sizes, name))
            if rest == 0 and sum(given) == getattr(sizes, name):
                found[field.name] = tuple(each * times for each in given)
            elif rest == 0 and prod(given) == getattr(sizes, name):
                found[field.name] = (given[0] * times, *given[1:])
    return found


def whole(sizes: Any) -> list[str]:
    """The sizes that are whole numbers and count something."""
    return [f.name for f in fields(sizes) if type(getattr(sizes, f.name)) is int and f.name not in FIXED]


def shapes(module: ModuleType, sizes: Any) -> list[tuple[str, Shape]]:
    """The parameters' names and shapes, by composing the model on `meta`."""
    with torch.device("meta"):
        model = module.compose(sizes)
    return [(name, tuple(p.shape)) for name, p in model.named_parameters()]
