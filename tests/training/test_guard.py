"""Gradients that would spoil the weights."""

import math

import pytest
import torch
from tests.training.test_loop import Batches, trainer

from cutaway.training.errors import TrainingError
from cutaway.training.guard import Guard


def test_what_is_not_finite_is_left_out_and_ends_the_run_in_time():
    guard = Guard()
    for bad in [math.nan, math.inf] * 4 + [math.nan]:
        assert "not finite" in (guard.verdict(bad) or "")
    assert guard.verdict(1.0) is None  # one good one, and the count begins again
    for _ in range(9):
        guard.verdict(math.nan)
    with pytest.raises(TrainingError, match="lower --optimizer"):
        guard.verdict(math.nan)


def test_spikes_are_left_out_once_the_usual_is_known():
    guard = Guard(spike=5.0)
    assert guard.verdict(100.0) is None  # nothing is known yet
    for _ in range(200):
        assert guard.verdict(1.0) is None
    assert "norm is 6" in (guard.verdict(6.0) or "")
    assert guard.verdict(4.0) is None
    made = [guard.verdict(20.0) for _ in range(40)]
    assert made[0] is not None
    assert made[-1] is None  # a new level is got used to


def test_float16_finds_its_scale():
    guard = Guard(scaled=True)
    before = guard.scale
    assert "overflowed float16" in (guard.verdict(math.inf) or "")
    assert guard.scale == before / 2
    for _ in range(2000):
        guard.verdict(1.0)
    assert guard.scale == before


def test_its_state_comes_back():
    guard = Guard(spike=3.0, scaled=True)
    for norm in (1.1, math.inf, 0.3):
        guard.verdict(norm)
    other = Guard(spike=3.0, scaled=True)
    other.load(guard.state())
    assert vars(other) == vars(guard)


def test_an_update_that_is_left_out_changes_nothing():
    made = trainer(Batches(), loop__ema=0.5)
    made.step(1)
    before = {n: x.clone() for n, x in made.tensors().items() if n != "guard"}
    made.objective.loss = _spoilt(made.objective.loss)
    step = made.step(2)
    assert step.skipped == "the gradient is not finite: update left out"
    assert all(torch.equal(x, before[n]) for n, x in made.tensors().items() if n != "guard")


def _spoilt(loss):
    def worse(model, batch):
        found = loss(model, batch)
        return type(found)(found.total * math.inf, found.count)

    return worse
