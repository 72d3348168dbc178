"""How a model learns the order of its tokens: where that enters, and positions added to the embeddings.

LearnedPositions      x + table[pos]                                          BERT, GPT-2
WaveTable             the same, of fixed waves                                Pegasus
SinusoidalPositions   x + [sin(pos·ω), cos(pos·ω)], ω = 10000^(-2i/D)          Vaswani et al. 2017, section 3.5
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cutaway.axes import Float, Int
from cutaway.errors import CapacityError
from cutaway.parts.context import Context


@dataclass(frozen=True)
class Positions:
    """Where the order of tokens enters a stack: its embeddings, its queries and keys, or its scores. Shared by all layers.

    A family places each of the three, so that a user can put any in place of its own:
    `Embedding(…, steps=[*place.embedding])`, `Attention(…, **place.attention)`, `Model(…, max_positions=place.limit)`.

    Attributes:
        embedding: parts added to the embeddings, `(x (B, T, D), ctx) -> x`.
        steps: parts that turn queries and keys, `(x (B, H, T, E), ctx) -> x`.
        bias: a part that adds to the logits.
        limit: the most tokens it can count; None is without bound.
    """

    embedding: Sequence[nn.Module] = ()
    steps: Sequence[nn.Module] = ()
    bias: nn.Module | None = None
    limit: int | None = None

    @property
    def attention(self) -> dict[str, Any]:
        """What attention is given of it."""
        return {"q_steps": self.steps, "k_steps": self.steps, "score_bias": self.bias}


class LearnedPositions(nn.Module):
    """One learned vector a position, for `count` positions; `offset` rows before the first are unused (RoBERTa: 2)."""

    def __init__(self, count: int, width: int, offset: int = 0) -> None:
        super().__init__()
        self.count, self.offset = count, offset
        self.weight = nn.Parameter(torch.empty(count + offset, width))
        nn.init.normal_(self.weight, std=0.02)

    def forward(self, x: Float[Tensor, "b t d"], ctx: Context) -> Float[Tensor, "b t d"]:
        return x + self.weight[ctx.pos.clamp(min=0) + self.offset]


class WaveTable(LearnedPositions):
    """The sines and cosines of `SinusoidalPositions(halves=True)` as a table among the weights that is never trained."""

    def __init__(self, count: int, width: int) -> None:
        super().__init__(count, width)
        waves = SinusoidalPositions(width, halves=True).table(torch.arange(count)[None])[0]
        self.weight = nn.Parameter(waves, requires_grad=False)


class SinusoidalPositions(nn.Module):
    """Fixed waves of geometrically growing length. Nothing is learned, and no length is too long.

    Pairs lie side by side as in the paper (sin, cos, sin, cos, …); `halves` puts all sines first (as XLNet, Marian).
    """

    def __init__(self, width: int, base: float = 10_000.0, halves: bool = False) -> None:
        super().__init__()
        self.width, self.base, self.halves = width, base, halves

    def table(self, pos: Int[Tensor, "b t"]) -> Float[Tensor, "b t d"]:
        """PE(pos, 2i) = sin(pos·ω_i), PE(pos, 2i+1) = cos(pos·ω_i), in float32 (angles in float64)."""
        even = torch.arange(0, self.width, 2, device=pos.device)
        wide = torch.float32 if pos.device.type == "mps" else torch.float64
        angle = pos[..., None].to(wide) * self.base ** (-even.to(wide) / self.width)  # (B, T, ceil(D/2))
        waves = (angle.sin(), angle.cos())
        joined = torch.cat(waves, -1) if self.halves else torch.stack(waves, -1).flatten(-2)
        return joined[..., : self.width].float()

    def forward(self, x: Float[Tensor, "b t d"], ctx: Context) -> Float[Tensor, "b t d"]:
        return x + ctx.once((self, "table"), lambda: self.table(ctx.pos)).to(x.dtype)


def check_length(tokens: int, max_positions: int | None) -> None:
    """Raises `CapacityError` where a model has a position for fewer than `tokens` tokens."""
    if max_positions is not None and tokens > max_positions:
        raise CapacityError(
            f"{tokens} tokens are more than the {max_positions} positions this model has; shorten the text, "
            "or cut it into pieces"
        )
