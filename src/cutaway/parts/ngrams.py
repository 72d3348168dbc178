"""Neighbours mixed by a convolution beside the first block, as DeBERTa-v2 does (its release notes: "nGiE").

NGrams   act(conv(x))                  each token sees `kernel` tokens around it
Beside   norm(block(x) + g(x))         g reads what the block reads
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cutaway.axes import Float
from cutaway.errors import ConfigError
from cutaway.parts.context import Context
from cutaway.parts.dropout import drop
from cutaway.parts.feedforward import activation
from cutaway.parts.residual import Block, PostNorm


class NGrams(nn.Module):
    """act(b + Σ_n W_n x_{t+n}), n from -(kernel-1)/2 to (kernel-1)/2; x = 0 before the beginning and after the end.

    Padding is no neighbour, wherever it stands: rows are convolved without it. `weight` is (D, D/groups, kernel).
    Time O(T·kernel·D²/groups).
    """

    keeps_documents = False

    def __init__(self, width: int, kernel: int, act: str, groups: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        if kernel % 2 == 0 or width % groups:
            raise ConfigError(
                f"{kernel} neighbours in {groups} groups of {width}: an odd number, and groups of one size"
            )
        self.conv = nn.Conv1d(width, width, kernel, padding=(kernel - 1) // 2, groups=groups)
        self.act, self.dropout = activation(act), dropout

    def forward(self, x: Float[Tensor, "b t d"], ctx: Context) -> Float[Tensor, "b t d"]:
        real = ctx.pos >= 0
        if ctx.packing == "any":  # real tokens to the front in their order, and back
            order = (~real).int().argsort(dim=1, stable=True).expand(x.shape[0], -1)
            rows = torch.arange(x.shape[0], device=x.device)[:, None]
            return self._mixed(x[rows, order], real.expand(x.shape[0], -1)[rows, order])[rows, order.argsort(1)]
        return self._mixed(x, None if ctx.packing == "none" else real)

    def _mixed(self, x: Tensor, real: Tensor | None) -> Tensor:
        x = x if real is None else x.masked_fill(~real[..., None], 0)
        return self.act(drop(self, self.conv(x.transpose(1, 2)).transpose(1, 2), self.dropout))


class Beside(Block):
    """norm(block(x) + g(x)): the block's sublayers one after the other, and g beside them all."""

    def __init__(self, g: nn.Module, norm: nn.Module, **sublayers: nn.Module) -> None:
        super().__init__(**sublayers)
        self.names = tuple(sublayers)
        self.beside = PostNorm(g, norm)

    def forward(self, x: Float[Tensor, "b t d"], ctx: Context) -> Float[Tensor, "b t d"]:
        out = x
        for name in self.names:
            out = self.get_submodule(name)(out, ctx.enter(name))
        return self.beside.norm(out + self.beside.inner(x, ctx.enter("beside")))
