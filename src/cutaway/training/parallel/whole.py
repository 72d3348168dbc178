"""Tensors that several processes hold a part of each (DTensor), as if they were whole. Plain tensors stay as they are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor


def whole(x: Tensor) -> Tensor:
    """All of it, on every process. All must ask."""
    return x.full_tensor() if isinstance(x, DTensor) else x


def part(x: Tensor) -> Tensor:
    """What this process holds of it."""
    return x.to_local() if isinstance(x, DTensor) else x


def like(full: Tensor, x: Tensor) -> Tensor:
    """A tensor that every process has, divided as `x` is; nothing is sent."""
    full = full.to(x.device)
    if not isinstance(x, DTensor):
        return full
    return distribute_tensor(full, x.device_mesh, x.placements, src_data_rank=None)


def kind(x: Tensor) -> Any:
    """Tensors of one kind can be worked on together."""
    return (x.device_mesh, x.placements) if isinstance(x, DTensor) else None


def total_norm(tensors: Iterable[Tensor]) -> float:
    """The norm of them all, as one vector."""
    kinds: dict[Any, list[Tensor]] = defaultdict(list)
    for x in tensors:
        kinds[kind(x)].append(x)
    if set(kinds) <= {None}:
        return float(torch.nn.utils.get_total_norm(kinds[None]))
    total = 0.0
    for how, group in kinds.items():
        square = torch.nn.utils.get_total_norm([part(x) for x in group]).double() ** 2
        if how is not None:
            mesh, placements = how
            for dim, placement in enumerate(placements):
                assert not placement.is_partial(), placement
                if not placement.is_replicate():
                    dist.all_reduce(square, group=mesh.get_group(dim))
        total += float(square)
    return total**0.5
