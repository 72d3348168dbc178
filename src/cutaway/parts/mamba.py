"""Mamba: a gated block around a selective scan, which mixes tokens without attention.

    u = act(conv(W_u x)),  z = W_z x            each (B, T, I), I = expand · D channels
    Δ, B, C = softplus(W_Δ s + b_Δ), …          where [s, B, C] = W u: a step a channel, and N numbers each
    y = scan(u, Δ, -exp(A_log), B, C) + D ∘ u   out = W_o (y ∘ silu(z))

(Gu and Dao 2023, arXiv:2312.00752, algorithm 2 and section 3.4.) Time O(T·I·(D + N)), memory O(T·I). What it remembers
of a text, however long: N numbers a channel and the convolution's last K-1 tokens.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

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
from cutaway.parts.scan import selective_scan
from cutaway.parts.ssd import span

SEGMENT = 512  # tokens worked on at a time, so that what is between the projections stays in the processor's cache


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

    keeps_documents = False

    reads: ClassVar = ("step",)  # its matrix, without calling it

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
        inner, n = self.A_log.shape
        begin = {
            "convolution": x.new_zeros(len(x), self.convolution.kernel - 1, inner),
            "scan": wide(x.new_zeros(len(x), n, inner)),
        }
        held = begin if ctx.state is None else ctx.state.cells(ctx.site, lambda: begin)
        A = -wide(self.A_log).exp().t().contiguous()  # (N, I)
        before, h = held["convolution"], held["scan"]
        outs, scanned = [], []
        for part, real in rows.split(x, SEGMENT):
            value = self.value(part)  # (B, T, I)
            inputs = self._select(self.act(self.convolution(value, before)), real)
            y, h = selective_scan(*inputs[:2], A, *inputs[2:], wide(self.D), h)
            before = last(before, value, real)
            outs.append(self.out(y.to(x.dtype) * F.silu(self.gate(part))))
            scanned.append(inputs)
        if ctx.state is not None:
            held["convolution"].copy_(before)
            held["scan"].copy_(h)
        self._show(scanned, A, rows, ctx)
        return rows.restore(outs[0] if len(outs) == 1 else torch.cat(outs, 1))

    def _select(self, u: Tensor, real: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What the scan is given of u: u, Δ, B and C."""
        n = self.A_log.shape[1]
        step, b, c = self.select(u).split([self.step.in_features, n, n], -1)
        dt = F.softplus(wide(F.linear(step, self.step.weight, self.step_bias)))
        if real is not None:
            dt = dt.masked_fill(~real[..., None], 0.0)
        return wide(u), dt, wide(b), wide(c)

    def _show(self, scanned: list[tuple[Tensor, ...]], A: Tensor, rows: Rows, ctx: Context) -> None:
        """What came before a call has been summed up and has no pattern any more: only whole texts are recorded."""
        trace = listening()
        if trace is None or not ctx.fresh:
            return
        u, dt, b, c = (torch.cat(each, 1).detach() for each in zip(*scanned, strict=True))
        A, skip = A.detach(), wide(self.D.detach())
        v = rows.restore(u).transpose(1, 2)[..., None]  # (B, I, T, 1)
        trace.records.append(
            Implied(ctx.site, "self", lambda: rows.restore_pattern(pattern(dt, A, b, c, skip)), v, ctx.pos, ctx.pos)
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
    if not mask.causal:
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
