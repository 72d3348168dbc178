"""Synthesizer: attention whose logits are not made by comparing tokens (Tay et al. 2021, section 3, table 1).

    out = softmax(S) v       S (T, n) is one of these, or a mixture Σ_i α_i S_i with Σ_i α_i = 1

    dense               W₂ relu(W₁ x)                                D·D + D·n numbers
    factorised-dense    tiled A ∘ tiled B, A and B each W relu(W₁ x)    D·D + D·(a + b)
    random              R, learned or fixed                          n·n a head
    factorised-random   R₁ R₂ᵀ                                       2·n·r a head
    dot                 q kᵀ / sqrt(E), plain attention              2·D·D

n is the most tokens a text can have, a·b >= n, r is small. Columns of S belong to positions, so that padding and a cache
change nothing; a mask applies as in any attention. Time O(T²), as in the paper: what is spared are parameters and products.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cutaway.attention import Full, Mask, Scores, attend
from cutaway.attention.record import note
from cutaway.axes import Float, Int
from cutaway.errors import ConfigError
from cutaway.parts.context import Context
from cutaway.parts.mixing import check_heads, split_heads
from cutaway.parts.position import check_length

KINDS = ("dense", "factorised-dense", "random", "factorised-random", "dot")


class PerHead(nn.Module):
    """x (B, H, T, E) -> x W_h + b_h (B, H, T, N): a projection of its own for each head."""

    def __init__(self, heads: int, inputs: int, outputs: int, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(heads, inputs, outputs))
        nn.init.normal_(self.weight, std=inputs**-0.5)
        self.bias = nn.Parameter(torch.zeros(heads, 1, outputs)) if bias else None

    def forward(self, x: Float[Tensor, "b h t e"]) -> Float[Tensor, "b h t n"]:
        return x @ self.weight if self.bias is None else x @ self.weight + self.bias


class Dense(nn.Module):
    """S_i = W₂ relu(W₁ x_i + b₁) + b₂ (equation 3): each token says where to look, without looking at any other."""

    def __init__(self, width: int, heads: int, head_width: int, context: int, bias: bool) -> None:
        super().__init__()
        self.head_width = head_width
        self.hidden = nn.Linear(width, heads * head_width, bias=bias)
        self.columns = PerHead(heads, head_width, context, bias)

    def forward(self, x: Tensor, q_pos: Int[Tensor, "#b q"], k_pos: Int[Tensor, "#b k"]) -> Float[Tensor, "b h q k"]:
        return by_position(self.columns(_hidden(self, x)), k_pos)


class FactorisedDense(nn.Module):
    """S_ij = A_i,(j mod a) · B_i,(j div a) (equation 6): the tiling that gives every column a pair of its own."""

    def __init__(self, width: int, heads: int, head_width: int, context: int, bias: bool) -> None:
        super().__init__()
        self.head_width = head_width
        a = math.isqrt(context - 1) + 1
        self.hidden = nn.Linear(width, heads * head_width, bias=bias)
        self.a = PerHead(heads, head_width, a, bias)
        self.b = PerHead(heads, head_width, -(-context // a), bias)

    def forward(self, x: Tensor, q_pos: Int[Tensor, "#b q"], k_pos: Int[Tensor, "#b k"]) -> Float[Tensor, "b h q k"]:
        hidden = _hidden(self, x)
        tiled = self.b(hidden)[..., :, None] * self.a(hidden)[..., None, :]  # (B, H, Q, b, a)
        return by_position(tiled.flatten(-2), k_pos)


class Random(nn.Module):
    """S = R (equation 4): the same for every text. `fixed` is never trained."""

    def __init__(self, heads: int, context: int, fixed: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(heads, context, context), requires_grad=not fixed)
        nn.init.normal_(self.weight)

    def forward(self, x: Tensor, q_pos: Int[Tensor, "#b q"], k_pos: Int[Tensor, "#b k"]) -> Float[Tensor, "b h q k"]:
        rows, columns = q_pos.clamp(min=0)[:, :, None], k_pos.clamp(min=0)[:, None, :]
        return self.weight[:, rows, columns].transpose(0, 1)


class FactorisedRandom(nn.Module):
    """S = R₁ R₂ᵀ (equation 7)."""

    def __init__(self, heads: int, context: int, rank: int, fixed: bool) -> None:
        super().__init__()
        self.left = nn.Parameter(torch.empty(heads, context, rank), requires_grad=not fixed)
        self.right = nn.Parameter(torch.empty(heads, context, rank), requires_grad=not fixed)
        nn.init.normal_(self.left)
        nn.init.normal_(self.right)

    def forward(self, q_pos: Int[Tensor, "#b q"], k_pos: Int[Tensor, "#b k"]) -> tuple[Tensor, Tensor]:
        """What stands for queries and keys, (B, H, Q, r) and (B, H, K, r)."""
        left, right = self.left[:, q_pos.clamp(min=0)], self.right[:, k_pos.clamp(min=0)]
        return left.transpose(0, 1), right.transpose(0, 1)


class Synthesizer(nn.Module):
    """softmax(Σ_i α_i S_i) v, by heads; see above for the symbols.

    Args:
        width, heads, kv_heads, head_width: D, H, (only as many as H), E.
        kinds: which S_i, in order; α is learned where there are several, and is uniform at first (section 3.3).
        context: n.
        rank: r, 8 in the paper.
        fixed: random logits stay as they were drawn.
        mask, bias, out_bias, dropout, score_bias: as in `Attention`.
        q_steps, k_steps, scale: of "dot".

    Raises:
        ConfigError: the heads do not divide, or an unknown kind.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        kv_heads: int | None = None,
        head_width: int | None = None,
        *,
        kinds: Sequence[str] = ("dense",),
        context: int = 512,
        rank: int = 8,
        fixed: bool = False,
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
        groups, self.head_width = check_heads(width, heads, kv_heads, head_width)
        if groups != heads:
            raise ConfigError("a Synthesizer's heads share no keys and values: kv_heads is heads")
        if not kinds or len(set(kinds)) < len(kinds) or not set(kinds) <= set(KINDS):
            raise ConfigError(f"kinds are some of {', '.join(KINDS)}, each once; not {', '.join(kinds) or 'none'}")
        self.heads, self.kinds, self.context, self.mask, self.dropout = heads, tuple(kinds), context, mask, dropout
        self.scale = self.head_width**-0.5 if scale is None else scale
        shape = (width, heads, self.head_width)
        make: dict[str, Any] = {
            "dense": lambda: Dense(*shape, context, bias),
            "factorised-dense": lambda: FactorisedDense(*shape, context, bias),
            "random": lambda: Random(heads, context, fixed),
            "factorised-random": lambda: FactorisedRandom(heads, context, rank, fixed),
        }
        self.made = nn.ModuleDict({kind.replace("-", "_"): make[kind]() for kind in kinds if kind != "dot"})
        self.mixture = nn.Parameter(torch.zeros(len(kinds))) if len(kinds) > 1 else None
        self.q = nn.Linear(width, heads * self.head_width, bias=bias) if "dot" in kinds else None
        self.k = nn.Linear(width, heads * self.head_width, bias=bias) if "dot" in kinds else None
        self.v = nn.Linear(width, heads * self.head_width, bias=bias)
        self.out = nn.Linear(heads * self.head_width, width, bias=bias if out_bias is None else out_bias)
        turned = "dot" in kinds
        self.q_steps, self.k_steps = (nn.ModuleList(steps if turned else ()) for steps in (q_steps, k_steps))
        self.score_bias = score_bias

    def forward(self, x: Float[Tensor, "b t d"], ctx: Context) -> Float[Tensor, "b t d"]:
        if ctx.pos.device.type == "cpu" and not torch.compiler.is_compiling():
            check_length(int(ctx.pos.max()) + 1, self.context)
        v = split_heads(self.v(x), self.heads)  # (B, H, T, E)
        k = v[..., :1]  # what a cache remembers of keys where there are none
        if self.k is not None:
            k = split_heads(self.k(x), self.heads)
            for step in self.k_steps:
                k = step(k, ctx)
        k_pos, owner = ctx.pos, "own"
        if ctx.state is not None:
            k, v, k_pos, owner = ctx.state.kv(ctx.site, k, v, self.mask.window).extend(k, v, ctx)
        q, k, bias = self._logits(x, k, k_pos, ctx)
        if self.score_bias is not None:
            added = self.score_bias(self, q, k, ctx, k_pos, owner)
            bias = added if bias is None else added + bias
        scores = Scores(
            q,
            k,
            q_pos=ctx.pos,
            k_pos=k_pos,
            mask=self.mask,
            bias=bias,
            own=owner == "own",
            newest=isinstance(owner, tuple) and owner[0] == "newest",
            packing=ctx.packing if owner == "own" else "any",
            documents=None if ctx.documents is None else (ctx.documents, ctx.documents),
            owner=owner,
            memo=ctx.memo,
        )
        note(ctx.site, "self", scores, v, cached=owner != "own")
        mixed = attend(scores, v, self.dropout if self.training else 0.0)
        return self.out(mixed.transpose(1, 2).flatten(2))

    def _logits(self, x: Tensor, k: Tensor, k_pos: Tensor, ctx: Context) -> tuple[Tensor, Tensor, Tensor | None]:
        """Σ_i α_i S_i as queries, keys, and what is added to their products."""
        alpha = [1.0] if self.mixture is None else self.mixture.softmax(0).unbind()
        queries, keys, bias = [], [], None
        for share, kind in zip(alpha, self.kinds, strict=True):
            if kind == "dot":
                project = self.q
                assert project is not None
                q = split_heads(project(x), self.heads)
                for step in self.q_steps:
                    q = step(q, ctx)
                left, right = q * self.scale, k
            elif kind == "factorised-random":
                left, right = self.made["factorised_random"](ctx.pos, k_pos)
            else:
                made = self.made[kind.replace("-", "_")](x, ctx.pos, k_pos) * share
                bias = made if bias is None else bias + made
                continue
            queries.append((left * share).expand(len(x), -1, -1, -1))
            keys.append(right.expand(len(x), -1, -1, -1))
        if not queries:
            nothing = x.new_zeros(len(x), self.heads, 1, 1)
            return nothing.expand(-1, -1, x.shape[1], -1), nothing.expand(-1, -1, k.shape[2], -1), bias
        return torch.cat(queries, -1), torch.cat(keys, -1), bias


def by_position(logits: Float[Tensor, "b h q n"], k_pos: Int[Tensor, "#b k"]) -> Float[Tensor, "b h q k"]:
    """The columns at the positions of the keys."""
    columns = k_pos.clamp(min=0)
    if len(columns) == 1:
        return logits[..., columns[0]]
    return logits.gather(-1, columns[:, None, None].expand(*logits.shape[:3], -1))


def _hidden(part: Dense | FactorisedDense, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b h t e"]:
    return F.relu(part.hidden(x)).unflatten(-1, (-1, part.head_width)).transpose(1, 2)
