"""ELECTRA: a generator and a discriminator that share their tables."""

import pytest
import torch
import torch.nn.functional as F

import cutaway
from cutaway.parts import LanguageHead
from cutaway.training.batch import IGNORED, Rows
from cutaway.training.data import characters
from cutaway.training.errors import TrainingError
from cutaway.training.objectives import named
from cutaway.training.objectives.replaced import sample

TOKENIZER = characters(["abcdefghijklmnopqrstuvwxyz "])


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


def build(**sizes):
    tiny = {"vocab": 29, "table_width": 12, "width": 32, "layers": 2, "heads": 4, "hidden": 64, "context": 64}
    return cutaway.build("electra", **{**tiny, **sizes}, head="discriminator", seed=0)


def objective(net, **options):
    return named("auto", net, net.family, net.sizes, TOKENIZER, **options)


@pytest.fixture
def rows():
    padding = torch.arange(40).expand(6, 40) < torch.tensor([40, 40, 30, 20, 40, 10])[:, None]
    return Rows(torch.randint(27, (6, 40), generator=draw()), padding)


def test_the_two_losses(rows):
    net = build()
    made = objective(net)
    generator = made.modules["generator"].eval()
    batch = made.batch(rows, draw())
    loss = made.loss(net, batch)
    asked = batch.targets != IGNORED
    assert (batch.inputs["ids"][asked] == 28).all()  # all of them are masked
    logits = generator(batch.inputs["ids"], rows.padding)
    likelihood = F.cross_entropy(logits[asked], batch.targets[asked], reduction="sum")
    torch.testing.assert_close(loss.extra["generator"], likelihood.detach() / 0.15)
    filled = batch.inputs["ids"].clone()
    filled[asked] = sample(generator.head, generator(batch.inputs["ids"], rows.padding, head=False)[asked],
                           batch.given["luck"][asked])  # fmt: skip
    said = net(filled, rows.padding)
    wrong = (filled != rows.ids)[rows.padding].float()
    told = F.binary_cross_entropy_with_logits(said[rows.padding], wrong, reduction="sum")
    torch.testing.assert_close(loss.extra["discriminator"], told.detach())
    torch.testing.assert_close(loss.total, likelihood / 0.15 + 50 * told)
    assert loss.count == rows.padding.sum()
    assert 0 < wrong.sum() <= asked.sum()
    assert loss.extra["accuracy"] == ((said > 0).float()[rows.padding] == wrong).sum()


def test_tables_are_shared_and_the_rest_is_not(rows):
    net = build()
    made = objective(net)
    generator = made.modules["generator"]
    shared = {id(p) for p in net.parameters()} & {id(p) for p in generator.parameters()}
    embedding = net.stack.embedding
    assert shared == {id(p) for part in (embedding.tokens, embedding.steps) for p in part.parameters()}
    assert generator.head.tokens is net.stack.embedding.tokens
    assert generator.width == 8
    assert generator.stack.embedding.project.out_features == 8
    assert len(generator.stack.blocks) == 2
    made.loss(net, made.batch(rows, draw())).total.backward()
    assert all(p.grad is not None for m in (net, generator) for p in m.parameters())


def test_no_gradient_of_the_discriminator_reaches_the_generator(rows):
    net = build().double()
    made, with_it = objective(net, weight=0.0), objective(net)
    with_it.modules["generator"].load_state_dict(made.modules["generator"].state_dict())
    gradients = []
    for each in (made, with_it):
        net.zero_grad()
        each.modules["generator"].eval()
        each.loss(net, each.batch(rows, draw())).total.backward()
        gradients.append([p.grad for p in each.modules["generator"].stack.blocks.parameters()])
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_what_is_drawn_follows_what_the_head_says():
    head = LanguageHead(4, 6, bias=True)
    torch.nn.init.zeros_(head.tokens.weight)
    wanted = torch.tensor([0.05, 0.0, 0.5, 0.25, 0.2, 0.0])
    head.bias.data = wanted.log()
    n = 100_000
    found = sample(head, torch.zeros(n, 4), torch.rand(n, generator=draw())).bincount(minlength=6) / n
    assert (found - wanted).abs().max() < 5 * 0.5 / n**0.5
    assert found[1] == found[5] == 0
    edges = sample(head, torch.zeros(2, 4), torch.tensor([0.0, 1 - 2**-24]))
    assert edges.tolist() == [0, 4]  # never a token of probability 0


def test_swapped_parts_are_the_generators_too(rows):
    net = build(norm="rms")
    made = objective(net)
    assert type(made.modules["generator"].stack.blocks[0].attention.norm) is type(net.stack.blocks[0].attention.norm)
    assert made.loss(net, made.batch(rows, draw())).total.isfinite()


def test_what_does_not_go_together_is_said():
    headless = cutaway.build("electra", vocab=29, table_width=12, width=32, layers=1, heads=4, hidden=64)
    with pytest.raises(TrainingError, match="head='discriminator'"):
        objective(headless)
    with pytest.raises(TrainingError, match="share of the model's width"):
        objective(build(), generator=2.0)
