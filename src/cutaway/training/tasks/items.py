"""Rows of a task, and batches of rows that are about as long as each other."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from cutaway.training.batch import IGNORED, Labelled, Pairs, Rows
from cutaway.training.data.loader import nothing
from cutaway.training.data.order import Indices, permuted
from cutaway.training.errors import DataError
from cutaway.training.seeds import fold

NEAR = 0.1  # lengths that differ by this part of them are alike: batches by tokens are drawn among such
POOL = 50  # batches that are sorted by length together: enough to save padding, too few to make epochs alike


@dataclass(frozen=True)
class Encoded:
    """One row.

    Attributes:
        labels: as long as `ids` where `each`, else as many as are asked of the row.
        example: the number of the example it is of.
        target: what is to be written, of a row that has a text for an answer.
        spans: the characters of a longer text that each token is of; (0, 0) of tokens that are of none.
    """

    ids: list[int]
    labels: list[int]
    segments: list[int] | None = None
    each: bool = False
    example: int = 0
    target: list[int] | None = None
    spans: list[tuple[int, int]] | None = None


class TaskItems:
    """The rows of a task, as a loader draws them.

    Raises:
        DataError: there is none.
    """

    def __init__(self, rows: Sequence[Encoded]) -> None:
        if not rows:
            raise DataError("there is no example to work with")
        self.rows = list(rows)
        digest = hashlib.blake2b(digest_size=16)
        for row in rows:
            digest.update(json.dumps([row.ids, row.labels, row.segments, row.target]).encode())
        self.fingerprint = digest.hexdigest()

    def __len__(self) -> int:
        return len(self.rows)

    def lengths(self, index: Indices) -> Indices:
        """Tokens of each row, and of what is to be written: (n, 1) or (n, 2)."""
        rows = [self.rows[i] for i in index.tolist()]
        return np.array([[len(row.ids), *([] if row.target is None else [len(row.target)])] for row in rows])

    def take(self, index: Indices, epoch: Indices) -> Pairs | Labelled:
        return self.batch(index.tolist())

    def batch(self, index: Sequence[int]) -> Pairs | Labelled:
        """The rows of these numbers, as long as the longest of them."""
        rows = [self.rows[i] for i in index]
        ids = laid([row.ids for row in rows])
        if rows[0].target is not None:
            return Pairs(ids, laid([row.target or [] for row in rows]))
        if rows[0].segments is not None:
            ids = Rows(ids.ids, ids.padding, segments=filled([row.segments or [] for row in rows], 0))
        labels = filled([row.labels for row in rows], IGNORED)
        return Labelled(ids, labels if rows[0].each or labels.shape[1] > 1 else labels[:, 0])


def filled(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    """(B, T) int64, with `value` after the shorter ones."""
    width = max(1, *map(len, rows))
    return torch.tensor([[*row, *[value] * (width - len(row))] for row in rows])


def laid(rows: Sequence[Sequence[int]]) -> Rows:
    """Padding on the right, and none where all are as long."""
    ids = filled(rows, 0)
    padding = torch.arange(ids.shape[1]) < torch.tensor([len(row) for row in rows])[:, None]
    return Rows(ids, None if padding.all() else padding)


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
        items: TaskItems,
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

    def batch(self, n: int) -> Pairs | Labelled:
        epoch, place = divmod(n, len(self))
        here = self._batches(epoch)[place]
        mine = here[self._rank :: self._world]
        return self.items.batch(mine) if mine else nothing(self.items.batch(here[:1]))  # type: ignore[return-value]

    def _epoch(self, epoch: int) -> list[list[int]]:
        count = len(self.items)
        if not self._shuffle:
            return self._parts(np.argsort(self._lengths, kind="stable"))
        order = permuted(np.arange(count), count, fold(self._seed, epoch))
        if self._by_tokens:
            about = self._lengths[order] * (1 + NEAR * np.arange(count) / count)  # the order is as good as noise
            order = order[np.argsort(about, kind="stable")]
        else:
            pools = np.split(order, np.arange(POOL * self._rows, count, POOL * self._rows))
            order = np.concatenate([some[np.argsort(self._lengths[some], kind="stable")] for some in pools])
        batches = self._parts(order)
        place = permuted(np.arange(len(batches)), len(batches), fold(self._seed, epoch, 1))
        return [batches[i] for i in place.tolist()]

    def _parts(self, order: Indices) -> list[list[int]]:
        return [part.tolist() for part in np.split(order, self._cuts)]
