"""Window attention beside fused causal attention, forward alone and forward with backward, the two in turn.

    python benchmarks/window.py [--tokens 4096] [--window 256] [--heads 8] [--width 64] [--runs 15] [--json window.json]

Both get the same queries, keys and values, laid out as a projection leaves them. The peer is PyTorch's
`scaled_dot_product_attention(is_causal=True)`, which sees more and is the fastest way to less: a dense mask of the window is
slower (`--dense` shows it). The ratio is of the medians; `best` of the fastest runs, which other work on the machine disturbs
least. With `--threads 1` times are the thread's own, and other work hardly counts at all.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from cutaway.attention import Causal, Scores, Window, attend


def cases(options: argparse.Namespace) -> tuple[dict[str, Callable[[], Tensor]], tuple[Tensor, ...], Tensor]:
    shape = (options.batch, options.tokens, options.heads, options.width)
    q, k, v = (torch.randn(shape).transpose(1, 2).requires_grad_() for _ in range(3))
    pos, mask = torch.arange(options.tokens)[None], Causal() & Window(options.window)
    memo: dict = {}  # as in a model, whose layers share what they look up by

    def causal() -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)

    def window() -> Tensor:
        return attend(Scores(q, k, pos, pos, mask, scale=options.width**-0.5, own=True, packing="none", memo=memo), v)

    ways = {"causal": causal, "window": window}
    if options.dense:
        allowed = mask.dense(pos, pos)
        ways["window, dense mask"] = lambda: F.scaled_dot_product_attention(q, k, v, attn_mask=allowed)
    return ways, (q, k, v), torch.randn(shape).transpose(1, 2)


def seconds(run: Callable[[], Tensor], inputs: tuple[Tensor, ...], direction: Tensor | None) -> float:
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    if direction is None:
        with torch.no_grad():
            run()
    else:
        torch.autograd.grad(run(), inputs, direction)
    return clock() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("tokens", 4096), ("window", 256), ("heads", 8), ("width", 64), ("batch", 1), ("runs", 15)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--dense", action="store_true")
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    ways, inputs, direction = cases(options)
    rows = []
    print(f"{options.tokens} tokens, window {options.window}, {options.threads} threads")
    print(f"{'':22}{'forward':>26}{'forward and backward':>30}")
    times: dict[tuple[str, bool], list[float]] = {(name, back): [] for name in ways for back in (False, True)}
    for _ in range(options.runs + 1):  # the first is a warm-up
        for (name, back), found in times.items():
            found.append(seconds(ways[name], inputs, direction if back else None))
    for name in ways:
        row: dict[str, object] = {"way": name}
        cells = []
        for back, label in ((False, "forward"), (True, "forward and backward")):
            mine, theirs = times[name, back][1:], times["causal", back][1:]
            row[f"{label} ms"] = round(statistics.median(mine) * 1e3, 2)
            row[f"{label} ratio"] = round(statistics.median(theirs) / statistics.median(mine), 2)
            row[f"{label} best"] = round(min(theirs) / min(mine), 2)
            cells.append(f"{row[f'{label} ms']:8} ms {row[f'{label} ratio']:5} × (best {row[f'{label} best']})")
        print(f"{name:22}{cells[0]:>30}{cells[1]:>30}")
        rows.append(row)
    if options.json:
        options.json.write_text(
            json.dumps({**{k: v for k, v in vars(options).items() if k != "json"}, "rows": rows}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
