"""Dropout (Srivastava et al. 2014): in training a number is zero with probability `rate`, else divided by 1 - rate."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Dropout(nn.Module):
    """A part `(x, ctx) -> x`. In evaluation it is the identity."""

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor, ctx: object = None) -> Tensor:
        return drop(self, x, self.rate)


def drop(part: nn.Module, x: Tensor, rate: float) -> Tensor:
    """Dropout inside a part, without a module of its own to call at every token of generation."""
    return F.dropout(x, rate) if part.training and rate else x
