"""Several processes that divide the rows: the run is that of one, whatever happens to them."""

import json
import sys
from pathlib import Path

import pytest
import torch
from tests.training.parallel.together import TEXT, TINY, apart, losses, together, trained, words

from cutaway.training import run, train
from cutaway.training.recipe import Recipe
from cutaway.training.toml import settings

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="torchrun needs a POSIX system")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


def alone(folder, file, **given):
    return train(settings({**TINY, "data.path": str(file), **given}, Recipe()), folder)


def weights(folder):
    from cutaway.training import checkpoint

    named = run.named_in(folder, "last")
    assert named is not None
    return checkpoint.read(named)[0]


@pytest.mark.parametrize(
    ("processes", "given"),
    [
        (2, {}),
        # 3 rows for 2, of which one is left with nothing but padding
        pytest.param(2, {"loop.rows": "3", "loop.batch": "24", "optimizer.name": "muon"}, marks=pytest.mark.slow),
        pytest.param(2, {"loop.ema": "0.9", "optimizer.name": "adafactor"}, marks=pytest.mark.slow),
        pytest.param(4, {}, marks=pytest.mark.slow),
    ],
)
def test_the_losses_are_those_of_one_process(tmp_path, file, processes, given):
    given = dict(given)
    if given.get("model.preset") == "mamba":
        given["model.heads"] = None
    given = {name: value for name, value in {**TINY, **given}.items() if value is not None}
    one, many = tmp_path / "one", tmp_path / "many"
    train(settings({**given, "data.path": str(file)}, Recipe()), one)
    said = together(
        processes, "cutaway.cli", ["train", *words({**given, "data.path": file}), "--out", str(many), "--json"]
    )
    assert json.loads(said.stdout)["step"] == 50  # one of them speaks
    assert len(losses(many)) == 52
    assert apart(one, many) < 1e-5


def test_a_run_of_two_goes_on_with_one(tmp_path, file):
    whole, moved = tmp_path / "whole", tmp_path / "moved"
    alone(whole, file)
    program = Path(__file__).with_name("dying.py")
    given = {**TINY, "data.path": file, "save.every": "10"}
    ended = together(2, program, ["0", "33", "train", *words(given), "--out", str(moved)], check=False)
    assert ended.returncode != 0
    left = run.named_in(moved, "last")
    assert left is not None
    assert 10 <= int(left.name) <= 30
    alone(moved, file, **{"save.every": "10"})
    assert apart(whole, moved) < 1e-5
    a, b = weights(whole), weights(moved)
    assert a.keys() == b.keys()
    for name, x in a.items():
        if ".k.bias" not in name:  # softmax takes it away: its gradient is rounding, which Adam makes large
            assert torch.allclose(x.double(), b[name].double(), rtol=1e-3, atol=1e-5), name


@pytest.mark.parametrize("rank", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_process_that_is_killed_is_started_again(tmp_path, file, rank):
    """By torchrun, all of them; the end is that of a run that nothing happened to, to the bit."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    given = {"save.every": "5", "loop.steps": "30", "model.dropout": "0.1"}
    trained(2, whole, given, file=file)
    program = Path(__file__).with_name("dying.py")
    told = [str(rank), "18", "train", *words({**TINY, "data.path": file, **given}), "--out", str(broken)]
    said = together(2, program, "--max-restarts=2", "--monitor-interval=0.1", told)
    assert "going on after step 1" in said.stderr
    assert losses(whole) == losses(broken)
    a, b = weights(whole), weights(broken)
    assert all(torch.equal(x, b[name]) for name, x in a.items())


def test_what_goes_wrong_with_the_folder_goes_wrong_for_all(tmp_path, file):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "other.txt").write_text("not a run")
    said = trained(2, tmp_path / "full", {}, file=file, check=False)
    assert said.returncode != 0
    assert "cutaway: error: " in said.stderr
    assert "cutaway: error of process 1: " in said.stderr
    assert said.stderr.count("holds files but no run") == 2
