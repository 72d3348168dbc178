"""Greedy decoding beside `transformers`: tokens a second and time to the first token, one process, the two in turn.

    python benchmarks/generation.py [--dtype float32 bfloat16] [--threads 2] [--runs 7] [--json generation.json]

Both have the same weights (SmolLM2-135M-Instruct, dequantised, saved by `cutaway` as a folder that `transformers`
reads), dtype, prompt and threads, and neither may stop early. Each run of one is followed by a run of the other; the
numbers are medians over the runs, and the ratio is the median of the ratios of neighbouring runs, which a machine
that is busy now and then disturbs least. The `seconds` of a prompt are until its first new token; tokens a second
are those after it. `room 1024` asks for 1,024 new tokens and measures the first ones: memory that is reserved must
cost nothing.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch
import transformers
from transformers.generation.streamers import BaseStreamer

import cutaway
from cutaway.generation import stream

PROMPT = "Explain to a curious child, step by step, why the sky is blue in the day and red in the evening."
Run = tuple[float, float, list[int]]  # seconds to the first token, tokens a second after it, the tokens


class Enough(Exception):
    """Ends the reference's loop after as many tokens as are measured."""


class Clock(BaseStreamer):
    """Notes when each token comes; the first call is the prompt."""

    def __init__(self, tokens: int) -> None:
        self.tokens, self.ids, self.times = tokens, [], []

    def put(self, value: torch.Tensor) -> None:
        if self.times or self.ids:
            self.times.append(time.perf_counter())
            self.ids.append(int(value))
        else:
            self.ids.append(-1)
        if len(self.times) == self.tokens:
            raise Enough

    def end(self) -> None: ...


def ours(model: torch.nn.Module, ids: list[int], tokens: int, room: int) -> Run:
    begin = time.perf_counter()
    running = stream(model, ids, max_new_tokens=room, eos=())
    times, said = [], []
    for token in running:
        times.append(time.perf_counter())
        said.append(int(token))
        if len(said) == tokens:
            break
    running.close()
    return times[0] - begin, (tokens - 1) / (times[-1] - times[0]), said


def theirs(model: torch.nn.Module, ids: list[int], tokens: int, room: int) -> Run:
    prompt, clock = torch.tensor([ids]), Clock(tokens)
    begin = time.perf_counter()
    try:
        with torch.inference_mode():
            model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=room,
                do_sample=False,
                eos_token_id=None,
                pad_token_id=0,
                streamer=clock,
            )
    except Enough:
        pass
    return clock.times[0] - begin, (tokens - 1) / (clock.times[-1] - clock.times[0]), clock.ids[1:]


def alternate(a: Callable[[], Run], b: Callable[[], Run], runs: int) -> tuple[list[Run], list[Run]]:
    """One of each to warm up, then pairs, the first of which takes turns."""
    a(), b()
    first: list[Run] = []
    second: list[Run] = []
    for i in range(runs):
        for which in (a, b) if i % 2 == 0 else (b, a):
            (first if which is a else second).append(which())
    return first, second


def compare(name: str, mine: list[Run], other: list[Run]) -> dict[str, object]:
    """Medians of both, and the median ratio of neighbours: above 1 `cutaway` is the faster."""
    median = statistics.median
    return {
        "case": name,
        "cutaway": {"tokens_per_second": median(r[1] for r in mine), "first_token": median(r[0] for r in mine)},
        "transformers": {"tokens_per_second": median(r[1] for r in other), "first_token": median(r[0] for r in other)},
        "tokens_per_second_ratio": median(m[1] / o[1] for m, o in zip(mine, other, strict=True)),
        "first_token_ratio": median(o[0] / m[0] for m, o in zip(mine, other, strict=True)),
        "same_tokens": mine[0][2] == other[0][2],
        "runs": len(mine),
    }


def measure(source: str, dtype: str, tokens: int, runs: int) -> list[dict[str, object]]:
    loaded = cutaway.load(source, dtype=dtype)
    if loaded.tokenizer is None:
        raise SystemExit(f"{source} has no tokenizer to make the prompt with")
    model = loaded.model
    with tempfile.TemporaryDirectory() as folder:
        saved = cutaway.save(loaded, Path(folder, "weights"), layout="huggingface")
        peer = transformers.AutoModelForCausalLM.from_pretrained(saved, dtype=getattr(torch, dtype)).eval()
    short = loaded.tokenizer.encode(PROMPT)
    long = (short * 40)[:512]
    found = []
    for name, ids, room in (("short prompt", short, tokens), ("long prompt", long, tokens), ("room 1024", short, 1024)):
        mine, other = alternate(partial(ours, model, ids, tokens, room), partial(theirs, peer, ids, tokens, room), runs)
        found.append({"dtype": dtype, "prompt_tokens": len(ids), **compare(name, mine, other)})
    return found


def table(results: list[dict]) -> str:
    lines = [
        f"{'dtype':9} {'case':13} {'prompt':>6} {'tokens/s':>9} {'theirs':>7} {'ratio':>6}   "
        f"{'first ms':>8} {'theirs':>7} {'ratio':>6}  same tokens"
    ]
    for r in results:
        mine, other = r["cutaway"], r["transformers"]
        lines.append(
            f"{r['dtype']:9} {r['case']:13} {r['prompt_tokens']:6} "
            f"{mine['tokens_per_second']:9.1f} {other['tokens_per_second']:7.1f} {r['tokens_per_second_ratio']:6.2f}   "
            f"{mine['first_token'] * 1e3:8.0f} {other['first_token'] * 1e3:7.0f} {r['first_token_ratio']:6.2f}  "
            f"{'yes' if r['same_tokens'] else 'NO'}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", default="smollm2-135m-instruct")
    parser.add_argument("--dtype", nargs="+", default=["float32"], choices=["float32", "bfloat16"])
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    transformers.logging.set_verbosity_error()
    results = [row for dtype in options.dtype for row in measure(options.source, dtype, options.tokens, options.runs)]
    print(table(results))
    if options.json:
        about = {
            "source": options.source,
            "tokens": options.tokens,
            "threads": options.threads,
            "machine": platform.processor() or platform.machine(),
            "versions": {name: version(name) for name in ("torch", "transformers")},
        }
        options.json.write_text(json.dumps({**about, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
