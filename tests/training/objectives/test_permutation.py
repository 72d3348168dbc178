"""XLNet's objective."""

import pytest
import torch

import cutaway
from cutaway.training.batch import IGNORED, Rows
from cutaway.training.data import characters
from cutaway.training.errors import TrainingError
from cutaway.training.objectives import named

TOKENIZER = characters(["abcdefghijklmnopqrstuvwxyz "])


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def net():
    return cutaway.build("xlnet", vocab=28, width=16, layers=2, heads=2, hidden=32, seed=0)


def objective(net, **options):
    return named("auto", net, net.family, net.sizes, TOKENIZER, **options)


def test_a_sixth_is_guessed_in_any_order(net):
    ids = torch.randint(27, (200, 60), generator=draw())
    batch = objective(net).batch(Rows(ids), draw())
    order, columns = batch.inputs["order"], batch.inputs["targets"]
    assert (batch.targets != IGNORED).all()
    assert columns.shape == (200, 10)
    assert torch.equal(ids.gather(1, columns), batch.targets)
    places = order.gather(1, columns)
    assert (places.sort(1).values == torch.arange(1, 11)).all()
    assert ((order == 0).sum(1) == 50).all()
    assert (columns.flatten().bincount(minlength=60) > 0).all()  # any token may be asked for, the first and last too
    first = places[:, 0].bincount(minlength=11)[1:]
    assert (first - 20).abs().max() < 5 * (200 * 0.09) ** 0.5


def test_no_guess_sees_its_answer_or_what_comes_later(net):
    """The answers behind a guess, and its own, may be any other tokens."""
    ids = torch.randint(27, (1, 30), generator=draw())
    made = objective(net)
    batch = made.batch(Rows(ids), draw())
    with torch.no_grad():
        said = net.permuted(**batch.inputs)
        order, columns = batch.inputs["order"][0], batch.inputs["targets"][0]
        for guess, column in enumerate(columns.tolist()):
            other = ids.clone()
            hidden = order >= order[column]
            other[0, hidden] = (other[0, hidden] + 1) % 27
            torch.testing.assert_close(net.permuted(**{**batch.inputs, "ids": other})[0, guess], said[0, guess])
            earlier = ids.clone()
            earlier[0, order < order[column]] = 3
            assert not torch.allclose(net.permuted(**{**batch.inputs, "ids": earlier})[0, guess], said[0, guess])


def test_rows_of_different_lengths(net):
    ids, lengths = torch.randint(27, (3, 30), generator=draw()), torch.tensor([[30], [12], [0]])
    made = objective(net)
    batch = made.batch(Rows(ids, torch.arange(30) < lengths), draw())
    assert (batch.targets != IGNORED).sum(1).tolist() == [5, 2, 0]
    loss = made.loss(net, batch)
    alone = {name: value[1:2, :12] for name, value in batch.inputs.items() if name in ("ids", "order")}
    logits = net.permuted(**alone, targets=batch.inputs["targets"][1:2, :2])
    second = torch.nn.functional.cross_entropy(logits[0], batch.targets[1, :2], reduction="sum")
    first = torch.nn.functional.cross_entropy(
        net.permuted(**{n: v[:1] for n, v in batch.inputs.items()})[0], batch.targets[0], reduction="sum"
    )
    torch.testing.assert_close(loss.total, first + second, rtol=1e-5, atol=1e-5)
    assert loss.count == 7


def test_only_xlnet(net):
    bert = cutaway.build("bert", vocab=28, width=16, layers=1, heads=2, hidden=32, head="masked-lm")
    with pytest.raises(TrainingError, match="only XLNet"):
        named("permutation", bert, "bert", bert.sizes, TOKENIZER)
    with pytest.raises(TrainingError, match="looks both ways"):
        named("causal", net, "xlnet", net.sizes, TOKENIZER)
    onward = cutaway.build("xlnet", vocab=28, width=16, layers=1, heads=2, hidden=32, causal=True)
    assert type(named("auto", onward, "xlnet", onward.sizes, TOKENIZER)).__name__ == "Causal"
