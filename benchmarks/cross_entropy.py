"""The loss over a vocabulary in pieces, beside logits and `torch.nn.functional.cross_entropy`: time and memory.

    python benchmarks/cross_entropy.py [--threads 2] [--runs 7]

Each run is the head, the loss and the gradients of states and table. Times are medians of runs in turn; memory is what a
process of its own needs beyond its start, states, table and their gradients included.
"""

import argparse
import multiprocessing
import re
import statistics
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from cutaway.parts import LanguageHead
from cutaway.training.cross_entropy import cross_entropy

CASES = {"characters": (1024, 128, 65), "BERT's words": (1024, 256, 30522), "GPT-2's words": (2048, 768, 50257)}


def run(name: str, pieces: bool) -> float:
    """Seconds of one loss with its gradients."""
    tokens, width, vocab = CASES[name]
    torch.manual_seed(0)
    head, x = LanguageHead(width, vocab), torch.randn(tokens, width, requires_grad=True)
    targets = torch.randint(vocab, (tokens,))
    begin = time.perf_counter()
    loss(head, x, targets, pieces).backward()
    return time.perf_counter() - begin


def loss(head: LanguageHead, x: Tensor, targets: Tensor, pieces: bool) -> Tensor:
    return cross_entropy(head, x, targets)[0] if pieces else F.cross_entropy(head(x), targets, reduction="sum")


def peak(name: str, pieces: bool, threads: int) -> float:
    """MB that a run adds to a process which has run the smallest case."""
    torch.set_num_threads(threads)
    run("characters", pieces)
    before = high_water()
    run(name, pieces)
    return high_water() - before


def high_water() -> float:
    """MB: the most that this process has held. `getrusage` would count what its parent held when it began."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) / 1024 if found else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=7)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    print("| words | tokens, width, words | seconds in pieces | whole | whole / pieces | MB in pieces | whole |")
    print("|---|---|--:|--:|--:|--:|--:|")
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as alone:
        for name, sizes in CASES.items():
            run(name, True), run(name, False)
            times = [(run(name, True), run(name, False)) for _ in range(chosen.runs)]
            ours, theirs = (statistics.median(each) for each in zip(*times, strict=True))
            ratio = statistics.median(b / a for a, b in times)
            memory = [alone.apply(peak, (name, pieces, chosen.threads)) for pieces in (True, False)]
            print(f"| {name} | {', '.join(map(str, sizes))} | {ours:.4f} | {theirs:.4f} | {ratio:.2f} "
                  f"| {memory[0]:.0f} | {memory[1]:.0f} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
