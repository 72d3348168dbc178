"""LSH attention: each token looks only at tokens whose vectors point the same way, found by hashing (Reformer).

    h(x) = argmax [x R, -x R]                        equation in section 2, "locality sensitive hashing"
    out_i = Σ_r exp(z_i^r - z_i) out_i^r             equation 6: rounds with different R, weighted by their sums

Kitaev et al. 2020, section 2. A round sorts the tokens by bucket, then by position, and cuts them into chunks; a token
looks at its chunk and the one before it. Queries are also the keys, these scaled to length 1. So a token would mostly look
at itself: it does only where it can see nothing else.

Time O(R·T·C·E + R·T log T), memory O(R·T·(C + E)), for R rounds and chunks of C. A decoder's state is all the past, as in
any attention; a step looks at R·2C of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cutaway.attention import Full, Implied, Mask
from cutaway.attention.record import listening
from cutaway.axes import Float, Int
from cutaway.errors import ConfigError
from cutaway.parts.context import Context
from cutaway.parts.mixing import check_heads, no_logits, reads_causally, split_heads, wide
from cutaway.parts.state import Cells

FORBIDDEN, ITSELF = -1e9, -1e5  # the published logits: a token sees itself before it sees nothing


class LSHAttention(nn.Module):
    """Shared queries and keys, hashed; see above.

    Args:
        width, heads, kv_heads, head_width: D, H, (only as many as H), E.
        mask: `Full()` or a causal mask, of which nothing else is used.
        chunk, before, after: C, and how many neighbouring chunks are seen.
        rounds: R.
        buckets: how many, or the factors of that number, each hashed by itself; all even.
        seed: of the random R. `None`: drawn at every call in training, and always the same in evaluation.
        bias, out_bias, dropout: as in `Attention`.
        q_steps: turn queries, which are the keys; so `k_steps` must be the same.

    Who shares a chunk is decided by all tokens of a call, later ones included. So a text read in pieces gives the numbers
    of the whole only up to C tokens; beyond, each new token is sorted among those before it, as in published code.

    Raises:
        ConfigError: the heads do not divide, odd buckets, or something to add to logits.
    """

    keeps_documents = False

    def __init__(
        self,
        width: int,
        heads: int,
        kv_heads: int | None = None,
        head_width: int | None = None,
        *,
        mask: Mask = Full(),
        chunk: int = 64,
        before: int = 1,
        after: int = 0,
        rounds: int = 1,
        buckets: int | Sequence[int] = (32, 32),
        seed: int | None = None,
        bias: bool = False,
        out_bias: bool | None = None,
        q_steps: Sequence[nn.Module] = (),
        k_steps: Sequence[nn.Module] = (),
        score_bias: nn.Module | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        groups, self.head_width = check_heads(width, heads, kv_heads, head_width)
        self.buckets = (buckets,) if isinstance(buckets, int) else tuple(buckets)
        if groups != heads or list(q_steps) != list(k_steps):
            raise ConfigError("in LSH attention queries are the keys: kv_heads is heads, and both turn alike")
        if any(n < 2 or n % 2 for n in self.buckets) or min(chunk, rounds) < 1 or min(before, after) < 0:
            raise ConfigError(f"LSH attention needs an even number of buckets, chunks and rounds, not {self.buckets}")
        no_logits(score_bias, "LSH attention")
        self.causal, self.heads, self.dropout = reads_causally(mask), heads, dropout
        self.chunk, self.before, self.after, self.rounds, self.seed = chunk, before, after, rounds, seed
        self.qk = nn.Linear(width, heads * self.head_width, bias=bias)
        self.v = nn.Linear(width, heads * self.head_width, bias=bias)
        self.out = nn.Linear(heads * self.head_width, width, bias=bias if out_bias is None else out_bias)
        self.q_steps = nn.ModuleList(q_steps)

    def forward(self, x: Float[Tensor, "b t d"], ctx: Context) -> Float[Tensor, "b t d"]:
        qk, v = (split_heads(project(x), self.heads) for project in (self.qk, self.v))  # (B, H, T, E)
        for step in self.q_steps:
            qk = step(qk, ctx)
        qk, v = wide(qk), wide(v)
        remembers = ctx.state is not None and self.causal
        one = ctx.fresh and x.shape[1] <= self.chunk  # one chunk: everybody sees everybody, whatever the hash
        buckets = self.hash(qk.detach(), ctx) if remembers or not one else None  # (B, H, R, T)
        if remembers:
            self._remember(qk, v, buckets, ctx)
        if remembers and not ctx.fresh:
            steps = [self._step(qk[:, :, i : i + 1], i, ctx) for i in range(x.shape[1])]
            mixed = torch.cat(steps, 2)
        else:
            mixed = self._mix(qk, v, None if one else buckets, ctx)
        return self.out(mixed.to(x.dtype).transpose(1, 2).flatten(2))

    def hash(self, qk: Float[Tensor, "b h t e"], ctx: Context) -> Int[Tensor, "b h r t"]:
        """The bucket of each vector in each round (section 2; several factors as in published code)."""
        shape = (self.heads, self.head_width, self.rounds, sum(self.buckets) // 2)
        if self.seed is None and self.training:
            turn = torch.randn(shape, dtype=qk.dtype, device=qk.device)
        else:
            key = ("rotations", self.seed, shape)
            turn = ctx.once(key, lambda: _rotations(shape, self.seed or 0, qk.dtype).to(qk.device))
        turned = torch.einsum("bhte,hern->bhrtn", qk, turn)
        bucket, count = torch.zeros_like(turned[..., 0], dtype=torch.int64), 1
        for factor, part in zip(self.buckets, turned.split([n // 2 for n in self.buckets], -1), strict=True):
            bucket += count * torch.cat([part, -part], -1).argmax(-1)
            count *= factor
        return bucket

    def _mix(self, qk: Tensor, v: Tensor, buckets: Tensor | None, ctx: Context) -> Float[Tensor, "b h t e"]:
        """All tokens of a call."""
        tokens, before, after, chunk = qk.shape[2], self.before, self.after, self.chunk
        if buckets is None:
            buckets, before, after, chunk = qk.new_zeros(*qk.shape[:2], 1, tokens).long(), 0, 0, tokens
        fill = -tokens % chunk
        pos, last = F.pad(ctx.pos, (0, fill), value=-1), prod(self.buckets)
        buckets = F.pad(buckets, (0, fill)).masked_fill((pos < 0)[:, None, None], last)  # padding is sorted last
        places = arrange(buckets, None if ctx.packing == "none" else pos, chunk, before, after)
        column = pos.expand(len(qk), -1)[:, None].expand(-1, qk.shape[1], -1)  # (B, H, T)
        at, of = (column.gather(2, i.flatten(2)).view_as(i) for i in (places.mine, places.seen))
        q, k, u = (F.pad(x, (0, 0, 0, fill)) for x in (qk, _unit(qk), v))
        shares, total = looks(_rows(q, places.mine), _rows(k, places.seen), at, of, self.causal)
        mixed = F.dropout(shares, self.dropout, self.training) @ _rows(u, places.seen)  # (B, H, N, C, E)
        rounds = total.flatten(2).gather(2, places.back.flatten(2)).view_as(places.back).softmax(2)  # (B, H, R, T)
        trace = listening()
        if trace is not None:
            kept, weight = shares.detach(), rounds.detach()

            def pattern() -> Tensor:
                rows = places.mine[..., None] * pos.shape[1] + places.seen[..., None, :]  # (B, H, N, C, W)
                turn = places.mine.view_as(places.back)
                parts = kept * weight.gather(3, turn).view_as(places.mine)[..., None]
                flat = parts.new_zeros(*parts.shape[:2], pos.shape[1] ** 2)
                flat.scatter_add_(2, rows.flatten(2), parts.flatten(2))  # a pair may meet in several rounds
                return flat.unflatten(2, (pos.shape[1], -1))[:, :, :tokens, :tokens]

            trace.records.append(Implied(ctx.site, "self", pattern, v.detach(), ctx.pos, ctx.pos))
        if places.back.shape[2] == 1:
            return _rows(mixed.flatten(2, 3), places.back[:, :, 0])[:, :, :tokens]
        return (rounds[..., None] * _rows(mixed.flatten(2, 3), places.back)).sum(2)[:, :, :tokens]

    def _remember(self, qk: Tensor, v: Tensor, buckets: Tensor | None, ctx: Context) -> None:
        """Position p's vectors and buckets are kept in slot p; padding goes to one more."""
        assert ctx.state is not None
        assert buckets is not None
        slots = ctx.state.capacity + 1
        cells = ctx.state.cells(
            ctx.site,
            lambda: {
                "qk": qk.new_zeros(*qk.shape[:2], slots, qk.shape[3]),
                "v": v.new_zeros(*v.shape[:2], slots, v.shape[3]),
                "buckets": buckets.new_zeros(*buckets.shape[:3], slots),
            },
        )
        slot = torch.where(ctx.pos < 0, slots - 1, ctx.pos).expand(len(qk), -1)
        row = torch.arange(len(qk), device=qk.device)[:, None]
        cells["qk"][row, :, slot] = qk.transpose(1, 2)
        cells["v"][row, :, slot] = v.transpose(1, 2)
        cells["buckets"][row, :, :, slot] = buckets.permute(0, 3, 1, 2)

    def _step(self, q: Float[Tensor, "b h 1 e"], i: int, ctx: Context) -> Float[Tensor, "b h 1 e"]:
        """The i-th new token, sorted among all that stand before it."""
        assert ctx.state is not None
        held, used = ctx.state.sites[ctx.site], min(ctx.state.fed, ctx.state.capacity)
        assert isinstance(held, Cells)
        pos = ctx.pos[:, i].expand(len(q))[:, None, None, None]  # (B, 1, 1, 1)
        many, every = (pos + 1).clamp(min=1), torch.arange(used, device=q.device)
        window = torch.arange((self.before + 1 + self.after) * self.chunk, device=q.device)
        buckets = held["buckets"][..., :used].masked_fill(every >= many, prod(self.buckets))
        order = buckets.sort(dim=-1, stable=True).indices  # (B, H, R, S)
        start = ((order == pos).int().argmax(-1, keepdim=True) // self.chunk - self.before) * self.chunk
        sorted_ = order.gather(3, ((start + window) % many).expand(*order.shape[:3], -1))
        seen = torch.where(many > self.chunk, sorted_, window.clamp(max=used - 1))  # few are not sorted at all
        of = torch.where((many > self.chunk) | (window < many), seen, -1)
        k, v = held["qk"][:, :, :used], held["v"][:, :, :used]
        shares, total = looks(q[:, :, None], _unit(_rows(k, seen)), pos.expand_as(of[..., :1]), of, self.causal)
        shares = shares * total.softmax(2)[..., None]  # (B, H, R, 1, W)
        trace = listening()
        if trace is not None:
            kept = shares.detach().squeeze(3)

            def pattern() -> Tensor:
                return kept.new_zeros(*kept.shape[:2], used).scatter_add_(2, seen.flatten(2), kept.flatten(2))[
                    :, :, None
                ]

            k_pos = torch.where(every < many[:, 0, 0], every, -1)
            trace.records.append(Implied(ctx.site, "self", pattern, v.detach().clone(), ctx.pos[:, i : i + 1], k_pos))
        return (shares @ _rows(v, seen)).sum(2)


class Places(NamedTuple):
    """Who stands where after sorting: N chunks, those of all rounds one after the other."""

    mine: Int[Tensor, "b h n c"]  # the column of each query
    seen: Int[Tensor, "b h n w"]  # the columns each chunk looks at
    back: Int[Tensor, "b h r t"]  # where a column's result of each round is, in the flattened chunks


def arrange(buckets: Int[Tensor, "b h r t"], pos: Tensor | None, chunk: int, before: int, after: int) -> Places:
    """Sorts each round by bucket and cuts it into chunks; `pos` (B, T) where there is padding, which comes last.

    The chunks are a ring, as published: before the first of a round comes the last of the round before.
    """
    rounds, tokens = buckets.shape[2:]
    order = buckets.sort(dim=-1, stable=True).indices
    offset = torch.arange(rounds, device=order.device)[:, None] * tokens
    stands = torch.arange(tokens, device=order.device).expand_as(order) + offset
    back = torch.empty_like(order).scatter_(-1, order, stands)
    mine = order.flatten(2).unflatten(2, (-1, chunk))  # (B, H, N, C)
    shifts = range(before, -after - 1, -1)
    if pos is None:
        return Places(mine, torch.cat([mine.roll(shift, 2) for shift in shifts], -1), back)
    each = tokens // chunk  # a row's ring is as long as its own text
    filled = (((pos >= 0).sum(1) + chunk - 1) // chunk).clamp(min=1)[:, None]  # (B, 1)
    index = torch.arange(rounds * each, device=order.device)
    ring = index // each * filled + (index % each).minimum(filled - 1)
    seen = []
    for shift in shifts:
        to = (ring - shift) % (rounds * filled)
        to = to // filled * each + to % filled  # (B, N)
        seen.append(mine.take_along_dim(to[:, None, :, None], 2))
    return Places(mine, torch.cat(seen, -1), back)


def looks(
    q: Float[Tensor, "*#n c e"],
    k: Float[Tensor, "*n w e"],
    at: Int[Tensor, "*n c"],
    of: Int[Tensor, "*n w"],
    causal: bool,
) -> tuple[Float[Tensor, "*n c w"], Float[Tensor, "*n c"]]:
    """The pattern within chunks, and the logarithm z of each row's sum; `at` and `of` are positions, -1 for nobody."""
    logits = q @ k.transpose(-1, -2)
    at, of = at[..., :, None].int(), of[..., None, :].int()
    forbidden = of < 0
    if causal:
        forbidden = forbidden | (of > at)
    logits = logits.masked_fill_(forbidden, FORBIDDEN).masked_fill_(at == of, ITSELF)
    return logits.softmax(-1), logits.logsumexp(-1)


def _unit(x: Float[Tensor, "*n e"]) -> Float[Tensor, "*n e"]:
    """Keys of length 1 (section 2, "shared-QK"); the published ε."""
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * x.shape[-1] ** -0.5


def _rows(x: Float[Tensor, "b h t e"], index: Int[Tensor, "b h *n"]) -> Float[Tensor, "b h *n e"]:
    """x[b, h, index[b, h]]"""
    first = torch.arange(x.shape[0] * x.shape[1], device=x.device) * x.shape[2]
    flat = index.flatten(2).flatten(0, 1) + first[:, None]
    return x.flatten(0, 2).index_select(0, flat.flatten()).view(*index.shape, x.shape[3])


def _rotations(shape: Sequence[int], seed: int, dtype: torch.dtype) -> Tensor:
    """The random R of one seed: the same on every device."""
    return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed), dtype=dtype, device="cpu")
