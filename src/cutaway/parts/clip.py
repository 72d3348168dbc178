"""A bound on single numbers, for training that would diverge."""

from __future__ import annotations

from torch import Tensor, nn


class Clip(nn.Module):
    """min(max(x, -limit), limit), number by number: on queries, keys and values in MPT (`clip_qkv`)."""

    def __init__(self, limit: float) -> None:
        super().__init__()
        self.limit = limit

    def forward(self, x: Tensor, ctx: object = None) -> Tensor:
        return x.clamp(-self.limit, self.limit)
