"""Relative positions as Transformer-XL has them, and XLNet after it (Dai et al. 2019, arXiv:1901.02860, section 3.3).

    logits_ij = scale · ( q_i·k_j  +  q_i·W_r R_{i-j}  +  u·k_j  +  v·W_r R_{i-j} )
                          (a)         (b)                 (c)       (d)

Yang et al. 2019 (XLNet, arXiv:1906.08237, section 2.5) add whether both are of one segment:  (q_i + s)·g[same_ij].

| paper   | here                                                                                             |
|---------|--------------------------------------------------------------------------------------------------|
| R       | `Distances`: sines and cosines of i - j, (C, D), the same for all layers                         |
| W_{k,R} | `RelativeScores.r`, a layer's own                                                                |
| u, v    | `u`, `v`, (H, E): published as r_w_bias and r_r_bias                                             |
| s, g    | `segments.s` (H, E) and `segments.weight` (2, H, E): the same segment, another one               |

Term (a) is attention's own; the other ones are added to its logits. (b) and (d) depend on the distance alone, so they
are computed once for each of the C distances, O(B·H·Q·C·E), and laid out by `relative_shift`, which moves no number
where tokens stand side by side; by `gather` otherwise. Memory is O(B·H·Q·K), as what is added differs for every pair.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from cutaway.attention import Mask
from cutaway.axes import Float, Int
from cutaway.parts.context import Context
from cutaway.parts.dropout import drop
from cutaway.parts.embedding import Segments
from cutaway.parts.position import SinusoidalPositions
from cutaway.parts.streams import Streams, places, unseen


def relative_shift(x: Float[Tensor, "... q c"], keys: int) -> Float[Tensor, "... q k"]:
    """From the score of each distance to that of each key: out[i, j] = x[i, Q-1-i+j], for any j < keys < c.

    Column 0 is the largest distance, Q-1, that of the last query from the first key. Each row begins one number later
    than the one before it, which is what reading rows of c numbers as rows of c-1 does (appendix B).
    """
    queries, columns = x.shape[-2:]
    flat = x.flatten(-2)[..., queries - 1 : queries - 1 + queries * (columns - 1)]
    return flat.unflatten(-1, (queries, columns - 1))[..., :keys]


@dataclass(frozen=True)
class Recall(Mask):
    """Whoever is remembered may be looked at: the `size` tokens before those of this call. Older ones are forgotten."""

    size: int

    @property
    def window(self) -> int:
        return self.size + 1  # with a token's own place

    def allowed(self, q_pos: Tensor, k_pos: Tensor) -> Tensor:
        return torch.ones((1, 1, 1, 1), dtype=torch.bool, device=q_pos.device)


class Distances(nn.Module):
    """R, and which of its rows each pair has. Shared by the layers, and made once a forward.

    Args:
        width: D.
        both_ways: whether a query may look ahead: distances below 0.
        clamp: farther distances count as this one; None tells all apart.
    """

    def __init__(self, width: int, both_ways: bool, clamp: int | None = None, dropout: float = 0.0) -> None:
        super().__init__()
        self.waves = SinusoidalPositions(width, halves=True)
        self.both_ways, self.clamp, self.dropout = both_ways, clamp, dropout

    def rows(self, high: int, low: int, like: Tensor) -> Float[Tensor, "c d"]:
        """R of the distances from `high` down to `low`."""
        distance = torch.arange(high, low - 1, -1, device=like.device)
        distance = distance if self.clamp is None else distance.clamp(-self.clamp, self.clamp)
        return drop(self, self.waves.table(distance[None])[0].to(like.dtype), self.dropout)

    def forward(
        self, like: Tensor, ctx: Context, k_pos: Tensor, owner: object
    ) -> tuple[Float[Tensor, "c d"], Int[Tensor, "#b q k"] | None]:
        """The rows, and each pair's; None where `relative_shift` lays them out. `like` has the dtype and device."""

        def look() -> tuple[Tensor, Tensor | None]:
            queries = ctx.pos.shape[1]
            if owner == "own" and ctx.packing != "any" and not isinstance(ctx, Streams):
                # one row more than there are distances, which the shift needs
                return self.rows(queries - 1, -queries if self.both_ways else -1, like), None
            distance = places(ctx)[:, :, None] - k_pos[:, None, :]  # (B, Q, K)
            distance = distance.masked_fill(k_pos[:, None, :] < 0, 0)  # of what nobody looks at
            if torch.compiler.is_compiling():
                high = (queries if ctx.state is None else ctx.state.capacity) - 1
            else:
                high = int(distance.abs().max())
            high = high if self.clamp is None else min(high, self.clamp)
            low = -high if self.both_ways else 0
            return self.rows(high, low, like), high - distance.clamp(low, high)

        return ctx.once((self, owner), look)


class RelativeScores(nn.Module):
    """Terms (b), (c) and (d) of one layer, and the segments' one: `(attention, q, k, ctx, …)` -> (B, H, Q, K).

    Args:
        distances: shared by the layers.
        width, heads, head_width: D, H, E.
        biases: u and v of all layers; None where this layer has its own.
        segments: whether it matters which tokens are of one segment. What is remembered counts as of segment 0.
        memory: how many tokens before this call's are looked at; None: all that are remembered.
    """

    reads: ClassVar = ("r",)  # its matrix, without calling it

    def __init__(
        self,
        distances: Distances,
        width: int,
        heads: int,
        head_width: int,
        *,
        biases: tuple[nn.Parameter, nn.Parameter] | None = None,
        segments: bool = False,
        memory: int | None = None,
    ) -> None:
        super().__init__()
        self.distances, self.memory = distances, memory
        self.r = nn.Linear(width, heads * head_width, bias=False)
        self.u, self.v = biases or (vectors(heads, head_width), vectors(heads, head_width))
        self.segments = SegmentScores(heads, head_width) if segments else None

    def forward(
        self, attention: Any, q: Tensor, k: Tensor, ctx: Context, k_pos: Tensor, owner: object
    ) -> Float[Tensor, "b h q k"]:
        rows, which = self.distances(q, ctx, k_pos, owner)
        x = self._by_distance(q + self.v[:, None], rows)  # (B, H, Q, C)
        if which is None:
            x = relative_shift(x, k.shape[2])
        else:
            x = x.gather(-1, which[:, None].expand(*q.shape[:3], -1))
        x = x + torch.matmul(k, self.u[..., None]).transpose(-1, -2)  # (B, H, 1, K)
        if self.segments is not None and ctx.segments is not None:
            x = x + self.segments.scores(q, ctx.segments, ctx.pos, k_pos, owner)
        x = unseen(x * attention.scale, ctx)
        if self.memory is None or owner == "own" or q.shape[2] == 1:
            return x  # of a single token's memory no more is kept
        first = torch.where(ctx.pos < 0, torch.iinfo(torch.int64).max, ctx.pos).amin(1)[:, None, None, None]
        return x.masked_fill(k_pos[:, None, None, :] < first - self.memory, -torch.inf)

    def _by_distance(self, q: Float[Tensor, "b h q e"], rows: Float[Tensor, "c d"]) -> Float[Tensor, "b h q c"]:
        """q·W_r R for every row of R; the product is taken in the order that costs less."""
        w = self.r.weight.unflatten(0, (q.shape[1], -1))  # (H, E, D)
        n, c, (_, e, d) = q.shape[0] * q.shape[2], len(rows), w.shape
        if n * d * (e + c) < c * e * (d + n):  # few queries: W_rᵀ q first, as when a text is continued
            return torch.matmul(torch.matmul(q, w), rows.t())
        return torch.matmul(q, torch.matmul(w, rows.t()))


class SegmentScores(Segments):
    """(q_i + s)·g[0] where query and key are of one segment, (q_i + s)·g[1] where not; `weight` is g.

    Which segments they are does not matter, so XLNet's texts have four: A, B, that of [CLS] and the padding's.
    """

    def __init__(self, heads: int, head_width: int) -> None:
        nn.Module.__init__(self)
        self.count = 4
        self.weight, self.s = vectors(2, heads, head_width), vectors(heads, head_width)

    def scores(
        self, q: Tensor, segments: Int[Tensor, "#b q"], pos: Tensor, k_pos: Tensor, owner: object
    ) -> Float[Tensor, "b h q k"]:
        """What is added to the logits; what is remembered counts as of segment 0."""
        if isinstance(owner, tuple) and owner[0] != "extended":  # one token, in whatever place its key is kept
            of_keys = torch.where(k_pos == pos, segments, 0)
        else:
            of_keys = nn.functional.pad(segments, (k_pos.shape[1] - segments.shape[1], 0))
        same = segments[:, None, :, None] == of_keys[:, None, None, :]
        either = torch.matmul(q + self.s[:, None], self.weight.permute(1, 2, 0))  # (B, H, Q, 2)
        return torch.where(same, either[..., :1], either[..., 1:])


def vectors(*shape: int) -> nn.Parameter:
    """Learned ones, such as u and v: (H, E)."""
    return nn.Parameter(nn.init.normal_(torch.empty(*shape), std=0.02))
