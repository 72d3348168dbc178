"""Models that several processes hold a part of each: the numbers are those of undivided ones, the checkpoints too."""

import json
import signal
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from tests.training.parallel.together import TEXT, TINY, apart, losses, together, trained, words
from torch.distributed.device_mesh import init_device_mesh

from cutaway import build, families
from cutaway.training import Recipe, checkpoint, run, train
from cutaway.training.errors import TrainingError
from cutaway.training.parallel import mesh
from cutaway.training.parallel.tensor import divide_tensors
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


def agree(processes, shard, names, *, tensor=1):
    """Asks of every family that could be divided; returns why the others could not."""
    said = together(processes, COMPARED, [str(shard), str(tensor), *names])
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


def test_families_whose_layers_are_divided_learn_the_same():
    refused = agree(2, 1, ["gpt2", "bert", "t5", "electra", "mamba"], tensor=2)
    assert refused == {"mamba": "no layer of mamba works by heads or hidden neurons: leave parallel.tensor at 1"}


SEQUENTIAL = {"mamba", "mamba2", "recurrent", "seq2seq"}


@pytest.mark.slow
def test_every_family_whose_layers_are_divided_learns_the_same():
    assert agree(2, 1, families.FAMILIES, tensor=2).keys() == SEQUENTIAL


@pytest.mark.slow
def test_every_family_divided_both_ways_learns_the_same():
    assert agree(4, 2, families.FAMILIES, tensor=2).keys() == SEQUENTIAL | {"electra"}


@pytest.mark.slow
def test_copies_whose_layers_are_divided_learn_the_same():
    assert not agree(4, 1, ["llama", "t5", "electra"], tensor=2)


def test_heads_that_do_not_divide():
    dist.init_process_group("fake", rank=0, world_size=3)
    try:
        ways = init_device_mesh("cpu", (3,))
        with pytest.raises(TrainingError, match=r"attention.* has 4 heads, which 3 processes cannot divide"):
            divide_tensors(build("gpt2", vocab=16, width=32, heads=4, layers=1), ways)
        with pytest.raises(TrainingError, match=r"attention.* has 2 key/value heads, which 3 processes cannot divide"):
            divide_tensors(build("llama", vocab=16, width=48, heads=6, kv_heads=2, hidden=96, layers=1), ways)
        with pytest.raises(TrainingError, match=r"feedforward.* has 64 neurons, which 3 processes cannot divide"):
            divide_tensors(build("llama", vocab=16, width=48, heads=6, kv_heads=3, hidden=64, layers=1), ways)
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize(
    ("processes", "given"),
    [
        (2, {"parallel.shard": "2", "loop.recompute": "true", "loop.ema": "0.9"}),
        (2, {"parallel.tensor": "2", "loop.recompute": "true", "loop.ema": "0.9"}),
        pytest.param(2, {"parallel.shard": "2", "optimizer.name": "muon"}, marks=pytest.mark.slow),
        pytest.param(2, {"parallel.tensor": "2", "optimizer.name": "muon"}, marks=pytest.mark.slow),
        pytest.param(4, {"parallel.shard": "2", "parallel.tensor": "2"}, marks=pytest.mark.slow),
        pytest.param(4, {"parallel.shard": "2"}, marks=pytest.mark.slow),
        pytest.param(4, {"parallel.shard": "4"}, marks=pytest.mark.slow),
    ],
)
def test_a_divided_run_goes_on_undivided(tmp_path, file, processes, given):
    """And the other way round: what is on the disk has no trace of who wrote it."""
    folder, whole = tmp_path / "run", tmp_path / "whole"
    given = {**given, "evaluate.every": "10"}
    alone = settings({**TINY, "data.path": str(file), **given, "parallel.shard": "1", "parallel.tensor": "1"}, Recipe())
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
    assert mesh.sizes(Parallel(), 8) == (8, 1, 1)
    assert mesh.sizes(Parallel(shard=2), 8) == (4, 2, 1)
    assert mesh.sizes(Parallel(shard=2, tensor=2), 8) == (2, 2, 2)
    with pytest.raises(TrainingError, match=r"data 2 × parallel\.shard 3 × parallel\.tensor 1 is not 8 processes"):
        mesh.sizes(Parallel(shard=3), 8)
    with pytest.raises(TrainingError, match="data 2"):
        mesh.sizes(Parallel(data=2), 1)
