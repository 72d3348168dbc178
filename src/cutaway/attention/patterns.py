"""Sparse patterns: masks of which each query has few keys, from which fast attention needs no T × T matrix.

Sparse Transformer    strided(l), fixed(l, c)                       Child et al. 2019, sections 4.2 and 4.3
Longformer            Window(w) | Marked(global tokens), dilated    Beltagy et al. 2020, section 3.1
BigBird               Blocks: window, random and global blocks      Zaheer et al. 2020, section 2 and appendix D

>>> print(Causal() & Stride(2))
█···
·█··
█·█·
·█·█
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from cutaway.attention.masks import Causal, Mask, Prefix, Window
from cutaway.errors import ConfigError


@dataclass(frozen=True)
class Stride(Mask):
    """A query looks at every `step`-th position, its own among them: the columns of a text written in rows of `step`."""

    step: int

    def __post_init__(self) -> None:
        _positive("a stride", self.step)

    def allowed(self, q_pos: Tensor, k_pos: Tensor) -> Tensor:
        return (q_pos - k_pos) % self.step == 0


@dataclass(frozen=True)
class Local(Mask):
    """A query looks within its own block of `size` positions."""

    size: int

    def __post_init__(self) -> None:
        _positive("a block", self.size)

    @property
    def window(self) -> int:
        return self.size

    def allowed(self, q_pos: Tensor, k_pos: Tensor) -> Tensor:
        return q_pos // self.size == k_pos // self.size


@dataclass(frozen=True)
class Summary(Mask):
    """Everybody looks at the last `count` positions of every block of `size`; at as many before those in `group` 1, …"""

    size: int
    count: int
    group: int = 0

    def __post_init__(self) -> None:
        _positive("a block", self.size)
        if not (type(self.count) is int and 1 <= self.count <= self.size):
            raise ConfigError(f"a block of {self.size} has 1 to {self.size} summaries, not {self.count!r}")
        if not (type(self.group) is int and 0 <= self.group < self.size // self.count):
            many = self.size // self.count
            raise ConfigError(f"a block of {self.size} has {many} groups of {self.count} summaries, not {self.group!r}")

    def allowed(self, q_pos: Tensor, k_pos: Tensor) -> Tensor:
        end = self.size - self.group * self.count
        column = k_pos % self.size
        return (column >= end - self.count) & (column < end)


@dataclass(frozen=True)
class Leading(Mask):
    """The queries at the first `size` positions look at everybody; the others at nobody."""

    size: int

    def __post_init__(self) -> None:
        _positive("the beginning", self.size)

    def allowed(self, q_pos: Tensor, k_pos: Tensor) -> Tensor:
        return (q_pos >= 0) & (q_pos < self.size)


@dataclass(frozen=True, eq=False)
class Marked(Mask):
    """Everybody looks at the marked positions: `table` is Bool (B, T) or (1, T), True at each row's global tokens."""

    table: Tensor

    def __post_init__(self) -> None:
        if self.table.dtype != torch.bool or self.table.ndim != 2:
            raise ConfigError(f"marks are boolean (B, T), not {self.table.dtype} {tuple(self.table.shape)}")

    @property
    def length(self) -> int:
        return self.table.shape[1]

    @cached_property
    def most(self) -> int:
        """How many marks the row with most of them has."""
        return int(self.table.sum(1).max())

    def allowed(self, q_pos: Tensor, k_pos: Tensor) -> Tensor:
        rows = max(len(k_pos), len(self.table))
        pos, table = k_pos.flatten(1).expand(rows, -1), self.table.expand(rows, -1)
        return (table.gather(1, pos.clamp(min=0)) & (pos >= 0))[:, None, None, :]


@dataclass(frozen=True, eq=False)
class Blocks(Mask):
    """Blocks of `size` positions look at blocks: `layout` is (N, N), (H, N, N) or (B, H, N, N), queries' by keys' blocks.

    Bool, or how often each pair of blocks counts: published BigBird has keys that count several times, which adds the
    logarithm of that number to their logits.
    """

    layout: Tensor
    size: int

    def __post_init__(self) -> None:
        _positive("a block", self.size)
        if self.layout.is_floating_point() or self.layout.ndim not in (2, 3, 4):
            shape, dtype = tuple(self.layout.shape), self.layout.dtype
            raise ConfigError(f"a layout is boolean or counts, (N, N), (H, N, N) or (B, H, N, N), not {dtype} {shape}")

    @property
    def length(self) -> int:
        return self.layout.shape[-1] * self.size

    @cached_property
    def most(self) -> int:
        """How many pairs of blocks the head with most of them has."""
        return int(self.layout.flatten(-2).sum(-1).max())

    def counts(self, q_pos: Tensor, k_pos: Tensor) -> Tensor:
        """How often each pair counts, broadcastable to (B, H, Q, K)."""
        layout = self.layout[(None,) * (4 - self.layout.ndim)]
        row, head = (torch.arange(n, device=layout.device) for n in layout.shape[:2])
        blocks = (pos.clamp(min=0) // self.size for pos in (q_pos, k_pos))
        return layout[row[:, None, None, None], head[:, None, None], *blocks]

    def allowed(self, q_pos: Tensor, k_pos: Tensor) -> Tensor:
        return self.counts(q_pos, k_pos) > 0

    def repeats(self, q_pos: Tensor, k_pos: Tensor) -> Tensor | None:
        if self.layout.dtype == torch.bool:
            return None
        return self.counts(q_pos, k_pos).clamp(min=1).float().log()


@dataclass(frozen=True)
class Not(Mask):
    """What the other mask forbids."""

    other: Mask

    def allowed(self, q_pos: Tensor, k_pos: Tensor) -> Tensor:
        return ~self.other.allowed(q_pos, k_pos)


@dataclass(frozen=True)
class PerHead(Mask):
    """Each of `masks` for as many heads as `heads` says, in order (Child et al. 2019, section 5.1: factorised heads)."""

    masks: tuple[Mask, ...]
    heads: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.masks) != len(self.heads) or not self.masks or min(self.heads) < 1:
            raise ConfigError(f"{len(self.masks)} masks need as many counts of heads, each 1 or more, not {self.heads}")

    @property
    def window(self) -> int | None:
        windows = [mask.window for mask in self.masks]
        return None if None in windows else max(w for w in windows if w is not None)

    @property
    def causal(self) -> bool:
        return all(mask.causal for mask in self.masks)

    def allowed(self, q_pos: Tensor, k_pos: Tensor) -> Tensor:
        each = [mask.allowed(q_pos, k_pos) for mask in self.masks]
        shape = torch.broadcast_shapes(*(x.shape[2:] for x in each), (q_pos.shape[2], k_pos.shape[3]))
        rows = max(len(x) for x in each)
        return torch.cat([x.expand(rows, n, *shape) for x, n in zip(each, self.heads, strict=True)], 1)


def dilated(size: int, step: int) -> Mask:
    """A window of `size` keys on either side, its own included, of which each is `step` from the next."""
    return Window((size - 1) * step + 1) & Stride(step)


def global_tokens(size: int) -> Mask:
    """The first `size` positions look at everybody, and everybody at them."""
    return Prefix(size) | Leading(size)


def strided(size: int) -> tuple[Mask, Mask]:
    """The two factors of strided attention, causal: {j : i - l <= j} and {j : (i - j) mod l = 0}, l = `size`."""
    return Causal() & Window(size + 1), Causal() & Stride(size)


def fixed(size: int, summaries: int, group: int = 0) -> tuple[Mask, Mask]:
    """The two factors of fixed attention, causal: {j : j div l = i div l} and {j : j mod l >= l - c}, c = `summaries`.

    Another `group` of summaries is the c before those, and so on, so that heads can look at different ones.
    """
    return Causal() & Local(size), Causal() & Summary(size, summaries, group)


def _positive(name: str, size: int) -> None:
    if type(size) is not int or size < 1:
        raise ConfigError(f"{name} is 1 or more, not {size!r}")
