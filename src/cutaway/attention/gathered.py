"""Attention of any blocks of queries to any keys, in time and memory of the pairs: gather, attend, scatter.

A `Table` names the queries of each block and the keys that they look at, so that columns, summaries, global tokens and
random blocks are all dense products. Each query stands in at most one block; one that stands in none has an output of zero.
Forward and backward are those of `windowed`, whose formulas hold here alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cutaway.attention.masks import Mask
from cutaway.attention.online import LOG2E, LOWEST, Dropout, capped, chunk, shares, softmax
from cutaway.axes import Float, Int

Chunks = dict[tuple[int, int, int], tuple[Tensor, Tensor, Tensor | None]]  # by row, head and first block


@dataclass(eq=False)
class Table:
    """Blocks of queries `rows` (R, n, b) beside keys `columns` (R, H, n, c), as indices of tokens; T stands for none.

    R, H and the columns' n may be 1 where all are alike. `mask` says which of a block's pairs count; None: all.
    `pos` (R, T) are positions, -1 on padding.
    """

    mask: Mask | None
    pos: Int[Tensor, "#r t"]
    rows: Int[Tensor, "#r n b"]
    columns: Int[Tensor, "#r #h #n c"]

    @property
    def tokens(self) -> int:
        return self.pos.shape[1]

    @property
    def pairs(self) -> int:
        """How many logits a head takes."""
        return self.rows.shape[1] * self.rows.shape[2] * self.columns.shape[3]

    def chunks(self, row: int, head: int, made: Chunks) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        """Each chunk's queries (n, b) and keys (n, c), and its mask as 0 or -inf, (n, b | 1, c), or None."""
        blocks, queries = self.rows.shape[1:]
        rows, heads, many, keys = self.columns.shape
        step = chunk(queries, keys)
        for i in range(0, blocks, step):
            place = slice(i, min(i + step, blocks))
            key = (row if max(rows, len(self.rows), len(self.pos)) > 1 else 0, head if heads > 1 else 0, i)
            if key not in made:
                if any(other[:2] != key[:2] for other in made):
                    made.clear()
                q = self.rows[min(row, len(self.rows) - 1), place]
                k = self.columns[min(row, rows - 1), min(head, heads - 1)]
                k = k[place] if many > 1 else k.expand(len(q), -1)
                made[key] = q, k, self._mask(row, q, k)
            yield made[key]

    def _mask(self, row: int, q: Tensor, k: Tensor) -> Tensor | None:
        pos = torch.nn.functional.pad(self.pos[min(row, len(self.pos) - 1)], (0, 1), value=-1)
        q_pos, k_pos = pos[q][:, None, :, None], pos[k][:, None, None, :]
        allowed = k_pos >= 0
        if self.mask is not None:
            allowed = allowed & self.mask.allowed(q_pos, k_pos)
        if allowed.all():
            return None
        return torch.zeros(allowed[:, 0].shape, device=pos.device).masked_fill_(~allowed[:, 0], -torch.inf)


def gathered(
    q: Float[Tensor, "b h t e"],
    k: Float[Tensor, "b g t e"],
    v: Float[Tensor, "b g t o"],
    table: Table,
    scale: float,
    softcap: float | None = None,
    dropout: float = 0.0,
) -> tuple[Float[Tensor, "b h t o"], Float[Tensor, "b h t 1"]]:
    """The mixed values, and the log of each row's sum of exp(x), by which to merge them with those of other keys."""
    seed = int(torch.randint(2**62, ())) if dropout else 0
    return _Gathered.apply(q, k, v, table, scale, softcap, dropout, seed)


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        table: Table,
        scale: float,
        softcap: float | None,
        dropout: float,
        seed: int,
    ) -> tuple[Tensor, Tensor]:
        batch, heads, tokens, _ = q.shape
        wide, drop = torch.promote_types(q.dtype, torch.float32), Dropout(dropout, seed, q.device)
        # one row more, which indices of T mean
        out = v.new_zeros((batch, tokens + 1, heads, v.shape[-1]), dtype=wide).transpose(1, 2)
        lse = q.new_full((batch, heads, tokens + 1, 1), LOWEST, dtype=wide)

        made: Chunks = {}
        q_room, k_room, v_room = (_room(x, wide) for x in (q, k, v))
        for row, group, mine in shares(batch, heads, k.shape[1]):
            ks, vs = _fill(k_room, k[row, group]), _fill(v_room, v[row, group])
            for head in mine:
                qs = _fill(q_room, q[row, head])
                for rows, columns, mask in table.chunks(row, head, made):
                    x = torch.bmm(qs[rows] * (scale * LOG2E), ks[columns].mT)
                    capped(x, softcap)
                    p, total, l2 = softmax(x if mask is None else x.add_(mask), dim=-1)
                    kept = drop.like(p)
                    p = p if kept is None else p.mul_(kept)
                    out[row, head, rows], lse[row, head, rows] = torch.bmm(p, vs[columns]).div_(total), l2
        lse[:, :, tokens] = 0.0  # finite, whichever block's it was
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.how = table, scale, softcap, dropout, seed
        ctx.set_materialize_grads(False)
        return out[:, :, :tokens].to(v.dtype), lse[:, :, :tokens] / LOG2E

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (q, k, v, out, lse), (table, scale, softcap, dropout, seed) = ctx.saved_tensors, ctx.how
        batch, heads, tokens, _ = q.shape
        wide, drop = lse.dtype, Dropout(dropout, seed, q.device)
        do = torch.zeros_like(out[:, :, :tokens]) if grads[0] is None else grads[0]
        delta = (do * out[:, :, :tokens]).sum(-1, keepdim=True)
        delta = delta if grads[1] is None else delta - grads[1]
        dq, dk, dv = (torch.empty_like(x) for x in (q, k, v))

        made: Chunks = {}
        q_room, do_room, delta_room, dqs = (_room(x, wide) for x in (q, do, delta, q))
        k_room, v_room, dks, dvs = (_room(x, wide) for x in (k, v, k, v))
        for row, group, mine in shares(batch, heads, k.shape[1]):
            ks, vs = _fill(k_room, k[row, group]), _fill(v_room, v[row, group])
            dks.zero_()
            dvs.zero_()
            for head in mine:
                qs, dos, deltas = (
                    _fill(room, x[row, head]) for room, x in ((q_room, q), (do_room, do), (delta_room, delta))
                )
                dqs.zero_()
                for rows, columns, mask in table.chunks(row, head, made):
                    qc, kc, doc = qs[rows] * (scale * LOG2E), ks[columns], dos[rows]
                    x = torch.bmm(qc, kc.mT)
                    slope = capped(x, softcap)
                    p = (x if mask is None else x.add_(mask)).sub_(lse[row, head, rows]).exp2_()
                    dp, kept = torch.bmm(doc, vs[columns].mT), drop.like(p)
                    dp = dp if kept is None else dp.mul_(kept)
                    dx = dp.sub_(deltas[rows]).mul_(p)
                    dx = dx if slope is None else dx.mul_(slope)
                    p = p if kept is None else p.mul_(kept)
                    dqs[rows] = torch.bmm(dx, kc)
                    dvs.index_add_(0, columns.flatten(), torch.bmm(p.mT, doc).flatten(0, 1))
                    dks.index_add_(0, columns.flatten(), torch.bmm(dx.mT, qc).flatten(0, 1))
                dq[row, head] = dqs[:tokens].mul_(scale)
            dk[row, group], dv[row, group] = dks[:tokens].div_(LOG2E), dvs[:tokens]
        return dq, dk, dv, None, None, None, None, None


def _room(like: Tensor, dtype: torch.dtype) -> Tensor:
    """One head's rows and a row of zeros, which indices of T mean."""
    return like.new_zeros((like.shape[2] + 1, like.shape[3]), dtype=dtype)


def _fill(room: Tensor, x: Tensor) -> Tensor:
    room[:-1] = x
    return room
