"""The optimizers of a model. Matrices of linear layers and convolutions decay; what adds, scales or is looked up does not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from cutaway.training import recipe
from cutaway.training.optimizers.layers import by_layer
from cutaway.training.optimizers.muon import Muon
from cutaway.training.parallel.whole import kind


def build(settings: recipe.Optimizer, modules: Mapping[str, nn.Module]) -> list[torch.optim.Optimizer]:
    """Optimizers for the trainable parameters of some modules. Each group's "rate" is its highest learning rate."""
    matrices, plain, tables = _divided(modules.values())
    if settings.name == "muon":
        turned, matrices = _hidden(modules.values(), matrices)
        rate = settings.rate if settings.matrix_rate is None else settings.matrix_rate
        turned_groups = by_layer([_group(turned, rate, settings.decay)], modules, settings.layer_decay)
        muon = Muon(turned_groups, momentum=settings.momentum, rounds=settings.rounds) if turned else None
    else:
        muon = None
    groups = [_group(matrices, settings.rate, settings.decay), _group(plain, settings.rate, 0.0)]
    table_rate = settings.rate if settings.table_rate is None else settings.table_rate
    groups.append(_group(tables, table_rate, settings.table_decay))
    groups = _alike(by_layer([group for group in groups if group["params"]], modules, settings.layer_decay))
    rest: list[torch.optim.Optimizer] = []
    if groups and settings.name == "adafactor":
        rest = [torch.optim.Adafactor(groups)]
    elif groups:
        betas = (settings.betas[0], settings.betas[1])
        rest = [torch.optim.AdamW(groups, betas=betas, eps=settings.eps, fused=True)]
    return ([muon] if muon else []) + rest


def _group(params: list[nn.Parameter], rate: float, decay: float) -> dict[str, Any]:
    return {"params": params, "lr": rate, "rate": rate, "weight_decay": decay}


def _alike(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each group in as many as there are ways in which its parameters are divided among processes: one call takes one."""
    found: dict[Any, dict[str, Any]] = {}
    for i, group in enumerate(groups):
        for p in group["params"]:
            found.setdefault((i, kind(p)), {**group, "params": []})["params"].append(p)
    return list(found.values())


def _divided(modules: Iterable[nn.Module]) -> tuple[list[nn.Parameter], ...]:
    """The parameters that decay, those that do not, and of these the tables of embeddings."""
    inside = [m for module in modules for m in module.modules()]
    tables = {id(m.weight) for m in inside if isinstance(m, nn.Embedding)}  # a head may be tied to one
    linear = {id(m.weight) for m in inside if isinstance(m, (nn.Linear, nn.Conv1d))} - tables
    found = {id(p): p for m in inside for p in m.parameters(recurse=False) if p.requires_grad}
    kinds = (linear, found.keys() - linear - tables, tables)
    return tuple([p for i, p in found.items() if i in kind] for kind in kinds)


def _hidden(
    modules: Iterable[nn.Module], matrices: list[nn.Parameter]
) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Of the matrices, those that lead from hidden states to hidden states; and the others, heads above all."""
    named = [(name, p) for module in modules for name, p in module.named_parameters()]
    outer = {id(p) for name, p in named if p.ndim != 2 or name.startswith(("head.", "pooler."))}
    return [p for p in matrices if id(p) not in outer], [p for p in matrices if id(p) in outer]
