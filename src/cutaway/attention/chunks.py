"""Local attention as Reformer has it: the text is cut into chunks, and a query sees its own chunk and its neighbours.

Chunks   of a text with a beginning and an end        decoders
Ring     whose first chunk follows its last           encoders (Kitaev et al. 2020, published code)
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from cutaway.attention.masks import Mask
from cutaway.errors import ConfigError


@dataclass(frozen=True)
class Chunks(Mask):
    """A query looks at its own chunk of `size` positions, at `before` chunks before it and `after` chunks after it.

    `Chunks(...) & Window(chunks.window)` allows the same, and has the fast way of a window.
    """

    size: int
    before: int = 1
    after: int = 0

    def __post_init__(self) -> None:
        _check(self.size, self.before, self.after)

    @property
    def window(self) -> int:
        return (max(self.before, self.after) + 1) * self.size

    def allowed(self, q_pos: Tensor, k_pos: Tensor) -> Tensor:
        behind = _chunk(q_pos, self.size) - _chunk(k_pos, self.size)
        return (behind <= self.before) & (behind >= -self.after)


@dataclass(frozen=True)
class Ring(Mask):
    """As `Chunks`, of a ring as long as the row's own text. A chunk that is both before and after is seen once."""

    size: int
    before: int = 1
    after: int = 0

    def __post_init__(self) -> None:
        _check(self.size, self.before, self.after)

    def allowed(self, q_pos: Tensor, k_pos: Tensor) -> Tensor:
        count = _chunk(k_pos.amax(-1, keepdim=True), self.size) + 1
        behind = (_chunk(q_pos, self.size) - _chunk(k_pos, self.size)) % count
        return (behind <= self.before) | (behind >= count - self.after)


def _chunk(pos: Tensor, size: int) -> Tensor:
    return pos.div(size, rounding_mode="floor")


def _check(size: int, before: int, after: int) -> None:
    if size < 1 or before < 0 or after < 0:
        raise ConfigError(f"chunks have a size >= 1 and neighbours >= 0, not {size}, {before}, {after}")
