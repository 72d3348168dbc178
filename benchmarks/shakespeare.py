"""tinyshakespeare by characters: `recipes/shakespeare.toml` in the wall time of nanoGPT's recipe for a CPU.

    git clone https://github.com/karpathy/nanoGPT
    python benchmarks/shakespeare.py --data tinyshakespeare.txt --nanogpt nanoGPT [--threads 2] [--runs 1] [--json FILE]
    python benchmarks/shakespeare.py --data tinyshakespeare.txt --ablations

Both train on the first nine tenths of the text and are measured on the last. The seconds are of the whole program, from
its start to its end. nanoGPT's loss is the one it prints, an estimate from 20 batches; cutaway's is over every character
of the validation text: once in rows of 256 that begin with nothing before them, as the run itself logs it, and once with
the 128 characters or more that came before each.

`--ablations` trains the recipe again and again, each time with one of its choices taken back.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F

import cutaway

RECIPE = Path(__file__).resolve().parents[1] / "recipes" / "shakespeare.toml"
# nanoGPT's README, "i only have a macbook (or other cheap computer)"; the first evaluations are left out
NANOGPT = (
    "--device=cpu --compile=False --eval_iters=20 --log_interval=100 --eval_interval=2000 --block_size=64 --batch_size=12 "
    "--n_layer=4 --n_head=4 --n_embd=128 --max_iters=2000 --lr_decay_iters=2000 --dropout=0.0"
).split()
ABLATIONS = {
    "the recipe": {},
    "no n-grams": {"model.embedding": "none"},
    "n-grams of 2 and 3 only": {"model.embedding": "ngrams:3"},
    "tables that do not decay": {"optimizer.table_decay": "0"},
    "AdamW in place of Muon": {"optimizer.name": "adamw"},
    "five rounds of Newton-Schulz": {"optimizer.rounds": "5"},
    "one rate for tables and the rest": {"optimizer.table_rate": "none"},
    "SwiGLU of as many parameters": {"model.feedforward": "none", "model.hidden": "341"},
    "LayerNorm": {"model.norm": "layer"},
    "queries and keys not normalised": {"model.qk_norm": "false"},
    "learned positions": {"model.position": "learned", "model.context": "256"},
    "cosine to a tenth": {"schedule.name": "cosine", "schedule.final": "0.1"},
    "rows of 64, 16 of them": {"data.length": "64", "loop.rows": "16"},
    "four layers, half the steps": {"model.layers": "4", "loop.steps": "850"},
}


def ours(data: Path, folder: Path, threads: int, **changes: str) -> tuple[float, float, int]:
    """Seconds of the whole program, the validation loss that it logs, parameters."""
    words = [word for name, value in changes.items() for word in (f"--{name}", value)]
    program = [sys.executable, "-m", "cutaway.cli", "train", str(RECIPE), "--data.path", str(data), *words]
    begin = time.perf_counter()
    said = subprocess.run([*program, "--out", str(folder), "--json"], env=_threads(threads), check=True,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)  # fmt: skip
    seconds, found = time.perf_counter() - begin, json.loads(said.stdout)
    return seconds, found["valid"], found["parameters"]


def theirs(nanogpt: Path, data: Path, threads: int) -> tuple[float, float]:
    """Seconds of the whole program, and the validation loss it prints."""
    inside = nanogpt / "data" / "shakespeare_char"
    (inside / "input.txt").write_text(data.read_text())
    subprocess.run([sys.executable, "prepare.py"], cwd=inside, check=True, stdout=subprocess.DEVNULL)
    program = [sys.executable, "train.py", "config/train_shakespeare_char.py", *NANOGPT]
    begin = time.perf_counter()
    said = subprocess.run(program, cwd=nanogpt, env=_threads(threads), check=True, capture_output=True, text=True)
    seconds = time.perf_counter() - begin
    return seconds, float(re.findall(r"val loss ([\d.]+)", said.stdout)[-1])


def _threads(threads: int) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": str(threads)}


@torch.inference_mode()
def with_context(folder: Path, text: str, length: int = 256, stride: int = 128) -> tuple[float, int]:
    """The mean loss over all characters but the first, each behind at least `length - stride` others where there are."""
    run = cutaway.load(folder)
    ids = torch.tensor(run.tokenizer.encode(text))
    total, count = 0.0, 0
    for begin in range(0, len(ids) - 1, stride):
        first = max(0, begin + stride - length)
        row = ids[first : begin + stride + 1]
        asked = row[1:][begin - first :]
        logits = run.model(row[None, :-1])[0, begin - first :]
        total += F.cross_entropy(logits, asked, reduction="sum").item()
        count += len(asked)
    return total / count, count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="tinyshakespeare.txt")
    parser.add_argument("--nanogpt", type=Path, help="a checkout of nanoGPT to run beside")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--ablations", action="store_true", help="take back one choice after the other instead")
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    options = parser.parse_args()
    data = options.data.resolve()
    with tempfile.TemporaryDirectory() as folder:
        found = (
            ablations(data, Path(folder), options.threads) if options.ablations else beside(options, data, Path(folder))
        )
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


def ablations(data: Path, folder: Path, threads: int) -> dict[str, tuple[float, float, int]]:
    found = {}
    print(f"{'':34} {'loss':>7} {'parameters':>11} {'seconds':>8}")
    for name, changes in ABLATIONS.items():
        found[name] = seconds, loss, parameters = ours(data, folder / name, threads, **changes)
        print(f"{name:34} {loss:7.4f} {parameters:11,} {seconds:8.0f}", flush=True)
    return found


def beside(options: argparse.Namespace, data: Path, folder: Path) -> dict[str, list[tuple]]:
    text = data.read_text()
    text = text[int(len(text) * 0.9) :]
    found: dict[str, list[tuple]] = {"cutaway": [], "nanoGPT": []}
    for i in range(options.runs):
        seconds, loss, parameters = ours(data, folder / str(i), options.threads, **{"loop.seed": str(i)})
        better, count = with_context(folder / str(i), text)
        found["cutaway"].append((seconds, loss, better))
        print(f"cutaway  {seconds:6.1f} s   loss {loss:.4f}, with context {better:.4f} over {count:,} characters   "
              f"{parameters:,} parameters", flush=True)  # fmt: skip
        if options.nanogpt:
            found["nanoGPT"].append(theirs(options.nanogpt.resolve(), data, options.threads))
            print("nanoGPT  {:6.1f} s   loss {:.4f}".format(*found["nanoGPT"][-1]), flush=True)
    if options.nanogpt:
        ratio = statistics.median(a[0] / b[0] for a, b in zip(found["cutaway"], found["nanoGPT"], strict=True))
        print(f"cutaway takes {ratio:.2f} of nanoGPT's time")
    return found


if __name__ == "__main__":
    main()
