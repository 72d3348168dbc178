"""Local attention with global tokens that have projections of their own (Longformer)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from cutaway.attention import Full, Mask, Scores, attend
from cutaway.attention.patterns import Marked
from cutaway.attention.record import note
from cutaway.axes import Bool, Float, Int
from cutaway.errors import ConfigError
from cutaway.parts.attention import Attention
from cutaway.parts.context import Context
from cutaway.parts.mixing import split_heads


class LocalGlobalAttention(Attention):
    """A window's attention in which a few marked tokens look at everybody, and everybody at them.

        local tokens     softmax( q kᵀ / sqrt(E) ) v       over the keys in the window and the marked ones
        marked tokens    softmax( q' k'ᵀ / sqrt(E) ) v'    over all keys; q', k', v' by three projections of their own

    Beltagy et al. 2020, section 3.1: symmetric in who sees whom, not in the projections. Which tokens are marked is said
    with each call (`model(ids, global_mask=…)`), as Bool (B, T); none are where nothing is said, or the first token where
    `first` is set, as classifiers of sequences have it. O(T·(w + g)) time and O(T) memory for g marked tokens.

    Args:
        width, heads, mask, …: as for `Attention`, the mask being the window.
        first: the first token is marked where a call marks none.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        kv_heads: int | None = None,
        head_width: int | None = None,
        *,
        bias: bool = True,
        first: bool = False,
        **given: Any,
    ) -> None:
        super().__init__(width, heads, kv_heads, head_width, bias=bias, **given)
        self.q_global = nn.Linear(width, self.heads * self.head_width, bias=bias)
        self.k_global = nn.Linear(width, self.kv_heads * self.head_width, bias=bias)
        self.v_global = nn.Linear(width, self.kv_heads * self.head_width, bias=bias)
        self.first = first

    def pattern(self, ctx: Context) -> Mask:
        marks = self._marks(ctx)
        if marks is not None and ctx.documents is not None:
            raise ConfigError("global tokens are of one document a row; mark none, or give each a row of its own")
        return (
            self.mask
            if marks is None
            else self.mask | ctx.once(("marked", self.first), lambda: by_position(marks, ctx.pos))
        )

    def mix(self, x: Float[Tensor, "b t d"], ctx: Context) -> Float[Tensor, "b h t e"]:
        mixed, marks = super().mix(x, ctx), self._marks(ctx)
        if marks is None:
            return mixed
        columns, real = ctx.once(("marked columns", self.first), lambda: _columns(marks.expand(len(x), -1)))  # (B, g)
        chosen = x.gather(1, columns[..., None].expand(-1, -1, x.shape[2]))
        theirs = Context(torch.where(real, ctx.pos.expand(len(x), -1).gather(1, columns), -1), "any")
        q = split_heads(self.q_global(chosen), self.heads)
        k, v = (split_heads(project(x), self.kv_heads) for project in (self.k_global, self.v_global))
        for step in self.q_steps:
            q = step(q, theirs)
        for step in self.k_steps:
            k = step(k, ctx)
        scores = Scores(
            q, k, theirs.pos, ctx.pos, Full(), None, self.scale, packing=ctx.packing, owner="marked", memo=ctx.memo
        )
        note(f"{ctx.site}.global", "self", scores, v, cached=False)
        found = attend(scores, v, self.dropout if self.training else 0.0).transpose(1, 2)  # (B, g, H, E)
        row, rank = real.nonzero(as_tuple=True)
        return mixed.transpose(1, 2).index_put((row, columns[row, rank]), found[row, rank]).transpose(1, 2)

    def _marks(self, ctx: Context) -> Bool[Tensor, "b t"] | None:
        """Which tokens are global in this call: (B, T), by column; None where no token is."""

        def made() -> Tensor | None:
            if ctx.global_mask is not None:
                marks = ctx.global_mask & (ctx.pos >= 0)
            elif self.first:
                marks = ctx.pos == ctx.pos.masked_fill(ctx.pos < 0, torch.iinfo(ctx.pos.dtype).max).amin(
                    1, keepdim=True
                )
            else:
                return None
            return marks if marks.any() else None

        return ctx.once(("marks", self.first), made)


def mark(ctx: Context, global_mask: Bool[Tensor, "b t"], stack: nn.Module) -> Context:
    """The context of a call that marks global tokens.

    Raises:
        ConfigError: the model has no global attention, or the marks are not Bool of the ids' shape.
    """
    if not any(isinstance(part, LocalGlobalAttention) for part in stack.modules()):
        raise ConfigError("this model has no global attention; leave global_mask out")
    tokens = ctx.pos.shape[1]
    if global_mask.dtype != torch.bool or global_mask.ndim != 2 or global_mask.shape[1] != tokens:
        given = f"{global_mask.dtype} {tuple(global_mask.shape)}"
        raise ConfigError(f"global_mask is bool (B, {tokens}), True on tokens that all look at, not {given}")
    return replace(ctx, global_mask=global_mask)


def by_position(marks: Bool[Tensor, "#b t"], pos: Int[Tensor, "#b t"]) -> Marked:
    """The mask of marks that are given by column."""
    rows, last = max(len(marks), len(pos)), int(pos.max()) + 1
    marks, pos = marks.expand(rows, -1), pos.expand(rows, -1)
    table = torch.zeros(rows, last + 1, dtype=torch.bool, device=pos.device)
    table.scatter_(1, torch.where(marks & (pos >= 0), pos, last).long(), True)
    return Marked(table[:, :last])


def _columns(marks: Bool[Tensor, "b t"]) -> tuple[Int[Tensor, "b g"], Bool[Tensor, "b g"]]:
    """The marked columns of each row, as many as the row with most has, and which of them are such."""
    most = int(marks.sum(1).max())
    columns = marks.int().argsort(dim=1, descending=True, stable=True)[:, :most]
    return columns, marks.gather(1, columns)
