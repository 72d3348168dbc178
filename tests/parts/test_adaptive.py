"""Adaptive tables against PyTorch's own adaptive softmax, and against one plain table."""

import pytest
import torch
from torch import nn

import cutaway
from cutaway.errors import ConfigError
from cutaway.parts import State
from cutaway.parts.adaptive import AdaptiveSoftmax, AdaptiveTokens

SHAPES = [(40, (10, 25), 2), (40, (10, 25), 1), (40, (), 1), (40, (1,), 4), (11, (2, 3, 4, 10), 2)]


def made(vocab, cutoffs, div, width=16, table=16, **head):
    tokens = AdaptiveTokens(vocab, width, table, cutoffs, div)
    softmax = AdaptiveSoftmax(tokens, width, **{"tied": True, "shared_projects": True, **head})
    with torch.no_grad():
        for p in [*tokens.parameters(), *softmax.parameters()]:
            p.normal_(std=0.5)
    return tokens, softmax


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("table", [16, 24])
@pytest.mark.parametrize(("tied", "shared"), [(True, True), (False, False)])
def test_probabilities(shape, table, tied, shared):
    """They sum to 1, and the loss of given words is theirs, in numbers and gradients."""
    _, head = made(*shape, table=table, tied=tied, shared_projects=shared)
    x, words = torch.randn(3, 7, 16, requires_grad=True), torch.randint(0, shape[0], (3, 7))
    found = head(x)
    torch.testing.assert_close(found.exp().sum(-1), torch.ones(3, 7))
    expected = -found.gather(-1, words[..., None])[..., 0]
    torch.testing.assert_close(head.nll(x, words), expected)
    weights, weight = [x, *head.parameters()], torch.randn(3, 7)
    mine, theirs = (
        torch.autograd.grad((loss * weight).sum(), weights, allow_unused=True, materialize_grads=True)
        for loss in (head.nll(x, words), expected)
    )
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("vocab", "cutoffs", "div"), [(40, (10, 25), 2), (40, (10, 25), 4), (11, (2, 3, 4, 10), 2)])
def test_as_torch_has_it(vocab, cutoffs, div):
    """`nn.AdaptiveLogSoftmaxWithLoss` gives no bias to the words of rare clusters; else it is the same."""
    _, head = made(vocab, cutoffs, div)
    theirs = nn.AdaptiveLogSoftmaxWithLoss(16, vocab, cutoffs, div, head_bias=True)
    with torch.no_grad():
        for bias in list(head.biases)[1:]:
            bias.zero_()
        first = head.projects[0].weight  # (D, W): what torch has no matrix for
        theirs.head.weight.copy_(torch.cat([head.tables[0].weight, head.cluster.weight]) @ first.T)
        theirs.head.bias.copy_(torch.cat([head.biases[0], head.cluster.bias]))
        for i, (down, out) in enumerate(theirs.tail, 1):
            down.weight.copy_(head.projects[i].weight.T)
            out.weight.copy_(head.tables[i].weight)
    x, words = torch.randn(30, 16), torch.randint(0, vocab, (30,))
    torch.testing.assert_close(head(x[None])[0], theirs.log_prob(x))
    torch.testing.assert_close(head.nll(x[None], words[None])[0], -theirs(x, words).output)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("table", [16, 24])
def test_embedding_is_a_plain_table(shape, table):
    """That of every word's vector, in numbers and gradients; words at either side of each cutoff."""
    tokens, _ = made(*shape, table=table)
    rows = []
    for word in range(shape[0]):
        i = sum(word >= end for end in shape[1])
        row = tokens.tables[0].weight[word] if shape[2] == 1 else tokens.tables[i].weight[word - ([0, *shape[1]][i])]
        lead = list(tokens.projects)[0 if shape[2] == 1 else i].weight if tokens.projects else torch.eye(16)
        rows.append(lead @ row)
    ids = torch.arange(shape[0]).flip(0)[None].repeat(2, 1)
    found, expected = tokens(ids), torch.stack(rows)[ids]
    torch.testing.assert_close(found, expected)
    weight = torch.randn_like(found)
    mine, theirs = (torch.autograd.grad((y * weight).sum(), list(tokens.parameters())) for y in (found, expected))
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b)


def test_what_is_tied():
    tokens, head = made(40, (10, 25), 2)
    assert all(a is b for a, b in zip(tokens.tables, head.tables, strict=True))
    assert [a is b for a, b in zip(tokens.projects, head.projects, strict=True)] == [False, True, True]
    _, apart = made(40, (10, 25), 2, tied=False, shared_projects=False)
    assert len(list(apart.parameters())) == 3 + 3 + 3 + 2


@pytest.mark.parametrize(
    ("cutoffs", "div", "message"),
    [
        ((25, 10), 2, "growing order"),
        ((10, 40), 2, "growing order"),
        ((0,), 2, "growing order"),
        ((3, 9), 8, "narrower"),
    ],
)
def test_no_such_clusters(cutoffs, div, message):
    with pytest.raises(ConfigError, match=message):
        AdaptiveTokens(40, 16, 16, cutoffs, div)


def test_what_is_said_can_be_sampled():
    """Log-probabilities stand where logits would: the model generates, and is inspected, as any other."""
    model = cutaway.build(
        "transformerxl", vocab=30, width=16, layers=2, heads=2, head_width=8, hidden=16, table_width=16,
        cutoffs=(10, 20), memory=5, seed=1,
    )  # fmt: skip
    ids = torch.randint(0, 30, (2, 6))
    with torch.no_grad():
        whole = ids
        for _ in range(9):
            whole = torch.cat([whole, model(whole, last=True).argmax(-1)], 1)
        found, state = [model(ids, state=State(2, 15), last=True).argmax(-1)], State(2, 15)
        model(ids, state=state)
        for _ in range(8):
            found.append(model(found[-1], state=state, last=True).argmax(-1))
    assert torch.equal(torch.cat(found, 1), whole[:, 6:])
    assert cutaway.inspect(model, ids=ids[0].tolist()).logits.shape == (6, 30)
