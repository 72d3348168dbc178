"""Rows that keep texts apart: each token once, packed tightly, and what is learnt is what each text alone would teach."""

import numpy as np
import pytest
import torch

import cutaway
from cutaway.training.data import Loader, Tokens, examples, octets, tokenise
from cutaway.training.data.buckets import Buckets
from cutaway.training.data.texts import Packed, Texts, packed, pieces
from cutaway.training.errors import DataError
from cutaway.training.objectives import Causal


def stream(lengths):
    ids = np.arange(sum(lengths)) % 251
    return Tokens([ids.astype(np.uint16)], np.cumsum(lengths), 256)


def by_hand(lengths, length, overlap):
    """One text after another, one piece after another."""
    found, start = [], 0
    for size in lengths:
        at = start
        while at + overlap < start + size:
            found.append([at, min(at + length, start + size)])
            at += length - overlap
        start += size
    return found


@pytest.mark.parametrize("overlap", [0, 1, 3])
def test_pieces_are_cut_as_by_hand(overlap):
    draw = np.random.default_rng(0)
    for lengths in ([5], [1, 8, 9, 2, 0, 16, 17], draw.integers(0, 60, 300).tolist()):
        for length in (overlap + 1, 8, 64):
            assert pieces(stream(lengths), length, overlap).tolist() == by_hand(lengths, length, overlap)


def test_texts_of_one_token_teach_nothing():
    assert pieces(stream([1, 2, 1]), 8, 1).tolist() == [[1, 3]]
    with pytest.raises(DataError, match="no text of this data has more than 1 tokens"):
        pieces(stream([1, 1, 1]), 8, 1)


def fullest(lengths, room):
    """Best-fit decreasing in plain words."""
    rows = []
    for length in sorted(lengths, reverse=True):
        fits = [row for row in rows if sum(row) + length <= room]
        if fits:
            max(fits, key=sum).append(length)
        else:
            rows.append([length])
    return sorted(sum(row) for row in rows)


def test_packed_as_best_fit_decreasing_packs():
    draw = np.random.default_rng(1)
    for count in (1, 2, 50, 400):
        lengths = draw.integers(1, 33, count)
        rows = packed(lengths, 32)
        assert sorted(i for row in rows for i in row) == list(range(count))
        assert sorted(int(lengths[row].sum()) for row in rows) == fullest(lengths.tolist(), 32)


def test_real_texts_leave_hardly_any_padding(data):
    tokens = tokenise(examples(data / "help-en-fr" / "valid.tsv", names=("en", "fr")), octets(), "en")
    rows = Packed(tokens, 513, overlap=1)
    held = Loader(rows, 16, shuffle=False)
    found = [held.batch(n) for n in range(len(held))]
    assert sum(batch.ids.numel() for batch in found) < 1.02 * len(tokens)
    longer = int((np.diff(tokens.ends, prepend=0) > 513).sum())
    assert sum(len(torch.unique(row)) for b in found for row in b.documents) <= 1.05 * (len(tokens.ends) + longer)


@pytest.mark.parametrize("make", [Packed, Texts])
def test_what_is_learnt_is_what_each_text_alone_teaches(data, make):
    """The loss of all rows is the sum over texts, each read by itself; long ones piece by piece."""
    model = cutaway.build("llama", vocab=256, width=16, layers=2, heads=2, kv_heads=1, hidden=32, context=40, seed=0)
    draw = np.random.default_rng(2)
    lengths = draw.integers(1, 70, 60).tolist()
    tokens, objective = stream(lengths), Causal()
    rows = make(tokens, 33, overlap=1)
    held = Loader(rows, 7, shuffle=False) if make is Packed else Buckets(rows, 7, tokens=200)
    total = count = 0.0
    for n in range(len(held)):
        batch = objective.batch(held.batch(n), torch.Generator())
        loss = objective.loss(model, batch)
        total, count = total + loss.total.item(), count + loss.count.item()
    alone = 0.0
    for start, stop in by_hand(lengths, 33, 1):
        ids = torch.from_numpy(tokens.read(start, stop))[None]
        logits = model(ids[:, :-1])
        alone += torch.nn.functional.cross_entropy(logits[0], ids[0, 1:], reduction="sum").item()
    assert count == sum(max(0, n - 1) for n in lengths)
    assert total == pytest.approx(alone, rel=1e-5)


def test_an_epoch_has_each_row_once_in_an_order_of_its_own():
    for make in (Packed, Texts):
        rows = make(stream([3, 9, 4, 4, 7, 8, 2, 5] * 9), 10)
        loader = Loader(rows, 1, seed=1) if make is Packed else Buckets(rows, 1, seed=1)
        epochs = [[tuple(loader.batch(e * len(rows) + n).ids[0].tolist()) for n in range(len(rows))] for e in range(2)]
        assert sorted(epochs[0]) == sorted(epochs[1])
        assert epochs[0] != epochs[1]
        assert loader.batch(3).ids.tolist() == loader.batch(3).ids.tolist()


def test_fingerprints_tell_rows_apart():
    tokens = stream([4, 5, 6])
    assert (
        len(
            {
                x.fingerprint
                for x in (Packed(tokens, 8), Packed(tokens, 9), Packed(tokens, 8, overlap=1), Texts(tokens, 8))
            }
        )
        == 4
    )
