"""Batch number n: a function of the data, the seed and n, so that a run resumes at the exact example by knowing n."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from queue import Empty, Full, Queue
from threading import Event, Thread

import numpy as np
import torch

from cutaway.training.batch import IGNORED, Labelled, Pairs, Rows
from cutaway.training.data.order import Order
from cutaway.training.data.packing import Items
from cutaway.training.errors import DataError


class Loader:
    """Batches of `rows` examples from one or several sources.

    Shuffled, it never ends: epochs follow each other without a gap, each in an order of its own, and a batch may hold the
    end of one and the beginning of the next. Not shuffled, it is one pass in order, and the last batch may be smaller.

    Args:
        items: where the examples come from; several are mixed.
        rows: examples a batch, of all ranks together.
        weights: how often each source is drawn, in any unit; None is in proportion to its examples.
        rank, world: this process takes each `world`-th row. Where a batch has fewer rows than there are ranks, the others
            get one row of nothing but padding.

    Raises:
        DataError: no rows, no such rank, sources of different kinds.
    """

    def __init__(
        self,
        items: Items | Sequence[Items],
        rows: int,
        *,
        seed: int = 0,
        shuffle: bool = True,
        weights: Sequence[float] | None = None,
        rank: int = 0,
        world: int = 1,
    ):
        self._items: list[Items] = list(items) if isinstance(items, Sequence) else [items]
        if rows < 1 or not 0 <= rank < world:
            raise DataError(f"{rows} rows for rank {rank} of {world}: a batch has rows, and ranks count from 0")
        self._order = Order([len(each) for each in self._items], weights, seed=seed, shuffle=shuffle)
        self._rows, self._shuffle, self._rank, self._world = rows, shuffle, rank, world
        kinds = [each.fingerprint for each in self._items]
        self.fingerprint = f"{kinds} rows {rows} seed {seed} shuffle {shuffle} weights {weights and list(weights)}"

    def __len__(self) -> int:
        """Batches an epoch: the whole ones where shuffled, else all."""
        total = self._order.total
        return max(1, total // self._rows) if self._shuffle else -(-total // self._rows)

    def batch(self, n: int) -> Rows | Pairs | Labelled:
        """This rank's share of batch `n`."""
        if n < 0 or (not self._shuffle and n >= len(self)):
            raise DataError(f"there is no batch {n}: one pass has {len(self)}")
        stop = (n + 1) * self._rows
        places = self._order.take(n * self._rows, stop if self._shuffle else min(stop, self._order.total))
        mine = slice(self._rank, None, self._world)
        source, epoch, index = (array[mine] for array in places)
        if not len(source):
            source, epoch, index = (array[:1] for array in places)
            return nothing(self._items[int(source[0])].take(index, epoch))
        pieces, taken = [], []
        for s in np.unique(source).tolist():
            here = np.flatnonzero(source == s)
            pieces.append(self._items[s].take(index[here], epoch[here]))
            taken.append(here)
        return pieces[0] if len(pieces) == 1 else _merged(pieces, np.concatenate(taken))

    def batches(self, start: int = 0, stop: int | None = None, ahead: int = 2) -> Iterator[Rows | Pairs | Labelled]:
        """The batches from `start` on, of which `ahead` are made in a thread while the caller works."""
        if stop is None and not self._shuffle:
            stop = len(self)
        made: Queue[Rows | Pairs | Labelled | BaseException | None] = Queue(max(1, ahead))
        closed = Event()

        def put(value: Rows | Pairs | Labelled | BaseException | None) -> None:
            while not closed.is_set():
                try:
                    return made.put(value, timeout=0.1)
                except Full:
                    pass

        def work() -> None:
            try:
                n = start
                while (stop is None or n < stop) and not closed.is_set():
                    put(self.batch(n))
                    n += 1
                put(None)
            except BaseException as problem:
                put(problem)

        thread = Thread(target=work, name="cutaway-loader", daemon=True)
        thread.start()
        try:
            while True:
                try:
                    value = made.get(timeout=1)
                except Empty:
                    continue  # so that Ctrl-C is heard while waiting
                if value is None:
                    return
                if isinstance(value, BaseException):
                    raise value
                yield value
        finally:
            closed.set()
            thread.join()


def _merged(pieces: list[Rows | Pairs | Labelled], order: np.ndarray) -> Rows | Pairs:
    """One batch of several, row `order[i]` of the result being row i of the pieces laid one under another."""
    if any(isinstance(piece, Labelled) for piece in pieces):
        raise DataError("labelled texts of several sources are one source: give their files together")
    back = torch.from_numpy(np.argsort(order))
    if all(isinstance(piece, Pairs) for piece in pieces):
        sides = [[getattr(piece, side) for piece in pieces] for side in ("source", "target")]
        return Pairs(*(_stacked(side, back) for side in sides))
    if any(isinstance(piece, Pairs) for piece in pieces):
        raise DataError("pairs and single texts cannot be mixed in one batch")
    return _stacked(pieces, back)  # type: ignore[arg-type]


def _stacked(rows: list[Rows], order: torch.Tensor) -> Rows:
    width = max(each.ids.shape[1] for each in rows)
    ragged = any(each.ids.shape[1] != width or each.padding is not None for each in rows)
    found = {}
    for name in (field.name for field in fields(Rows)):
        parts = [getattr(each, name) for each in rows]
        if name == "padding" and ragged:
            parts = [
                torch.ones_like(r.ids, dtype=torch.bool) if p is None else p for p, r in zip(parts, rows, strict=True)
            ]
        if all(part is None for part in parts):
            continue
        if any(part is None for part in parts):
            raise DataError("packed documents and plain rows cannot be mixed in one batch: pack all sources alike")
        wide = [torch.nn.functional.pad(part, (0, width - part.shape[1])) for part in parts]
        found[name] = torch.cat(wide)[order]
    return Rows(**found)


def nothing(batch: Rows | Pairs | Labelled) -> Rows | Pairs | Labelled:
    """The same kind of batch with one row of padding, of which nothing is asked."""
    if isinstance(batch, Labelled):
        return Labelled(_blank(batch.rows), torch.full_like(batch.labels, IGNORED))
    if isinstance(batch, Pairs):
        return Pairs(*(_blank(rows) for rows in (batch.source, batch.target)))
    return _blank(batch)


def _blank(rows: Rows) -> Rows:
    values = {name: getattr(rows, name) for name in ("ids", "positions", "documents", "segments")}
    blank = {name: None if value is None else torch.zeros_like(value) for name, value in values.items()}
    return Rows(**blank, padding=torch.zeros_like(rows.ids, dtype=torch.bool))  # type: ignore[arg-type]
