"""Layer-wise decay of the learning rate: each layer's is a part of that of the layer above it.

    rate of a layer = rate · decay^(how many layers stand between it and the head, itself counted)

The head has the whole rate, embeddings the smallest (Howard & Ruder 2018, section 3.2; Clark et al. 2020, appendix B).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

BLOCK = re.compile(r"(?:^|\.)(stack|encoder|decoder)\.blocks\.(\d+)\.")
EMBEDDING = re.compile(r"(?:^|\.)(stack|encoder|decoder)\.embedding\.")


def by_layer(groups: Sequence[dict[str, Any]], modules: Mapping[str, nn.Module], decay: float) -> list[dict[str, Any]]:
    """The groups divided by layers, each with its rate; as they are where `decay` is 1."""
    if decay == 1.0:
        return list(groups)
    down = {id(p): depth for module in modules.values() for p, depth in depths(module)}
    found = []
    for group in groups:
        for depth in sorted({down[id(p)] for p in group["params"]}):
            rate = group["rate"] * decay**depth
            params = [p for p in group["params"] if down[id(p)] == depth]
            found.append({**group, "params": params, "lr": rate, "rate": rate})
    return found


def depths(module: nn.Module) -> list[tuple[nn.Parameter, int]]:
    """How deep below the head each parameter lies: 0 for heads, poolers and last norms."""
    named = list(module.named_parameters())
    layers: dict[str, int] = {}
    for name, _ in named:
        if match := BLOCK.search(name):
            layers[match[1]] = max(layers.get(match[1], 0), int(match[2]) + 1)

    def depth(name: str) -> int:
        if match := BLOCK.search(name):
            return layers[match[1]] - int(match[2])
        match = EMBEDDING.search(name)
        return layers.get(match[1], 0) + 1 if match else 0

    return [(p, depth(name)) for name, p in named]
