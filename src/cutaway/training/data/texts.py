"""Rows that keep texts apart: one a row, or several that share it and do not see each other.

A text that is longer than a row comes in several pieces, cut one after another.
"""

from __future__ import annotations

from bisect import bisect_left, insort

import numpy as np
import torch

from cutaway.training.batch import Rows
from cutaway.training.data.order import Indices
from cutaway.training.data.tokens import Tokens
from cutaway.training.errors import DataError


def pieces(tokens: Tokens, length: int, overlap: int = 0) -> Indices:
    """(n, 2): where each text, or each piece of a longer one, begins and ends in the stream.

    Pieces of one text share `overlap` ids, so that every token but the first of a text is once behind another one.
    Texts that are no longer than that have nothing to ask for, and are left out.

    Raises:
        DataError: there is no other.
    """
    ends = np.asarray(tokens.ends)
    starts = np.concatenate([[0], ends[:-1]]).astype(np.int64)
    stride = length - overlap
    count = np.maximum(-(-(ends - starts - overlap) // stride), 0)
    number = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)  # of each piece in its text
    begin = np.repeat(starts, count) + number * stride
    found = np.stack([begin, np.minimum(begin + length, np.repeat(ends, count))], 1)
    if not len(found):
        raise DataError(f"no text of this data has more than {overlap} tokens; there is nothing to learn from")
    return found


class Texts:
    """One text a row, or a piece of one that is longer than `length`; rows are as long as the longest of a batch."""

    def __init__(self, tokens: Tokens, length: int, *, overlap: int = 0) -> None:
        self._tokens, self._pieces = tokens, pieces(tokens, length, overlap)
        self.fingerprint = f"{tokens.fingerprint} texts {length} {overlap}"

    def __len__(self) -> int:
        return len(self._pieces)

    def lengths(self, index: Indices) -> Indices:
        return np.diff(self._pieces[index])

    def take(self, index: Indices, epoch: Indices) -> Rows:
        found = [self._tokens.read(start, stop) for start, stop in self._pieces[index].tolist()]
        ids = np.zeros((len(found), max(map(len, found))), np.int64)
        real = np.arange(ids.shape[1]) < np.array([len(text) for text in found])[:, None]
        ids[real] = np.concatenate(found)
        return Rows(torch.from_numpy(ids), None if real.all() else torch.from_numpy(real))


class Packed:
    """Rows of `length` into which whole texts are packed, as tightly as they fit, each numbered in `Rows.documents`.

    The longest first, each into the fullest row that has room for it: best-fit decreasing (Ding et al. 2024,
    arXiv:2404.10830, section 2), so hardly anything is padding and only texts longer than a row are cut. Which texts share a
    row stays the same; in which order rows come does not.
    """

    def __init__(self, tokens: Tokens, length: int, *, overlap: int = 0) -> None:
        self._tokens, self._length = tokens, length
        found = pieces(tokens, length, overlap)
        self._rows = [found[row] for row in packed(np.diff(found)[:, 0], length)]
        self.fingerprint = f"{tokens.fingerprint} packed {length} {overlap}"

    def __len__(self) -> int:
        return len(self._rows)

    def lengths(self, index: Indices) -> Indices:
        return np.full((len(index), 1), self._length)

    def take(self, index: Indices, epoch: Indices) -> Rows:
        ids, documents = (np.zeros((len(index), self._length), np.int64) for _ in range(2))
        real = np.zeros_like(ids, bool)
        for row, number in enumerate(index.tolist()):
            at = 0
            for document, (start, stop) in enumerate(self._rows[number].tolist()):
                here = slice(at, at + stop - start)
                ids[row, here], documents[row, here], real[row, here] = self._tokens.read(start, stop), document, True
                at = here.stop
        padding = None if real.all() else torch.from_numpy(real)
        return Rows(torch.from_numpy(ids), padding, documents=torch.from_numpy(documents))


def packed(lengths: Indices, room: int) -> list[list[int]]:
    """Which of these lengths, each at most `room`, share a row."""
    rows: list[list[int]] = []
    free: dict[int, list[int]] = {}  # rows by how much room they have left
    rooms: list[int] = []  # the keys, growing
    for i in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[i])
        place = bisect_left(rooms, length)
        if place < len(rooms):
            left = rooms[place]
            row = free[left].pop()
            if not free[left]:
                del free[left], rooms[place]
        else:
            left, row = room, len(rows)
            rows.append([])
        rows[row].append(i)
        if left > length:
            if left - length not in free:
                insort(rooms, left - length)
            free.setdefault(left - length, []).append(row)
    return rows
