"""Linformer: keys and values are first mixed along the text into R of each, so attention costs O(T·R) instead of O(T²).

    head = softmax(q (E k)ᵀ / sqrt(d)) (F v)        E and F: (R, n)

(Wang et al. 2020, equation 7), for texts of at most n tokens. What E and F belong to (section 4):

    none        each head has its own E and its own F
    headwise    the heads of a layer share one E and one F
    key-value   they share one matrix, for keys and for values
    layerwise   all layers share one matrix, for keys and for values

Every query sees a mixture of the whole text: there is no causal form.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cutaway.attention import Full, Implied, Mask, Scores, attend, weights
from cutaway.attention.record import listening
from cutaway.axes import Float, Int
from cutaway.errors import ConfigError
from cutaway.parts.context import Context
from cutaway.parts.mixing import check_heads, no_logits, reads_causally, split_heads
from cutaway.parts.position import check_length

SHARING = ("none", "headwise", "key-value", "layerwise")


class Along(nn.Module):
    """One of E and F, for one head or for all: x (B, G, T, E) -> Σ_j weight[:, pos_j] x_j (B, G, R, E).

    `weight` is (n, R), or (G, n, R) with a matrix for each head. By position, not by column: padding adds nothing.
    """

    def __init__(self, context: int, rank: int, heads: int | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(context, rank) if heads is None else torch.empty(heads, context, rank))
        nn.init.normal_(self.weight, std=rank**-0.5)  # theorem 2: entries of variance 1/R keep products of vectors

    def rows(self, pos: Int[Tensor, "#b t"]) -> Float[Tensor, "b g t r"]:
        """What each token is multiplied by; zero for padding."""
        context = self.weight.shape[-2]
        if pos.device.type == "cpu" and not torch.compiler.is_compiling():
            check_length(int(pos.max()) + 1, context)
        table = self.weight.reshape(-1, context, self.weight.shape[-1])  # (G or 1, n, R)
        return (table[:, pos.clamp(min=0)] * (pos >= 0)[..., None]).transpose(0, 1)

    def forward(self, x: Float[Tensor, "b g t e"], pos: Int[Tensor, "#b t"]) -> Float[Tensor, "b g r e"]:
        return self.rows(pos).transpose(-1, -2) @ x


class LowRankAttention(nn.Module):
    """softmax(scale · q (E k)ᵀ) (F v), by heads; see above for the symbols.

    Args:
        width, heads, kv_heads, head_width: D, H, G and the width of a head, as in `Attention`.
        context: n, the most tokens.
        rank: R.
        sharing: whom E and F belong to; see above.
        shared: the one matrix of all layers, where `sharing` is "layerwise".
        mask: must be `Full()`.
        q_steps, k_steps, scale, dropout: as in `Attention`; steps come before E.

    Raises:
        ConfigError: the heads do not divide, a causal mask, or something to add to T × T logits, which do not exist here.
    """

    keeps_documents = False

    def __init__(
        self,
        width: int,
        heads: int,
        kv_heads: int | None = None,
        head_width: int | None = None,
        *,
        context: int = 512,
        rank: int = 128,
        sharing: str = "headwise",
        shared: Along | None = None,
        mask: Mask = Full(),
        bias: bool = False,
        out_bias: bool | None = None,
        q_steps: Sequence[nn.Module] = (),
        k_steps: Sequence[nn.Module] = (),
        score_bias: nn.Module | None = None,
        scale: float | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.kv_heads, self.head_width = check_heads(width, heads, kv_heads, head_width)
        if reads_causally(mask):
            raise ConfigError("Linformer mixes the whole text before it looks: it cannot look at the past alone")
        if sharing not in SHARING or (sharing == "layerwise") != (shared is not None):
            raise ConfigError(f"sharing is one of {SHARING}, 'layerwise' with the shared matrix, not {sharing!r}")
        no_logits(score_bias, "Linformer")
        self.q = nn.Linear(width, heads * self.head_width, bias=bias)
        self.k = nn.Linear(width, self.kv_heads * self.head_width, bias=bias)
        self.v = nn.Linear(width, self.kv_heads * self.head_width, bias=bias)
        self.out = nn.Linear(heads * self.head_width, width, bias=bias if out_bias is None else out_bias)
        each = self.kv_heads if sharing == "none" else None
        self.along_k = Along(context, rank, each) if shared is None else shared
        self.along_v = Along(context, rank, each) if sharing in ("none", "headwise") else self.along_k
        self.q_steps, self.k_steps, self.dropout = nn.ModuleList(q_steps), nn.ModuleList(k_steps), dropout
        self.scale = self.head_width**-0.5 if scale is None else scale

    def forward(self, x: Float[Tensor, "b t d"], ctx: Context) -> Float[Tensor, "b t d"]:
        q = split_heads(self.q(x), self.heads)  # (B, H, T, E)
        k, v = (split_heads(project(x), self.kv_heads) for project in (self.k, self.v))
        for step in self.q_steps:
            q = step(q, ctx)
        for step in self.k_steps:
            k = step(k, ctx)
        short = torch.arange(self.along_k.weight.shape[-1], device=x.device)[None]
        scores = Scores(q, self.along_k(k, ctx.pos), ctx.pos, short, scale=self.scale, packing="none")  # (B, H, T, R)
        mixed = attend(scores, self.along_v(v, ctx.pos), self.dropout if self.training else 0.0)
        self._show(scores, v, ctx)
        return self.out(mixed.transpose(1, 2).flatten(2))

    def _show(self, scores: Scores, v: Tensor, ctx: Context) -> None:
        """The T × T pattern that comes of it: softmax(q (E k)ᵀ) F. Its numbers may be negative."""
        trace = listening()
        if trace is None:
            return
        scores.q, scores.k = scores.q.detach(), scores.k.detach()
        groups = scores.q.shape[1] // v.shape[1]
        back = self.along_v.rows(ctx.pos).detach().transpose(-1, -2)  # (B, G, R, T)
        back = back.repeat_interleave(groups, 1) if back.shape[1] > 1 else back
        values = v.detach().repeat_interleave(groups, 1)
        trace.records.append(
            Implied(ctx.site, "self", lambda: weights(scores).to(back.dtype) @ back, values, ctx.pos, ctx.pos)
        )
