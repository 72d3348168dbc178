"""Optimizers against torch's own and the definition in float64; who decays; state by name."""

import pytest
import torch
from torch import nn

import cutaway
from cutaway.errors import CheckpointError
from cutaway.training import optimizers, recipe
from cutaway.training.optimizers.muon import Muon, orthogonal

SHAPES = [(8, 8), (8, 24), (24, 8), (1, 5)]


def polynomial(x, rounds=5):
    """The definition: the polynomial of the singular values."""
    u, s, v = torch.linalg.svd(x / x.norm(dim=(-2, -1), keepdim=True), full_matrices=False)
    for _ in range(rounds):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return u @ torch.diag_embed(s) @ v


def test_orthogonal_is_the_polynomial_of_the_singular_values():
    for shape in SHAPES:
        x = torch.randn(3, *shape, dtype=torch.float64)
        assert torch.allclose(orthogonal(x), polynomial(x), atol=1e-10)
        assert torch.allclose(orthogonal(x, 3), polynomial(x, 3), atol=1e-10)
        assert torch.allclose(orthogonal(x.float()), polynomial(x).float(), atol=2e-4)


def test_muon_is_its_definition():
    torch.manual_seed(1)
    for shape in SHAPES:
        p = nn.Parameter(torch.randn(shape, dtype=torch.float64))
        optimizer = Muon([p], lr=0.02, weight_decay=0.1, momentum=0.9)
        w, b = p.detach().clone(), torch.zeros(shape, dtype=torch.float64)
        for _ in range(4):
            g = p.grad = torch.randn_like(p)
            optimizer.step()
            b = 0.9 * b + 0.1 * g
            step = 0.2 * max(shape) ** 0.5 * polynomial(0.1 * g + 0.9 * b)
            w = (1 - 0.02 * 0.1) * w - 0.02 * step
            assert torch.allclose(p, w, atol=1e-9)


def test_muon_steps_as_torchs_does():
    """Theirs iterates in bfloat16, whose roundings of 1 in 256 five rounds make about six times larger."""
    ours = [nn.Parameter(torch.randn(shape)) for shape in SHAPES]
    theirs = [nn.Parameter(p.detach().clone()) for p in ours]
    a = Muon(ours, lr=0.02, weight_decay=0.1, momentum=0.9)
    b = torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1, momentum=0.9, adjust_lr_fn="match_rms_adamw")
    for _ in range(10):
        before = [p.detach().clone() for p in ours]
        for p, q in zip(ours, theirs, strict=True):
            q.data.copy_(p.data)
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        a.step()
        b.step()
        for p, q, start in zip(ours, theirs, before, strict=True):
            assert (p - q).norm() < 6 / 256 * 1.5 * (p - start).norm()


def decays(name, **more):
    model = cutaway.build("gpt2", width=16, layers=1, heads=2, vocab=11, context=8, seed=0, tied=False)
    names = {p: n for n, p in model.named_parameters()}
    made = optimizers.build(recipe.Optimizer(name=name, **more), {"model": model})
    found = {names[p]: (type(o).__name__, g["weight_decay"]) for o in made for g in o.param_groups for p in g["params"]}
    assert found.keys() == set(names.values())
    return found


def test_tables_have_a_rate_and_a_decay_of_their_own_where_asked_for():
    tables = {n: decay for n, (_, decay) in decays("muon", table_decay=0.3).items() if "tokens" in n or "position" in n}
    assert "stack.embedding.tokens.weight" in tables
    assert tables["stack.embedding.tokens.weight"] == 0.3
    model = cutaway.build("llama", vocab=9, width=8, layers=1, heads=2, kv_heads=2, hidden=8, embedding="ngrams:3")
    made = optimizers.build(recipe.Optimizer(name="muon", rate=0.1, table_rate=0.7, rounds=3), {"model": model})
    rates = {p: g["rate"] for o in made for g in o.param_groups for p in g["params"]}
    assert {n for n, p in model.named_parameters() if rates[p] == 0.7} == {
        n for n, _ in model.named_parameters() if n.startswith("stack.embedding.tokens") or "tables" in n
    }
    assert made[0].rounds == 3


def test_norms_biases_and_embeddings_do_not_decay():
    found = decays("adamw")
    decaying = {name for name, (_, decay) in found.items() if decay}
    assert decaying == {n for n in found if n.endswith("weight") and "norm" not in n and "embedding" not in n}
    assert {"head.tokens.weight", "stack.blocks.0.attention.inner.q.weight"} <= decaying


def test_muon_turns_the_matrices_inside_blocks():
    found = decays("muon")
    turned = {name for name, (kind, _) in found.items() if kind == "Muon"}
    assert turned == {n for n in found if "blocks" in n and n.endswith("weight") and "norm" not in n}


@pytest.mark.parametrize("name", ["adamw", "muon", "adafactor"])
def test_state_by_name_is_all_that_the_next_step_needs(name):
    def made():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(6, 5), nn.LayerNorm(5), nn.Linear(5, 4))
        names = {p: n for n, p in net.named_parameters()}
        return net, names, optimizers.build(recipe.Optimizer(name=name), {"model": net})

    def step(net, made, seed):
        torch.manual_seed(seed)
        net(torch.randn(7, 6)).square().mean().backward()
        for optimizer in made:
            optimizer.step()
            optimizer.zero_grad()

    whole, names, of_whole = made()
    for seed in range(3):
        step(whole, of_whole, seed)
    saved = {n: x.clone() for n, x in optimizers.state(of_whole, names).items()}
    other, other_names, of_other = made()
    other.load_state_dict(whole.state_dict())
    optimizers.load_state(of_other, other_names, saved)
    for net, each in ((whole, of_whole), (other, of_other)):
        step(net, each, 3)
    assert all(torch.equal(p, q) for p, q in zip(whole.parameters(), other.parameters(), strict=True))
    with pytest.raises(CheckpointError, match="stranger"):
        optimizers.load_state(of_other, other_names, {"stranger/momentum": torch.zeros(1)})
