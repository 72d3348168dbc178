"""The loop: what a step is, however it is divided; what an evaluation is."""

from dataclasses import fields

import pytest
import torch
import torch.nn.functional as F

import cutaway
from cutaway import families
from cutaway.training.batch import Rows
from cutaway.training.loop import Trainer
from cutaway.training.objectives import Causal
from cutaway.training.recipe import Recipe
from cutaway.training.recompute import recompute
from cutaway.training.toml import settings


class Batches:
    """Rows with padding, so that batches ask for different numbers of tokens; each cut into `parts`."""

    fingerprint = ""

    def __init__(self, parts=1, rows=4):
        self.parts, self.rows = parts, rows

    def __len__(self):
        return 2 * self.parts

    def batch(self, n):
        draw = torch.Generator().manual_seed(n // self.parts)
        ids = torch.randint(11, (self.rows, 9), generator=draw)
        padding = torch.arange(9) < torch.randint(3, 10, (self.rows, 1), generator=draw)
        mine = slice((n % self.parts) * self.rows // self.parts, (n % self.parts + 1) * self.rows // self.parts)
        return Rows(ids[mine], padding[mine])


def trainer(data, accumulate=1, **given):
    model = cutaway.build("gpt2", width=16, layers=1, heads=2, vocab=11, context=8, seed=0, dropout=0.0)
    recipe = settings({f"{k.replace('__', '.')}": str(v) for k, v in given.items()}, Recipe())
    return Trainer(model, Causal(), data, recipe, accumulate=accumulate)


def test_accumulation_is_weighted_by_tokens():
    """Four parts with different numbers of tokens are one batch of them all."""
    whole, parts = trainer(Batches()), trainer(Batches(4), 4)
    for number in (1, 2):
        a, b = whole.step(number), parts.step(number)
        assert a.loss == pytest.approx(b.loss, rel=1e-6)
        assert a.norm == pytest.approx(b.norm, rel=1e-5)
        assert a.tokens == b.tokens


def test_a_step_is_torchs_own():
    """Loss, gradient, clipping and AdamW as PyTorch has them, from the definition of the mean."""
    ours = trainer(Batches(), optimizer__clip=0.05, schedule__name="constant", schedule__warmup=0, optimizer__decay=0)
    model = cutaway.build("gpt2", width=16, layers=1, heads=2, vocab=11, context=8, seed=0, dropout=0.0).train()
    theirs = torch.optim.AdamW(model.parameters(), lr=3e-4, betas=(0.9, 0.95), eps=1e-8, weight_decay=0)
    for number in (1, 2, 3):
        rows = Batches().batch(number - 1)
        assert rows.padding is not None
        logits = model(rows.ids[:, :-1], rows.padding[:, :-1])
        loss = F.cross_entropy(logits[rows.padding[:, 1:]], rows.ids[:, 1:][rows.padding[:, 1:]])
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.05)
        theirs.step()
        theirs.zero_grad()
        step = ours.step(number)
        assert step.loss == pytest.approx(loss.item(), rel=1e-6)
        assert step.norm == pytest.approx(norm.item(), rel=1e-5)
    for a, b in zip(ours.model.parameters(), model.parameters(), strict=True):
        assert torch.allclose(a, b, atol=2e-6)


@pytest.mark.parametrize("preset", ["gpt2", "t5", "bart", "mamba"])
def test_recomputed_blocks_give_the_same_numbers(preset):
    """Dropout and what blocks share in one pass (T5's biases) included."""
    made = []
    for recomputed in (False, True):
        sizes = {"width": 16, "layers": 2, "heads": 2, "vocab": 11, "context": 8, "dropout": 0.3, "hidden": 32}
        kind = families.get(preset).Sizes
        known = {f.name: x for f in fields(kind) if (x := sizes.get(f.name)) is not None}
        model = cutaway.build(preset, seed=0, **known).train()
        if recomputed:
            recompute(model)
        torch.manual_seed(3)
        ids = torch.randint(11, (2, 8))
        (model(ids, ids) if preset in ("t5", "bart") else model(ids)).float().square().mean().backward()
        made.append([p.grad for p in model.parameters()])
    assert len(made[0]) > 5
    for a, b in zip(*made, strict=True):
        assert (a is None) == (b is None)
        assert a is None or (a - b).norm() <= 1e-6 * a.norm()  # T5's shared biases sum in another order


def test_recomputing_keeps_less():
    def kept(recomputed):
        model = cutaway.build("gpt2", width=64, layers=4, heads=2, vocab=11, context=32, seed=0).train()
        if recomputed:
            recompute(model)
        held = 0

        def pack(x):
            nonlocal held
            held += x.numel() * x.itemsize
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            model(torch.zeros(4, 32, dtype=torch.int64)).sum()
        return held

    assert kept(True) < kept(False) / 4


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_lower_precision_learns_nearly_the_same(dtype):
    exact, lower = trainer(Batches(), optimizer__rate=0.01), trainer(Batches(), optimizer__rate=0.01, loop__dtype=dtype)
    for number in range(1, 9):
        a, b = exact.step(1), lower.step(1)
        del number
        assert b.skipped is None
        assert a.loss != b.loss
        assert a.loss == pytest.approx(b.loss, rel=0.02)
        assert a.norm == pytest.approx(b.norm, rel=0.1)
    assert all(p.dtype == torch.float32 for p in lower.model.parameters())


def test_evaluation_is_the_mean_over_tokens_and_changes_nothing():
    made = trainer(Batches(), model__dropout=0.5)
    made.step(1)
    before = {n: x.clone() for n, x in made.tensors().items()}
    total = count = 0.0
    model = made.model.eval()
    for n in range(2):
        rows = Batches().batch(n)
        assert rows.padding is not None
        asked = rows.padding[:, 1:]
        logits = model(rows.ids[:, :-1], rows.padding[:, :-1])
        total += F.cross_entropy(logits[asked], rows.ids[:, 1:][asked], reduction="sum").item()
        count += int(asked.sum())
    assert made.evaluate(Batches()) == pytest.approx(total / count, rel=1e-6)
    assert made.evaluate(Batches(4, 4)) == pytest.approx(total / count, rel=1e-6)
    assert all(torch.equal(x, before[n]) for n, x in made.tensors().items())


def test_the_average_is_the_weighted_sum_of_the_weights():
    made = trainer(Batches(), loop__ema=0.6)
    name = "model.stack.norm.weight"
    expected = made.weights[name].clone()
    for number in range(1, 6):
        made.step(number)
        decay = min(0.6, (1 + number) / (10 + number))
        expected = decay * expected + (1 - decay) * made.weights[name]
    assert torch.allclose(made.average.values[name], expected, atol=1e-6)
    raw = made.weights[name].clone()
    with made.average.in_place():
        assert torch.allclose(made.weights[name], expected, atol=1e-6)
    assert torch.equal(made.weights[name], raw)
