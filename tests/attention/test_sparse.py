"""Sparse attention equals dense attention under the same mask, forward and backward, whatever the length and the padding."""

import pytest
import torch

from cutaway.attention import Causal, Full, Prefix, Scores, Window, attend, backend, online, weights
from cutaway.attention.backends import BACKENDS, choose
from cutaway.attention.patterns import (
    Blocks,
    Leading,
    Local,
    Marked,
    PerHead,
    Stride,
    Summary,
    dilated,
    fixed,
    global_tokens,
    strided,
)
from cutaway.attention.sparse import pieces
from cutaway.attention.tables import Dense, Documents
from cutaway.errors import ConfigError


def layout(seed: int, *shape: int) -> torch.Tensor:
    """Few blocks a row, as BigBird has them: its own, the first, and chosen ones; two rows that see all."""
    random = torch.rand(*shape, 24, 24, generator=torch.Generator().manual_seed(seed)) < 0.2
    random |= torch.eye(24, dtype=torch.bool)
    random[..., 0] = random[..., 0, :] = random[..., 5, :] = True
    return random


MARKS = torch.zeros(2, 300, dtype=torch.bool)
MARKS[0, 3] = MARKS[0, 40] = MARKS[1, 7] = True
COUNTS = layout(1, 4).long() * torch.randint(1, 4, (4, 24, 24), generator=torch.Generator().manual_seed(2))
MASKS = {
    "causal window": Causal() & Window(40),
    "causal window of 1": Causal() & Window(1),
    "window": Window(5),
    "wide window": Window(70),
    "dilated": dilated(5, 3),
    "causal dilated": Causal() & dilated(4, 2),
    "stride": Stride(7),
    "strided": strided(8)[0] | strided(8)[1],
    "fixed": fixed(16, 3)[0] | fixed(16, 3)[1],
    "summaries alone": fixed(16, 3)[1],
    "other summaries by head": PerHead((fixed(16, 3, 1)[1], fixed(16, 3)[0] | fixed(16, 3, 4)[1]), (1, 3)),
    "factorised heads": PerHead((*strided(8), *fixed(8, 2)), (1, 1, 1, 1)),
    "window and global": Window(6) | global_tokens(3),
    "causal window and prefix": Causal() & (Window(6) | Prefix(3)),
    "window and marks": Window(6) | Marked(MARKS),
    "marks and window": Marked(MARKS) | Window(6),
    "blocks": Blocks(layout(0), 9),
    "causal blocks by head": Causal() & Blocks(layout(1, 4), 9),
    "blocks by row": Blocks(layout(2, 2, 1), 9),
    "blocks that count often": Blocks(COUNTS, 9),
    "three overlapping": Causal() & (Local(9) | Stride(5) | Window(4)),
}
LENGTHS = [1, 2, 31, 32, 33, 97, 200]


def case(mask, length, padding="none", groups=4, softcap=None, dtype=torch.float32, values=8):
    shapes = (4, 8), (groups, 8), (groups, values)
    q, k, v = (torch.randn(2, heads, length, width, dtype=dtype).requires_grad_() for heads, width in shapes)
    real = torch.ones(2, length, dtype=torch.bool)
    if padding == "right":
        real[1, length - length // 3 :] = False
    if padding == "left":
        real[1, : length // 3] = False
    if padding == "anywhere":
        real[1, 1::3] = real[0, :1] = False
    pos = torch.arange(length)[None] if padding == "none" else torch.where(real, real.cumsum(1) - 1, -1)
    packing = {"none": "none", "right": "right"}.get(padding, "any")
    return Scores(q, k, pos, pos, mask, None, 0.9, softcap, own=True, packing=packing, owner="own"), v, real


def check(mask, length, padding="none", groups=4, softcap=None, values=8):
    scores, v, real = case(mask, length, padding, groups, softcap, values=values)
    real, given = real[:, None, :, None], (scores.q, scores.k, v)
    expected = weights(scores) @ v.repeat_interleave(4 // groups, 1)
    with backend("sparse"):
        found = attend(scores, v)
    torch.testing.assert_close(found * real, expected * real, rtol=1e-4, atol=1e-5)
    direction = torch.randn_like(expected) * real
    expected = torch.autograd.grad(expected, given, direction)
    if not found.requires_grad:  # nothing is allowed
        assert all((x == 0).all() for x in expected)
        return
    for a, b in zip(torch.autograd.grad(found, given, direction), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("mask", MASKS)
def test_lengths(mask, length):
    check(MASKS[mask], length)


@pytest.mark.parametrize("padding", ["right", "left", "anywhere"])
@pytest.mark.parametrize("mask", MASKS)
def test_padding(mask, padding):
    check(MASKS[mask], 97, padding)


@pytest.mark.parametrize("mask", MASKS)
def test_soft_cap_and_many_chunks(mask, monkeypatch):
    monkeypatch.setattr(online, "CHUNK", 3000)
    check(MASKS[mask], 200, softcap=3.0)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("mask", [name for name, mask in MASKS.items() if not isinstance(mask, PerHead)])
def test_grouped_keys(mask, groups):
    check(MASKS[mask], 64, groups=groups)


@pytest.mark.parametrize("length", [1, 20, 97])  # in 20 tokens some heads' summaries are not there yet
@pytest.mark.parametrize("mask", ["causal window", "strided", "other summaries by head", "blocks", "window and marks"])
def test_values_of_another_width(mask, length):
    check(MASKS[mask], length, values=3)


@pytest.mark.parametrize("mask", ["causal window", "blocks", "window and marks"])
def test_half_precision(mask):
    scores, v, _ = case(MASKS[mask], 97, dtype=torch.bfloat16)
    with backend("sparse"):
        found = attend(scores, v)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), (weights(scores) @ v.float()), rtol=2e-2, atol=2e-2)
    assert all(g.dtype == torch.bfloat16 for g in torch.autograd.grad(found.sum(), (scores.q, scores.k, v)))


def test_gradients_in_float64():
    mask = Window(3) | global_tokens(2)
    scores, v, _ = case(mask, 7, dtype=torch.float64)

    def run(q, k, v):
        with backend("sparse"):
            return attend(Scores(q, k, scores.q_pos, scores.k_pos, mask, own=True, packing="none"), v)

    small = [x[:1, :1, :, :2].detach().clone().requires_grad_() for x in (scores.q, scores.k, v)]
    assert torch.autograd.gradcheck(run, small, atol=1e-6)


@pytest.mark.parametrize("mask", ["causal window", "blocks that count often", "strided"])
def test_dropout(mask):
    """It zeroes weights of the pattern and keeps their mean, and backward drops the same ones."""
    scores, v, _ = case(MASKS[mask], 40)
    with backend("sparse"):
        expected = attend(scores, v)
        mean = torch.stack([attend(scores, v, 0.3).detach() for _ in range(150)]).mean(0)
        torch.testing.assert_close(mean, expected, atol=0.4, rtol=0)
        assert (mean - expected).abs().mean() < 0.06
        dropped = attend(scores, v, 0.3)
    direction = torch.randn_like(dropped)
    (by_v,) = torch.autograd.grad(dropped, v, direction, retain_graph=True)
    # the output is linear in the values, with the very weights that were dropped
    torch.testing.assert_close((by_v * v).sum(), (dropped * direction).sum(), rtol=1e-4, atol=1e-3)


def test_dropout_drops_alike_in_backward():
    scores, v, _ = case(Causal() & Window(9), 40)

    def run(shift):
        torch.manual_seed(3)
        with backend("sparse"), torch.no_grad():
            return attend(
                Scores(scores.q + shift, scores.k, scores.q_pos, scores.k_pos, scores.mask, own=True, packing="none"),
                v,
                0.4,
            )

    torch.manual_seed(3)
    with backend("sparse"):
        out = attend(
            Scores(scores.q, scores.k, scores.q_pos, scores.k_pos, scores.mask, own=True, packing="none"), v, 0.4
        )
    step = torch.randn_like(scores.q) * 1e-3
    (by_q,) = torch.autograd.grad(out.sum(), scores.q)
    numeric = ((run(step) - run(-step)) / 2).sum()
    torch.testing.assert_close((by_q * step).sum(), numeric, rtol=2e-2, atol=1e-4)


@pytest.mark.parametrize("mask", ["causal window", "strided", "fixed", "causal window and prefix"])
def test_the_future_does_not_leak(mask):
    scores, v, _ = case(MASKS[mask], 70)
    with backend("sparse"), torch.no_grad():
        scores.k[:, :, 50] = 1e4
        before = attend(scores, v)
        v[:, :, 50] = 1e6
        after = attend(scores, v)
    assert torch.equal(before[:, :, :50], after[:, :, :50])
    assert before.isfinite().all()


def test_no_pair_is_in_two_pieces():
    """Else the merged softmax would count it twice; and none is left out."""
    pos = torch.arange(60)[None]
    for name, mask in MASKS.items():
        if isinstance(mask, PerHead):
            continue
        found = pieces(mask)
        assert found is not None, name
        count = torch.zeros(2, 4, 60, 60)
        for _, terms in found:
            allowed = torch.ones(1, dtype=torch.bool)
            for term in terms:
                allowed = allowed & term.dense(pos.expand(2, -1), pos.expand(2, -1))
            count += allowed
        assert torch.equal(count > 0, mask.dense(pos.expand(2, -1), pos.expand(2, -1)).expand(2, 4, -1, -1)), name
        assert count.max() == 1, name


def test_masks_are_what_the_papers_say():
    i, j = torch.meshgrid(torch.arange(20), torch.arange(20), indexing="ij")
    pos = torch.arange(20)[None]

    def matrix(mask):
        return mask.dense(pos, pos).expand(1, 1, 20, 20)[0, 0]

    first, second = strided(4)
    assert torch.equal(matrix(first), (j <= i) & (j >= i - 4))
    assert torch.equal(matrix(second), (j <= i) & ((i - j) % 4 == 0))
    first, second = fixed(5, 2)
    assert torch.equal(matrix(first), (j <= i) & (i // 5 == j // 5))
    assert torch.equal(matrix(second), (j <= i) & (j % 5 >= 3))
    assert torch.equal(matrix(fixed(5, 2, 1)[1]), (j <= i) & ((j % 5 == 1) | (j % 5 == 2)))
    assert torch.equal(matrix(dilated(3, 2)), ((i - j).abs() <= 4) & ((i - j) % 2 == 0))
    assert torch.equal(matrix(global_tokens(2)), (i < 2) | (j < 2))
    assert torch.equal(matrix(Leading(3) & Summary(5, 1)), (i < 3) & (j % 5 == 4))


def test_chosen_where_it_pays():
    assert choose(case(Causal() & Window(16), 512)[0], 0.0) is BACKENDS["sparse"]
    assert choose(case(Causal() & Window(16), 64)[0], 0.0) is BACKENDS["sdpa"]
    assert choose(case(Causal() & Window(400), 512)[0], 0.0) is BACKENDS["sdpa"]
    assert choose(case(Causal(), 512)[0], 0.0) is BACKENDS["sdpa"]
    assert choose(case(Causal() & Window(16), 512, softcap=2.0)[0], 0.0) is BACKENDS["sparse"]


def test_given_positions_that_do_not_count_tokens_fall_back():
    """Two tokens at one position may both be in reach: then a window of w can hold more than w keys."""
    scores, v, _ = case(Causal() & Window(4), 300)
    pos = (torch.arange(300) // 2)[None]
    given = Scores(scores.q, scores.k, pos, pos, scores.mask, scale=0.9, own=True, packing="any")
    torch.testing.assert_close(attend(given, v), weights(given) @ v, rtol=1e-4, atol=1e-5)
    with backend("sparse"):
        torch.testing.assert_close(attend(given, v), weights(given) @ v, rtol=1e-4, atol=1e-5)


def test_what_has_no_sparse_form():
    ids = torch.zeros(1, 40, dtype=torch.int64)
    table = torch.ones(40, 40, dtype=torch.bool)
    for mask in (Full(), Causal(), Causal() & Window(3) & Documents(ids), Window(3) | Dense(table), Dense(table)):
        assert pieces(mask) is None
    scores, v, _ = case(Causal(), 40)
    with backend("sparse"):
        torch.testing.assert_close(attend(scores, v), weights(scores) @ v, rtol=1e-4, atol=1e-5)


def test_wrong_masks_are_refused():
    for make in (
        lambda: Stride(0),
        lambda: Local(-1),
        lambda: Summary(4, 5),
        lambda: Summary(4, 2, 2),
        lambda: Marked(torch.ones(3)),
        lambda: Blocks(torch.ones(2, 2), 4),
        lambda: PerHead((Causal(),), (1, 2)),
    ):
        with pytest.raises(ConfigError):
            make()


@pytest.mark.parametrize("name", ["causal window", "strided", "blocks"])
def test_never_holds_the_pattern(name):
    """What is kept for backward, and what is alive at once, grow with the length and not with its square."""

    def kept(length: int) -> int:
        some = torch.zeros(length // 16, length // 16, dtype=torch.bool)
        some[:, 0] = some[torch.arange(len(some)), torch.arange(len(some))] = True
        mask = {
            "causal window": Causal() & Window(40),
            "strided": Causal() & (Window(33) | Stride(32)),
            "blocks": Blocks(some, 16),
        }
        scores, v, _ = case(mask[name], length)
        sizes = []
        hooks = torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.numel()) or x, lambda x: x)
        with backend("sparse"), hooks:
            attend(scores, v)
        return sum(sizes)

    assert kept(1024) <= 4.2 * kept(256)
