"""Models that several processes hold a part of each: the numbers are those of undivided ones, the checkpoints too."""

import json
import signal
import sys
from pathlib import Path

import pytest
import torch
from tests.training.parallel.together import TEXT, TINY, apart, losses, together, trained, words

from cutaway import families
from cutaway.training import Recipe, checkpoint, run, train
from cutaway.training.errors import TrainingError
from cutaway.training.parallel import mesh
from cutaway.training.recipe import Parallel
from cutaway.training.toml import settings
from cutaway.training.watch import Watch

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="torchrun needs a POSIX system")
COMPARED = Path(__file__).with_name("compared.py")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


class Stops(Watch):
    """Asks a run to stop at its next evaluation, as a terminal would."""

    def evaluated(self, step, loss):
        signal.raise_signal(signal.SIGTERM)


def agree(processes, shard, names):
    """Asks of every family that could be divided; returns why the others could not."""
    said = together(processes, COMPARED, [str(shard), *names])
    found = json.loads(said.stdout)
    assert found.keys() == set(names)
    for name, far in found.items():
        if not isinstance(far, str):
            loss, norm, weights = far
            assert loss < 1e-5, (name, far)
            assert norm < 1e-4, (name, far)
            assert weights < 1e-4, (name, far)
    return {name: why for name, why in found.items() if isinstance(why, str)}


def test_sharded_families_learn_the_same():
    refused = agree(2, 2, ["gpt2", "t5", "electra"])
    assert refused.keys() == {"electra"}
    assert "trains generator beside the model" in refused["electra"]


@pytest.mark.slow
def test_every_sharded_family_learns_the_same():
    assert agree(2, 2, families.FAMILIES).keys() == {"electra"}


@pytest.mark.slow
def test_copies_that_are_sharded_learn_the_same():
    assert not agree(4, 2, ["llama", "t5"])


@pytest.mark.parametrize(
    ("processes", "given"),
    [
        (2, {"parallel.shard": "2", "loop.recompute": "true", "loop.ema": "0.9"}),
        pytest.param(2, {"parallel.shard": "2", "optimizer.name": "muon"}, marks=pytest.mark.slow),
        pytest.param(4, {"parallel.shard": "2"}, marks=pytest.mark.slow),
        pytest.param(4, {"parallel.shard": "4"}, marks=pytest.mark.slow),
    ],
)
def test_a_divided_run_goes_on_undivided(tmp_path, file, processes, given):
    """And the other way round: what is on the disk has no trace of who wrote it."""
    folder, whole = tmp_path / "run", tmp_path / "whole"
    given = {**given, "evaluate.every": "10"}
    alone = settings({**TINY, "data.path": str(file), **given, "parallel.shard": "1"}, Recipe())
    train(alone, whole)
    program = Path(__file__).with_name("dying.py")
    told = ["1", "23", "train", *words({**TINY, "data.path": file, **given}), "--out", str(folder)]
    assert together(processes, program, told, check=False).returncode != 0
    named = run.named_in(folder, "last")
    assert named is not None
    assert named.name in ("000010", "000020")  # it may have been killed while it wrote
    train(alone, folder, watch=Stops())
    middle = losses(folder)[-1][0]
    assert 20 < middle < 50
    trained(processes, folder, given, file=file)
    assert len(losses(folder)) == 55
    assert apart(whole, folder) < 1e-5
    a, b = (checkpoint.read(f / "checkpoints" / "000050")[0] for f in (whole, folder))
    assert {name: x.shape for name, x in a.items()} == {name: x.shape for name, x in b.items()}
    for name, x in a.items():
        if ".k.bias" not in name:  # softmax takes it away: its gradient is rounding, which Adam makes large
            assert torch.allclose(x.double(), b[name].double(), rtol=1e-3, atol=1e-4), name


def test_layouts():
    assert mesh.sizes(Parallel(), 8) == (8, 1)
    assert mesh.sizes(Parallel(shard=2), 8) == (4, 2)
    with pytest.raises(TrainingError, match=r"data 2 × parallel\.shard 3 is not 8 processes"):
        mesh.sizes(Parallel(shard=3), 8)
    with pytest.raises(TrainingError, match="data 2"):
        mesh.sizes(Parallel(data=2), 1)
