"""Runs of several processes, as `torchrun` starts them: tiny, one thread each, on the loopback only."""

import os
import subprocess
import sys
from pathlib import Path

from cutaway.training import run

ROOT = Path(__file__).parents[3]
TEXT = "the quick brown fox jumps over the lazy dog. " * 40
TINY = {
    "data.tokenizer": "char", "data.length": "8", "model.preset": "gpt2", "model.width": "16", "model.layers": "2",
    "model.heads": "2", "model.dropout": "0", "loop.rows": "8", "loop.batch": "128", "loop.steps": "50",
    "schedule.warmup": "2", "optimizer.rate": "0.01", "evaluate.every": "25", "watch.curves": "false",
}  # fmt: skip


def words(given):
    return [word for name, value in given.items() for word in (f"--{name}", str(value))]


def together(processes, program, *more, check=True):
    """`torchrun`, with `processes` of a module (a name) or of a file (a path)."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "CUDA_VISIBLE_DEVICES": ""}
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "src")])
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
    what = [str(program)] if os.path.sep in str(program) else ["-m", program]
    told = [*torchrun, f"--nproc-per-node={processes}", *more[:-1], *what, *more[-1]]
    ran = subprocess.run(told, capture_output=True, text=True, env=env, timeout=240)
    assert not check or ran.returncode == 0, ran.stderr
    return ran


def trained(processes, folder, given, *, file, check=True):
    """A run of so many processes by the shell; what it said."""
    given = {**TINY, "data.path": file, **given}
    return together(processes, "cutaway.cli", ["train", *words(given), "--out", str(folder), "--json"], check=check)


def losses(folder):
    """Every number of the log: (step, loss or validation loss)."""
    return [(e["step"], e.get("loss", e.get("valid"))) for e in run.entries(folder / "log.jsonl")]


def apart(a, b):
    """The largest relative difference of two runs' losses, which must be of the same steps."""
    assert [step for step, _ in losses(a)] == [step for step, _ in losses(b)]
    return max(abs(x - y) / abs(x) for (_, x), (_, y) in zip(losses(a), losses(b), strict=True))
