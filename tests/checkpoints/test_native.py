"""cutaway's own folders: every family, bit for bit; written whole or not at all."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.checkpoints.tiny import our_answer, saved

import cutaway
from cutaway import families
from cutaway.errors import CheckpointError, ConfigError

SMALL = {
    "transformer": {"vocab": 40, "width": 16, "layers": 2, "heads": 2, "hidden": 32},
    "gpt2": {"vocab": 40, "width": 16, "layers": 2, "heads": 2, "head_width": 8, "hidden": 32},
    "llama": {"vocab": 40, "width": 16, "layers": 2, "heads": 2, "kv_heads": 1, "hidden": 32, "head_width": 8},
    "bert": {"vocab": 40, "width": 16, "layers": 2, "heads": 2, "hidden": 32},
    "t5": {"vocab": 40, "width": 16, "layers": 2, "heads": 2, "hidden": 32},
    "bart": {"vocab": 40, "width": 16, "layers": 2, "heads": 2, "hidden": 32, "logits_bias": True},
    "gpt": {"vocab": 40, "width": 16, "layers": 2, "heads": 2, "hidden": 32},
    "gptneox": {"vocab": 40, "width": 16, "layers": 2, "heads": 2, "hidden": 32},
    "mpt": {"vocab": 40, "width": 16, "layers": 2, "heads": 2, "hidden": 32, "clip": 1.5},
    "bloom": {"vocab": 40, "width": 16, "layers": 2, "heads": 2, "hidden": 32},
    "qwen": {"vocab": 40, "width": 16, "layers": 2, "heads": 2, "kv_heads": 1, "hidden": 32, "head_width": 8},
    "gemma2": {"vocab": 40, "width": 16, "layers": 2, "heads": 2, "kv_heads": 1, "hidden": 32, "head_width": 8},
    "roberta": {"vocab": 40, "width": 16, "layers": 2, "heads": 2, "hidden": 32},
    "longformer": {"vocab": 40, "width": 16, "layers": 2, "heads": 2, "hidden": 32, "windows": (4, 6)},
    "bigbird": {"vocab": 40, "width": 16, "layers": 2, "heads": 2, "hidden": 32, "block": 1, "random": 1},
    "distilbert": {"vocab": 40, "width": 16, "layers": 2, "heads": 2, "hidden": 32},
    "electra": {"vocab": 40, "table_width": 8, "width": 16, "layers": 2, "heads": 2, "hidden": 32},
    "albert": {"vocab": 40, "table_width": 8, "width": 16, "layers": 3, "groups": 2, "heads": 2, "hidden": 32},
    "modernbert": {"vocab": 40, "width": 16, "layers": 3, "heads": 2, "hidden": 32, "window": 3},
    "deberta": {"vocab": 40, "width": 16, "layers": 2, "heads": 2, "hidden": 32},
    "deberta_v2": {"vocab": 40, "width": 16, "layers": 2, "heads": 2, "hidden": 32, "kernel": 3},
    "transformerxl": {
        "vocab": 40,
        "width": 16,
        "layers": 2,
        "heads": 2,
        "head_width": 8,
        "hidden": 32,
        "table_width": 16,
        "cutoffs": (10, 20),
        "div": 2,
    },
    "xlnet": {"vocab": 40, "width": 16, "layers": 2, "heads": 2, "hidden": 32},
    "mamba": {"vocab": 40, "width": 16, "layers": 2, "state": 4},
    "s4": {"vocab": 40, "width": 16, "layers": 2, "heads": 2, "hidden": 32, "state": 4},
    "recurrent": {"vocab": 40, "width": 16, "layers": 2},
    "seq2seq": {"vocab": 40, "width": 16, "layers": 2, "hidden": 8},
    "mamba2": {"vocab": 40, "width": 16, "layers": 2, "state": 4, "head_width": 8},
    "reformer": {
        "vocab": 40,
        "width": 16,
        "layers": 2,
        "heads": 2,
        "head_width": 8,
        "hidden": 32,
        "grid": (4, 4),
        "grid_widths": (4, 12),
    },
    "sparse_transformer": {
        "vocab": 40,
        "width": 16,
        "layers": 2,
        "heads": 2,
        "hidden": 32,
        "grid": (4, 5),
        "stride": 4,
    },
    "linear_transformer": {"vocab": 40, "width": 16, "layers": 2, "heads": 2, "hidden": 32},
    "performer": {"vocab": 40, "width": 16, "layers": 2, "heads": 2, "hidden": 32, "features": 5},
    "linformer": {"vocab": 40, "width": 16, "layers": 2, "heads": 2, "hidden": 32, "context": 20, "rank": 4},
    "synthesizer": {
        "vocab": 40,
        "width": 16,
        "layers": 2,
        "heads": 2,
        "hidden": 32,
        "context": 20,
        "logits": "random+dot",
    },
}


def test_every_family_is_here() -> None:
    assert set(SMALL) == set(families.FAMILIES)


@pytest.mark.parametrize("family", SMALL)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_there_and_back(family: str, dtype: str, tmp_path: Path) -> None:
    model = cutaway.build(family, seed=1, dtype=dtype, **SMALL[family])
    cutaway.save(model, tmp_path / "saved", layout="cutaway")
    loaded = cutaway.load(tmp_path / "saved")
    assert (loaded.family, loaded.sizes) == (family, model.sizes)
    theirs = dict(loaded.model.named_parameters())
    ours = dict(model.named_parameters())
    assert theirs.keys() == ours.keys()
    assert all(theirs[n].dtype == ours[n].dtype and torch.equal(theirs[n], ours[n]) for n in ours)
    assert sum(p.numel() for p in theirs.values()) == sum(p.numel() for p in ours.values())  # tied ones once


def test_what_was_loaded_from_elsewhere(tmp_path: Path) -> None:
    saved("llama-3", tmp_path / "theirs")
    loaded = cutaway.load(tmp_path / "theirs")
    cutaway.save(loaded, tmp_path / "ours", layout="cutaway")
    again = cutaway.load(tmp_path / "ours")
    assert torch.equal(our_answer(again), our_answer(loaded))
    assert again.generation == loaded.generation == {"bos_token_id": 1, "eos_token_id": 2, **extra(loaded)}


def extra(loaded: cutaway.Loaded) -> dict[str, object]:
    return {name: value for name, value in loaded.generation.items() if not name.endswith("_token_id")}


def test_a_size_tells_its_kind(tmp_path: Path) -> None:
    model = cutaway.build("bert", **SMALL["bert"])
    cutaway.save(model, tmp_path, layout="cutaway")
    card = json.loads((tmp_path / "cutaway.json").read_text())
    for change, message in [
        ({"width": "wide"}, "width cannot be 'wide'"),
        ({"width": -1}, "width cannot be -1"),
        ({"wings": 2}, "no size 'wings'"),
        ({"layers": True}, "layers cannot be True"),
        ({"eps": float("nan")}, "eps cannot be nan"),
        ({"layers": 9999}, "layers is described as 9999"),
        ({"hidden": 31}, "shape"),
        ({"heads": 3}, "heads|head"),
    ]:
        (tmp_path / "cutaway.json").write_text(json.dumps({**card, "sizes": {**card["sizes"], **change}}))
        with pytest.raises((ConfigError, CheckpointError), match=message):
            cutaway.load(tmp_path)
    for change, message in [({"format": 9}, "format 9"), ({"family": "alien"}, "alien"), ({"sizes": []}, "must name")]:
        (tmp_path / "cutaway.json").write_text(json.dumps({**card, **change}))
        with pytest.raises((ConfigError, CheckpointError), match=message):
            cutaway.load(tmp_path)
    (tmp_path / "cutaway.json").write_text(json.dumps(card))
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors is missing"):
        cutaway.load(tmp_path)


FULL = """
import resource, sys
import cutaway
from cutaway.errors import CheckpointError
model = cutaway.build("bert", vocab=3000, width=64, layers=1, heads=2, hidden=64)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    cutaway.save(model, sys.argv[1], layout=sys.argv[2], overwrite=True)
except CheckpointError as error:
    print("refused:", error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
@pytest.mark.parametrize("layout", ["cutaway", "huggingface"])
def test_a_full_disk_leaves_the_previous_one(layout: str, tmp_path: Path) -> None:
    model = cutaway.build("bert", **SMALL["bert"])
    cutaway.save(model, tmp_path / "kept", layout=layout)
    before = {p.name: p.read_bytes() for p in (tmp_path / "kept").iterdir()}
    command = [sys.executable, "-c", FULL, str(tmp_path / "kept"), layout]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert "the disk is full; what was there before is untouched" in done.stdout
    assert {p.name: p.read_bytes() for p in (tmp_path / "kept").iterdir()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["kept"]


def test_a_failing_move_puts_the_previous_one_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = cutaway.build("bert", **SMALL["bert"])
    cutaway.save(model, tmp_path / "kept")
    before = {p.name: p.read_bytes() for p in (tmp_path / "kept").iterdir()}
    move, moved = os.replace, []

    def fails_second(source: Path, target: Path) -> None:
        moved.append(target)
        if len(moved) == 2:
            raise OSError(5, "Input/output error")
        move(source, target)

    monkeypatch.setattr(os, "replace", fails_second)
    with pytest.raises(CheckpointError, match="Input/output error; what was there before is untouched"):
        cutaway.save(cutaway.build("bert", **SMALL["bert"]), tmp_path / "kept", overwrite=True)
    assert len(moved) == 3
    assert {p.name: p.read_bytes() for p in (tmp_path / "kept").iterdir()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["kept"]


def test_what_cannot_be_saved(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="composed by hand"):
        cutaway.save(torch.nn.Linear(2, 2), tmp_path / "x")
    with pytest.raises(CheckpointError, match="meta device"):
        cutaway.save(cutaway.build("gpt2", device="meta"), tmp_path / "x")
    with pytest.raises(ConfigError, match="no layout 'onnx'"):
        cutaway.save(cutaway.build("bert", **SMALL["bert"]), tmp_path / "x", layout="onnx")
    with pytest.raises(ConfigError):
        cutaway.save(cutaway.build("transformer", **SMALL["transformer"]), tmp_path / "x", layout="huggingface")
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="exists already"):
        cutaway.save(cutaway.build("bert", **SMALL["bert"]), tmp_path / "file")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
