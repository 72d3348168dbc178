"""The ids of many texts, one after another, and where each text ends."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cutaway.training.errors import DataError

Ids = NDArray[np.integer]


class Tokens:
    """A stream of token ids, in memory or mapped from files; never copied as a whole.

    Args:
        parts: the ids, in as many arrays as there are files.
        ends: (documents) int64, growing: where each document ends in the stream.
        vocab: how many ids the tokenizer has.
        fingerprint: of the ids and ends; computed where it is not given.

    Raises:
        DataError: there is no token.
    """

    def __init__(self, parts: Sequence[Ids], ends: Ids, vocab: int, fingerprint: str | None = None):
        self.parts, self.ends, self.vocab = list(parts), np.asarray(ends), vocab
        self._starts = np.cumsum([0, *map(len, parts)])
        if not len(self):
            raise DataError("there is not one token in this data")
        self.fingerprint = fingerprint or Fingerprint(*self.parts).closed(self.ends)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def read(self, start: int, stop: int) -> NDArray[np.int64]:
        """The ids from `start` up to `stop`, which may lie in several files."""
        part = int(np.searchsorted(self._starts, start, "right")) - 1
        pieces = []
        while start < stop:
            begin, end = self._starts[part : part + 2]
            pieces.append(self.parts[part][start - begin : min(stop, end) - begin])
            start, part = min(stop, int(end)), part + 1
        return np.concatenate(pieces).astype(np.int64) if pieces else np.empty(0, np.int64)

    def split(self, fraction: float) -> tuple[Tokens, Tokens]:
        """The beginning, and the last `fraction` of the tokens: to train on, and to validate with.

        A text that lies across the cut is divided: no token is on both sides.
        """
        cut = int(len(self) * (1 - fraction))
        if not 0 < cut < len(self):
            raise DataError(
                f"the last {fraction} of {len(self)} tokens leaves nothing on one side; say 0.1, for example"
            )
        return self._between(0, cut), self._between(cut, len(self))

    def _between(self, start: int, stop: int) -> Tokens:
        parts = []
        for begin, part in zip(self._starts.tolist(), self.parts, strict=False):
            low, high = max(start - begin, 0), min(stop - begin, len(part))
            if low < high:
                parts.append(part[low:high])
        first, last = np.searchsorted(self.ends, [start + 1, stop])
        ends = np.minimum(self.ends[first : last + 1], stop) - start
        return Tokens(parts, ends, self.vocab, f"{self.fingerprint}[{start}:{stop}]")


class Fingerprint:
    """Of ids, however they are divided, and of where their texts end."""

    def __init__(self, *parts: Ids) -> None:
        self._digest = hashlib.blake2b(digest_size=16)
        for part in parts:
            self.add(part)

    def add(self, ids: Ids) -> None:
        self._digest.update(np.ascontiguousarray(ids, dtype="<u4").data)

    def closed(self, ends: Ids) -> str:
        self._digest.update(np.ascontiguousarray(ends, dtype="<i8").data)
        return self._digest.hexdigest()
