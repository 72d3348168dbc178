"""Masks are predicates on positions, and combine."""

import jaxtyping
import pytest
import torch

from cutaway.attention import Causal, Dense, Documents, Full, Padding, Prefix, Scores, Window, attend, backend
from cutaway.attention.backends import BACKENDS
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


def test_positions_not_rows():
    """A late query against a cache in any order sees the same keys."""
    shuffled = torch.tensor([[5, -1, 2, 7, 0]])
    late = torch.tensor([[5]])
    assert matrix(Causal() & Padding(), late, shuffled).tolist() == [[True, False, True, False, True]]


def test_documents():
    mask = Documents(torch.tensor([[0, 0, 0, 1, 1, 2, 2, 2]])) & Causal()
    assert matrix(mask).sum(-1).tolist() == [1, 2, 3, 1, 2, 1, 2, 3]


@pytest.mark.parametrize("name", BACKENDS)
def test_rows_of_documents_where_all_stand_alike(name):
    """Without padding positions come as one row, however many rows the documents have."""
    ids = torch.tensor([[0, 0, 0, 1, 1, 2, 2, 2], [0, 1, 1, 1, 1, 1, 1, 2]])
    q, k, v = torch.randn(3, 2, 4, 8, 16).unbind()
    with backend(name):
        found = attend(Scores(q, k, POS, POS, Documents(ids) & Causal(), packing="none"), v)
        for row in range(2):
            alone = Scores(q[row, None], k[row, None], POS, POS, Documents(ids[row, None]) & Causal(), packing="none")
            torch.testing.assert_close(found[row, None], attend(alone, v[row, None]), rtol=1e-4, atol=1e-5)


def test_dense_takes_two_three_or_four_axes():
    table = torch.rand(8, 8) > 0.5
    for shape in [(8, 8), (3, 8, 8), (2, 3, 8, 8)]:
        rows = POS.expand(shape[0] if len(shape) == 4 else 1, -1)
        assert torch.equal(matrix(Dense(table.expand(shape)), rows, rows), table)
    for wrong in (torch.zeros(8, 8), torch.ones(8, 9).bool(), torch.ones(8).bool()):
        with pytest.raises(ConfigError, match="boolean"):
            Dense(wrong)


def test_a_mask_given_for_too_few_positions_is_refused():
    for mask in (Dense(torch.ones(5, 5).bool()), Documents(torch.zeros(2, 5, dtype=torch.int64))):
        with pytest.raises(ConfigError, match="was given 5 positions, but a token stands at 7"):
            matrix(mask & Causal())
    with pytest.raises(ConfigError, match=r"ids \(B, T\)"):
        Documents(torch.zeros(5))


def test_a_mask_for_another_batch_is_refused():
    q = torch.randn(3, 4, 8, 16)
    for mask in (Documents(torch.zeros(2, 8, dtype=torch.int64)), Dense(torch.ones(3, 5, 8, 8).bool())):
        with pytest.raises(ConfigError, match=r"the mask is \(., ., 8, 8\), which does not spread over \(3, 4, 8, 8\)"):
            attend(Scores(q, q, POS, POS, mask), q)


def test_combinations_simplify_and_know_their_window():
    assert (Full() & Causal()) == Causal() == (Causal() & Full())
    assert (Causal() | Full()) == Full()
    assert (Causal() & Window(5) & Window(3)).window == 3
    assert (Causal() & (Window(5) | Window(3))).window == 5
    assert (Causal() | Window(3)).window is None
    assert Causal() & Window(4) == Causal() & Window(4)  # equal, hence built once a forward


def test_what_is_no_mask_is_refused(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as a user has it: our own checks alone
    for size in (0, -1, 2.5, True, "2", None):
        with pytest.raises(ConfigError, match="a whole size >= 1, not"):
            Window(size)
    for size in (-1, 2.5):
        with pytest.raises(ConfigError, match="a whole size >= 0, not"):
            Prefix(size)
    for mask in (Causal(), Full()):
        with pytest.raises(ConfigError, match="with a mask, not with a bool"):
            mask & True
        with pytest.raises(ConfigError, match="Dense"):
            mask | torch.ones(4, 4).bool()


def test_a_mask_draws_itself():
    assert str(Causal() & Window(2)) == "█···\n██··\n·██·\n··██"
    assert str(Dense(torch.eye(2).bool())) == "█·\n·█"  # as many positions as it knows
    assert str(Causal() & Documents(torch.tensor([[0, 0, 1, 1, 1], [0, 1, 1, 1, 2]]))).split() == [
        "█····", "██···", "··█··", "··██·", "··███"
    ]  # fmt: skip
