"""The order of examples: permutations, mixtures, batches that are functions of their number."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cutaway.training.data import Loader, Rows, Tokens, Windows
from cutaway.training.data.order import Order, permuted
from cutaway.training.errors import DataError


@pytest.mark.parametrize("count", [1, 2, 3, 5, 7, 16, 17, 100, 4096, 100_003])
def test_a_permutation_sends_each_index_to_another(count):
    for seed in range(3):
        assert sorted(permuted(np.arange(count), count, seed).tolist()) == list(range(count))


@pytest.mark.parametrize(("count", "bound"), [(4, 49.7), (5, 173.6)])
def test_all_permutations_of_few_are_equally_frequent(count, bound):
    """Chi-square with count! - 1 degrees of freedom passes the bound once in a thousand."""
    draws = Counter(tuple(permuted(np.arange(count), count, seed).tolist()) for seed in range(24_000))
    every = math.factorial(count)
    expected = 24_000 / every
    assert len(draws) == every
    assert sum((n - expected) ** 2 / expected for n in draws.values()) < bound


def test_places_in_the_permutations_of_many_are_uniform(monkeypatch):
    """Where 0, 1, 2 and 999 go among 1,000, by the network; 99 degrees of freedom, 148.2 once in a thousand."""
    monkeypatch.setattr("cutaway.training.data.order._FEW", 0)
    went = np.stack([permuted(np.array([0, 1, 2, 999]), 1000, seed) for seed in range(10_000)])
    for which in range(4):
        drawn = np.bincount(went[:, which] // 10, minlength=100)
        assert ((drawn - 100) ** 2 / 100).sum() < 148.2
    assert sorted(permuted(np.arange(1000), 1000, 7).tolist()) == list(range(1000))


def test_a_stretch_of_billions_costs_only_itself():
    count = 3_000_000_019
    ahead = permuted(np.arange(10**9, 10**9 + 1000), count, 1)
    assert len(set(ahead.tolist())) == 1000
    assert ahead.min() >= 0
    assert ahead.max() < count
    # neighbours land anywhere: the mean distance of two uniform places is a third of the whole
    assert 0.25 < np.abs(np.diff(ahead)).mean() / count < 0.42


def test_each_example_comes_once_an_epoch_and_each_epoch_has_its_own_order():
    order = Order([7, 4])
    source, epoch, index = order.take(0, 33)
    for e in range(3):
        seen = list(zip(source[e * 11 : e * 11 + 11].tolist(), index[e * 11 : e * 11 + 11].tolist(), strict=True))
        assert sorted(seen) == [(s, i) for s, n in ((0, 7), (1, 4)) for i in range(n)]
        assert set(epoch[e * 11 : e * 11 + 11].tolist()) == {e}
    assert index[:11].tolist() != index[11:22].tolist()


def test_weights_hold_exactly_and_no_source_skips_an_example():
    order = Order([50, 1000, 10], [0.7, 0.2, 0.1])
    source, epoch, index = order.take(0, 3 * 4096)
    drawn = np.bincount(source)
    assert np.abs(drawn / len(source) - [0.7, 0.2, 0.1]).max() < 1 / 4096
    for s, count in enumerate((50, 1000, 10)):
        here = source == s
        for e in range(int(epoch[here].max())):  # whole epochs
            assert sorted(index[here & (epoch == e)].tolist()) == list(range(count))


@settings(max_examples=40, deadline=None)
@given(
    counts=st.lists(st.integers(1, 40), min_size=1, max_size=3),
    weighted=st.booleans(),
    shuffle=st.booleans(),
    start=st.integers(0, 9000),
    size=st.integers(1, 300),
)
def test_a_stretch_does_not_depend_on_where_one_began(counts, weighted, shuffle, start, size):
    weights = [1.0 + i for i in range(len(counts))] if weighted else None
    whole = Order(counts, weights, seed=3, shuffle=shuffle).take(start, start + size)
    other = Order(counts, weights, seed=3, shuffle=shuffle)
    one = [other.take(p, p + 1) for p in range(start, start + size)]
    for which in range(3):
        assert whole[which].tolist() == [int(x[which][0]) for x in one]


def stream(count: int) -> Tokens:
    return Tokens([np.arange(count, dtype=np.uint32)], np.array([count]), count)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 9),
    world=st.integers(1, 5),
    n=st.integers(0, 50),
    place=st.sampled_from(["fixed", "shifted", "random"]),
)
def test_the_shares_of_the_ranks_are_the_batch(rows, world, n, place):
    sources = [Windows(stream(101), 7, place=place), Windows(stream(300), 7, overlap=1, place=place)]
    whole = Loader(sources, rows, seed=5).batch(n).ids
    shares = [Loader(sources, rows, seed=5, rank=r, world=world).batch(n) for r in range(world)]
    for rank, share in enumerate(shares):
        if rank < rows:
            assert torch.equal(share.ids, whole[rank::world])
            assert share.padding is None
        else:
            assert share.ids.shape == (1, 7)
            assert not share.padding.any()


def test_resuming_gives_the_same_batches():
    loader = Loader([Windows(stream(500), 8, place="shifted")], 4, seed=2)
    through = [rows.ids for rows in loader.batches(0, 60)]
    again = Loader([Windows(stream(500), 8, place="shifted")], 4, seed=2)
    resumed = [rows.ids for rows in again.batches(37, 60)]
    assert all(torch.equal(a, b) for a, b in zip(through[37:], resumed, strict=True))


def test_one_pass_in_order_sees_every_window_once():
    loader = Loader(Windows(stream(103), 10), 4, shuffle=False)
    assert len(loader) == 3
    ids = torch.cat([rows.ids for rows in loader.batches()])
    assert ids.flatten().tolist() == list(range(100))
    with pytest.raises(DataError, match="no batch 3"):
        loader.batch(3)


def test_what_breaks_in_the_thread_is_raised_where_the_batches_are_used():
    class Broken(Windows):
        def take(self, index, epoch) -> Rows:
            raise DataError("broken on purpose")

    with pytest.raises(DataError, match="on purpose"):
        next(Loader(Broken(stream(50), 5), 2).batches())


def test_windows_cover_the_stream_and_shift():
    tokens = stream(1000)
    windows = Windows(tokens, 9, overlap=1, place="shifted")
    for epoch in range(20):
        index = np.arange(len(windows))
        rows = windows.take(index, np.full_like(index, epoch)).ids
        # each row's last is the next row's first: every token but the first is predicted once
        assert torch.equal(rows[1:, 0], rows[:-1, -1])
        assert torch.equal(rows[0], torch.arange(9) + rows[0, 0])
    starts = {int(windows.take(np.array([0]), np.array([epoch])).ids[0, 0]) for epoch in range(200)}
    assert starts == set(range(8))


def test_random_windows_reach_both_ends():
    windows = Windows(stream(12), 4, place="random")
    starts = Counter(int(windows.take(np.array([0]), np.array([e])).ids[0, 0]) for e in range(9000))
    assert set(starts) == set(range(9))
    assert max(starts.values()) < 1.2 * min(starts.values())


def test_too_little_data_is_said():
    with pytest.raises(DataError, match="12 tokens, fewer than one row of 13"):
        Windows(stream(12), 13)
    with pytest.raises(DataError, match="not one token"):
        stream(0)
