"""Schedules against what others compute: the paper's formula, and PyTorch's and transformers' own."""

import math

import pytest
import torch
from transformers import get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup, get_wsd_schedule

from cutaway.training.recipe import Schedule
from cutaway.training.schedules import factor

STEPS, WARMUP = 200, 30


def theirs(make, **given):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = make(optimizer, num_warmup_steps=WARMUP, **given)
    found = []
    for _ in range(STEPS + 1):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def ours(**given):
    return [factor(Schedule(warmup=WARMUP, **given), step, STEPS) for step in range(STEPS + 1)]


def test_cosine():
    expected = theirs(get_cosine_schedule_with_warmup, num_training_steps=STEPS)
    assert ours(name="cosine", final=0.0) == pytest.approx(expected, abs=1e-12)


def test_linear():
    expected = theirs(get_linear_schedule_with_warmup, num_training_steps=STEPS)
    assert ours(name="linear", final=0.0) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("final", [0.0, 0.1])
def test_warmup_stable_decay(final):
    given = {"num_decay_steps": 40, "num_training_steps": STEPS, "decay_type": "linear", "min_lr_ratio": final}
    expected = theirs(get_wsd_schedule, **given)[WARMUP:]  # theirs begins at the floor too
    assert ours(name="wsd", final=final, cooldown=0.2)[WARMUP:] == pytest.approx(expected, abs=1e-12)


def test_noam_is_equation_3():
    width = 512
    highest = (width * WARMUP) ** -0.5
    for step in range(1, STEPS):
        rate = width**-0.5 * min(step**-0.5, step * WARMUP**-1.5)
        assert highest * factor(Schedule(name="noam", warmup=WARMUP), step, STEPS) == pytest.approx(rate, rel=1e-12)


def test_a_floor_is_reached_and_kept():
    for name in ("cosine", "linear", "wsd"):
        found = ours(name=name, final=0.25)
        assert found[-1] == pytest.approx(0.25)
        assert min(found[WARMUP:]) >= 0.25 - 1e-12
        assert max(found) == 1.0


def test_without_warmup_the_first_step_is_made_with_the_whole_rate():
    for name in ("noam", "constant", "wsd"):
        assert factor(Schedule(name=name, warmup=0), 1, STEPS) == 1.0
    assert factor(Schedule(warmup=0, final=0), 1, 4) == pytest.approx((1 + math.cos(math.pi / 4)) / 2)


def test_a_run_shorter_than_its_warmup_only_warms_up():
    assert [factor(Schedule(warmup=100), step, 4) for step in (1, 2, 3, 4)] == [0.25, 0.5, 0.75, 1.0]
