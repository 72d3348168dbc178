"""Hidden tokens: how many, which, and as what."""

import pytest
import torch
import torch.nn.functional as F

import cutaway
import cutaway.text
from cutaway.training.batch import IGNORED, Rows
from cutaway.training.data import characters
from cutaway.training.errors import TrainingError
from cutaway.training.objectives import named

TOKENIZER = characters(["abcdefghijklmnopqrstuvwxyz "])  # 27 ids and one for unknown ones
MASK = 28


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def net():
    return cutaway.build("bert", vocab=29, width=16, layers=2, heads=2, hidden=32, context=64, head="masked-lm", seed=0)


def masked(net, **options):
    return named("auto", net, net.family, net.sizes, TOKENIZER, **options)


def test_shares(net):
    """Of a million tokens, each share within five standard deviations."""
    ids = torch.randint(27, (1000, 1000), generator=draw())
    batch = masked(net).batch(Rows(ids), draw(1))
    chosen, seen = batch.targets != IGNORED, batch.inputs["ids"]
    n = int(chosen.sum())
    assert abs(n / 1e6 - 0.15) < 5 * (0.15 * 0.85 / 1e6) ** 0.5
    assert (batch.targets == ids)[chosen].all()
    assert (seen == ids)[~chosen].all()
    hidden, same = (seen == MASK)[chosen].float().mean(), (seen == ids)[chosen].float().mean()
    assert abs(hidden - 0.8) < 5 * (0.16 / n) ** 0.5
    kept = 0.1 + 0.1 / 27  # another token may be the same by chance
    assert abs(same - kept) < 5 * (kept * (1 - kept) / n) ** 0.5
    others = seen[chosen & (seen != MASK) & (seen != ids)].bincount(minlength=29)
    assert others[:27].min() > 0.8 * others[:27].float().mean()
    assert not others[27:].any()


def test_padding_and_control_tokens_are_never_asked_for(net):
    ids, padding = torch.full((50, 40), 27), torch.arange(40).expand(50, 40) < 30
    ids[:, 10:] = 3
    batch = masked(net, rate=0.5).batch(Rows(ids, padding), draw())
    asked = batch.targets != IGNORED
    assert asked[:, 10:30].any()
    assert not asked[:, :10].any()
    assert not asked[:, 30:].any()
    assert batch.tokens == 1500


def test_drawn_anew_each_time_and_from_the_generator_alone(net):
    rows = Rows(torch.randint(27, (4, 60), generator=draw()))
    objective = masked(net)
    first, again, other = (objective.batch(rows, draw(seed)).inputs["ids"] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_whole_words(net):
    text = "the quick brown fox jumps over the lazy dog " * 40
    ids = torch.tensor([TOKENIZER.encode(text)])
    targets = masked(net, whole_words=True).batch(Rows(ids), draw()).targets[0]
    words, chosen = text[:-1].split(" "), []
    start = 0
    for i, word in enumerate(words):
        asked = targets[start : start + len(word) + (i > 0)] != IGNORED  # with the space before it
        assert asked.all() or not asked.any()
        chosen.append(bool(asked.all()))
        start += len(asked)
    assert 0.08 < sum(chosen) / len(chosen) < 0.22


def test_whole_words_of_wordpiece(minilm):
    tokenizer = cutaway.text.from_directory(minilm)
    net = cutaway.build("bert", width=16, layers=1, heads=2, hidden=32, head="masked-lm", seed=0)
    objective = named("masked", net, "bert", net.sizes, tokenizer, whole_words=True, rate=0.5)
    ids = torch.tensor([tokenizer.encode("unbelievably embarrassing transformers are unfathomable")] * 100)
    labels = tokenizer.tokens(ids[0].tolist())
    assert any(label.startswith("##") for label in labels)
    asked = objective.batch(Rows(ids), draw()).targets != IGNORED
    for column, label in enumerate(labels):
        if label.startswith("##"):
            assert torch.equal(asked[:, column], asked[:, column - 1])
    assert not asked[:, 0].any()
    assert not asked[:, -1].any()
    assert 0.4 < asked[:, 1:-1].float().mean() < 0.6


def test_the_loss_is_over_the_chosen_ones(net):
    rows, objective = Rows(torch.randint(27, (4, 60), generator=draw())), masked(net)
    batch = objective.batch(rows, draw())
    loss = objective.loss(net, batch)
    logits = net(batch.inputs["ids"]).flatten(0, 1)
    torch.testing.assert_close(loss.total, F.cross_entropy(logits, batch.targets.flatten(), reduction="sum"))
    assert loss.count == (batch.targets != IGNORED).sum() > 0


def test_the_side_of_padding_changes_nothing(net):
    objective = masked(net, rate=1.0, masked=1.0, replaced=0.0)
    ids = torch.randint(27, (2, 6), generator=draw())
    blank = torch.zeros(2, 2, dtype=torch.int64)
    column, losses = torch.arange(8).expand(2, 8), []
    for rows in (
        Rows(ids),
        Rows(torch.cat([blank, ids], 1), column >= 2),
        Rows(torch.cat([ids, blank], 1), column < 6),
    ):
        losses.append(objective.loss(net, objective.batch(rows, draw())))
    for loss in losses:
        torch.testing.assert_close(loss.total, losses[0].total)
        assert loss.count == 12


def test_what_does_not_go_together_is_said(net):
    decoder = cutaway.build("gpt2", vocab=29, width=16, layers=1, heads=2)
    with pytest.raises(TrainingError, match="say 'causal'"):
        named("masked", decoder, "gpt2", decoder.sizes, TOKENIZER)
    narrow = cutaway.build("bert", vocab=28, width=16, layers=1, heads=2, hidden=32, head="masked-lm")
    with pytest.raises(TrainingError, match="vocab=29"):
        masked(narrow)
    assert masked(narrow, mask=27)
    for wrong in ({"rate": 0.0}, {"masked": 0.9, "replaced": 0.2}):
        with pytest.raises(TrainingError, match="shares"):
            masked(net, **wrong)
