"""Positions added to the logits of attention: what counts is how far apart query and key are.

    T5Bias   b[bucket(k_pos - q_pos), head], learned     Raffel et al. 2020, section 2.1
    ALiBi    -slope_head · |q_pos - k_pos|, fixed         Press et al. 2022, section 3; two more forms are published

Both hold `pattern(q_pos, k_pos)`, which draws them, and are made once a forward whatever the number of layers.
Where the added logits depend on queries and keys as well (DeBERTa, Transformer-XL), each layer has a part of its own:
`LayerPositions` makes them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cutaway.axes import Float, Int
from cutaway.errors import ConfigError
from cutaway.parts.context import Context
from cutaway.parts.position import Positions


@dataclass(frozen=True)
class LayerPositions(Positions):
    """Positions whose part that adds to the logits is another in every layer: `each` makes it."""

    each: Callable[[], nn.Module] = nn.Identity

    @property
    def attention(self) -> dict[str, Any]:
        return {**super().attention, "score_bias": self.each()}


class _Relative(nn.Module):
    def pattern(self, q_pos: Int[Tensor, "#b q"], k_pos: Int[Tensor, "#b k"]) -> Float[Tensor, "#b h q k"]:
        raise NotImplementedError

    def forward(
        self, attention: nn.Module, q: Tensor, k: Tensor, ctx: Context, k_pos: Tensor, owner: object
    ) -> Float[Tensor, "#b h q k"]:
        return ctx.once((self, owner), lambda: self.pattern(ctx.pos, k_pos))


class T5Bias(_Relative):
    """Distances share buckets: each near one has its own, far ones share on a logarithmic scale up to `max_distance`.

    `bidirectional` (encoder) keeps half the buckets for keys after the query; otherwise those count as distance 0.
    """

    def __init__(self, heads: int, bidirectional: bool, buckets: int = 32, max_distance: int = 128) -> None:
        super().__init__()
        exact = buckets // (4 if bidirectional else 2)
        if exact < 1 or max_distance <= exact:
            raise ConfigError(f"{buckets} buckets up to distance {max_distance}: too few, or the distance too short")
        self.buckets, self.max_distance, self.bidirectional = buckets, max_distance, bidirectional
        self.weight = nn.Parameter(torch.empty(buckets, heads))
        nn.init.normal_(self.weight, std=0.02)

    def bucket(self, distance: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
        """The bucket of each k_pos - q_pos."""
        buckets, start = self.buckets, torch.zeros_like(distance)
        if self.bidirectional:
            buckets //= 2
            start = (distance > 0) * buckets
            far = distance.abs()
        else:
            far = (-distance).clamp(min=0)
        exact = buckets // 2
        ratio = torch.log(far.clamp(min=1).float() / exact) / math.log(self.max_distance / exact)
        coarse = (exact + (ratio * (buckets - exact)).long()).clamp(max=buckets - 1)
        return start + torch.where(far < exact, far, coarse)

    def pattern(self, q_pos: Tensor, k_pos: Tensor) -> Tensor:
        bucket = self.bucket(k_pos[:, None, :] - q_pos[:, :, None])  # (B, Q, K)
        return self.weight[bucket].permute(0, 3, 1, 2)  # (B, H, Q, K)


class ALiBi(_Relative):
    """Attention with linear biases: nothing learned, and lengths beyond training work.

    Three forms of the same bias are published, by what the distance is counted from. With m the head's slope:

        "query"    -m·|q_pos - k_pos|      the paper (Press et al. 2022, figure 3)
        "first"     m·k_pos                BLOOM
        "last"     -m·(last - k_pos)       MPT; `last` is the row's last key

    Within a row of the pattern they differ by a constant (m·q_pos, or m·(last - q_pos)), which softmax takes away again,
    so where nobody looks ahead the weights are equal. The logits are not: a picture of them, a soft cap after the bias,
    and the last digits differ. "query" is the only one that bidirectional models can use and the most accurate over
    long texts, since the largest logits stay small; the others have one row, (B, H, 1, K) instead of (B, H, Q, K).

    Slopes are 2^(-8i/H) for i = 1 … H; where H is no power of two, those of the power below, then every other one of
    the power above (the paper's published code). `steepest` is the 8 (MPT's `alibi_bias_max`).
    """

    def __init__(self, heads: int, origin: str = "query", steepest: int = 8) -> None:
        super().__init__()
        if origin not in ("query", "first", "last"):
            raise ConfigError(f"ALiBi counts distances from the query, the first or the last key, not {origin!r}")
        self.heads, self.origin, self.steepest = heads, origin, steepest

    def slopes(self, device: torch.device | None = None) -> Float[Tensor, "h"]:
        def geometric(n: int) -> list[float]:
            return [2.0 ** (-self.steepest * i / n) for i in range(1, n + 1)]

        power = 2 ** int(math.log2(self.heads))
        extra = geometric(2 * power)[0::2][: self.heads - power]
        return torch.tensor(geometric(power) + extra, device=device)

    def pattern(self, q_pos: Tensor, k_pos: Tensor) -> Tensor:
        if self.origin == "query":
            distance = (q_pos[:, :, None] - k_pos[:, None, :]).abs().float()  # (B, Q, K)
        else:
            last = k_pos.amax(1, keepdim=True) if self.origin == "last" else 0
            distance = (last - k_pos)[:, None, :].float()  # (B, 1, K)
        return -self.slopes(distance.device)[:, None, None] * distance[:, None]  # (B, H, Q, K)
