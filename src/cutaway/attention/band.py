"""The geometry of a window: blocks of queries beside their keys, as views of padded rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from cutaway.attention import online
from cutaway.attention.masks import Mask
from cutaway.axes import Float, Int

Masks = dict[tuple[int, int, bool], list[tuple[slice, Tensor]]]  # 0 or -inf and for which keys


@dataclass(eq=False)
class Band:
    """T tokens in blocks of `block` queries, each beside `before` + `block` + `after` keys, all multiples of `block`.

    `pos` (R, T) are positions, -1 on padding, which is only at the end; R is B, or 1 where all rows stand alike. `even`:
    there is none, and the mask looks at differences only; then all blocks away from the edges have one mask.
    """

    mask: Mask
    pos: Int[Tensor, "r t"]
    block: int
    before: int
    after: int
    even: bool
    made: Masks = field(default_factory=dict, repr=False)

    @property
    def tokens(self) -> int:
        return self.pos.shape[1]

    @property
    def blocks(self) -> int:
        return -(-self.tokens // self.block)

    @property
    def span(self) -> int:
        return self.before + self.block + self.after

    @property
    def pairs(self) -> int:
        """How many logits a head takes."""
        return self.blocks * self.block * self.span

    @property
    def step(self) -> int:
        """How many blocks are done together: as many as may be, in chunks of equal size."""
        blocks = self.blocks + self.before // self.block
        return -(-blocks // -(-blocks // online.chunk(self.block, self.span)))

    def chunks(self) -> Iterator[tuple[int, int]]:
        """First and last block of each chunk."""
        return ((i, min(i + self.step, self.blocks)) for i in range(0, self.blocks, self.step))

    def cut(self, x: Float[Tensor, "t e"]) -> Float[Tensor, "n b e"]:
        """The blocks, as a view."""
        return x.unflatten(0, (-1, self.block))

    def around(self, x: Float[Tensor, "p e"]) -> Float[Tensor, "n s e"]:
        """All rows beside each block, as an overlapping view."""
        return x.unfold(0, self.span, self.block).transpose(1, 2)

    def forbid(self, x: Float[Tensor, "n b s"], row: int, first: int) -> None:
        """Puts -inf where a query may not look; x are the logits from block `first` on, in either layout."""
        last, row, turned = first + x.shape[0], min(row, len(self.pos) - 1), x.stride(1) == 1
        low, high = last, last  # between them the blocks that are like all others
        if self.even:
            low = min(max(first, self.before // self.block), last)
            high = max(low, min(last, (self.tokens - self.after) // self.block))
        elif any(other != row for other, *_ in self.made):  # heads share masks, rows that differ cannot
            self.made.clear()
        for start, stop, inner in ((first, low, False), (low, high, True), (high, last, False)):
            if start == stop:
                continue
            key = (0, -1, turned) if inner else (row, start, turned)
            if key not in self.made:
                masks = self._inner(start) if inner else [(slice(None), self._mask(row, start, stop))]
                self.made[key] = [(c, m.mT.contiguous().mT if turned else m.contiguous()) for c, m in masks]
            for columns, mask in self.made[key]:
                x[start - first : stop - first, :, columns].add_(mask)

    def _mask(self, row: int, first: int, last: int) -> Float[Tensor, "n b s"]:
        """0 or -inf."""
        start, stop = first * self.block, last * self.block
        low, high, pos = start - self.before, stop + self.after, self.pos[row]
        queries = F.pad(pos[start:stop], (0, max(0, stop - self.tokens)), value=-1)
        keys = F.pad(pos[max(0, low) : high], (max(0, -low), max(0, high - self.tokens)), value=-1)
        q_pos = queries.unflatten(0, (-1, self.block))[:, None, :, None]
        k_pos = keys.unfold(0, self.span, self.block)[:, None, None, :]
        allowed = (self.mask.allowed(q_pos, k_pos) & (k_pos >= 0))[:, 0]
        return torch.zeros(allowed.shape, device=pos.device).masked_fill_(~allowed, -torch.inf)

    def _inner(self, first: int) -> list[tuple[slice, Tensor]]:
        """Away from the edges only the first few and the last few keys are forbidden to some query."""
        mask, half = self._mask(0, first, first + 1)[0], self.before + self.block // 2
        barred = mask.isinf().any(0).nonzero().flatten().tolist()
        left = max((i + 1 for i in barred if i < half), default=0)
        right = min((i for i in barred if i >= half), default=self.span)
        return [(c, mask[:, c]) for c in (slice(0, left), slice(right, self.span)) if c.start < c.stop]


class Rows:
    """One head's padded rows, in buffers that every head uses in turn."""

    def __init__(self, band: Band, dtype: torch.dtype) -> None:
        self.band, self.dtype, self.whole = band, dtype, band.blocks * band.block

    def room(self, like: Tensor, before: int | None = None, after: int | None = None) -> Tensor:
        """(P, E) zeros: as many before and after the tokens as keys need, or as told."""
        before = self.band.before if before is None else before
        after = self.band.after if after is None else after
        return like.new_zeros((before + self.whole + after, like.shape[-1]), dtype=self.dtype)

    def fill(self, room: Tensor, x: Tensor, scale: float = 1.0, left: int | None = None) -> Tensor:
        """x (T, E) times `scale` in its room; x itself where there is nothing to pad."""
        if room.shape[0] == x.shape[0] and scale == 1.0 and x.dtype == self.dtype:
            return x
        left = self.band.before if left is None else left
        inside = room[left : left + x.shape[0]].copy_(x)
        if scale != 1.0:
            inside.mul_(scale)
        return room


class Strip:
    """A chunk of the band, and the end of the one before it, so that all that is in a block of keys is together.

    Block i starts b·span + b numbers after block i - 1, and its rows are `span` apart. A block begins with the key b after
    the one that the block before it begins with, so each key stands in one column of the strip, whatever the block: rows
    (span of them) and columns (b) of a block of keys are a matrix.
    """

    def __init__(self, band: Band, like: Tensor) -> None:
        self.band, self.overlap = band, band.span // band.block - 1
        self.apart = band.block * band.span + band.block
        self.numbers = like.new_zeros((band.step + self.overlap) * self.apart)

    def _blocks(self, first: int, count: int) -> Tensor:
        shape, strides = (count, self.band.block, self.band.span), (self.apart, self.band.span, 1)
        return self.numbers.as_strided(shape, strides, first * self.apart)

    def roll(self, begin: bool, count: int) -> Float[Tensor, "n b s"]:
        """Room for the next `count` blocks; `begin`: nothing came before. What is left of a chunk is zero."""
        step = self.band.step
        if begin:
            self._blocks(0, self.overlap).zero_()
        else:
            for i in range(0, self.overlap, step):  # not all at once where a chunk is shorter than that
                some = min(step, self.overlap - i)
                self._blocks(i, some).copy_(self._blocks(i + step, some))
        if count < step:
            self._blocks(self.overlap + count, step - count).zero_()
        return self._blocks(self.overlap, count)

    def by_keys(self, first: int, last: int) -> Float[Tensor, "n s b"]:
        """For blocks of keys from `first` of the chunk on, what all queries gave them."""
        shape, strides = (last - first, self.band.span, self.band.block), (self.apart, self.band.span, 1)
        return self.numbers.as_strided(shape, strides, first * self.apart + self.overlap * self.band.block)
