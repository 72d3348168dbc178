"""Which example comes when: a function of the seed, so that no order is ever stored.

A permutation of n examples is a Feistel network over the next even number of bits, walked along its cycle until it
lands below n (Black & Rogaway 2002, "Ciphers with arbitrary finite domains", section 3): any stretch of the
order of billions of examples costs only its own length. Of few examples a table is kept instead.

A mixture deals in rounds of 4,096: each round has exactly a source's share of the places (to the nearest), dealt anew. So
how often a source has come before place p follows from p alone.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from cutaway.training.errors import DataError
from cutaway.training.seeds import fold, mix

_ROUND = 4096
_STEPS = 6  # Luby & Rackoff prove four
_FEW = 1 << 16  # a table of these is cheap, and uniform where the network's halves would have too few bits to be

Indices = NDArray[np.int64]


def permuted(index: Indices, count: int, seed: int) -> Indices:
    """Where the permutation number `seed` of `count` examples sends each index."""
    if count <= _FEW:
        return _sorted(count, seed)[index]
    half = np.uint64(((count - 1).bit_length() + 1) // 2)
    low = np.uint64((1 << int(half)) - 1)
    keys = [np.uint64(fold(seed, step)) for step in range(_STEPS)]

    def encrypt(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
        left, right = x >> half, x & low
        for key in keys:
            left, right = right, left ^ (mix(right ^ key) & low)
        return (left << half) | right

    x = encrypt(index.astype(np.uint64))
    while len(beyond := np.flatnonzero(x >= count)):
        x[beyond] = encrypt(x[beyond])
    return x.astype(np.int64)


@lru_cache(maxsize=16)
def _sorted(count: int, seed: int) -> Indices:
    """The order of as many random numbers."""
    return np.argsort(mix(np.arange(count, dtype=np.uint64) ^ np.uint64(fold(seed))), kind="stable")


class Order:
    """The endless order of the examples of one or several sources.

    Args:
        counts: how many examples each source has.
        weights: how often each is drawn, in any unit; None is in proportion to `counts`.
        shuffle: anew in each epoch; else in order, source by source where no weights are given.

    Raises:
        DataError: a source without examples; weights that are none.
    """

    def __init__(
        self, counts: Sequence[int], weights: Sequence[float] | None = None, *, seed: int = 0, shuffle: bool = True
    ):
        if not counts or min(counts) < 1:
            raise DataError(f"every source needs at least one example; they have {list(counts)}")
        if weights is not None and (len(weights) != len(counts) or not all(0 < w < np.inf for w in weights)):
            raise DataError(f"{len(counts)} sources need as many weights, each above 0; not {list(weights)}")
        self._counts, self._seed, self._shuffle = list(counts), seed, shuffle
        self._starts = np.cumsum([0, *counts])
        self.total = int(self._starts[-1])  # examples an epoch, all sources once
        self._shares = None if weights is None or len(counts) == 1 else _shares(np.asarray(weights, float))
        self._dealt: tuple[int, Indices, Indices] | None = None

    def take(self, start: int, stop: int) -> tuple[Indices, Indices, Indices]:
        """Source, epoch and index of the examples at the places from `start` up to `stop`."""
        place = np.arange(start, stop, dtype=np.int64)
        if self._shares is not None:
            source, turn = self._mixed(place)
            count = np.asarray(self._counts)[source]
            epoch, index = turn // count, turn % count
        else:  # the sources laid end to end are one
            source = np.zeros_like(place)
            epoch, index = place // self.total, place % self.total
        if self._shuffle:
            for s, e in sorted(set(zip(source.tolist(), epoch.tolist(), strict=True))):
                here = np.flatnonzero((source == s) & (epoch == e))
                count = self.total if self._shares is None else self._counts[s]
                index[here] = permuted(index[here], count, fold(self._seed, s, e))
        if self._shares is None:
            source = np.searchsorted(self._starts, index, "right") - 1
            index = index - self._starts[source]
        return source, epoch, index

    def _mixed(self, place: Indices) -> tuple[Indices, Indices]:
        """The source at each place, and how often it has come before."""
        assert self._shares is not None
        source, turn = np.empty_like(place), np.empty_like(place)
        rounds = place // _ROUND
        for number in np.unique(rounds).tolist():
            here, inside = rounds == number, place[rounds == number] % _ROUND
            dealt, before = self._round(number)
            source[here] = dealt[inside]
            turn[here] = number * self._shares[dealt[inside]] + before[inside]
        return source, turn

    def _round(self, number: int) -> tuple[Indices, Indices]:
        held = self._dealt
        if held is None or held[0] != number:
            assert self._shares is not None
            hand = np.repeat(np.arange(len(self._shares)), self._shares)
            dealt = hand[permuted(np.arange(_ROUND), _ROUND, fold(self._seed, -1, number))]
            before = np.empty_like(dealt)
            for s in range(len(self._shares)):
                before[dealt == s] = np.arange(self._shares[s])
            self._dealt = held = number, dealt, before
        return held[1:]


def _shares(weights: NDArray[np.float64]) -> Indices:
    """Places a round for each source: the largest remainders are rounded up, and no source goes without."""
    exact = weights / weights.sum() * _ROUND
    shares = np.maximum(np.floor(exact), 1).astype(np.int64)
    for s in np.argsort(shares - exact, kind="stable")[: max(0, _ROUND - int(shares.sum()))]:
        shares[s] += 1
    while (over := int(shares.sum()) - _ROUND) > 0:
        shares[np.argmax(shares)] -= min(over, int(shares.max()) - 1)
    return shares
