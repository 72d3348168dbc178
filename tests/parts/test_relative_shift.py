"""Relative positions against their definition pair by pair; the shift; memory, in evaluation and in training."""

import math

import pytest
import torch

import cutaway
from cutaway.attention import Causal, Full, Window, recording
from cutaway.errors import ConfigError
from cutaway.parts import Attention, State
from cutaway.parts.call import context
from cutaway.parts.relative_shift import Distances, Recall, RelativeScores, relative_shift
from cutaway.parts.segments_memory import RecurrentAttention, ZeroMemory
from cutaway.parts.state import KV

LENGTHS = [1, 2, 3, 4, 7, 13, 16, 17]
WIDTH, HEADS, HEAD_WIDTH = 24, 3, 6


def part(both_ways: bool, clamp: int | None = None, memory: int | None = None, mask=None) -> Attention:
    distances = Distances(WIDTH, both_ways, clamp)
    bias = RelativeScores(distances, WIDTH, HEADS, HEAD_WIDTH, segments=True, memory=memory)
    mask = (Full() if both_ways else Causal()) & (mask or Full())
    made = RecurrentAttention(WIDTH, HEADS, None, HEAD_WIDTH, mask=mask, score_bias=bias)
    with torch.no_grad():
        for p in made.parameters():
            p.normal_(std=0.4)
    return made


def called(length: int, rows: int = 2, padding=None, segments=None, state=None, positions=None):
    ids = torch.zeros(rows, length, dtype=torch.int64)
    return context(9, ids, padding, positions, state, None, segments)


def definition(a: Attention, x: torch.Tensor, segments=None, both_ways: bool = False) -> torch.Tensor:
    """Section 3.3 of Dai et al. 2019 (and 2.5 of Yang et al. 2019), pair by pair, one row."""
    bias, length = a.score_bias, len(x)
    q, k, v = (project(x).unflatten(-1, (HEADS, -1)) for project in (a.q, a.k, a.v))
    mixed = []
    for h in range(HEADS):
        lines = []
        for i in range(length):
            line = []
            for j in range(length):
                clamp = bias.distances.clamp or 10**6
                d = max(-clamp, min(i - j, clamp))
                angle = d / 10_000 ** (torch.arange(0, WIDTH, 2) / WIDTH)
                r = bias.r(torch.cat([angle.sin(), angle.cos()])).unflatten(-1, (HEADS, -1))[h]
                logit = (q[i, h] + bias.u[h]) @ k[j, h] + (q[i, h] + bias.v[h]) @ r
                if segments is not None:
                    other = int(segments[i] != segments[j])
                    logit = logit + (q[i, h] + bias.segments.s[h]) @ bias.segments.weight[other, h]
                line.append(logit if both_ways or j <= i else torch.tensor(-torch.inf))
            lines.append(torch.stack(line))
        mixed.append((torch.stack(lines) / math.sqrt(HEAD_WIDTH)).softmax(-1) @ v[:, h])
    return a.out(torch.cat(mixed, -1))


@pytest.mark.parametrize("queries", LENGTHS)
@pytest.mark.parametrize("more", [1, 2, 9])
def test_the_shift_is_a_look_up(queries, more):
    """Row i of the result begins at the distance of the last query from the first key, less what i has come nearer."""
    x = torch.randn(2, 3, queries, queries + more, requires_grad=True)
    keys = min(queries, queries + more - 1)
    found = relative_shift(x, keys)
    column = queries - 1 - torch.arange(queries)[:, None] + torch.arange(keys)
    kept = column < queries + more
    expected = x.gather(-1, column.clamp(max=queries + more - 1).expand(2, 3, -1, -1))
    assert torch.equal(found[..., kept], expected[..., kept])
    weight = torch.randn_like(found) * kept
    (mine,), (theirs,) = (torch.autograd.grad((y * weight).sum(), x, retain_graph=True) for y in (found, expected))
    torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize(("both_ways", "clamp"), [(False, None), (False, 3), (True, None), (True, 4)])
def test_equals_its_definition(length, both_ways, clamp):
    """By the shift and by the look-up: outputs and the gradients of every weight."""
    a, x = part(both_ways, clamp), torch.randn(2, length, WIDTH)
    segments = torch.randint(0, 3, (2, length))
    parameters, weight = list(a.parameters()), torch.randn(2, length, WIDTH)
    where = torch.arange(length)[None]
    found = a(x, called(length, segments=segments))
    looked_up = a(x, called(length, segments=segments, positions=where))
    expected = torch.stack([definition(a, row, kinds, both_ways) for row, kinds in zip(x, segments, strict=True)])
    gradients = [torch.autograd.grad((y * weight).sum(), parameters) for y in (found, looked_up, expected)]
    for y, of_it in zip((found, looked_up), gradients, strict=False):
        torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)
        for mine, theirs in zip(of_it, gradients[2], strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("both_ways", [False, True])
def test_padding_anywhere(both_ways):
    a, x = part(both_ways), torch.randn(3, 9, WIDTH)
    padding = torch.tensor(
        [[1, 1, 1, 1, 1, 1, 1, 1, 1], [0, 0, 1, 1, 1, 0, 1, 1, 0], [1, 0, 0, 0, 0, 0, 0, 0, 1]]
    ).bool()
    segments = torch.randint(0, 3, (3, 9))
    with torch.no_grad():
        found = a(x, called(9, 3, padding, segments))
        for i, real in enumerate(padding):
            alone = a(x[i, real][None], called(int(real.sum()), 1, None, segments[i, real][None]))
            torch.testing.assert_close(found[i, real], alone[0])


def test_products_in_either_order():
    """W_r R first, or W_rᵀ q first where there are few queries."""
    a = part(False)
    rows = torch.randn(400, WIDTH)
    w = a.score_bias.r.weight.unflatten(0, (HEADS, -1))
    for queries in (1, 2, 50, 400):
        q = torch.randn(2, HEADS, queries, HEAD_WIDTH)
        torch.testing.assert_close(
            a.score_bias._by_distance(q, rows), torch.einsum("bhqe,hed,cd->bhqc", q, w, rows), rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("both_ways", [False, True])
def test_the_pattern_is_recorded(both_ways):
    a, x, seen = part(both_ways, 3), torch.randn(2, 6, WIDTH), []
    a.out.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    state = State(2, 20)
    with recording() as trace, torch.no_grad():
        for piece in (x, x[:, :2], x[:, :1]):
            a(piece, called(piece.shape[1], state=state))
    for record, mixed in zip(trace, seen, strict=True):
        torch.testing.assert_close((record.weights() @ record.v).transpose(1, 2).flatten(2), mixed)


@pytest.mark.parametrize("pieces", [(1,) * 12, (5, 1, 1, 4, 1), (12,), (2, 9, 1)], ids=str)
@pytest.mark.parametrize("clamp", [None, 3])
def test_memory_is_a_long_pass(pieces, clamp):
    """Of which every token sees as much, whatever the segments; with gradients wanted (states are kept) and without."""
    a, x = part(False, clamp, mask=Window(4)), torch.randn(2, 12, WIDTH)
    for learns in (False, True):
        state = State(2, 12)
        with torch.set_grad_enabled(learns):
            found = torch.cat([a(piece, called(piece.shape[1], state=state)) for piece in x.split(pieces, 1)], 1)
            torch.testing.assert_close(found, a(x, called(12)))
            assert {held.k.shape[2] for held in state.sites.values() if isinstance(held, KV)} == {4 + 1}


@pytest.mark.parametrize("learns", [False, True])
@pytest.mark.parametrize("memory", [1, 3, 20])
def test_memory_before_each_segment(memory, learns):
    """A segment sees itself and `memory` tokens before it, no more and no fewer; single tokens are segments too."""
    a, x = part(False, None, memory, Recall(memory)), torch.randn(2, 14, WIDTH)
    state, at = State(2, 14), 0
    with torch.set_grad_enabled(learns):
        for length in (4, 1, 1, 5, 3):
            first = max(0, at - memory)
            whole = a(x[:, first : at + length], called(at + length - first))
            found = a(x[:, at : at + length], called(length, state=state))
            torch.testing.assert_close(found, whole[:, at - first :])
            at += length


def test_a_memory_is_bounded():
    """However long the text."""
    model = cutaway.build(
        "transformerxl", vocab=30, width=16, layers=2, heads=2, head_width=8, hidden=16, table_width=16, cutoffs=(10,),
        memory=5, same_length=False,
    )  # fmt: skip
    state = State(1, 10_000)
    sizes = []
    with torch.no_grad():
        for _ in range(30):
            model(torch.randint(0, 30, (1, 7)), state=state)
            sizes.append(state.bytes)
    assert len(set(sizes)) == 1
    assert sizes[0] < 20_000


def test_gradients_stop_at_the_memory():
    """SG: a segment's loss reaches its own states and all weights, those that read the memory too, but no earlier state."""
    a = part(False, None, 4, Recall(4))
    x = torch.randn(1, 10, WIDTH, requires_grad=True)
    weight = torch.randn(1, 4, WIDTH)
    state = State(1, 10)
    a(x[:, :6], called(6, 1, state=state))
    loss = (a(x[:, 6:], called(4, 1, state=state)) * weight).sum()
    found = torch.autograd.grad(loss, [x, *a.parameters()], allow_unused=True)

    memory = torch.cat([x[:, 2:6].detach(), x[:, 6:]], 1)  # and now without a state
    terms = a(memory, called(8, 1))[:, 4:] * weight
    expected_loss, size = terms.sum(), terms.abs().sum()  # the terms nearly cancel, their rounding does not
    expected = torch.autograd.grad(expected_loss, [x, *a.parameters()], allow_unused=True)
    torch.testing.assert_close(loss, expected_loss, rtol=0, atol=1e-6 * size.item())
    assert found[0][:, :6].abs().max() == 0 < found[0][:, 6:].abs().max()
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_a_memory_is_trained_with():
    """Segment after segment, a step each: what is remembered is read with the weights as they have become."""
    torch.manual_seed(0)
    model = cutaway.build(
        "transformerxl", vocab=12, width=16, layers=2, heads=2, head_width=8, hidden=32, table_width=16, cutoffs=(6,),
        div=1, memory=8, same_length=False, dropout=0.0,
    ).train()  # fmt: skip
    text = torch.randint(0, 12, (4, 8)).repeat(1, 2)  # the second half can only be told from the memory of the first
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    for _ in range(60):
        state, losses = State(4, 16), []
        for segment in text.split(8, 1):
            loss = model.head.nll(states(model, segment, state)[:, :-1], segment[:, 1:]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    assert losses[1] < 0.3


def states(model, ids, state):
    ctx = model.stack.called(ids, None, state, None)
    return model.stack(ids, ctx)


def test_a_state_goes_on_as_it_began():
    a, x, state = part(False), torch.randn(1, 4, WIDTH), State(1, 9)
    a(x, called(4, 1, state=state))
    with torch.no_grad(), pytest.raises(ConfigError, match="goes on as it began"):
        a(x, called(4, 1, state=state))


def test_zeros_before_the_text():
    """As vectors of zeros that were read: their keys and values are zero, but they take their share of attention."""
    a, x = part(False, 20, 3, Recall(3)), torch.randn(2, 5, WIDTH)
    longer = torch.cat([torch.zeros(2, 3, WIDTH), x], 1)
    with torch.no_grad():
        expected = a(longer, called(8))[:, 3:]
        torch.testing.assert_close(a(x, called(5, state=ZeroMemory(2, 5, 3))), expected)


def test_recall_allows_whatever_is_kept():
    assert str(Recall(2)).count("█") == 16
    assert (Causal() & Recall(2)).window == 3
