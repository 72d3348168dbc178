"""How many parameters a family has, as a formula of its sizes: V·D + L·(4·D² + 2·D·F + …) + ….

Read off composed models, not written down: the family is built on the `meta` device with many sizes, every size
changed independently as far as they may be, and each dimension of each tensor is named by the simplest expression in the
sizes that it equals in all of them. A dimension that no expression explains keeps its number, which then holds for
models of the same preset alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from math import prod
from types import ModuleType
from typing import Any

from cutaway import families
from cutaway.lab.polynomial import Polynomial, fitted
from cutaway.lab.probes import Shape, others, whole
from cutaway.lab.probes import shapes as shapes_of

SYMBOLS = {
    "vocab": "V", "width": "D", "layers": "L", "heads": "H", "kv_heads": "G", "head_width": "E", "hidden": "F",
    "context": "C", "segments": "A", "state": "N", "expand": "X", "kernel": "K", "rank": "R", "table_width": "U",
    "features": "M", "groups": "g", "blocks": "b", "buckets": "B", "labels": "c", "decoder_layers": "L′",
    "decoder_heads": "H′", "decoder_hidden": "F′",
}  # fmt: skip


@dataclass(frozen=True)
class Term:
    """`times` times the `count` parameters of one part."""

    part: str
    times: Polynomial
    count: Polynomial


@dataclass(frozen=True)
class Formula:
    """The parameters of models that differ in nothing but sizes. `str()` is the whole sum."""

    terms: tuple[Term, ...]
    names: dict[str, str]  # symbol -> size, of those that occur

    def at(self, sizes: Any) -> int:
        """The count for these sizes."""
        values = _values(sizes)
        return int(sum(term.times.at(values) * term.count.at(values) for term in self.terms))

    def __str__(self) -> str:
        sums: dict[Polynomial, Polynomial] = {}
        for term in self.terms:
            sums[term.times] = sums.get(term.times, Polynomial()) + term.count
        once = str(sums.pop(Polynomial.number(1), ""))
        rest = [f"{_factor(times)}·{_factor(count)}" for times, count in sums.items()]
        return " + ".join(filter(None, [once, *rest]))


def formula(family: str, sizes: Any) -> Formula:
    """The formula of a family for models that differ from `sizes` in whole numbers alone.

    Args:
        family: a name from `cutaway.families.FAMILIES`.
        sizes: that family's `Sizes`; what is no whole number (biases, tying, the head) stays as it is here.
    """
    module = families.get(family)
    probes = [sizes, *others(family, sizes)]
    symbols = {symbol: [_values(probe)[symbol] for probe in probes] for symbol in _values(sizes)}
    terms: dict[tuple[str, Polynomial], Polynomial] = {}
    for template, shapes in _templates(module, probes).items():
        for times, each in shapes:
            often, count = _named(times, symbols), _count(each, symbols)
            if not often.symbols:
                often, count = Polynomial.number(1), often * count
            key = (_part(template), often)
            terms[key] = terms.get(key, Polynomial()) + count
    found = tuple(Term(part, times, count) for (part, times), count in terms.items() if count.terms)
    used = set().union(*(term.times.symbols | term.count.symbols for term in found))
    return Formula(found, {symbol: name for symbol, name in _names(sizes).items() if symbol in used})


def formulas(family: str) -> list[tuple[Formula, list[str]]]:
    """The family's formulas, each with the presets it holds for."""
    found: list[tuple[Formula, list[str]]] = []
    presets = families.get(family).PRESETS
    for preset in sorted(presets, key=lambda name: _blocks(presets[name])):
        sizes, count = presets[preset], counted(family, preset)
        for each, named in found:
            if each.names.items() <= _names(sizes).items() and each.at(sizes) == count and _holds(each, family, sizes):
                named.append(preset)
                break
        else:
            new = formula(family, sizes)
            same = next((named for each, named in found if (str(each), each.names) == (str(new), new.names)), None)
            found.append((new, [preset])) if same is None else same.append(preset)
    return found


def _holds(known: Formula, family: str, sizes: Any) -> bool:
    """Whether it is these sizes' formula too, and not only the same number by chance."""
    return all(known.at(other) == _total(families.get(family), other) for other in others(family, sizes, 1))


@cache
def counted(family: str, preset: str) -> int:
    """The parameters of a preset, by composing it."""
    module = families.get(family)
    return _total(module, module.PRESETS[preset])


def _total(module: ModuleType, sizes: Any) -> int:
    return sum(prod(shape) for _, shape in shapes_of(module, sizes))


def _factor(polynomial: Polynomial) -> str:
    said = str(polynomial)
    return f"({said})" if len(polynomial.terms) > 1 or "/" in said else said


def _names(sizes: Any) -> dict[str, str]:
    return {SYMBOLS.get(name, name): name for name in whole(sizes)}


def _values(sizes: Any) -> dict[str, int]:
    return {symbol: getattr(sizes, name) for symbol, name in _names(sizes).items()}


def _blocks(sizes: Any) -> int:
    return getattr(sizes, "layers", 1) if type(getattr(sizes, "layers", 1)) is int else 1


def _templates(module: ModuleType, probes: list[Any]) -> dict[str, list[tuple[list[int], list[Shape | None]]]]:
    """By name with the block's number left open: how often, and of which shape, in each probe. None: not there."""
    seen: list[dict[str, dict[Shape, int]]] = []
    for probe in probes:
        counts: dict[str, dict[Shape, int]] = {}
        for name, shape in shapes_of(module, probe):
            of = counts.setdefault(re.sub(r"\bblocks\.\d+", "blocks", name), {})
            of[shape] = of.get(shape, 0) + 1
        seen.append(counts)
    found: dict[str, list[tuple[list[int], list[Shape | None]]]] = {}
    for template in dict.fromkeys(name for counts in seen for name in counts):
        kinds = max(len(counts.get(template, {})) for counts in seen)
        rows = [list(counts.get(template, {}).items()) for counts in seen]
        for kind in range(kinds):  # blocks whose tensors differ: in the order in which they come
            each = [row[kind] if kind < len(row) else (None, 0) for row in rows]
            found.setdefault(template, []).append(([n for _, n in each], [shape for shape, _ in each]))
    return found


def _named(values: list[int], symbols: Mapping[str, list[int]]) -> Polynomial:
    """The expression, or the first probe's number: that of the sizes asked about."""
    return _fit(tuple(values), tuple((s, tuple(v)) for s, v in symbols.items())) or Polynomial.number(values[0])


@lru_cache(maxsize=4096)
def _fit(values: tuple[int, ...], symbols: tuple[tuple[str, tuple[int, ...]], ...]) -> Polynomial | None:
    return fitted(values, dict(symbols))


def _count(shapes: list[Shape | None], symbols: Mapping[str, list[int]]) -> Polynomial:
    there = [i for i, shape in enumerate(shapes) if shape is not None]
    narrowed = {symbol: [values[i] for i in there] for symbol, values in symbols.items()}
    known = [shapes[i] or () for i in there]
    if len({len(shape) for shape in known}) > 1:
        return _named([prod(shape) for shape in known], narrowed)
    count = Polynomial.number(1)
    for dims in zip(*known, strict=True):
        count = count * _named(list(dims), narrowed)
    return count


def _part(template: str) -> str:
    """The part a tensor belongs to: "decoder.blocks.attention.inner.q.weight" is of "decoder: attention"."""
    first, *rest = template.split(".")
    side = f"{first}: " if first in ("encoder", "decoder") else ""
    if first not in ("stack", "encoder", "decoder"):
        return first
    if rest[0] == "norm":
        return f"{side}last norm"
    return side + (rest[1] if rest[0] == "blocks" else rest[0])
