"""Queries beside the text: vectors that look at its tokens and that no token ever looks at.

XLNet's query stream is such (Yang et al. 2019, section 2.3): it knows where the token stands that it is to guess, but
not which one it is. So is what DeBERTa's enhanced mask decoder reads (He et al. 2021, section 3.2). They run through
the same blocks as the text, behind it as further columns. For everybody else they are padding: position -1, no key, not
kept in a cache. What they stand for says `places`, which relative positions go by.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cutaway.attention import Implied, Recorded
from cutaway.attention.record import listening
from cutaway.axes import Bool, Float, Int
from cutaway.parts.context import Context
from cutaway.parts.position import LearnedPositions
from cutaway.parts.residual import Block


@dataclass(frozen=True, kw_only=True)
class Streams(Context):
    """The context of T tokens and P queries behind them."""

    places: Int[Tensor, "b q"]  # the position of each token, and for each query the one it looks from
    seen: Bool[Tensor, "b q q"] | None = None  # who may look at which of these columns; None: as the masks say


def with_queries(
    ctx: Context,
    places: Int[Tensor, "b p"],
    seen: Bool[Tensor, "b q q"] | None = None,
    segments: Int[Tensor, "b p"] | None = None,
    documents: Int[Tensor, "b p"] | None = None,
) -> Streams:
    """The context `ctx` with queries behind its tokens, which look from `places` and are of those segments and documents."""
    own = ctx.pos.expand(len(places), -1)
    return Streams(
        pos=torch.cat([own, torch.full_like(places, -1)], 1),
        packing="any",
        state=ctx.state,
        fresh=ctx.fresh,
        site=ctx.site,
        documents=None if ctx.documents is None or documents is None else torch.cat([ctx.documents, documents], 1),
        segments=None
        if ctx.segments is None or segments is None
        else torch.cat([ctx.segments.expand(len(places), -1), segments], 1),
        places=torch.cat([own, places], 1),
        seen=seen,
    )


def places(ctx: Context) -> Int[Tensor, "#b q"]:
    """What relative positions of this call's tokens are counted from."""
    return ctx.places if isinstance(ctx, Streams) else ctx.pos


def unseen(added: Float[Tensor, "b h q k"], ctx: Context) -> Float[Tensor, "b h q k"]:
    """`added` to the logits, -inf where this call's tokens may not see one another; what was before is seen by all."""
    if not isinstance(ctx, Streams) or ctx.seen is None:
        return added
    before = added.shape[-1] - ctx.seen.shape[-1]
    seen = torch.nn.functional.pad(ctx.seen, (before, 0), value=True)
    return added.masked_fill(~seen[:, None], -torch.inf)


class EnhancedDecoder(Block):
    """The last block, run `times` times by queries that know where they stand: x + P[pos], over the states x it is given.

    Only here do absolute positions enter, after the layers that know relative ones (He et al. 2021, section 3.2).
    """

    def __init__(self, positions: LearnedPositions, times: int = 2, **sublayers: torch.nn.Module) -> None:
        super().__init__(**sublayers)
        self.sublayers, self.times = tuple(sublayers), times
        self.positions = positions

    def forward(self, x: Float[Tensor, "b t d"], ctx: Context) -> Float[Tensor, "b t d"]:
        both, trace = with_queries(ctx, ctx.pos.expand(x.shape[0], -1), documents=ctx.documents), listening()
        known = 0 if trace is None else len(trace)
        queries = self.positions(x, ctx)
        for _ in range(self.times):
            out = torch.cat([x, queries], 1)
            for name in self.sublayers:
                out = self.get_submodule(name)(out, both.enter(name))
            queries = out[:, x.shape[1] :]
        if trace is not None:
            trace.records[known:] = [_of_queries(record, x.shape[1], ctx) for record in trace.records[known:]]
        return queries


def _of_queries(record: Recorded | Implied, tokens: int, ctx: Context) -> Recorded | Implied:
    """What was recorded of queries behind the text, without the text's own rows: who looks is as long as what is seen."""
    if not isinstance(record, Recorded):
        return record
    old = record.scores
    bias = None if old.bias is None else old.bias.expand(*old.q.shape[:3], old.k.shape[2])[:, :, tokens:, :tokens]
    seen = replace(
        old,
        q=old.q[:, :, tokens:],
        k=old.k[:, :, :tokens],
        bias=bias,
        q_pos=ctx.pos,
        k_pos=ctx.pos,
        memo={},
        documents=None if ctx.documents is None else (ctx.documents, ctx.documents),
    )
    return replace(record, scores=seen, v=record.v[:, :, :tokens])
