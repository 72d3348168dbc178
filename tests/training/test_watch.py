"""Onlookers: what they show, that it is right, and that the run is the same without them."""

import io
import sys

import pytest
from rich.console import Console
from tests.training.test_run import TEXT, TINY, Stop, losses

from cutaway.training import run
from cutaway.training.errors import TrainingError
from cutaway.training.recipe import Recipe
from cutaway.training.runner import train
from cutaway.training.toml import settings
from cutaway.training.watch import curves
from cutaway.training.watch.live import Live


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "text.txt").write_text(TEXT)
    given = {**TINY, "data.path": str(tmp_path / "text.txt"), "loop.ema": "0.9"}
    return lambda **more: settings({**given, **{k.replace("__", "."): str(v) for k, v in more.items()}}, Recipe())


@pytest.mark.parametrize("terminal", [False, True])
def test_live(recipe, tmp_path, terminal):
    out = io.StringIO()
    train(
        recipe(), tmp_path / "run", watch=Live(Console(file=out, force_terminal=terminal, width=100, highlight=False))
    )
    said = out.getvalue()
    valid = [e["valid"] for e in run.entries(tmp_path / "run" / "log.jsonl") if "valid" in e]
    for loss in valid:
        assert f"validation {loss:.4f}" in said
    assert "tokens/s" in said
    assert "% of peak" in said
    assert ("6/6" in said) == terminal


def test_tensorboard_has_what_the_log_has(recipe, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with pytest.raises(InterruptedError):
        train(recipe(watch__tensorboard="true"), tmp_path / "run", watch=Stop(3))
    train(recipe(watch__tensorboard="true"), tmp_path / "run")
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    for name, key in (("train/loss", "loss"), ("train/rate", "rate"), ("validation/loss", "valid")):
        theirs = [(e.step, e.value) for e in events.Scalars(name)]
        ours = [(e["step"], e[key]) for e in run.entries(tmp_path / "run" / "log.jsonl") if key in e]
        assert theirs == [(step, pytest.approx(value, rel=1e-6)) for step, value in ours]


def test_wandb_is_told_or_asked_for(recipe, tmp_path, monkeypatch):
    told = []

    class Stranger:
        def init(self, **given):
            told.append(("init", given["project"], given["config"]["loop.steps"]))

        def log(self, values, step):
            told.append((step, sorted(values)))

        def finish(self):
            told.append("finish")

    monkeypatch.setitem(sys.modules, "wandb", Stranger())
    train(recipe(watch__wandb="mine", loop__steps=1), tmp_path / "run")
    names = sorted(f"train/{n}" for n in ("loss", "norm", "rate", "tokens a second"))
    assert told == [("init", "mine", 1), (1, names), (1, ["validation/loss"]), "finish"]
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(TrainingError, match="pip install wandb"):
        train(recipe(watch__wandb="mine"), tmp_path / "other")


def test_samples(recipe, tmp_path):
    chosen = recipe(watch__prompt="the ", watch__tokens=3)
    with pytest.raises(InterruptedError):
        train(chosen, tmp_path / "broken", watch=Stop(5))
    for folder in ("broken", "whole"):
        train(chosen, tmp_path / folder)
    said = (tmp_path / "broken" / "samples.txt").read_text()
    assert said == (tmp_path / "whole" / "samples.txt").read_text()
    assert [line.split(",")[0] for line in said.splitlines() if "──" in line] == [f"── step {n}" for n in (2, 4, 6)]
    assert said.count("\nthe ") == 3
    train(recipe(), tmp_path / "alone")
    assert losses(tmp_path / "alone") == losses(tmp_path / "whole")


def test_curves(recipe, tmp_path):
    train(recipe(), tmp_path / "run")
    assert (tmp_path / "run" / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert curves.smooth([2.0] * 100) == pytest.approx([2.0] * 100)
    assert curves.smooth([float(n) for n in range(1000)])[-1] == pytest.approx(999 - 19, abs=1)  # the lag of a ramp
    curves.draw([], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_it_stops_early(recipe, tmp_path):
    """A rate so high that nothing gets better soon; the same line again trains no more."""
    chosen = recipe(optimizer__rate=3, loop__steps=40, evaluate__every=1, loop__patience=3, schedule__name="constant")
    summary = train(chosen, tmp_path / "run")
    assert summary.early
    assert summary.step < 40
    assert summary.best_step == summary.step - 3
    assert train(chosen, tmp_path / "run").step == summary.step
