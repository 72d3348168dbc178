"""The attention layer: project to queries, keys and values, attend, project back.

One class is multi-head attention (Vaswani et al. 2017, section 3.2.2), multi-query (Shazeer 2019: `kv_heads=1`),
grouped-query (Ainslie et al. 2023: `1 < kv_heads < heads`), self- and cross-attention, with and without a cache.
What differs between families is data: the mask, the steps queries and keys go through, the score bias.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor, nn

from cutaway.attention import Full, Mask, Scores, attend
from cutaway.attention.record import note
from cutaway.axes import Float, Int
from cutaway.errors import ConfigError
from cutaway.parts.context import Context
from cutaway.parts.mixing import check_heads, split_heads
from cutaway.parts.state import Memory


class ScoreBias(Protocol):
    """A part that adds to the logits: T5's relative positions, ALiBi."""

    def __call__(
        self, attention: Attention, q: Tensor, k: Tensor, ctx: Context, k_pos: Int[Tensor, "#b k"], owner: object
    ) -> Float[Tensor, "..."]:
        """A bias that broadcasts to (B, H, Q, K)."""
        ...


class Attention(nn.Module):
    """softmax(scale · q kᵀ + bias) v, for H query heads that share G key/value heads of width E.

    Args:
        width: model width D.
        heads, kv_heads: H and G; H is a multiple of G. `kv_heads=None` is one a query head.
        head_width: E; `None` is D / H.
        value_width: the width of a head's values, where that is not E.
        mask: who may look at whom. Padding is always masked besides.
        bias, k_bias, out_bias: whether q, k, v and the output projection have one (None: as `bias`).
        q_steps, k_steps, v_steps: parts `(x (B, H, T, E), ctx) -> x` applied in order, e.g. `[RMSNorm(E), Rotary(E)]`.
        scale: multiplies q kᵀ; `None` is 1/sqrt(E).
        softcap: c in c·tanh(logits/c), before the bias.
        dropout: probability of dropping a weight of the pattern, in training.
        cross: look at the encoder's output instead of oneself.

    Raises:
        ConfigError: the heads do not divide.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        kv_heads: int | None = None,
        head_width: int | None = None,
        *,
        mask: Mask = Full(),
        bias: bool = False,
        k_bias: bool | None = None,
        out_bias: bool | None = None,
        q_steps: Sequence[nn.Module] = (),
        k_steps: Sequence[nn.Module] = (),
        v_steps: Sequence[nn.Module] = (),
        score_bias: nn.Module | None = None,
        scale: float | None = None,
        softcap: float | None = None,
        dropout: float = 0.0,
        cross: bool = False,
        value_width: int | None = None,
    ) -> None:
        super().__init__()
        kv_heads, head_width = check_heads(width, heads, kv_heads, head_width)
        self.heads, self.kv_heads = heads, kv_heads
        self.head_width, self.value_width = head_width, value_width or head_width
        self.q = nn.Linear(width, heads * head_width, bias=bias)
        self.k = nn.Linear(width, kv_heads * head_width, bias=bias if k_bias is None else k_bias)
        self.v = nn.Linear(width, kv_heads * self.value_width, bias=bias)
        self.out = nn.Linear(heads * self.value_width, width, bias=bias if out_bias is None else out_bias)
        self.q_steps, self.k_steps, self.v_steps = (nn.ModuleList(steps) for steps in (q_steps, k_steps, v_steps))
        self.score_bias = score_bias
        self.mask, self.cross, self.dropout, self.softcap = mask, cross, dropout, softcap
        self.scale = head_width**-0.5 if scale is None else scale

    def forward(self, x: Float[Tensor, "b t d"], ctx: Context) -> Float[Tensor, "b t d"]:
        return self.out(self.mix(x, ctx).transpose(1, 2).flatten(2))

    def pattern(self, ctx: Context) -> Mask:
        """Who looks at whom in this call: always the same, but where lengths or marks decide (BigBird, Longformer)."""
        return self.mask

    def mix(self, x: Float[Tensor, "b t d"], ctx: Context) -> Float[Tensor, "b h t o"]:
        """What each head makes of the values, before the output projection."""
        q = split_heads(self.q(x), self.heads)  # (B, H, Q, E)
        for step in self.q_steps:
            q = step(q, ctx)
        k, v, k_pos, owner = self._memory(ctx) if self.cross else self._own(x, ctx)
        scores = Scores(
            q,
            k,
            q_pos=ctx.pos,
            k_pos=k_pos,
            mask=self.pattern(ctx),
            bias=None if self.score_bias is None else self.score_bias(self, q, k, ctx, k_pos, owner),
            scale=self.scale,
            softcap=self.softcap,
            own=owner == "own",
            newest=isinstance(owner, tuple) and owner[0] == "newest",
            packing=ctx.memory_packing if self.cross else ctx.packing if owner == "own" else "any",
            documents=None if ctx.documents is None or self.cross else (ctx.documents, ctx.documents),
            owner=owner,
            memo=ctx.memo,
        )
        note(ctx.site, "cross" if self.cross else "self", scores, v, cached=owner not in ("own", "memory"))
        return attend(scores, v, self.dropout if self.training else 0.0)

    def _own(self, x: Tensor, ctx: Context) -> tuple[Tensor, Tensor, Tensor, object]:
        k, v = self._keys(x)
        for step in self.k_steps:
            k = step(k, ctx)
        for step in self.v_steps:
            v = step(v, ctx)
        if ctx.state is None:
            return k, v, ctx.pos, "own"
        return ctx.state.kv(ctx.site, k, v, self.mask.window).extend(k, v, ctx)

    def _memory(self, ctx: Context) -> tuple[Tensor, Tensor, Tensor, object]:
        if ctx.memory is None or ctx.memory_pos is None:
            raise ConfigError(f"{ctx.site} is cross-attention: it needs an encoder's output to look at")
        held = None if ctx.state is None else ctx.state.sites.get(ctx.site)
        if not isinstance(held, Memory):
            held = Memory(*self._keys(ctx.memory))
            if ctx.state is not None:
                ctx.state.sites[ctx.site] = held
        return held.k, held.v, ctx.memory_pos, "memory"

    def _keys(self, x: Float[Tensor, "b t d"]) -> tuple[Float[Tensor, "b g t e"], Float[Tensor, "b g t o"]]:
        """Keys and values of these tokens, by heads."""
        return split_heads(self.k(x), self.kv_heads), split_heads(self.v(x), self.kv_heads)
