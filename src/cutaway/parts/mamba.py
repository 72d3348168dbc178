"""Mamba: a gated block around a selective scan, which mixes tokens without attention.

    u = act(conv(W_u x)),  z = W_z x            each (B, T, I), I = expand · D channels
    Δ, B, C = softplus(W_Δ s + b_Δ), …          where [s, B, C] = W u: a step a channel, and N numbers each
    y = scan(u, Δ, -exp(A_log), B, C) + D ∘ u   out = W_o (y ∘ silu(z))

(Gu and Dao 2023, arXiv:2312.00752, algorithm 2 and section 3.4.) Time O(T·I·(D + N)), memory O(T·I). What it remembers
of a text, however long: N numbers a channel and the convolution's last K-1 tokens.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cutaway.attention import Causal, Implied, Mask
from cutaway.attention.masks import is_causal
from cutaway.attention.record import listening
from cutaway.axes import Float
from cutaway.errors import ConfigError
from cutaway.parts.compact import Rows
from cutaway.parts.context import Context
from cutaway.parts.convolution import CausalConvolution
from cutaway.parts.feedforward import activation
from cutaway.parts.scan import selective_scan
from cutaway.parts.ssd import span


class Mamba(nn.Module):
    """See above. Padding may stand anywhere: it moves behind the real tokens, where its steps Δ are 0.

    Args:
        width: D.
        mask: must be causal; there is nothing else it could hide.
        expand: channels I for each of D.
        state: N, numbers a channel remembers.
        kernel: K, tokens the convolution sees.
        rank: of W_Δ; None is D / 16, rounded up.
        bias, conv_bias: whether the projections from and to D, and the convolution, have one.
        attention: what else attention is given in this place (heads, rotary steps, biases) has no counterpart here.

    Raises:
        ConfigError: the mask lets tokens look ahead, which a scan cannot.
    """

    def __init__(
        self,
        width: int,
        *heads: int | None,
        mask: Mask = Causal(),
        expand: int = 2,
        state: int = 16,
        kernel: int = 4,
        rank: int | None = None,
        act: str = "silu",
        bias: bool = False,
        conv_bias: bool = True,
        **attention: Any,
    ) -> None:
        super().__init__()
        reads_forward(mask)
        inner, rank = expand * width, rank or rank_of(width)
        self.act = activation(act)
        self.value = nn.Linear(width, inner, bias=bias)
        self.gate = nn.Linear(width, inner, bias=bias)
        self.convolution = CausalConvolution(inner, kernel, conv_bias)
        self.select = nn.Linear(inner, rank + 2 * state, bias=False)
        self.step = nn.Linear(rank, inner, bias=False)
        nn.init.uniform_(self.step.weight, -(rank**-0.5), rank**-0.5)
        self.step_bias = nn.Parameter(first_steps(inner))
        self.A_log = nn.Parameter(torch.arange(1.0, state + 1).log().repeat(inner, 1))  # (I, N)
        self.D = nn.Parameter(torch.ones(inner))
        self.out = nn.Linear(inner, width, bias=bias)

    def forward(self, x: Float[Tensor, "b t d"], ctx: Context) -> Float[Tensor, "b t d"]:
        rows = Rows.of(ctx)
        x = rows.compact(x)
        value = self.value(x)  # (B, T, I)
        inner, n = self.A_log.shape
        held = None
        if ctx.state is not None:
            held = ctx.state.cells(
                ctx.site,
                lambda: {
                    "convolution": value.new_zeros(len(x), self.convolution.kernel - 1, inner),
                    "scan": wide(value.new_zeros(len(x), n, inner)),
                },
            )
        u = self.act(self.convolution(value, None if held is None else held["convolution"]))
        step, b, c = self.select(u).split([self.step.in_features, n, n], -1)
        dt = F.softplus(wide(self.step(step)) + wide(self.step_bias))
        if rows.padded:
            dt = dt.masked_fill(~rows.real[..., None], 0.0)
        A = -wide(self.A_log).exp().t().contiguous()  # (N, I)
        u, b, c = wide(u), wide(b), wide(c)
        self._show(u, dt, A, b, c, rows, ctx)
        begin = u.new_zeros(len(u), n, inner) if held is None else held["scan"]
        y, end = selective_scan(u, dt, A, b, c, wide(self.D), begin)
        if held is not None:
            held["scan"].copy_(end)
            held["convolution"].copy_(rows.last(held["convolution"], value))
        return rows.restore(self.out(y.to(x.dtype) * F.silu(self.gate(x))))

    def _show(self, u: Tensor, dt: Tensor, A: Tensor, b: Tensor, c: Tensor, rows: Rows, ctx: Context) -> None:
        """What came before a call has been summed up and has no pattern any more: only whole texts are recorded."""
        trace = listening()
        if trace is None or not ctx.fresh:
            return
        made = (dt.detach(), A.detach(), b.detach(), c.detach(), wide(self.D.detach()))
        v = rows.restore(u.detach()).transpose(1, 2)[..., None]  # (B, I, T, 1)
        trace.records.append(
            Implied(ctx.site, "self", lambda: rows.restore_pattern(pattern(*made)), v, ctx.pos, ctx.pos)
        )


def pattern(
    dt: Float[Tensor, "b t i"],
    A: Float[Tensor, "n i"],
    b: Float[Tensor, "b t n"],
    c: Float[Tensor, "b t n"],
    skip: Float[Tensor, "i"],
) -> Float[Tensor, "b i t t"]:
    """The hidden attention matrix of each channel: what token q takes of u_k (Ali et al. 2024, arXiv:2403.01590, eq. 11).

    Σ_n C_qn exp(A_n (Δ_{k+1} + … + Δ_q)) B_kn Δ_k for k ≤ q, and D more on the diagonal. It mixes u into y, which
    the gate then multiplies. I·T² numbers a row of the batch.
    """
    elapsed = span(dt.transpose(1, 2))  # (B, I, Q, K)
    found = torch.zeros_like(elapsed)
    for n, rate in enumerate(A):
        found += (c[:, :, None, n] * b[:, None, :, n])[:, None] * (rate[:, None, None] * elapsed).exp()
    found = found * dt.transpose(1, 2)[:, :, None]
    return found.tril() + torch.diag_embed(skip[:, None].expand(-1, dt.shape[1]))


def reads_forward(mask: Mask) -> None:
    """
    Raises:
        ConfigError: the mask lets tokens look ahead.
    """
    if not is_causal(mask):
        raise ConfigError("Mamba reads from left to right: it cannot stand where tokens look ahead, as in an encoder")


def rank_of(width: int) -> int:
    """The published rank of the steps' projection."""
    return math.ceil(width / 16)


def first_steps(count: int, least: float = 1e-3, most: float = 0.1) -> Float[Tensor, "i"]:
    """Biases b with softplus(b) spread evenly in logarithm from `least` to `most` (Gu and Dao 2023, section 3.6)."""
    steps = torch.exp(torch.rand(count) * math.log(most / least) + math.log(least))
    return steps + torch.log(-torch.expm1(-steps))


def wide(x: Tensor) -> Tensor:
    """At least float32: a state that many small steps add to needs the digits."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()
