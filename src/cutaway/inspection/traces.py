"""From what was recorded in a forward to patterns that can be drawn."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from cutaway.attention.record import Implied, Recorded, Trace
from cutaway.inspection.patterns import KINDS, Pattern, as_array

GROUPS = 16  # that a state space's channels are shown in, each by its mean (Ali et al. 2024, section 4, average too)


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
    """All sites of a kind in one form. Where layers have fewer heads than others, what is missing is left empty."""
    numbers = [re.search(r"blocks\.(\d+)", site) for site in sites]
    layers = [int(number[1]) for number in numbers if number]
    if len(set(layers)) < len(sites):  # several attentions in a block, or sites named otherwise
        layers = list(range(len(sites)))
    records = [trace[site] for site in sites]
    real = [record.heads for record in records if not _of_channels(record)]
    groups = max(real, default=GROUPS)
    shown = [min(groups, record.heads) for record in records]
    most = max(shown)

    def layer(index: int) -> np.ndarray:
        weights = as_array(records[index].weights()[0], f"weights at {sites[index]}")  # (H, Q, K)
        if len(weights) > shown[index]:
            weights = np.stack([group.mean(0) for group in np.array_split(weights, shown[index])])
        return np.pad(weights, [(0, most - len(weights)), (0, 0), (0, 0)])

    return Pattern(
        layer=layer,
        layers=tuple(layers),
        heads=tuple(range(most)),
        q_tokens=queries,
        k_tokens=keys,
        kind=kind,
        each="head" if real else "group",
        note=_note(records, layers, shown),
    )


def _of_channels(record: Recorded | Implied) -> bool:
    """Whether what is recorded is a pattern for each single number of the states, and not for each head."""
    return isinstance(record, Implied) and record.v.shape[-1] == 1


def _note(records: list[Recorded | Implied], layers: list[int], shown: list[int]) -> str:
    """Which of the patterns are means."""
    means = [i for i, record in enumerate(records) if _of_channels(record) and record.heads > shown[i]]
    if not means:
        return ""
    first = means[0]
    where = "" if len(means) == len(records) else f" in layers {', '.join(str(layers[i]) for i in means)}"
    share = records[first].heads / shown[first]
    count = f"{share:,.0f}" if share == int(share) else f"about {share:,.0f}"
    return f"Each pattern{where} is the mean over {count} of {records[first].heads:,} channels."
