"""Hashed n-grams: each token is told of the last few together, and of nothing else, however the text is fed."""

import math

import pytest
import torch

import cutaway
from cutaway.errors import ConfigError
from cutaway.parts import HashedNGrams, State

SIZES = {"vocab": 30, "width": 16, "layers": 1, "heads": 2, "hidden": 32, "seed": 0}


@pytest.fixture
def model():
    return cutaway.build("llama", kv_heads=2, head_width=8, embedding="ngrams:4", **SIZES).eval()


def rows(part, ids):
    return torch.stack(part.rows(ids + 1, ids.new_zeros(len(ids), len(part.tables))))  # (N-1, B, T)


def test_a_row_follows_from_the_last_tokens_and_from_no_other():
    part, ids = HashedNGrams(50, 8, longest=4, buckets=10_000), torch.randint(50, (1, 40))
    before = rows(part, ids)
    for n in (2, 3, 4):
        changed = ids.clone()
        changed[0, 20] = (ids[0, 20] + 7) % 50
        moved = (rows(part, changed)[n - 2, 0] != before[n - 2, 0]).nonzero().flatten().tolist()
        assert moved == list(range(20, 20 + n))


def test_where_there_are_rows_enough_no_two_share_one():
    part = HashedNGrams(9, 8, longest=3, buckets=1000)
    assert [table.num_embeddings for table in part.tables] == [100, 1000]
    ids = torch.cartesian_prod(*[torch.arange(9)] * 3)
    assert rows(part, ids)[1, :, 2].unique().numel() == 729


@pytest.mark.parametrize("vocab", [65, 255, 65535, 151_936])
def test_the_rest_is_spread_evenly(vocab):
    """At least as many rows are hit as chance would hit: m(1 - e^(-k/m))."""
    m, k = 4096, 6000
    ids = torch.randint(vocab, (k, 5))
    for n, index in enumerate(rows(HashedNGrams(vocab, 8, buckets=m), ids), start=2):
        if (vocab + 1) ** n > m:
            different = ids[:, 5 - n :].unique(dim=0).shape[0]
            expected = m * (1 - math.exp(-different / m))
            assert index[:, 4].unique().numel() > 0.95 * expected


def test_fed_piece_by_piece_or_with_padding_it_is_the_same(model):
    ids, real = torch.randint(30, (2, 12)), torch.ones(2, 16, dtype=torch.bool)
    real[0, [0, 3, 4, 15]] = real[1, [1, 2, 9, 10]] = False
    padded = torch.zeros(2, 16, dtype=torch.int64)
    padded[real] = ids.flatten()
    whole, state, other = model(ids), State(2, 20), State(2, 20)
    torch.testing.assert_close(model(padded, real)[real].view_as(whole), whole)
    pieces = torch.cat([model(piece, state=state) for piece in ids.split([5, 1, 1, 4, 1], 1)], 1)
    torch.testing.assert_close(pieces, whole)
    pieces = zip(padded.split(4, 1), real.split(4, 1), strict=True)
    padded_pieces = torch.cat([model(piece, kept, state=other) for piece, kept in pieces], 1)
    torch.testing.assert_close(padded_pieces[real].view_as(whole), whole)


def test_it_is_saved_with_the_model(model, tmp_path):
    cutaway.save(model, tmp_path / "m", layout="cutaway")
    again, ids = cutaway.load(tmp_path / "m").model, torch.randint(30, (1, 9))
    assert torch.equal(again(ids), model(ids))
    with pytest.raises(ConfigError, match="no published form"):
        cutaway.save(model, tmp_path / "n", layout="huggingface")


@pytest.mark.parametrize(
    ("preset", "name", "said"),
    [
        ("llama", "ngrams:1", "2 to 16"), ("llama", "ngrams:x", "2 to 16"), ("llama", "bytes", "ngrams"),
        ("bert", "ngrams", "into a decoder"), ("transformer", "ngrams", "into a decoder"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(preset, name, said):
    more = {"kv_heads": 2, "head_width": 8} if preset == "llama" else {}
    with pytest.raises(ConfigError, match=said):
        cutaway.build(preset, embedding=name, **SIZES, **more)


def test_documents_in_a_row_are_refused(model):
    ids = torch.randint(30, (1, 6))
    with pytest.raises(ConfigError, match="HashedNGrams"):
        model(ids, documents=torch.tensor([[0, 0, 0, 1, 1, 1]]))
