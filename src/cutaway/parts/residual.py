"""Residual connections: where the norm stands decides how the signal travels through the layers.

PostNorm    norm(x + f(x))            the 2017 Transformer, BERT
PreNorm     x + f(norm(x))            GPT-2, LLaMA, T5 (Xiong et al. 2020)
Sandwich    x + norm₂(f(norm₁(x)))    Gemma 2 (Ding et al. 2021, section 2.4)
Wide        x + f(norm(x))            Mamba: as PreNorm, with x in float32 whatever f computes in

A block's sublayers run one after the other (`Block`), or all read the same x (`Parallel`):

Parallel    x + f(norm₁(x)) + g(norm₂(x))    GPT-J, GPT-NeoX, PaLM
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cutaway.axes import Float
from cutaway.parts.context import Context
from cutaway.parts.dropout import drop


class PostNorm(nn.Module):
    """norm(x + f(x))"""

    def __init__(self, inner: nn.Module, norm: nn.Module, dropout: float = 0.0) -> None:
        super().__init__()
        self.inner, self.norm, self.dropout = inner, norm, dropout

    def forward(self, x: Float[Tensor, "b t d"], ctx: Context) -> Float[Tensor, "b t d"]:
        return self.norm(x + drop(self, self.inner(x, ctx), self.dropout))


class PreNorm(nn.Module):
    """x + f(norm(x))"""

    def __init__(self, norm: nn.Module, inner: nn.Module, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm, self.inner, self.dropout = norm, inner, dropout

    def change(self, x: Float[Tensor, "b t d"], ctx: Context) -> Float[Tensor, "b t d"]:
        """f(norm(x)): what is added to x."""
        return drop(self, self.inner(self.norm(x), ctx), self.dropout)

    def forward(self, x: Float[Tensor, "b t d"], ctx: Context) -> Float[Tensor, "b t d"]:
        return x + self.change(x, ctx)


class Sandwich(nn.Module):
    """x + after(f(before(x)))"""

    def __init__(self, before: nn.Module, inner: nn.Module, after: nn.Module, dropout: float = 0.0) -> None:
        super().__init__()
        self.before, self.inner, self.after, self.dropout = before, inner, after, dropout

    def forward(self, x: Float[Tensor, "b t d"], ctx: Context) -> Float[Tensor, "b t d"]:
        return x + drop(self, self.after(self.inner(self.before(x), ctx)), self.dropout)


class Wide(PreNorm):
    """x + f(norm(x)), where the sum stays in float32 (or wider) however narrow the weights are: Mamba."""

    def forward(self, x: Float[Tensor, "b t d"], ctx: Context) -> Float[Tensor, "b t d"]:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        return wide + drop(self, self.inner(self.norm(x.to(_dtype(self))), ctx), self.dropout)


class Narrow(nn.Module):
    """norm(x) in the dtype of the norm's weights: what comes after a stack of `Wide`."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Float[Tensor, "b t d"], ctx: Context) -> Float[Tensor, "b t d"]:
        return self.norm(x.to(_dtype(self)), ctx)


def _dtype(module: nn.Module) -> torch.dtype:
    return next(module.parameters()).dtype


class Block(nn.Module):
    """Named sublayers, one after the other: `Block(attention=PreNorm(...), feedforward=PreNorm(...))`.

    Its width O may be another than D only where a sublayer stands without a residual (recurrent models).
    """

    def __init__(self, **sublayers: nn.Module) -> None:
        super().__init__()
        for name, sublayer in sublayers.items():
            self.add_module(name, sublayer)

    def forward(self, x: Float[Tensor, "b t d"], ctx: Context) -> Float[Tensor, "b t o"]:
        for name, sublayer in self._modules.items():
            assert sublayer is not None
            x = sublayer(x, ctx.enter(name))
        return x


class Parallel(Block):
    """Named sublayers that all read the block's input, their changes added: x + Σᵢ fᵢ(normᵢ(x)).

    `Parallel(attention=PreNorm(...), feedforward=PreNorm(...))` has the names and parameters of the `Block` of the same
    sublayers, so that a family says with one word which it is. Reference: Wang and Komatsuzaki 2021 (GPT-J);
    Black et al. 2022 (GPT-NeoX-20B, section 2.1); Chowdhery et al. 2022 (PaLM, section 2). The matrices of attention
    and feed-forward no longer wait for each other; at 20B and above the quality is the same.
    """

    def forward(self, x: Float[Tensor, "b t d"], ctx: Context) -> Float[Tensor, "b t d"]:
        out = x
        for name, sublayer in self._modules.items():
            assert isinstance(sublayer, PreNorm)
            out = out + sublayer.change(x, ctx.enter(name))
        return out
