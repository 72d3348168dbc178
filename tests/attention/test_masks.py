"""Masks are predicates on positions, and combine."""

import pytest
import torch

from cutaway.attention import Causal, Dense, Documents, Full, Padding, Prefix, Window
from cutaway.errors import ConfigError

POS = torch.arange(8)[None]


def matrix(mask, q=POS, k=POS):
    return mask.dense(q, k).expand(q.shape[0], -1, q.shape[1], k.shape[1])[0, 0]


def test_each_mask_is_what_it_says():
    i, j = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    assert matrix(Full()).all()
    assert torch.equal(matrix(Causal()), j <= i)
    assert torch.equal(matrix(Window(3)), (i - j).abs() < 3)
    assert torch.equal(matrix(Causal() & Window(3)), (j <= i) & (i - j < 3))
    assert torch.equal(matrix(Causal() | Prefix(2)), (j <= i) | (j < 2))


def test_a_window_of_w_is_w_keys():
    for w in (1, 2, 5):
        assert matrix(Causal() & Window(w)).sum(-1).max() == w
    with pytest.raises(ConfigError, match="size >= 1"):
        Window(0)


def test_positions_not_rows():
    """A late query against a cache in any order sees the same keys."""
    shuffled = torch.tensor([[5, -1, 2, 7, 0]])
    late = torch.tensor([[5]])
    assert matrix(Causal() & Padding(), late, shuffled).tolist() == [[True, False, True, False, True]]


def test_documents():
    mask = Documents(torch.tensor([[0, 0, 0, 1, 1, 2, 2, 2]])) & Causal()
    assert matrix(mask).sum(-1).tolist() == [1, 2, 3, 1, 2, 1, 2, 3]


def test_dense_takes_two_three_or_four_axes():
    table = torch.rand(8, 8) > 0.5
    for shape in [(8, 8), (3, 8, 8), (2, 3, 8, 8)]:
        rows = POS.expand(shape[0] if len(shape) == 4 else 1, -1)
        assert torch.equal(matrix(Dense(table.expand(shape)), rows, rows), table)
    with pytest.raises(ConfigError, match="boolean"):
        Dense(torch.zeros(8, 8))


def test_combinations_simplify_and_know_their_window():
    assert (Full() & Causal()) == Causal() == (Causal() & Full())
    assert (Causal() | Full()) == Full()
    assert (Causal() & Window(5) & Window(3)).window == 3
    assert (Causal() & (Window(5) | Window(3))).window == 5
    assert (Causal() | Window(3)).window is None
    assert Causal() & Window(4) == Causal() & Window(4)  # equal, hence built once a forward


def test_a_mask_draws_itself():
    assert str(Causal() & Window(2)) == "█···\n██··\n·██·\n··██"
