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

from cutaway.axes import Bool, Float, Int
from cutaway.errors import ConfigError


class Mask:
    """A predicate on positions. Subclasses are frozen, hence hashable: a forward builds each of them only once."""

    def allowed(self, q_pos: Int[Tensor, "#b 1 q 1"], k_pos: Int[Tensor, "#b 1 1 k"]) -> Bool[Tensor, "..."]:
        """True where the query may look at the key; broadcasts to (B, H, Q, K)."""
        raise NotImplementedError

    def repeats(self, q_pos: Int[Tensor, "#b 1 q 1"], k_pos: Int[Tensor, "#b 1 1 k"]) -> Float[Tensor, "..."] | None:
        """The logarithm of how often a pair counts, broadcastable to (B, H, Q, K); None where each counts once."""
        return None

    @property
    def window(self) -> int | None:
        """How many of the latest keys a query can ever reach (its own included); None is without bound."""
        return None

    @property
    def length(self) -> int | None:
        """How many positions the mask knows; None is without bound."""
        return None

    @property
    def causal(self) -> bool:
        """Whether nobody looks ahead: what a mixer without a mask of its own reads off it."""
        return False

    def __and__(self, other: Mask) -> Mask:
        _must_be_mask(other)
        if isinstance(self, Full):
            return other
        return self if isinstance(other, Full) or self == other else Both(self, other)

    def __or__(self, other: Mask) -> Mask:
        _must_be_mask(other)
        if isinstance(self, Full) or isinstance(other, Full):
            return Full()
        return self if self == other else Either(self, other)

    def dense(self, q_pos: Int[Tensor, "#b q"], k_pos: Int[Tensor, "#b k"]) -> Bool[Tensor, "..."]:
        """The mask as a matrix, broadcastable to (B, H, Q, K)."""
        return self.allowed(q_pos[:, None, :, None], k_pos[:, None, None, :])

    def __str__(self) -> str:
        count = 4 if self.length is None else min(self.length, 32)
        pos = torch.arange(count)[None]
        rows = self.dense(pos, pos).expand(-1, -1, count, count)[0, 0]  # the first row's first head
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

    @property
    def causal(self) -> bool:
        return True

    def allowed(self, q_pos: Tensor, k_pos: Tensor) -> Tensor:
        return k_pos <= q_pos


@dataclass(frozen=True)
class Window(Mask):
    """A query looks at fewer than `size` positions away: causally, at `size` keys, its own included."""

    size: int

    def __post_init__(self) -> None:
        if not _whole(self.size, 1):
            raise ConfigError(f"a window holds at least the query's own key: a whole size >= 1, not {self.size!r}")

    @property
    def window(self) -> int:
        return self.size

    def allowed(self, q_pos: Tensor, k_pos: Tensor) -> Tensor:
        return (q_pos - k_pos).abs() < self.size


@dataclass(frozen=True)
class Prefix(Mask):
    """Everybody looks at the first `size` positions; `Causal() | Prefix(n)`: prefix language model (T5, section 3.2.1)."""

    size: int

    def __post_init__(self) -> None:
        if not _whole(self.size, 0):
            raise ConfigError(f"a prefix is a number of positions: a whole size >= 0, not {self.size!r}")

    def allowed(self, q_pos: Tensor, k_pos: Tensor) -> Tensor:
        return (k_pos >= 0) & (k_pos < self.size)


@dataclass(frozen=True)
class _Pair(Mask):
    a: Mask
    b: Mask

    @property
    def length(self) -> int | None:
        return _least(self.a.length, self.b.length)


class Both(_Pair):
    """`a & b`."""

    @property
    def window(self) -> int | None:
        return _least(self.a.window, self.b.window)

    @property
    def causal(self) -> bool:
        return self.a.causal or self.b.causal

    def allowed(self, q_pos: Tensor, k_pos: Tensor) -> Tensor:
        return self.a.allowed(q_pos, k_pos) & self.b.allowed(q_pos, k_pos)


class Either(_Pair):
    """`a | b`."""

    @property
    def window(self) -> int | None:
        a, b = self.a.window, self.b.window
        return None if a is None or b is None else max(a, b)

    @property
    def causal(self) -> bool:
        return self.a.causal and self.b.causal

    def allowed(self, q_pos: Tensor, k_pos: Tensor) -> Tensor:
        return self.a.allowed(q_pos, k_pos) | self.b.allowed(q_pos, k_pos)


def sees_all_past(mask: Mask) -> bool:
    """Whether a query may look at every key of the past within the mask's window: then the newest needs no matrix."""
    if isinstance(mask, Both):
        return sees_all_past(mask.a) and sees_all_past(mask.b)
    return isinstance(mask, (Full, Causal, Window))


def _must_be_mask(other: object) -> None:
    if not isinstance(other, Mask):
        raise ConfigError(
            f"a mask combines with a mask, not with a {type(other).__name__}; Dense(table) makes one of a tensor"
        )


def _whole(size: object, least: int) -> bool:
    return isinstance(size, int) and not isinstance(size, bool) and size >= least


def _least(a: int | None, b: int | None) -> int | None:
    return min((bound for bound in (a, b) if bound is not None), default=None)
