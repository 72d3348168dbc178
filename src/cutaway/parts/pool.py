"""One vector of a sequence: states (B, T, D) in, (B, D) out.

First    the first real token, where BERT puts [CLS]
Last     the last real token
Mean     the mean of the real tokens
Pooler   BERT's extra layer over the first token
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cutaway.axes import Float, Int
from cutaway.parts.context import Context
from cutaway.parts.feedforward import activation


def pick(x: Float[Tensor, "b t d"], column: Int[Tensor, "#b"]) -> Float[Tensor, "b d"]:
    """One token a row."""
    return x[torch.arange(x.shape[0], device=x.device), column.expand(x.shape[0])]


def pick_last(x: Float[Tensor, "b t d"], ctx: Context) -> Float[Tensor, "b d"]:
    """Each row's last real token: that of the last column without padding, whatever positions were given."""
    if ctx.packing == "none":
        return x[:, -1]
    columns = torch.arange(x.shape[1], device=x.device)
    return pick(x, torch.where(ctx.pos >= 0, columns, -1).argmax(1))


class First(nn.Module):
    """The first real token, where BERT puts [CLS]."""

    def forward(self, x: Float[Tensor, "b t d"], ctx: Context) -> Float[Tensor, "b d"]:
        return pick(x, (ctx.pos >= 0).int().argmax(1))


class Last(nn.Module):
    """The last real token, which in a decoder has seen all others."""

    def forward(self, x: Float[Tensor, "b t d"], ctx: Context) -> Float[Tensor, "b d"]:
        return pick_last(x, ctx)


class Mean(nn.Module):
    """The mean of the real tokens; zero where there is none."""

    def forward(self, x: Float[Tensor, "b t d"], ctx: Context) -> Float[Tensor, "b d"]:
        real = (ctx.pos >= 0)[..., None].to(x.dtype).expand(x.shape[0], -1, 1)
        return (x * real).sum(1) / real.sum(1).clamp(min=1)


class Pooler(nn.Module):
    """act(W x + b) of the first token (Devlin et al. 2019, published code), or of what `at` picks."""

    def __init__(self, width: int, act: str = "tanh", dropout: float = 0.0, at: nn.Module | None = None) -> None:
        super().__init__()
        self.at, self.dense, self.act = at or First(), nn.Linear(width, width), activation(act)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "b t d"], ctx: Context) -> Float[Tensor, "b d"]:
        return self.act(self.dense(self.dropout(self.at(x, ctx))))
