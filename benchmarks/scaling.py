"""How time and memory of one layer grow with the length of the text, for every mixer.

    python benchmarks/scaling.py [--mixers window:256 mamba …] [--backward] [--longest 32768] [--json FILE] [--plot FILE]

One layer of width 256 with 4 heads, float32, one row; lengths double from 512. Each mixer runs in a process of its own.
Time is the median of several runs; memory is the peak above what the process held before the call (Linux only). The
exponent is the slope of a line through the logarithms: 1 is linear, 2 quadratic.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

WIDTH, HEADS, SHORTEST = 256, 4, 512
# the definition of attention and a Synthesizer hold T² numbers a head, so they are not taken further than this
LIMITS = {"attention (eager)": 4096, "synthesizer": 4096, "random-synthesizer": 4096}
BUDGET = 20.0  # seconds that the runs of one length may take


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mixers", nargs="+", help="names as for cutaway.build(mixer=…); all by default")
    parser.add_argument("--backward", action="store_true", help="forward and backward instead of forward alone")
    parser.add_argument("--longest", type=int, default=32768)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--plot", type=Path, help="where to draw them, on logarithmic axes")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.worker:
        print(json.dumps(measured(chosen.worker, chosen.backward, chosen.longest)))
        return
    from cutaway import swaps

    every = ["attention (eager)", *swaps.MIXERS]
    found: dict[str, list[dict[str, float]]] = {}
    print(f"{'mixer':24}{'time exponent':>15}{'memory exponent':>17}{'longest':>9}{'ms there':>10}{'MiB there':>11}")
    for name in chosen.mixers or every:
        flags = ["--backward"] if chosen.backward else []
        command = [sys.executable, __file__, "--worker", name, "--longest", str(chosen.longest), *flags]
        # large blocks straight from the system, so that what one call frees is not held for the next
        run = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}, check=False
        )
        if run.returncode:
            print(f"{name:24}  {(run.stderr.strip().splitlines() or ['failed'])[-1]}")
            continue
        rows = json.loads(run.stdout.splitlines()[-1])
        found[name] = rows
        last = rows[-1]
        print(
            f"{name:24}{slope(rows, 'seconds'):15.2f}{slope(rows, 'bytes'):17.2f}{last['length']:9.0f}"
            f"{last['seconds'] * 1e3:10.1f}{last['bytes'] / 2**20:11.1f}",
            flush=True,
        )
    if chosen.json:
        exponents = {name: {key: slope(rows, key) for key in ("seconds", "bytes")} for name, rows in found.items()}
        chosen.json.write_text(json.dumps({"rows": found, "exponents": exponents}, indent=2) + "\n")
    if chosen.plot:
        draw(found, chosen.plot)


def measured(name: str, backward: bool, longest: int) -> list[dict[str, float]]:
    """Seconds and bytes of one layer at every length."""
    from contextlib import nullcontext

    import torch

    from cutaway.attention import Causal, Full, backend
    from cutaway.errors import ConfigError
    from cutaway.parts import Context
    from cutaway.swaps import mixer

    torch.manual_seed(0)
    eager = name == "attention (eager)"
    plain = "attention" if eager else name
    longest = min(longest, LIMITS.get(name, longest))
    made = mixer(plain, context=longest)
    try:
        layer = made(WIDTH, HEADS, mask=Causal())
    except ConfigError:  # cannot be causal
        layer = made(WIDTH, HEADS, mask=Full())
    layer.train(backward)
    rows = []
    length = SHORTEST
    while length <= longest:
        x = torch.randn(1, length, WIDTH, requires_grad=backward)

        def once(x: Any = x, length: int = length) -> float:
            began = time.perf_counter()
            with backend("eager") if eager else nullcontext(), torch.set_grad_enabled(backward):
                out = layer(x, Context(torch.arange(length)[None]))
                if backward:
                    out.sum().backward()
            spent = time.perf_counter() - began
            layer.zero_grad()
            x.grad = None
            return spent

        first = once()
        peak = over(once)
        runs = max(2, min(15, int(BUDGET / 4 / first)))
        rows.append({"length": length, "seconds": statistics.median(once() for _ in range(runs)), "bytes": peak})
        length *= 2
    return rows


def over(call: Any) -> float:
    """The most memory the process holds during a call, above what it held before: Linux's high-water mark."""
    Path("/proc/self/clear_refs").write_text("5")
    before = _kibibytes("VmRSS")
    call()
    return 1024.0 * max(_kibibytes("VmHWM") - before, 1)


def _kibibytes(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


def slope(rows: list[dict[str, float]], key: str) -> float:
    """The exponent: least squares on logarithms."""
    x, y = [math.log(row["length"]) for row in rows], [math.log(row[key]) for row in rows]
    mean_x, mean_y = statistics.mean(x), statistics.mean(y)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / sum((a - mean_x) ** 2 for a in x)


def draw(found: dict[str, list[dict[str, float]]], path: Path) -> None:
    import matplotlib.pyplot as plt
    import seaborn

    seaborn.set_theme(style="whitegrid", context="paper")
    figure, axes = plt.subplots(1, 2, figsize=(11, 7), sharex=True)
    palette = seaborn.color_palette("husl", len(found))
    for axis, key, unit, label in ((axes[0], "seconds", 1e3, "ms"), (axes[1], "bytes", 2**-20, "MiB above the inputs")):
        for color, (name, rows) in zip(palette, found.items(), strict=True):
            lengths = [row["length"] for row in rows]
            said = f"{name}  {slope(rows, key):.2f}"
            axis.plot(lengths, [row[key] * unit for row in rows], "o-", color=color, ms=3, lw=1.2, label=said)
        axis.set(xscale="log", yscale="log", xlabel="tokens", ylabel=label)
        axis.set_xticks([512 * 2**i for i in range(7)], [str(512 * 2**i) for i in range(7)])
        axis.minorticks_off()
        axis.legend(
            fontsize=7,
            title="mixer, exponent",
            title_fontsize=7,
            ncols=3,
            loc="upper center",
            bbox_to_anchor=(0.5, -0.12),
        )
    figure.suptitle(f"One layer of width {WIDTH}, {HEADS} heads, float32, on a CPU")
    figure.tight_layout()
    figure.savefig(path)


if __name__ == "__main__":
    main()
