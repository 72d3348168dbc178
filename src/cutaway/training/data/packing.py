"""Rows cut from a stream of tokens."""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np
import torch

from cutaway.training.batch import Labelled, Pairs, Rows
from cutaway.training.data.order import Indices
from cutaway.training.data.tokens import Tokens
from cutaway.training.errors import DataError
from cutaway.training.seeds import fold, mix


class Items(Protocol):
    """What a loader draws from: examples by number, of which it makes rows."""

    fingerprint: str

    def __len__(self) -> int: ...

    def lengths(self, index: Indices) -> Indices:
        """Tokens of each example: (n, 1), or (n, 2) for pairs."""
        ...

    def take(self, index: Indices, epoch: Indices) -> Rows | Pairs | Labelled:
        """The examples, one a row."""
        ...


class Windows:
    """Contiguous rows of `length` ids over one stream, whatever documents they cross.

    Each row shares `overlap` ids with the next: 1 where a model learns to predict the next token, so that every token is
    predicted once. `place` says where the windows stand: "fixed" from the start; "shifted" by another offset in each epoch,
    so that in the long run every token is seen at every position, and once an epoch; "random", independently of each other.

    Raises:
        DataError: the stream is shorter than a row.
    """

    def __init__(
        self,
        tokens: Tokens,
        length: int,
        *,
        overlap: int = 0,
        place: Literal["fixed", "shifted", "random"] = "fixed",
        seed: int = 0,
    ):
        if not 0 <= overlap < length:
            raise DataError(f"rows of {length} ids overlap by 0 to {length - 1}, not {overlap}")
        if len(tokens) < length:
            raise DataError(
                f"the data has {len(tokens)} tokens, fewer than one row of {length}; give more, or shorter rows (--data.length)"
            )
        self._tokens, self._length, self._place, self._seed = tokens, length, place, seed
        self._stride = length - overlap
        self._spare = len(tokens) - length  # the last start
        shifting = 0 if place == "fixed" else min(self._stride - 1, self._spare)
        self._count = 1 + (self._spare - shifting) // self._stride
        self._shifts = 1 + shifting
        self.fingerprint = f"{tokens.fingerprint} windows {length} {overlap} {place} {seed}"

    def __len__(self) -> int:
        return self._count

    def lengths(self, index: Indices) -> Indices:
        return np.full((len(index), 1), self._length)

    def take(self, index: Indices, epoch: Indices) -> Rows:
        starts = self._starts(index, epoch)
        rows = np.stack([self._tokens.read(start, start + self._length) for start in starts.tolist()])
        return Rows(torch.from_numpy(rows))  # (B, T)

    def _starts(self, index: Indices, epoch: Indices) -> Indices:
        if self._place == "fixed":
            return index * self._stride
        key = np.uint64(fold(self._seed, 1))
        if self._place == "shifted":
            return index * self._stride + (mix(epoch.astype(np.uint64) ^ key) % np.uint64(self._shifts)).astype(
                np.int64
            )
        number = (epoch * self._count + index).astype(np.uint64)
        return (mix(number ^ key) % np.uint64(self._spare + 1)).astype(np.int64)
