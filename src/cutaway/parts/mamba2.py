"""Mamba-2: a gated block around a scan with one decay a head, which is attention with another mask.

    x, B, C = act(conv(W_x u)),  z = W_z u      x in H heads of width E, H·E = I; B and C (N numbers) shared by groups
    Δ = softplus(W_Δ u + b_Δ)                   a step a head, kept within limits
    y = ssd(x, Δ, -exp(A_log), B, C) + D x      out = W_o norm(y ∘ silu(z))

(Dao and Gu 2024, arXiv:2405.21060, section 7, figure 6.) Time O(T·I·(D + N)), memory O(T·I). What it remembers of a
text, however long: N·E numbers a head and the convolution's last K-1 tokens.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cutaway.attention import Causal, Implied, Mask
from cutaway.attention.record import listening
from cutaway.axes import Float
from cutaway.errors import ConfigError
from cutaway.parts.compact import Rows, last
from cutaway.parts.context import Context
from cutaway.parts.convolution import CausalConvolution
from cutaway.parts.feedforward import activation
from cutaway.parts.mamba import first_steps, reads_forward, wide
from cutaway.parts.ssd import pattern, ssd


class GatedNorm(nn.Module):
    """RMSNorm of x ∘ silu(z) over each group of channels, times one weight a channel."""

    def __init__(self, width: int, groups: int = 1, eps: float = 1e-5) -> None:
        super().__init__()
        self.groups, self.eps = groups, eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Float[Tensor, "... i"], z: Float[Tensor, "... i"]) -> Float[Tensor, "... i"]:
        gated = (x * F.silu(wide(z))).unflatten(-1, (self.groups, -1))
        return self.weight * F.rms_norm(gated, gated.shape[-1:], eps=self.eps).flatten(-2).to(z.dtype)


class Mamba2(nn.Module):
    """See above. Padding may stand anywhere: it moves behind the real tokens, where its steps Δ are 0.

    Args:
        width: D.
        mask: must be causal; there is nothing else it could hide.
        expand: channels I for each of D.
        head_size: E; its heads are as many as I / E, however many attention would have.
        groups: of heads that share B and C.
        state: N, numbers that each channel of a head remembers.
        kernel: K, tokens the convolution sees.
        limits: the least and the most a step can be; None is without limit.
        bias, conv_bias: whether the projections from and to D, and the convolution, have one.
        attention: what else attention is given in this place (heads, rotary steps, biases) has no counterpart here.

    Raises:
        ConfigError: heads or groups do not divide, or the mask lets tokens look ahead.
    """

    keeps_documents = False

    def __init__(
        self,
        width: int,
        *heads: int | None,
        mask: Mask = Causal(),
        expand: int = 2,
        head_size: int = 64,
        groups: int = 1,
        state: int = 128,
        kernel: int = 4,
        limits: tuple[float | None, float | None] = (None, None),
        act: str = "silu",
        eps: float = 1e-5,
        bias: bool = False,
        conv_bias: bool = True,
        **attention: Any,
    ) -> None:
        super().__init__()
        reads_forward(mask)
        inner = expand * width
        if inner % head_size or (inner // head_size) % groups:
            raise ConfigError(
                f"{inner} channels do not divide into heads of {head_size} in {groups} groups; choose divisors"
            )
        self.heads, self.groups, self.state, self.limits = inner // head_size, groups, state, limits
        self.act = activation(act)
        mixed = inner + 2 * groups * state
        self.gate = nn.Linear(width, inner, bias=bias)
        self.value = nn.Linear(width, mixed, bias=bias)
        self.step = nn.Linear(width, self.heads, bias=bias)
        self.convolution = CausalConvolution(mixed, kernel, conv_bias)
        self.step_bias = nn.Parameter(first_steps(self.heads))
        self.A_log = nn.Parameter(torch.arange(1.0, self.heads + 1).log())
        self.D = nn.Parameter(torch.ones(self.heads))
        self.norm = GatedNorm(inner, groups, eps)
        self.out = nn.Linear(inner, width, bias=bias)

    def forward(self, x: Float[Tensor, "b t d"], ctx: Context) -> Float[Tensor, "b t d"]:
        rows = Rows.of(ctx)
        x = rows.compact(x)
        value = self.value(x)
        inner, shared = self.out.in_features, self.groups * self.state
        begin = wide(value).new_zeros(len(x), self.heads, self.state, inner // self.heads)
        held = None
        if ctx.state is not None:
            tail = value.new_zeros(len(x), self.convolution.kernel - 1, value.shape[2])
            held = ctx.state.cells(ctx.site, lambda: {"convolution": tail, "scan": begin})
        mixed = wide(self.act(self.convolution(value, None if held is None else held["convolution"])))
        u, b, c = mixed.split([inner, shared, shared], -1)
        u = u.unflatten(2, (self.heads, -1))  # (B, T, H, E)
        b, c = (y.unflatten(2, (self.groups, -1)) for y in (b, c))  # (B, T, G, N)
        dt = self._steps(x, rows)
        A = -wide(self.A_log).exp()
        self._show(u, dt, A, b, c, rows, ctx)
        y, end = ssd(u, dt, A, b, c, wide(self.D), begin if held is None else held["scan"])
        if held is not None:
            held["scan"].copy_(end)
            held["convolution"].copy_(last(held["convolution"], value, rows.real if rows.padded else None))
        return rows.restore(self.out(self.norm(y.flatten(2), self.gate(x))))

    def _steps(self, x: Tensor, rows: Rows) -> Float[Tensor, "b t h"]:
        dt = F.softplus(wide(self.step(x)) + wide(self.step_bias))
        if self.limits != (None, None):
            dt = dt.clamp(*self.limits)
        return dt.masked_fill(~rows.real[..., None], 0.0) if rows.padded else dt

    def _show(self, u: Tensor, dt: Tensor, A: Tensor, b: Tensor, c: Tensor, rows: Rows, ctx: Context) -> None:
        """What came before a call has been summed up and has no pattern any more: only whole texts are recorded."""
        trace = listening()
        if trace is None or not ctx.fresh:
            return
        made = (dt.detach(), A.detach(), b.detach(), c.detach(), wide(self.D.detach()))
        v = rows.restore(u.detach().flatten(2)).unflatten(2, (self.heads, -1)).transpose(1, 2)  # (B, H, T, E)
        trace.records.append(
            Implied(ctx.site, "self", lambda: rows.restore_pattern(pattern(*made)), v, ctx.pos, ctx.pos)
        )
