"""Peak memory of loading: at most 1.2 times the weights at the target dtype, whatever they are kept as."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import cutaway

MEASURE = """
import sys
import torch
import cutaway
from cutaway import families
from cutaway.api import load

def kib(name):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(name))

families.get("llama")
load(sys.argv[2])  # a small one, so that what is loaded once is
before, reached = kib("VmRSS"), kib("VmHWM")
ballast = bytearray(max(0, reached - before) * 1024)  # so that the next new high is all ours
before = kib("VmRSS")
model = load(sys.argv[1], dtype=sys.argv[3]).model
weights = sum(p.numel() * p.itemsize for p in model.parameters())
print((kib("VmHWM") - before) * 1024 / weights)
"""
SIZES = {"vocab": 30000, "width": 512, "layers": 10, "heads": 8, "kv_heads": 8, "hidden": 1536, "head_width": 64}


def peak(folder: Path, small: Path, dtype: str) -> float:
    command = [sys.executable, "-c", MEASURE, str(folder), str(small), dtype]
    # else glibc keeps up to 30 MB of freed buffers, more or less by the chance of where they lay
    env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "131072"}
    return float(subprocess.run(command, capture_output=True, text=True, check=True, timeout=250, env=env).stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
@pytest.mark.slow
@pytest.mark.parametrize("kept", ["float32", "bfloat16", "float16", "pickle"])
def test_peak(kept: str, tmp_path: Path) -> None:
    model = cutaway.build("llama", dtype="float32" if kept == "pickle" else kept, **SIZES)
    cutaway.save(model, tmp_path / "model")
    tiny = {"vocab": 9, "width": 8, "layers": 1, "heads": 1, "kv_heads": 1, "hidden": 8, "head_width": 8}
    cutaway.save(cutaway.build("llama", **tiny), tmp_path / "small")
    if kept == "pickle":
        import safetensors.torch

        for folder in ("model", "small"):
            file = tmp_path / folder / "model.safetensors"
            torch.save(safetensors.torch.load_file(file), tmp_path / folder / "pytorch_model.bin")
            file.unlink()
    for dtype in ("float32", "bfloat16"):
        assert peak(tmp_path / "model", tmp_path / "small", dtype) < 1.2
