"""What the sparse kernels share: the softmax of one chunk of logits, and dropout that can be drawn again."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from cutaway.axes import Float

LOG2E = math.log2(math.e)
LOWEST = -1e30  # the log-sum of no keys at all: finite, so that no difference is NaN
CHUNK = 5 << 16  # logits alive at once, for each thread: 1.25 MiB, so that they stay in its cache


def chunk(queries: int, keys: int) -> int:
    """How many blocks of so many queries and keys to do together."""
    return max(1, CHUNK * torch.get_num_threads() // max(1, queries * keys))


def shares(batch: int, heads: int, groups: int) -> Iterator[tuple[int, int, range]]:
    """Each row's groups of keys, and the query heads that share them."""
    each = heads // groups
    return ((row, group, range(group * each, (group + 1) * each)) for row in range(batch) for group in range(groups))


def capped(x: Tensor, softcap: float | None) -> Tensor | None:
    """Caps logits (times log2 e) in place; returns the derivative there, None without a cap."""
    if softcap is None:
        return None
    t = torch.tanh(x / (softcap * LOG2E))
    torch.mul(t, softcap * LOG2E, out=x)
    return 1 - t * t


def softmax(x: Float[Tensor, "n b c"], dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """In place, over the keys: p with largest 1, its sum, and the log2-sum; of an empty row 0, 1 and LOWEST."""
    highest = x.amax(dim, keepdim=True).clamp_(min=LOWEST)
    p = x.sub_(highest).exp2_()
    total = p.sum(dim, keepdim=True).clamp_(min=1.0)
    return p, total, highest.add_(total.log2())


class Dropout:
    """The same random zeros each time it is made anew from a seed; those kept grow by 1 / (1 - p)."""

    def __init__(self, p: float, seed: int, device: torch.device) -> None:
        self.p, self.random = p, torch.Generator(device).manual_seed(seed)

    def like(self, x: Tensor) -> Tensor | None:
        if not self.p:
            return None
        kept = torch.rand(x.shape, generator=self.random, device=x.device, dtype=x.dtype)
        return kept.ge_(self.p).div_(1 - self.p)
