"""Attention within a window, in O(T·w) time and O(T) memory: blocks of queries, each beside the keys around it.

The pattern of a window is a band. It is cut into blocks of b consecutive queries; the keys that block i may look at are
consecutive too, `before` + b + `after` of them, and begin b further on for block i + 1. So the keys of all blocks are one
overlapping view of the padded keys, and a chunk of blocks is one batched product: no key is copied, and less than b of
each query's keys are computed in vain.

    x = scale · q kᵀ + mask        p = exp(x - lse)        o = p v

Backward computes a chunk's p again, from lse, as FlashAttention does (Dao et al. 2022, algorithm 4):

    dx = p ∘ (do vᵀ - rowsum(do ∘ o) + dlse)      dq = scale · dx k      dk = scale · dxᵀ q      dv = pᵀ do

A key gets gradients from several blocks. `Strip` lays p and dx out so that all of them that belong to one block of keys
are one matrix, and the sum over blocks is the product's own.

One head at a time, in buffers that are used again: they stay in the processor's cache. exp2 is used because exp is up to
200 times slower where it underflows. Tests hold outputs and gradients against the definition.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cutaway.attention.band import Band, Rows, Strip
from cutaway.attention.online import LOG2E, Dropout, capped, shares, softmax
from cutaway.axes import Float


def windowed(
    q: Float[Tensor, "b h t e"],
    k: Float[Tensor, "b g t e"],
    v: Float[Tensor, "b g t o"],
    band: Band,
    scale: float,
    softcap: float | None = None,
    dropout: float = 0.0,
) -> tuple[Float[Tensor, "b h t o"], Float[Tensor, "b h t 1"]]:
    """The mixed values, and the log of each row's sum of exp(x), by which to merge them with those of other keys."""
    seed = int(torch.randint(2**62, ())) if dropout else 0
    return _Windowed.apply(q, k, v, band, scale, softcap, dropout, seed)


class _Windowed(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        band: Band,
        scale: float,
        softcap: float | None,
        dropout: float,
        seed: int,
    ) -> tuple[Tensor, Tensor]:
        batch, heads, tokens, _ = q.shape
        rows, drop = Rows(band, torch.promote_types(q.dtype, torch.float32)), Dropout(dropout, seed, q.device)
        out = v.new_empty((batch, rows.whole, heads, v.shape[-1]), dtype=rows.dtype).transpose(1, 2)
        lse = q.new_empty((batch, heads, rows.whole, 1), dtype=rows.dtype)
        room = q.new_empty((band.step, band.span, band.block), dtype=rows.dtype)  # keys first: the faster product
        q_room, k_room, v_room = rows.room(q, 0, 0), rows.room(k), rows.room(v)
        for row, group, mine in shares(batch, heads, k.shape[1]):
            keys = band.around(rows.fill(k_room, k[row, group], scale * LOG2E))
            values = band.around(rows.fill(v_room, v[row, group]))
            for head in mine:
                queries = band.cut(rows.fill(q_room, q[row, head], left=0))
                o, l2 = band.cut(out[row, head]), band.cut(lse[row, head])
                for i, j in band.chunks():
                    x = torch.bmm(keys[i:j], queries[i:j].mT, out=room[: j - i])
                    capped(x, softcap)
                    band.forbid(x.mT, row, i)
                    p, total, log_sum = softmax(x, dim=1)
                    p, kept = p.mT, drop.like(p.mT)
                    p = p if kept is None else p.mul_(kept)
                    torch.div(torch.bmm(p, values[i:j]), total.mT, out=o[i:j])
                    l2[i:j] = log_sum.mT
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.how = band, scale, softcap, dropout, seed
        ctx.set_materialize_grads(False)
        return out[:, :, :tokens].to(v.dtype), lse[:, :, :tokens] / LOG2E

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (q, k, v, out, lse), (band, scale, softcap, dropout, seed) = ctx.saved_tensors, ctx.how
        batch, heads, tokens, _ = q.shape
        rows, drop = Rows(band, lse.dtype), Dropout(dropout, seed, q.device)
        margin, room = band.span - band.block, q.new_empty((band.step, band.block, band.span), dtype=lse.dtype)
        do = torch.zeros_like(out[:, :, :tokens]) if grads[0] is None else grads[0]
        dq, dk, dv = _laid_as(q, rows.whole, rows.dtype), torch.empty_like(k), torch.empty_like(v)
        k_room, v_room, dk_room, dv_room = (rows.room(x) for x in (k, v, k, v))
        q_room, do_room, lse_room = rows.room(q, margin, margin), rows.room(do, margin, margin), rows.room(lse, 0, 0)
        ps, dxs = Strip(band, k_room), Strip(band, k_room)
        first, last = band.before // band.block, band.before // band.block + band.blocks  # blocks of real keys
        for row, group, mine in shares(batch, heads, k.shape[1]):
            keys = band.around(rows.fill(k_room, k[row, group], scale * LOG2E))
            values = band.around(rows.fill(v_room, v[row, group]))
            for head in mine:
                q_all, do_all = (rows.fill(r, x[row, head], left=margin) for r, x in ((q_room, q), (do_room, do)))
                queries, dos = (band.cut(x[margin : margin + rows.whole]) for x in (q_all, do_all))
                sides = (ps, band.around(do_all), band.cut(dv_room)), (dxs, band.around(q_all), band.cut(dk_room))
                ls, os, dqs = (band.cut(x[row, head]) for x in (lse, out, dq))
                deltas = (dos * os).sum(-1, keepdim=True)
                if grads[1] is not None:
                    deltas -= band.cut(rows.fill(lse_room, grads[1][row, head], left=0))
                for i in range(0, last, band.step):
                    j = min(i + band.step, band.blocks)
                    p, dx = (strip.roll(i == 0, max(0, j - i)) for strip in (ps, dxs))
                    if i < j:
                        x = torch.bmm(queries[i:j], keys[i:j].mT, out=room[: j - i])
                        slope = capped(x, softcap)
                        band.forbid(x, row, i)
                        torch.exp2(x.sub_(ls[i:j]), out=p)
                        kept = drop.like(p)
                        dp = torch.bmm(dos[i:j], values[i:j].mT, out=x)
                        dp = dp if kept is None else dp.mul_(kept)
                        torch.mul(dp.sub_(deltas[i:j]), p, out=dx)
                        dx = dx if slope is None else dx.mul_(slope)
                        p = p if kept is None else p.mul_(kept)
                        torch.mul(torch.bmm(dx, keys[i:j]), 1 / LOG2E, out=dqs[i:j])
                    a, b = max(i, first), min(i + band.step, last)
                    for strip, around, total in sides:
                        if a < b and head == mine[0]:
                            torch.bmm(strip.by_keys(a - i, b - i).mT, around[a:b], out=total[a:b])
                        elif a < b:
                            total[a:b].baddbmm_(strip.by_keys(a - i, b - i).mT, around[a:b])
            place = slice(band.before, band.before + tokens)
            dk[row, group], dv[row, group] = dk_room[place].mul_(scale), dv_room[place]
        return dq[:, :, :tokens].to(q.dtype), dk, dv, None, None, None, None, None


def _laid_as(x: Tensor, tokens: int, dtype: torch.dtype) -> Tensor:
    """An empty (B, H, tokens, E) whose heads lie as x's do."""
    batch, heads, _, width = x.shape
    if x.stride(1) < x.stride(2):
        return x.new_empty((batch, tokens, heads, width), dtype=dtype).transpose(1, 2)
    return x.new_empty((batch, heads, tokens, width), dtype=dtype)
