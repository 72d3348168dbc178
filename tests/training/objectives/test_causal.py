"""Guessing the next token: what is asked, and what is not."""

import pytest
import torch
import torch.nn.functional as F

import cutaway
from cutaway import families
from cutaway.training.batch import IGNORED, Pairs, Rows
from cutaway.training.data import characters
from cutaway.training.errors import TrainingError
from cutaway.training.objectives import named

TINY = {"vocab": 20, "width": 16, "layers": 2, "heads": 2, "hidden": 32}
TOKENIZER = characters(["abcdefghij"])


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


def model(family="gpt2", **sizes):
    return cutaway.build(family, seed=0, **{**TINY, **sizes})


def causal(net, **options):
    return named("causal", net, net.family, net.sizes, TOKENIZER, **options)


def test_the_sum_over_all_that_comes_next():
    net, ids = model(), torch.randint(10, (3, 9), generator=draw())
    objective = causal(net)
    batch = objective.batch(Rows(ids), draw())
    loss = objective.loss(net, batch)
    expected = F.cross_entropy(net(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten(), reduction="sum")
    torch.testing.assert_close(loss.total, expected)
    assert loss.count == batch.tokens == 24


def test_the_end_of_text_is_learnt_though_padding_is_the_same_id():
    """Whoever finds padding by its id never asks for the end of a text, and the model never stops."""
    end = 9
    ids = torch.tensor([[1, 2, 3, end, end, end], [4, 5, 6, 7, 8, end]])
    padding = torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]]).bool()
    batch = causal(model()).batch(Rows(ids, padding), draw())
    assert batch.targets.tolist() == [[2, 3, end, IGNORED, IGNORED], [5, 6, 7, 8, end]]
    assert batch.tokens == 9


def test_the_side_of_padding_changes_nothing():
    net, objective = model("llama", kv_heads=2), causal(model())
    ids = torch.randint(10, (2, 8), generator=draw())
    left, right, none = ids.clone(), ids.clone(), ids[:, :5]
    left[:, :3], left[:, 3:], right[:, 5:] = 0, none, 0
    real = torch.arange(8).expand(2, 8)
    results = []
    for rows in (Rows(none), Rows(left, real >= 3), Rows(right, real < 5)):
        net.zero_grad()
        batch = objective.batch(rows, draw())
        loss = objective.loss(net, batch)
        loss.total.backward()
        gradient = torch.cat([p.grad.flatten() for p in net.parameters()])
        results.append((loss.total.detach(), gradient))
        assert loss.count == 8
        assert batch.tokens in (8, 10)
    for total, gradient in results[1:]:
        torch.testing.assert_close(total, results[0][0])
        torch.testing.assert_close(gradient, results[0][1], rtol=1e-4, atol=1e-6)


def test_accumulated_pieces_weigh_by_their_tokens():
    """A mean of means would weigh the tokens of a short row more: sums over sums are the whole batch's mean."""
    net = model()
    objective = causal(net)
    ids = torch.randint(10, (2, 9), generator=draw())
    padding = torch.arange(9).expand(2, 9) < torch.tensor([[9], [3]])
    whole = objective.loss(net, objective.batch(Rows(ids, padding), draw()))
    rows = [objective.loss(net, objective.batch(Rows(ids[i : i + 1], padding[i : i + 1]), draw())) for i in (0, 1)]
    mean = sum(r.total for r in rows) / sum(r.count for r in rows)
    torch.testing.assert_close(mean, whole.total / whole.count)
    means = sum(r.total / r.count for r in rows) / 2
    assert (means - mean).abs() > 1e-3  # the trap is there


def test_documents_in_one_row_do_not_foretell_each_other():
    ids, documents = torch.tensor([[1, 2, 3, 4, 5]]), torch.tensor([[0, 0, 1, 1, 1]])
    batch = causal(model()).batch(Rows(ids, documents=documents), draw())
    assert batch.targets.tolist() == [[2, IGNORED, 4, 5]]


@pytest.mark.parametrize("family", ["gpt2", "llama", "mamba", "recurrent"])
def test_the_future_does_not_leak(family):
    known = families.get(family).Sizes.__dataclass_fields__
    sizes = {name: size for name, size in TINY.items() if name in known} | (
        {"kv_heads": 2} if family == "llama" else {}
    )
    net = cutaway.build(family, seed=0, **sizes)
    table = net.stack.embedding.tokens(torch.randint(10, (1, 6), generator=draw())).detach()
    read = table.clone().requires_grad_()
    hook = net.stack.embedding.tokens.register_forward_hook(lambda *_: read)
    states = net(torch.zeros(1, 6, dtype=torch.int64), head=False)
    hook.remove()
    states[0, 2].square().sum().backward()
    assert read.grad[0, :3].any(-1).all()
    assert not read.grad[0, 3:].any()


@pytest.mark.parametrize("family", ["bert", "modernbert", "linformer"])
def test_a_model_that_looks_both_ways_is_refused(family):
    with pytest.raises(TrainingError, match="looks both ways"):
        causal(model(family, head="masked-lm"))


def test_what_does_not_go_together_is_said():
    with pytest.raises(TrainingError, match="build the model with head='lm'"):
        causal(model(head="none"))
    with pytest.raises(TrainingError, match="has no option 'rate': it has none"):
        causal(model(), rate=0.1)
    with pytest.raises(TrainingError, match="no objective 'casual'"):
        named("casual", model(), "gpt2", model().sizes, TOKENIZER)
    with pytest.raises(TrainingError, match="build it with vocab=11"):
        causal(model(vocab=5))
    with pytest.raises(TrainingError, match="one token"):
        causal(model()).batch(Rows(torch.ones(2, 1, dtype=torch.int64)), draw())
    rows = Rows(torch.ones(2, 3, dtype=torch.int64))
    with pytest.raises(TrainingError, match="pairs"):
        causal(model()).batch(Pairs(rows, rows), draw())
