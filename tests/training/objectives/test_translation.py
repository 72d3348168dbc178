"""Pairs: what the decoder reads and is asked, and label smoothing."""

import pytest
import torch
import torch.nn.functional as F

import cutaway
from cutaway.training.batch import IGNORED, Pairs, Rows
from cutaway.training.data import characters
from cutaway.training.errors import TrainingError
from cutaway.training.objectives import named

TOKENIZER = characters(["abcdefghij"])
END = PAD = 9


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module", params=["transformer", "lstm-attention"])
def net(request):
    wide = {"heads": 2} if request.param == "transformer" else {}
    return cutaway.build(request.param, vocab=12, width=16, layers=1, hidden=32, seed=0, **wide)


@pytest.fixture
def objective(net):
    return named("auto", net, net.family, net.sizes, TOKENIZER)


def pairs(target_first=False):
    """Sources of 5 and 3 tokens, targets of 2 and 6; padding is the end-of-text id, on either side of the target."""
    source = Rows(torch.tensor([[1, 2, 3, 4, 5], [6, 7, 8, PAD, PAD]]), torch.tensor([[1] * 5, [1, 1, 1, 0, 0]]).bool())
    one = [PAD] * 4 + [7, END] if target_first else [7, END] + [PAD] * 4
    there = [0] * 4 + [1, 1] if target_first else [1, 1] + [0] * 4
    target = Rows(torch.tensor([one, [1, 2, 3, 4, 5, END]]), torch.tensor([there, [1] * 6]).bool())
    return Pairs(source, target)


def test_what_is_asked_goes_by_the_targets_own_padding(objective, net):
    """Neither by the source's mask nor by the id of padding: the end of each target is learnt."""
    batch = objective.batch(pairs(), draw())
    assert batch.targets.tolist() == [[7, END, *[IGNORED] * 4], [1, 2, 3, 4, 5, END]]
    assert batch.inputs["target_ids"][1].tolist() == [net.start, 1, 2, 3, 4, 5]
    assert batch.inputs["target_ids"][0, :2].tolist() == [net.start, 7]
    assert objective.loss(net, batch).count == 8
    assert batch.tokens == 16


def test_label_smoothing_is_pytorchs(objective, net):
    batch = objective.batch(pairs(), draw())
    loss, logits = objective.loss(net, batch), net(**batch.inputs).flatten(0, 1)
    expected = F.cross_entropy(logits, batch.targets.flatten(), reduction="sum", label_smoothing=0.1)
    torch.testing.assert_close(loss.total, expected)
    torch.testing.assert_close(loss.extra["nll"], F.cross_entropy(logits, batch.targets.flatten(), reduction="sum"))


def test_batched_or_alone_and_padded_on_either_side(objective, net):
    both = objective.loss(net, objective.batch(pairs(), draw())).total
    left = objective.loss(net, objective.batch(pairs(target_first=True), draw())).total
    alone = [
        Pairs(Rows(torch.tensor([[1, 2, 3, 4, 5]])), Rows(torch.tensor([[7, END]]))),
        Pairs(Rows(torch.tensor([[6, 7, 8]])), Rows(torch.tensor([[1, 2, 3, 4, 5, END]]))),
    ]
    losses = [objective.loss(net, objective.batch(each, draw())) for each in alone]
    torch.testing.assert_close(sum(each.total for each in losses), both)
    torch.testing.assert_close(left, both)
    mean_of_means = sum(each.total / each.count for each in losses) / 2
    assert (mean_of_means - both / 8).abs() > 1e-3  # what weighting by sentences would give


def test_the_target_ahead_is_not_seen(objective, net):
    """A change of a later target token changes nothing before it."""
    batch = objective.batch(pairs(), draw())
    first = net(**batch.inputs)
    other = {**batch.inputs, "target_ids": batch.inputs["target_ids"].clone()}
    other["target_ids"][1, 3] = 8
    second = net(**other)
    assert torch.equal(first[1, :3], second[1, :3])
    assert not torch.allclose(first[1, 3], second[1, 3])


def test_single_texts_are_refused(objective):
    with pytest.raises(TrainingError, match="pairs"):
        objective.batch(pairs().source, draw())
