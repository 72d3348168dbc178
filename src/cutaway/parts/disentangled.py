"""Disentangled attention: what a token says and where it stands are two vectors (He et al. 2021, arXiv:2006.03654).

    logits_ij = scale · ( q_i·k_j  +  q_i·K_δ(i,j)  +  k_j·Q_δ(i,j) )        scale = 1/sqrt(E · terms)      (equation 4)
                          content     content to        position to
                                      position (c2p)    content (p2c)

| paper            | here                                                                                    |
|------------------|-----------------------------------------------------------------------------------------|
| Q^c, K^c         | q, k: the attention's own queries and keys (B, H, T, E)                                 |
| P                | `RelativeTable`: (2·span, D), one for all layers                                        |
| K^r, Q^r         | `Disentangled`: P W_k and P W_q, (H, 2·span, E); the weights of the layer, or its own   |
| δ(i, j)          | `RelativeTable.place`: clamp(bucket(i - j) + span, 0, 2·span - 1)     (equation 3)      |

The first term is attention's own; the other two are added to its logits. Where the paper writes Q_δ(j,i) in the last
term, the published code and weights have Q_δ(i,j), and so has this.

Time O(B·H·T·(span + T)·E), and memory O(B·H·T²) whatever the kernel, since the added logits differ for every pair:
this form of attention cannot be linear in memory. Only the rows of P that some pair looks up are projected.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from cutaway.axes import Float, Int
from cutaway.errors import ConfigError
from cutaway.parts.context import Context
from cutaway.parts.dropout import drop
from cutaway.parts.streams import places


class RelativeTable(nn.Module):
    """A vector for each relative position from -span to span - 1; those beyond share the last.

    Args:
        span, width: k in the paper (the largest distance told apart), and D.
        max_distance: where given, far distances share on a logarithmic scale: exact below span / 2, then ever coarser
            up to `max_distance`, as published with version 2.
        norm: what the vectors go through before they are used.
    """

    def __init__(
        self,
        span: int,
        width: int,
        *,
        max_distance: int | None = None,
        norm: nn.Module | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if max_distance is not None and (span < 4 or max_distance - 1 <= span // 2):
            raise ConfigError(f"{span} buckets up to distance {max_distance}: too few, or the distance too short")
        self.span, self.max_distance, self.norm, self.dropout = span, max_distance, norm, dropout
        self.weight = nn.Parameter(torch.empty(2 * span, width))
        nn.init.normal_(self.weight, std=0.02)

    def bucket(self, distance: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
        """The bucket of each distance q_pos - k_pos: itself where it is near."""
        if self.max_distance is None:
            return distance
        exact = self.span // 2
        far = distance.abs().clamp(min=exact)
        steps = torch.log(far / exact) / torch.log(torch.tensor((self.max_distance - 1) / exact)) * (exact - 1)
        coarse = (torch.ceil(steps) + exact).to(distance.dtype) * distance.sign()
        return torch.where(distance.abs() <= exact, distance, coarse)

    def place(self, q_pos: Int[Tensor, "#b q"], k_pos: Int[Tensor, "#b k"]) -> Int[Tensor, "#b q k"]:
        """δ(i, j): the row of each pair."""
        distance = q_pos[:, :, None] - k_pos[:, None, :]
        return (self.bucket(distance) + self.span).clamp(0, 2 * self.span - 1)

    def forward(self, ctx: Context, k_pos: Tensor, owner: object) -> tuple[Float[Tensor, "r d"], Int[Tensor, "#b q k"]]:
        """The rows that are looked up, and which of them each pair has. Made once a forward."""

        def look() -> tuple[Tensor, Tensor]:
            place, rows = self.place(places(ctx), k_pos), self.weight
            # which rows are needed is read off the pairs; elsewhere than on a CPU that would make the device wait
            if place.device.type == "cpu" and not torch.compiler.is_compiling():
                low, high = (int(x) for x in place.aminmax())
                place, rows = place - low, rows[low : high + 1]
            return rows if self.norm is None else self.norm(rows), place

        return ctx.once((self, owner), look)


class Disentangled(nn.Module):
    """What position adds to the logits of one layer's attention; `(attention, q, k, ctx, k_pos, owner)` -> (B, H, Q, K).

    Args:
        table: shared by the layers.
        c2p, p2c: which terms there are.
        width: of the layer's own projections of the table, with biases where `bias` says so (keys, queries);
            None where it uses those of its attention for content (published as `share_att_key`).
    """

    def __init__(
        self,
        table: RelativeTable,
        c2p: bool = True,
        p2c: bool = True,
        *,
        width: int | None = None,
        bias: tuple[bool, bool] = (True, True),
    ) -> None:
        super().__init__()
        self.table, self.c2p, self.p2c = table, c2p, p2c
        own = None if width is None else (table.weight.shape[1], width)
        self.k = nn.Linear(*own, bias=bias[0]) if own and c2p else None
        self.q = nn.Linear(*own, bias=bias[1]) if own and p2c else None

    def forward(
        self, attention: Any, q: Tensor, k: Tensor, ctx: Context, k_pos: Tensor, owner: object
    ) -> Float[Tensor, "b h q k"]:
        rows, place = self.table(ctx, k_pos, owner)  # (R, D), (B|1, Q, K)
        rows = drop(self.table, rows, self.table.dropout)
        place = place[:, None].expand(q.shape[0], q.shape[1], -1, -1)  # (B, H, Q, K)

        def heads(project: nn.Module) -> Tensor:
            return project(rows).unflatten(-1, (-1, q.shape[-1])).transpose(0, 1) * attention.scale  # (H, R, E)

        added = q.new_zeros((1, 1, 1, 1))
        if self.c2p:
            keys = heads(attention.k if self.k is None else self.k)
            added = torch.matmul(q, keys.transpose(-1, -2)).gather(-1, place)  # (B, H, Q, R) -> (B, H, Q, K)
        if self.p2c:
            queries = heads(attention.q if self.q is None else self.q)
            added = added + torch.matmul(queries, k.transpose(-1, -2)).gather(-2, place)  # (B, H, R, K) -> (B, H, Q, K)
        return added
