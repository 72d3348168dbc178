"""From what was recorded in a forward to patterns that can be drawn."""

from __future__ import annotations

import re
from collections.abc import Sequence

from cutaway.attention.record import Trace
from cutaway.inspection.errors import PictureError
from cutaway.inspection.patterns import KINDS, Pattern, as_array


def patterns_of(trace: Trace, tokens: Sequence[str], target_tokens: Sequence[str] | None) -> dict[str, Pattern]:
    """What was recorded, by kind, in the order in which one reads: encoder, self, cross."""
    found: dict[str, list[str]] = {}
    for site in trace.sites:
        kind = "encoder" if site.startswith("encoder.") else trace[site].kind
        found.setdefault(kind, []).append(site)
    own = tuple(tokens if target_tokens is None else target_tokens)
    sides = {"encoder": (tuple(tokens),) * 2, "self": (own, own), "cross": (own, tuple(tokens))}
    return {kind: _pattern(trace, found[kind], kind, *sides[kind]) for kind in sorted(found, key=_order)}


def _order(kind: str) -> int:
    return ["encoder", "self", "cross"].index(kind) if kind in KINDS else len(KINDS)


def _pattern(trace: Trace, sites: list[str], kind: str, queries: tuple[str, ...], keys: tuple[str, ...]) -> Pattern:
    numbers = [re.search(r"blocks\.(\d+)", site) for site in sites]
    layers = [int(number[1]) for number in numbers if number]
    if len(set(layers)) < len(sites):  # several attentions in a block, or sites named otherwise
        layers = list(range(len(sites)))
    shapes = {trace[site].heads for site in sites}
    if len(shapes) > 1:
        raise PictureError(f"layers with {sorted(shapes)} heads cannot share one picture")
    return Pattern(
        layer=lambda index: as_array(trace[sites[index]].weights()[0], f"weights at {sites[index]}"),
        layers=tuple(layers),
        heads=tuple(range(shapes.pop())),
        q_tokens=queries,
        k_tokens=keys,
        kind=kind,
    )
