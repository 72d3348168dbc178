"""Permutation language modelling: who sees whom, what is refused, and that a text can be learned in any order."""

import pytest
import torch

import cutaway
from cutaway.attention import recording
from cutaway.errors import ConfigError
from cutaway.parts import State

T = 9


def xlnet(**sizes):
    made = cutaway.build(
        "xlnet", **{"vocab": 30, "width": 16, "layers": 2, "heads": 2, "hidden": 32, "seed": 3, **sizes}
    )
    with torch.no_grad():
        for p in made.parameters():
            p.add_(torch.randn_like(p) * 0.2)
    return made


def test_a_guess_sees_what_comes_before_it_in_the_order():
    """Changing any other token, its own included, changes nothing; changing one of those before does."""
    model, ids = xlnet(), torch.randint(0, 29, (1, T))
    order = torch.randperm(T)[None]
    targets = torch.arange(T)[None]
    with torch.no_grad():
        before = model.permuted(ids, order, targets)
        for j in range(T):
            other = ids.clone()
            other[0, j] += 1
            changed = (model.permuted(other, order, targets) != before).any(-1)[0]
            assert torch.equal(changed, order[0] > order[0, j])


def test_equal_places_see_each_other():
    """What is given has place 0: all of it is seen by all of it, and by every guess."""
    model, ids = xlnet(), torch.randint(0, 29, (1, T))
    order = torch.tensor([[0, 0, 2, 0, 0, 1, 0, 2, 0]])
    with recording() as trace, torch.no_grad():
        model.permuted(ids, order, torch.tensor([[2, 5, 7]]))
    for record in trace:
        seen = record.weights().amax((0, 1)) > 0
        assert torch.equal(seen[:T, :T], order[0][None] <= order[0][:, None])
        assert torch.equal(seen[T:, :T], order[0][None] < torch.tensor([2, 1, 2])[:, None])
        assert not seen[:, T:].any()


def test_rows_do_not_depend_on_padding():
    model, ids = xlnet(), torch.randint(0, 29, (2, T))
    order, kinds = torch.stack([torch.randperm(T), torch.randperm(T)]), torch.randint(0, 3, (2, T))
    padding = torch.tensor([[1] * T, [0, 0, 1, 1, 0, 1, 1, 1, 0]]).bool()
    targets = torch.tensor([[0, 4, 8], [2, 5, 7]])
    with torch.no_grad():
        found = model.permuted(ids, order, targets, padding, segments=kinds)
        real = padding[1]
        alone = model.permuted(ids[1:, real], order[1:, real], torch.tensor([[0, 2, 4]]), segments=kinds[1:, real])
    torch.testing.assert_close(found[1], alone[0])


def test_guesses_leave_the_memory_alone():
    """Of a call with guesses a state keeps the text, and no query."""
    model, ids = xlnet(), torch.randint(0, 29, (1, T))
    with_guesses, without = State(1, 2 * T), State(1, 2 * T)
    with torch.no_grad():
        model.permuted(ids, torch.zeros(1, T, dtype=torch.int64), torch.tensor([[3, 4]]), state=with_guesses)
        model(ids, state=without)
        torch.testing.assert_close(model(ids, state=with_guesses), model(ids, state=without))


def test_the_first_of_all_sees_nothing():
    model, ids = xlnet(layers=1), torch.randint(0, 29, (1, T))
    with recording() as trace, torch.no_grad():
        said = model.permuted(ids, torch.arange(T)[None], torch.tensor([[0]]))
    assert trace.records[0].weights()[:, :, T:].abs().max() == 0
    assert said.isfinite().all()


def test_it_learns_to_fill_in():
    """Four texts in random orders. Who knows the place alone cannot do better than log 4 = 1.39 where they differ."""
    torch.manual_seed(0)
    model = cutaway.build("xlnet", vocab=12, width=32, layers=2, heads=2, hidden=64, dropout=0.0, seed=0).train()
    texts, losses = torch.randint(0, 12, (4, 8)), []
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(5 if p.ndim > 1 else 1)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(330):
        order = torch.stack([torch.randperm(8) for _ in texts])
        targets = order.argsort(1)[:, 4:]
        logits = model.permuted(texts, order, targets)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), texts.gather(1, targets).flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-30:]) / 30 < 0.7


@pytest.mark.parametrize(
    ("order", "targets", "message"),
    [
        (torch.zeros(1, 4).long(), torch.zeros(1, 2).long(), "order is"),
        (torch.zeros(1, T).long(), torch.zeros(2, 2).long(), "order is"),
        (torch.zeros(1, T).long(), torch.tensor([[T]]), "targets run from"),
        (torch.zeros(1, T).long(), torch.tensor([[-1]]), "targets run from"),
    ],
)
def test_what_is_refused(order, targets, message):
    with pytest.raises(ConfigError, match=message):
        xlnet().permuted(torch.zeros(1, T, dtype=torch.int64), order, targets)


def test_from_left_to_right_there_is_one_order():
    with pytest.raises(ConfigError, match="left to right"):
        xlnet(causal=True).permuted(*(torch.zeros(1, T, dtype=torch.int64),) * 3)


@pytest.mark.parametrize("swapped", [{"position": "alibi"}, {"mixer": "linear"}])
def test_other_attention_knows_no_guesses(swapped):
    """Else it would look at what it is to guess."""
    model = xlnet(**swapped)
    assert model(torch.arange(T)[None]).shape == (1, T, 30)
    with pytest.raises(ConfigError, match="were swapped here"):
        model.permuted(*(torch.zeros(1, T, dtype=torch.int64),) * 3)
