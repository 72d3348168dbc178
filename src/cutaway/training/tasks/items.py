"""Rows of a task."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cutaway.training.batch import IGNORED, Labelled, Pairs, Rows
from cutaway.training.data.order import Indices
from cutaway.training.errors import DataError


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
