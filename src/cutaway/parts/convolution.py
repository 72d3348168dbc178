"""The short causal convolution before a scan: every channel mixes its own last few tokens.

    y_t = bias + Σ_k weight[k] ∘ x_{t-K+1+k}        k = 0 … K-1, x = 0 before the beginning

(Gu and Dao 2023, section 3.4; there K = 4.) Time O(T·K·D); it remembers K-1 tokens.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from cutaway.axes import Float


class CausalConvolution(nn.Module):
    """`weight` is (D, 1, K), as `torch.nn.Conv1d(D, D, K, groups=D)` has it.

    Computed as K shifted products, with their backward written out: on a CPU that is several times as fast as
    `conv1d`, whose layout is (B, D, T).
    """

    def __init__(self, width: int, kernel: int, bias: bool = True) -> None:
        super().__init__()
        made = nn.Conv1d(width, width, kernel, groups=width, bias=bias)
        self.weight, self.bias = made.weight, made.bias

    @property
    def kernel(self) -> int:
        return self.weight.shape[2]

    def forward(
        self, x: Float[Tensor, "b t d"], before: Float[Tensor, "b k d"] | None = None
    ) -> Float[Tensor, "b t d"]:
        """`before` are the K-1 tokens that came before x; zeros by default."""
        if before is None:
            before = x.new_zeros(len(x), self.kernel - 1, x.shape[2])
        return _Shifted.apply(x, before, self.weight[:, 0].t().contiguous(), self.bias)


class _Shifted(torch.autograd.Function):
    """bias + Σ_k taps[k] ∘ x_{t-K+1+k}, taps (K, D)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, before: Tensor, taps: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, before, taps)
        y = x * taps[-1] if bias is None else torch.addcmul(bias, x, taps[-1])
        for k, shift, early in _shifts(x, taps):
            y[:, shift:].addcmul_(x[:, : x.shape[1] - early], taps[k])
            y[:, :early].addcmul_(before[:, k : k + early], taps[k])
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (g,), (x, before, taps) = gradients, ctx.saved_tensors
        gx, gbefore, gtaps = g * taps[-1], torch.zeros_like(before), torch.empty_like(taps)
        torch.sum(g * x, (0, 1), out=gtaps[-1])
        for k, shift, early in _shifts(x, taps):
            now, past = g[:, shift:], x[:, : x.shape[1] - early]
            gx[:, : x.shape[1] - early].addcmul_(now, taps[k])
            gbefore[:, k : k + early].addcmul_(g[:, :early], taps[k])
            gtaps[k] = (now * past).sum((0, 1)) + (g[:, :early] * before[:, k : k + early]).sum((0, 1))
        return gx, gbefore, gtaps, g.sum((0, 1)) if ctx.needs_input_grad[3] else None


def _shifts(x: Tensor, taps: Tensor) -> list[tuple[int, int, int]]:
    """For each tap but the last: its number, how far back it looks, and how many tokens look back behind x."""
    back = [(k, len(taps) - 1 - k) for k in range(len(taps) - 1)]
    return [(k, shift, min(shift, x.shape[1])) for k, shift in back]
