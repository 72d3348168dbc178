"""Who may look at whom: small frozen predicates on absolute positions.

A mask says, for the position of a query and the position of a key, whether the one may look at the other.
Because it speaks of positions and not of rows of a matrix, a key/value cache, padding on either side and
chunked prompts need no code of their own. Masks combine with `&` and `|`, and draw themselves with `str`:

    >>> print(Causal() & Window(2))
    █···
    ██··
    ·██·
    ··██
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cutaway.axes import Bool, Int
from cutaway.errors import ConfigError


class Mask:
    """A predicate on positions. Subclasses are frozen, hence hashable: a forward builds each of them only once."""

    def allowed(self, q_pos: Int[Tensor, "#b 1 q 1"], k_pos: Int[Tensor, "#b 1 1 k"]) -> Bool[Tensor, "..."]:
        """True where the query may look at the key; broadcasts to (B, H, Q, K)."""
        raise NotImplementedError

    @property
    def window(self) -> int | None:
        """How many of the latest keys a query can ever reach (its own included); None is without bound."""
        return None

    def __and__(self, other: Mask) -> Mask:
        if isinstance(self, Full):
            return other
        return self if isinstance(other, Full) or self == other else Both(self, other)

    def __or__(self, other: Mask) -> Mask:
        if isinstance(self, Full) or isinstance(other, Full):
            return Full()
        return self if self == other else Either(self, other)

    def dense(self, q_pos: Int[Tensor, "#b q"], k_pos: Int[Tensor, "#b k"]) -> Bool[Tensor, "..."]:
        """The mask as a matrix, broadcastable to (B, H, Q, K)."""
        return self.allowed(q_pos[:, None, :, None], k_pos[:, None, None, :])

    def __str__(self) -> str:
        pos = torch.arange(4)[None]
        rows = self.dense(pos, pos).expand(-1, -1, 4, 4)[0, 0]
        return "\n".join("".join("█" if cell else "·" for cell in row) for row in rows.tolist())


@dataclass(frozen=True)
class Full(Mask):
    """Everybody looks at everybody (encoders, cross-attention)."""

    def allowed(self, q_pos: Tensor, k_pos: Tensor) -> Tensor:
        return torch.ones((1, 1, 1, 1), dtype=torch.bool, device=q_pos.device)


@dataclass(frozen=True)
class Padding(Mask):
    """Nobody looks at padding, whose position is -1. Attention adds this one by itself where padding can stand."""

    def allowed(self, q_pos: Tensor, k_pos: Tensor) -> Tensor:
        return k_pos >= 0


@dataclass(frozen=True)
class Causal(Mask):
    """A query looks at itself and the past (Vaswani et al. 2017, section 3.2.3)."""

    def allowed(self, q_pos: Tensor, k_pos: Tensor) -> Tensor:
        return k_pos <= q_pos


@dataclass(frozen=True)
class Window(Mask):
    """A query looks at fewer than `size` positions away: causally, at `size` keys, its own included."""

    size: int

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ConfigError(f"a window holds at least the query's own key: size >= 1, not {self.size}")

    @property
    def window(self) -> int:
        return self.size

    def allowed(self, q_pos: Tensor, k_pos: Tensor) -> Tensor:
        return (q_pos - k_pos).abs() < self.size


@dataclass(frozen=True)
class Prefix(Mask):
    """Everybody looks at the first `size` positions; `Causal() | Prefix(n)`: prefix language model (T5, section 3.2.1)."""

    size: int

    def allowed(self, q_pos: Tensor, k_pos: Tensor) -> Tensor:
        return (k_pos >= 0) & (k_pos < self.size)


@dataclass(frozen=True, eq=False)
class Documents(Mask):
    """A token looks only within its own document. `ids` (B, T) names the document at each position."""

    ids: Tensor

    def allowed(self, q_pos: Tensor, k_pos: Tensor) -> Tensor:
        def document(pos: Tensor) -> Tensor:  # (B, n) -> (B, n)
            ids = self.ids.expand(pos.shape[0], -1)
            return ids.gather(1, pos.clamp(min=0))

        return document(q_pos.flatten(1))[:, None, :, None] == document(k_pos.flatten(1))[:, None, None, :]


@dataclass(frozen=True, eq=False)
class Dense(Mask):
    """Any pattern, as a matrix indexed by positions: `table` is Bool (T, T), (H, T, T) or (B, H, T, T)."""

    table: Tensor

    def __post_init__(self) -> None:
        if self.table.dtype != torch.bool or self.table.ndim not in (2, 3, 4):
            shape, dtype = tuple(self.table.shape), self.table.dtype
            raise ConfigError(f"a dense mask is boolean (T, T), (H, T, T) or (B, H, T, T), not {dtype} {shape}")

    def allowed(self, q_pos: Tensor, k_pos: Tensor) -> Tensor:
        table = self.table[(None,) * (4 - self.table.ndim)]  # (B|1, H|1, T, T)
        batch = torch.arange(table.shape[0], device=table.device)[:, None, None, None]
        head = torch.arange(table.shape[1], device=table.device)[None, :, None, None]
        return table[batch, head, q_pos.clamp(min=0), k_pos.clamp(min=0)]


@dataclass(frozen=True)
class Both(Mask):
    """`a & b`."""

    a: Mask
    b: Mask

    @property
    def window(self) -> int | None:
        return min((w for w in (self.a.window, self.b.window) if w is not None), default=None)

    def allowed(self, q_pos: Tensor, k_pos: Tensor) -> Tensor:
        return self.a.allowed(q_pos, k_pos) & self.b.allowed(q_pos, k_pos)


@dataclass(frozen=True)
class Either(Mask):
    """`a | b`."""

    a: Mask
    b: Mask

    @property
    def window(self) -> int | None:
        a, b = self.a.window, self.b.window
        return None if a is None or b is None else max(a, b)

    def allowed(self, q_pos: Tensor, k_pos: Tensor) -> Tensor:
        return self.a.allowed(q_pos, k_pos) | self.b.allowed(q_pos, k_pos)


def sees_all_past(mask: Mask) -> bool:
    """Whether a query may look at every key of the past within the mask's window: then the newest needs no matrix."""
    if isinstance(mask, Both):
        return sees_all_past(mask.a) and sees_all_past(mask.b)
    return isinstance(mask, (Full, Causal, Window))


def is_causal(mask: Mask) -> bool:
    """Whether the mask lets nobody look ahead: what a mixer without a mask of its own reads off it."""
    if isinstance(mask, Either):
        return is_causal(mask.a) and is_causal(mask.b)
    return isinstance(mask, Causal) or (isinstance(mask, Both) and (is_causal(mask.a) or is_causal(mask.b)))
