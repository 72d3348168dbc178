"""From token ids to vectors, and what is added or done to them before the first block."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cutaway.axes import Float, Int
from cutaway.parts.context import Context


class Embedding(nn.Module):
    """scale · table[ids], then `steps` in order: positions, segments, a norm, dropout; then W x + b where `out`.

    Args:
        vocab, width: V and D.
        scale: multiplies the vectors (sqrt(D) in the 2017 Transformer, section 3.4).
        steps: parts `(x, ctx) -> x`.
        tokens: a table shared with another embedding (source and target of one vocabulary).
        out: the width of the layers, where that of the tables differs: V·E + E·D parameters instead of V·D
            (factorised embeddings, Lan et al. 2020, section 3.1).
    """

    def __init__(
        self,
        vocab: int,
        width: int,
        *,
        scale: float = 1.0,
        steps: Sequence[nn.Module] = (),
        tokens: nn.Embedding | None = None,
        out: int | None = None,
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocab, width) if tokens is None else tokens
        self.steps = nn.ModuleList(steps)
        self.project = None if out is None else nn.Linear(width, out)
        self.scale, self.width = scale, out or width

    def forward(self, ids: Int[Tensor, "b t"], ctx: Context) -> Float[Tensor, "b t d"]:
        x = self.tokens(ids)
        if self.scale != 1.0:
            x = x * self.scale
        for step in self.steps:
            x = step(x, ctx)
        return x if self.project is None else self.project(x)


class Segments(nn.Module):
    """Adds the vector of the sentence a token belongs to (Devlin et al. 2019, figure 2); all A where none are given.

    A model knows by this part how many segments it tells apart: derive from it what else reads `ctx.segments`.
    """

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.count = count
        self.weight = nn.Parameter(torch.empty(count, width))
        nn.init.normal_(self.weight, std=0.02)

    def forward(self, x: Float[Tensor, "b t d"], ctx: Context) -> Float[Tensor, "b t d"]:
        return x + (self.weight[0] if ctx.segments is None else self.weight[ctx.segments])
