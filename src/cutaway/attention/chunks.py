"""Local attention as Reformer has it: the text is cut into chunks, and a query sees its own chunk and its neighbours."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from cutaway.attention.masks import Mask
from cutaway.errors import ConfigError


@dataclass(frozen=True)
class Chunks(Mask):
    """A query looks at its own chunk of `size` positions, at `before` chunks before it and `after` chunks after it.

    `wraps`: the text is a ring, the first chunk following the last, as published encoders have it
    (Kitaev et al. 2020, published code). In a decoder a causal mask hides what that adds.
    """

    size: int
    before: int = 1
    after: int = 0
    wraps: bool = False

    def __post_init__(self) -> None:
        if self.size < 1 or self.before < 0 or self.after < 0:
            raise ConfigError(
                f"chunks have a size >= 1 and neighbours >= 0, not {self.size}, {self.before}, {self.after}"
            )

    @property
    def window(self) -> int | None:
        return None if self.wraps else (max(self.before, self.after) + 1) * self.size

    def allowed(self, q_pos: Tensor, k_pos: Tensor) -> Tensor:
        behind = q_pos.div(self.size, rounding_mode="floor") - k_pos.div(self.size, rounding_mode="floor")
        if not self.wraps:
            return (behind <= self.before) & (behind >= -self.after)
        ring = k_pos.amax(-1, keepdim=True).div(self.size, rounding_mode="floor") + 1
        behind = behind % ring
        return (behind <= self.before) | (behind >= ring - self.after)
