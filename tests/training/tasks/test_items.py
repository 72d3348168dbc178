"""Batches of like length: all examples once an epoch, always the same, shared among ranks, hardly any padding."""

import random

import pytest
import torch

from cutaway.training.batch import IGNORED, Labelled
from cutaway.training.data.buckets import Buckets
from cutaway.training.errors import DataError
from cutaway.training.tasks.items import Encoded, TaskItems
from cutaway.training.tasks.setup import divided
from cutaway.training.tasks.task import Example


@pytest.fixture
def items():
    draw = random.Random(0)
    return TaskItems([Encoded([i + 1] * draw.randint(1, 40), [i]) for i in range(203)])


def seen(loader, batches):
    return [label for n in batches for label in loader.batch(n).labels.tolist()]


def test_each_epoch_has_every_example_once_in_another_order(items):
    loader = Buckets(items, 8, seed=3)
    assert len(loader) == 26
    epochs = [seen(loader, range(e * 26, (e + 1) * 26)) for e in range(3)]
    assert all(sorted(epoch) == list(range(203)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    again = Buckets(items, 8, seed=3)
    assert seen(again, [60, 3]) == seen(loader, [60, 3])
    assert seen(Buckets(items, 8, seed=4), range(26)) != epochs[0]


def test_rows_are_about_as_long_as_each_other(items):
    def waste(order):
        total = sum(items.batch(rows).rows.ids.numel() for rows in order)
        return 1 - sum(len(row.ids) for row in items.rows) / total

    plain = [list(range(i, min(i + 8, 203))) for i in range(0, 203, 8)]
    sorted_ = [Buckets(items, 8, seed=3).batch(n).labels.tolist() for n in range(26)]
    assert waste(plain) > 0.3
    assert waste(sorted_) < 0.05


def test_ranks_share_each_batch(items):
    for shuffle in (True, False):
        whole = Buckets(items, 7, shuffle=shuffle)
        shares = [Buckets(items, 7, shuffle=shuffle, rank=r, world=3) for r in range(3)]
        for n in (0, len(whole) - 1):
            parts = [share.batch(n).labels.tolist() for share in shares]
            assert sorted(label for part in parts for label in part) == sorted(whole.batch(n).labels.tolist())


def test_a_rank_without_rows_is_asked_nothing(items):
    nothing = Buckets(items, 1, rank=1, world=2).batch(0)
    assert isinstance(nothing, Labelled)
    assert nothing.labels.tolist() == [IGNORED]
    assert nothing.rows.padding is not None
    assert not nothing.rows.padding.any()


def test_rows_are_padded_on_the_right():
    items = TaskItems([Encoded([5, 6], [1, 2], segments=[0, 1], each=True), Encoded([7], [3], segments=[1], each=True)])
    batch = items.batch([1, 0])
    assert batch.rows.ids.tolist() == [[7, 0], [5, 6]]
    assert batch.rows.padding.tolist() == [[True, False], [True, True]]
    assert batch.rows.segments.tolist() == [[1, 0], [0, 1]]
    assert batch.labels.tolist() == [[3, IGNORED], [1, 2]]
    assert items.batch([0]).rows.padding is None
    with pytest.raises(DataError, match="no example"):
        TaskItems([])


def test_a_split_never_divides_a_group():
    found = [Example(i, group=f"g{i // 5}") for i in range(100)]
    train, held = divided(found, 0.2, seed=1)
    assert len(held) == 20
    assert not {e.group for e in train} & {e.group for e in held}
    assert [e.text for e in train + held] != list(range(100))
    assert divided(found, 0.2, seed=1)[1] == held != divided(found, 0.2, seed=2)[1]
    with pytest.raises(DataError, match="too few examples"):
        divided(found[:4], 0.1, seed=1)


def test_the_mean_of_a_batch_is_that_of_its_rows():
    """What is asked of padding does not count."""
    from cutaway.training.tasks.labels import Labels

    model = torch.nn.Identity()
    objective = Labels(model)
    rows = TaskItems([Encoded([1, 2, 3], [0, IGNORED, 1], each=True), Encoded([4], [1], each=True)]).batch([0, 1])
    batch = objective.batch(rows, torch.Generator())
    logits = torch.randn(2, 3, 2)
    loss = objective.loss(lambda ids, padding: logits, batch)
    asked = torch.stack([logits[0, 0], logits[0, 2], logits[1, 0]]).log_softmax(-1)
    assert loss.count == 3
    assert batch.tokens == 4
    assert loss.total.item() == pytest.approx(-(asked[0, 0] + asked[1, 1] + asked[2, 1]).item())


@pytest.mark.parametrize("shuffle", [True, False])
def test_by_tokens_a_batch_has_the_more_rows_the_shorter_they_are(items, shuffle):
    loader = Buckets(items, 8, tokens=120, seed=3, shuffle=shuffle)
    count = len(loader)
    sizes = [tuple(loader.batch(n).rows.ids.shape) for n in range(count)]
    assert all(rows * width <= 120 * (1.1 if shuffle else 1) for rows, width in sizes)
    assert sum(rows * width for rows, width in sizes) > 0.85 * 120 * count
    assert max(rows for rows, _ in sizes) > 20
    assert sorted(seen(loader, range(count))) == list(range(203))
    if shuffle:
        later = seen(loader, range(count, 2 * count))
        assert sorted(later) == list(range(203))
        assert {frozenset(seen(loader, [n])) for n in range(count)} != {
            frozenset(seen(loader, [n])) for n in range(count, 2 * count)
        }
        again = Buckets(items, 8, tokens=120, seed=3)
        assert seen(again, range(count, 2 * count)) == later
    shares = [Buckets(items, 8, tokens=120, seed=3, shuffle=shuffle, rank=r, world=2) for r in range(2)]
    assert sorted(label for share in shares for label in seen(share, range(count))) == list(range(203))


def test_a_row_longer_than_a_batch_has_one_to_itself():
    loader = Buckets(TaskItems([Encoded([1] * n, [n]) for n in (3, 50, 4, 60)]), 8, tokens=10, shuffle=False)
    assert [loader.batch(n).labels.tolist() for n in range(len(loader))] == [[3, 4], [50], [60]]
