"""Runs in their folders: what is written, going on exactly, what is refused; from the shell too."""

import json
import threading
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

import cutaway
from cutaway import families
from cutaway.cli import main
from cutaway.errors import CheckpointError, SourceError
from cutaway.training import run
from cutaway.training.errors import TrainingError
from cutaway.training.recipe import Recipe
from cutaway.training.runner import train
from cutaway.training.toml import settings
from cutaway.training.watch import Watch

TEXT = "the quick brown fox jumps over the lazy dog. " * 40
TINY = {
    "data.tokenizer": "char", "data.length": "8", "model.preset": "gpt2", "model.width": "16", "model.layers": "1",
    "model.heads": "2", "model.dropout": "0.2", "loop.steps": "6", "loop.rows": "4", "evaluate.every": "2",
    "schedule.warmup": "2", "optimizer.rate": "0.01",
}  # fmt: skip


@pytest.fixture
def recipe(tmp_path):
    file = tmp_path / "text.txt"
    file.write_text(TEXT)
    return lambda **more: settings(
        {**TINY, "data.path": str(file), **{k.replace("__", "."): str(v) for k, v in more.items()}}, Recipe()
    )


class Stop(Watch):
    """Leaves the run after a step, as if the process had died there."""

    def __init__(self, after: int) -> None:
        self.after = after

    def stepped(self, step, seconds):
        if step.number == self.after:
            raise InterruptedError


def losses(folder):
    return [(e["step"], e.get("loss"), e.get("valid")) for e in run.entries(folder / run.LOG)]


def final(folder):
    return {n: p.detach().clone() for n, p in cutaway.load(folder).model.named_parameters()}


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "adafactor"])
def test_a_run_that_died_goes_on_as_if_it_had_not(recipe, tmp_path, optimizer):
    """Dropout, average, accumulation: the log of losses and the weights are the same to the bit."""
    chosen = recipe(optimizer__name=optimizer, loop__ema=0.9, loop__batch=64)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(chosen, whole)
    for after in (1, 3, 4, 5):
        with pytest.raises(InterruptedError):
            train(chosen, broken, watch=Stop(after))
    assert train(chosen, broken).step == 6
    assert losses(whole) == losses(broken)
    steps = run.named_in(whole, "last"), run.named_in(broken, "last")
    a, b = (path / "trainer.safetensors" for path in steps if path)
    assert a.read_bytes() == b.read_bytes()
    assert all(torch.equal(x, final(broken)[n]) for n, x in final(whole).items())


def test_a_run_is_a_source(recipe, tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(InterruptedError):
        train(recipe(), folder, watch=Stop(1))
    with pytest.raises(SourceError, match=f"cutaway train --out {folder}"):
        cutaway.load(folder)
    summary = train(recipe(), folder)
    loaded = cutaway.load(folder)
    assert loaded.tokenizer is not None
    assert loaded.tokenizer.decode(loaded.tokenizer.encode("the lazy dog")) == "the lazy dog"
    assert (folder / "best").read_text() == f"checkpoints/{summary.best_step:06d}\n"
    assert cutaway.load(folder / "checkpoints" / "000006").family == "gpt2"
    kept = {int(path.name) for path in (folder / "checkpoints").iterdir()}
    assert kept == {summary.best_step, 6}


def test_the_average_is_what_others_load(recipe, tmp_path):
    train(recipe(loop__ema=0.9, loop__steps=2), tmp_path / "run")
    path = run.named_in(tmp_path / "run", "last")
    assert path is not None
    from cutaway.checkpoints import safetensors

    held = safetensors.read(path / "trainer.safetensors")
    for name, weight in final(tmp_path / "run").items():
        assert torch.equal(weight, held[f"average/model.{name}"].read())
    assert not torch.equal(
        held["average/model.stack.norm.weight"].read(), held["weights/model.stack.norm.weight"].read()
    )


@pytest.mark.parametrize(
    ("preset", "sizes"),
    [("bert", {"vocab": 40, "hidden": 32, "context": 8}), ("llama", {"hidden": 32, "kv_heads": 1}), ("mamba", {})],
)
def test_families_of_other_kinds(recipe, tmp_path, preset, sizes):
    given = {"model.preset": preset, **{f"model.{n}": str(x) for n, x in sizes.items()}}
    chosen = settings(given, recipe())
    chosen = replace(chosen, model=replace(chosen.model, sizes=known(preset, chosen.model.sizes)))
    train(chosen, tmp_path / "whole")
    with pytest.raises(InterruptedError):
        train(chosen, tmp_path / "broken", watch=Stop(3))
    train(chosen, tmp_path / "broken")
    assert losses(tmp_path / "whole") == losses(tmp_path / "broken")
    assert cutaway.load(tmp_path / "broken").family == preset


def known(family, sizes):
    names = {f.name for f in fields(families.get(family).Sizes)}
    return {name: x for name, x in sizes.items() if name in names}


def test_what_does_not_belong_together_is_refused(recipe, tmp_path):
    folder = tmp_path / "run"
    train(recipe(), folder)
    with pytest.raises(TrainingError, match=r"loop\.steps was 6 and is 7"):
        train(recipe(loop__steps=7), folder)
    train(recipe(save__last=2), folder)  # no number depends on it
    (tmp_path / "text.txt").write_text(TEXT + "and more")
    with pytest.raises(TrainingError, match="has changed since it began"):
        train(None, folder)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("years of work")
    (tmp_path / "text.txt").write_text(TEXT)
    with pytest.raises(TrainingError, match="holds files but no run"):
        train(recipe(), tmp_path / "other")
    with pytest.raises(TrainingError, match="give a recipe"):
        train(None, tmp_path / "nothing")


def test_one_process_at_a_time(recipe, tmp_path):
    folder = tmp_path / "run"
    refused = []

    class Second(Watch):
        def stepped(self, step, seconds):
            if not refused:
                with pytest.raises(TrainingError, match="another process"):
                    train(recipe(), folder)
                refused.append(True)

    train(recipe(), folder, watch=Second())
    assert refused


def test_in_a_thread_there_are_no_signals_and_it_works(recipe, tmp_path):
    done = []
    thread = threading.Thread(target=lambda: done.append(train(recipe(loop__steps=2), tmp_path / "run")))
    thread.start()
    thread.join()
    assert done[0].step == 2


def test_a_broken_checkpoint_says_how_to_go_on(recipe, tmp_path):
    folder = tmp_path / "run"
    train(recipe(save__last=3), folder)
    broken = folder / "checkpoints" / "000006" / "trainer.safetensors"
    broken.write_bytes(broken.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"delete \S*000006 to go on"):
        train(None, folder)


def test_the_global_random_state_is_left_alone(recipe, tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train(recipe(loop__steps=1), tmp_path / "run")
    assert torch.equal(torch.rand(3), expected)


def test_the_shell(tmp_path, capsys):
    file, folder = tmp_path / "text.txt", tmp_path / "run"
    file.write_text(TEXT)
    words = [word for name, text in {**TINY, "data.path": str(file)}.items() for word in (f"--{name}", text)]
    assert main(["train", *words, "--out", str(folder), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["step"], said["stopped"]) == (6, None)
    assert main(["train", "--out", str(folder)]) == 0  # done already
    assert main(["generate", str(folder), "the ", "--max-new-tokens", "4"]) == 0
    assert main(["card", str(folder)]) == 0
    assert main(["convert", str(folder), str(tmp_path / "converted")]) == 0
    assert Path(tmp_path / "converted" / "model.safetensors").is_file()
    capsys.readouterr()
    for wrong, says in (
        (["--loop.step", "5", "--out", "x"], "did you mean steps"),
        ([], "--out RUN"),
        (["--out", str(tmp_path / "new")], "--data.path"),
        (["--out", str(tmp_path / "new"), "--data.path", str(file)], "--model.preset"),
        (["--loop.steps"], "needs a value"),
    ):
        assert main(["train", *wrong]) == 2
        assert says in capsys.readouterr().err
    assert main(["train", "--show", "--loop.steps", "7"]) == 0
    assert "steps = 7  # updates" in capsys.readouterr().out
