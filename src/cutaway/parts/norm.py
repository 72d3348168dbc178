"""Normalisation over the width D. A norm takes `(x, ctx)` like every part, so it can stand wherever a step can.

    LayerNorm   (x - mean) / sqrt(var + ε) · g + b      Ba et al. 2016, equation 4
    RMSNorm     x / sqrt(mean(x²) + ε) · g              Zhang and Sennrich 2019, equation 4; Gemma learns g - 1
    StdNorm     (x - mean) / (std + ε) · g + b          in many tutorials: unbiased std, ε outside the root

Statistics are taken in float32 whatever the dtype of x.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cutaway.axes import Float


class LayerNorm(nn.Module):
    """`bias=False` leaves out b. The fused kernels equal the formulas above (a test holds them together)."""

    def __init__(self, width: int, eps: float = 1e-5, bias: bool = True) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None

    def forward(self, x: Float[Tensor, "... d"], ctx: object = None) -> Float[Tensor, "... d"]:
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


class RMSNorm(nn.Module):
    """LayerNorm without the mean and without b: T5, LLaMA.

    With `offset` what is learned is g - offset: Gemma keeps g - 1, so that weight decay pulls towards doing nothing.
    The sum is taken in float32: near 1, bfloat16 would lose most of what Gemma learned.
    """

    def __init__(self, width: int, eps: float = 1e-6, offset: float = 0.0) -> None:
        super().__init__()
        self.eps, self.offset = eps, offset
        self.weight = nn.Parameter(torch.full((width,), 1.0 - offset))

    def forward(self, x: Float[Tensor, "... d"], ctx: object = None) -> Float[Tensor, "... d"]:
        if self.offset:
            return F.rms_norm(x.float(), self.weight.shape, self.weight.float() + self.offset, self.eps).to(x.dtype)
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


class StdNorm(nn.Module):
    """The norm of many from-scratch tutorials, so that models trained with their code load unchanged."""

    def __init__(self, width: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Float[Tensor, "... d"], ctx: object = None) -> Float[Tensor, "... d"]:
        wide = x.float()
        normal = (wide - wide.mean(-1, keepdim=True)) / (wide.std(-1, keepdim=True) + self.eps)
        return self.weight * normal.to(x.dtype) + self.bias
