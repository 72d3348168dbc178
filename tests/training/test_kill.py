"""Whatever kills a run, it goes on as if nothing had been: the same losses and the same weights, to the bit."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from cutaway.training import run, train
from cutaway.training.recipe import Recipe
from cutaway.training.toml import settings

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="it has no SIGKILL")

TEXT = "the quick brown fox jumps over the lazy dog. " * 40
TINY = {
    "data.tokenizer": "char", "data.length": "8", "model.preset": "gpt2", "model.width": "16", "model.layers": "1",
    "model.heads": "2", "model.dropout": "0.2", "loop.rows": "4", "loop.batch": "64", "loop.ema": "0.9",
    "evaluate.every": "5", "evaluate.batches": "2", "save.every": "1", "schedule.warmup": "2", "optimizer.rate": "0.01",
    "loop.steps": "60",
}  # fmt: skip
KILLING = Path(__file__).with_name("killing.py")


def as_many_threads():
    """A sum over two threads is rounded otherwise than one: whoever is compared to the bit has as many."""
    return {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}


def killed(kind, tmp_path, count, **more):
    """What the program says, the undisturbed run's folder, and the disturbed one's."""
    file = tmp_path / "text.txt"
    file.write_text(TEXT)
    given = {**TINY, **{name.replace("__", "."): str(value) for name, value in more.items()}}
    words = [f"{name}={value}" for name, value in given.items()]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(settings({**given, "data.path": str(file)}, Recipe()), whole)
    program = [sys.executable, KILLING, kind, file, broken, str(count), *words]
    ran = subprocess.run(program, capture_output=True, text=True, env=as_many_threads())
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout), ran.stderr, whole, broken


def assert_same(whole, broken):
    losses = [
        [(e["step"], e.get("loss"), e.get("valid")) for e in run.entries(f / "log.jsonl")] for f in (whole, broken)
    ]
    assert losses[0] == losses[1]
    for name in ("last", "best"):
        a, b = run.named_in(whole, name), run.named_in(broken, name)
        assert a is not None
        assert b is not None
        assert a.name == b.name
        for file in ("trainer.safetensors", "model/model.safetensors"):
            assert (a / file).read_bytes() == (b / file).read_bytes()
    assert not list((broken / "checkpoints").glob(".*"))


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "adafactor"])
def test_killed_at_random(tmp_path, optimizer):
    said, _, whole, broken = killed("random", tmp_path, 5, optimizer__name=optimizer)
    assert (said["kills"], said["status"]) == (5, 0)
    assert_same(whole, broken)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw", "muon", "adafactor"])
def test_killed_at_random_twenty_times(tmp_path, optimizer):
    said, _, whole, broken = killed("random", tmp_path, 20, optimizer__name=optimizer, loop__steps=400)
    assert (said["kills"], said["status"]) == (20, 0)
    assert said["while writing"]
    assert len(set(said["reached"])) > 10  # they came at different steps
    assert_same(whole, broken)


@pytest.mark.parametrize("count", [10, pytest.param(60, marks=pytest.mark.slow)])
def test_killed_at_every_call_that_touches_the_disk(tmp_path, count):
    said, _, whole, broken = killed("call", tmp_path, count, loop__steps=40, evaluate__every=1)
    assert said == {"kills": count, "status": 0}
    assert_same(whole, broken)


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path):
    """The limit lets the log and the small files be written, and no tensors."""
    said, errors, whole, broken = killed("full", tmp_path, 6000, loop__steps=10)
    assert said == {"full": 1, "left": ["000001"], "loads": 0, "status": 0}
    assert "the disk is full; what was there before is untouched" in errors
    assert_same(whole, broken)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_asked_to_stop_it_saves_and_says_how_to_go_on(tmp_path, number, status):
    file, folder, whole = tmp_path / "text.txt", tmp_path / "run", tmp_path / "whole"
    file.write_text(TEXT)
    given = {**TINY, "data.path": str(file), "save.every": "none", "evaluate.every": "1000", "loop.steps": "300"}
    words = [word for name, text in given.items() for word in (f"--{name}", text)]
    program = [sys.executable, "-m", "cutaway.cli", "train", *words, "--out", str(folder)]
    pipes = {"stderr": subprocess.PIPE, "stdout": subprocess.DEVNULL, "text": True}
    going = subprocess.Popen(program, **pipes, env=as_many_threads())
    while not (folder / "log.jsonl").exists() and going.poll() is None:
        time.sleep(0.02)
    going.send_signal(number)
    _, said = going.communicate(timeout=60)
    assert going.returncode == status
    steps = [entry["step"] for entry in run.entries(folder / "log.jsonl")]
    assert f"after step {steps[-1]}; go on with: cutaway train --out {folder}" in said
    assert 0 < steps[-1] < 300
    assert run.named_in(folder, "last") == folder / "checkpoints" / f"{steps[-1]:06d}"
    recipe = settings(given, Recipe())
    train(recipe, folder)
    train(recipe, whole)
    assert_same(whole, folder)
