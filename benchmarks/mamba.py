"""Mamba beside `transformers` on a CPU: seconds of a forward, and of a forward and backward, the two in turn.

    python benchmarks/mamba.py [--threads 2] [--runs 5] [--training-runs 1] [--json mamba.json]

Both are the body alone (four layers of width 768, no vocabulary to speak of) with the same weights, in one process;
`transformers` runs the path it takes where neither its CUDA kernels nor `mambapy` are installed. Each run of one is
followed by a run of the other; seconds are medians, and the ratio is the median of the ratios of neighbouring runs,
which a machine that is busy now and then disturbs least. `matrices` is what the matrix products alone take, timed in
the same turns: nobody is faster than that. Training the reference takes minutes a run, so that one run is the default.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable

import torch
import transformers as hf
from torch import Tensor, nn

from cutaway.families import mamba
from cutaway.layout import expand

WIDTH, LAYERS, VOCAB = 768, 4, 512


def pair() -> tuple[nn.Module, nn.Module]:
    """The reference and ours, with its weights."""
    torch.manual_seed(0)
    theirs = hf.MambaModel(hf.MambaConfig(vocab_size=VOCAB, hidden_size=WIDTH, num_hidden_layers=LAYERS)).eval()
    sizes = mamba.Sizes(vocab=VOCAB, width=WIDTH, layers=LAYERS, head="none")
    ours = mamba.compose(sizes).eval()
    parameters, tensors = dict(ours.named_parameters()), theirs.state_dict()
    with torch.no_grad():
        for entry in expand(mamba.weights(sizes), list(parameters), list(tensors)):
            for name, tensor in zip(entry.ours, entry.op.read(tensors[entry.theirs]), strict=True):
                parameters[name].copy_(tensor)
    return ours, theirs


def matrices(model: nn.Module, tokens: int, training: bool) -> Callable[[], object]:
    """Every matrix product of the layers, on inputs that are at hand."""
    weights = [m.weight for m in model.modules() if isinstance(m, nn.Linear)]
    inputs = {w.shape[1]: torch.randn(tokens, w.shape[1], requires_grad=training) for w in weights}

    def run() -> None:
        for w in weights:
            product = inputs[w.shape[1]] @ w.t()
            if training:
                product.backward(product.detach())

    return run


def seconds(run: Callable[[], object]) -> float:
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def measure(tokens: int, training: bool, runs: int) -> dict[str, float]:
    ours, theirs = pair()
    ids = torch.randint(VOCAB, (1, tokens), generator=torch.Generator().manual_seed(0))

    def step(states: Callable[[], Tensor], model: nn.Module) -> Callable[[], None]:
        def run() -> None:
            with torch.set_grad_enabled(training):
                model.zero_grad()
                out = states()
                if training:
                    out.square().mean().backward()

        return run

    mine = step(lambda: ours(ids), ours)
    reference = step(lambda: theirs(ids, use_cache=False).last_hidden_state, theirs)
    with torch.no_grad():
        expected = theirs(ids, use_cache=False).last_hidden_state
        error = ((ours(ids) - expected).abs().max() / expected.abs().max()).item()
    alone = matrices(ours, tokens, training)
    mine()
    alone()
    found = [(seconds(reference), seconds(mine), seconds(alone)) for _ in range(runs)]
    theirs_s, ours_s, alone_s = (statistics.median(column) for column in zip(*found, strict=True))
    ratio = statistics.median(a / b for a, b, _ in found)
    return {"reference": theirs_s, "cutaway": ours_s, "matrices": alone_s, "ratio": ratio, "error": error}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--training-runs", type=int, default=1, help="0 leaves training out")
    parser.add_argument("--json", help="write the numbers here too")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    cases = {"forward, 2,048 tokens": (2048, False, given.runs)}
    if given.training_runs:
        cases["forward and backward, 512 tokens"] = (512, True, given.training_runs)
    found = {}
    for name, case in cases.items():
        found[name] = row = measure(*case)
        print(
            f"{name}: transformers {row['reference']:.3f} s, cutaway {row['cutaway']:.3f} s, "
            f"{row['ratio']:.1f} times as fast (matrix products alone {row['matrices']:.3f} s; error {row['error']:.0e})",
            flush=True,
        )
    if given.json:
        about = {
            "threads": given.threads, "processor": platform.processor(), "load": os.getloadavg()[0],
            "torch": torch.__version__, "transformers": hf.__version__,
        }  # fmt: skip
        with open(given.json, "w") as file:
            json.dump({"measured": found, "machine": about}, file, indent=2)


if __name__ == "__main__":
    main()
