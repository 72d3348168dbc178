"""Batches of rows that are about as long as each other, so that little of them is padding."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from cutaway.training.batch import Labelled, Pairs, Rows
from cutaway.training.data.loader import nothing
from cutaway.training.data.order import Indices, permuted
from cutaway.training.data.packing import Items
from cutaway.training.seeds import fold

NEAR = 0.1  # lengths that differ by this part of them are alike: batches by tokens are drawn among such
POOL = 50  # batches that are sorted by length together: enough to save padding, too few to make epochs alike


def _cuts(lengths: Indices, tokens: int) -> Indices:
    """Where to cut rows of these lengths, which grow, so that each part is at most `tokens` when padded; a row at least."""
    cuts, start = [], 0
    for i, length in enumerate(lengths.tolist()):
        if i > start and (i + 1 - start) * length > tokens:
            cuts.append(i)
            start = i
    return np.array(cuts, np.int64)


class Buckets:
    """Batches of rows that are about as long as each other, so that little of them is padding.

    Shuffled, each epoch has another order: of the shuffled rows, those of 50 batches at a time are sorted by length and
    cut into batches, whose order is drawn too. The last batch of an epoch may be smaller. Else one pass, the shortest first.

    By `tokens`, a batch has the more rows the shorter they are. How many follows from the lengths alone, so each epoch has
    as many batches; which rows meet is drawn, among all whose lengths differ by a tenth or less.

    Args:
        rows: examples a batch, of all ranks together; this process takes each `world`-th.
        tokens: of a batch, padding included, in place of rows; about so many, as lengths within a batch differ a little.
    """

    def __init__(
        self,
        items: Items,
        rows: int,
        *,
        tokens: int | None = None,
        seed: int = 0,
        shuffle: bool = True,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.items, self._rows, self._seed, self._shuffle = items, rows, seed, shuffle
        self._rank, self._world = rank, world
        self._lengths = items.lengths(np.arange(len(items))).sum(1)
        self._by_tokens = tokens is not None
        self._cuts = np.arange(rows, len(items), rows) if tokens is None else _cuts(np.sort(self._lengths), tokens)
        self._batches = lru_cache(maxsize=2)(self._epoch)
        of = f"rows {rows}" if tokens is None else f"tokens {tokens}"
        self.fingerprint = f"{items.fingerprint} buckets {of} seed {seed} shuffle {shuffle}"

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self._cuts) + 1

    def batch(self, n: int) -> Rows | Pairs | Labelled:
        epoch, place = divmod(n, len(self))
        here = self._batches(epoch)[place]
        mine = here[self._rank :: self._world]
        return self._take(mine, epoch) if len(mine) else nothing(self._take(here[:1], epoch))

    def _take(self, index: Indices, epoch: int) -> Rows | Pairs | Labelled:
        return self.items.take(index, np.full(len(index), epoch))

    def _epoch(self, epoch: int) -> list[Indices]:
        count = len(self.items)
        if not self._shuffle:
            return np.split(np.argsort(self._lengths, kind="stable"), self._cuts)
        order = permuted(np.arange(count), count, fold(self._seed, epoch))
        if self._by_tokens:
            about = self._lengths[order] * (1 + NEAR * np.arange(count) / count)  # the order is as good as noise
            order = order[np.argsort(about, kind="stable")]
        else:
            pools = np.split(order, np.arange(POOL * self._rows, count, POOL * self._rows))
            order = np.concatenate([some[np.argsort(self._lengths[some], kind="stable")] for some in pools])
        batches = np.split(order, self._cuts)
        place = permuted(np.arange(len(batches)), len(batches), fold(self._seed, epoch, 1))
        return [batches[i] for i in place.tolist()]
