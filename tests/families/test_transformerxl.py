"""Transformer-XL against the last version of the reference library that has it, asked in a process of its own.

`make test` installs that version into a folder beside the newer one, and names it in CUTAWAY_OLDER_TRANSFORMERS.
Without it, the ordinary parity tests still hold the family to the paper's equations, written plainly.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.families.oracles import error

import cutaway
from cutaway.errors import ConfigError
from cutaway.families import transformerxl
from cutaway.parts import State
from cutaway.parts.segments_memory import ZeroMemory

OLDER = os.environ.get("CUTAWAY_OLDER_TRANSFORMERS")
BOUND = 1e-5
TINY = {
    "vocab_size": 99, "d_model": 32, "d_embed": 32, "n_layer": 3, "n_head": 4, "d_head": 10, "d_inner": 48,
    "cutoffs": [20, 50], "div_val": 2, "mem_len": 6, "clamp_len": 5, "same_length": True,
}  # fmt: skip
LM = "TransfoXLLMHeadModel"
CASES = {
    "as published": (LM, {}),
    "memory of each segment": (LM, {"same_length": False}),
    "long memory, no clamp": (LM, {"same_length": False, "clamp_len": -1, "mem_len": 40}),
    "norms before": (LM, {"pre_lnorm": True}),
    "biases of all layers": (LM, {"untie_r": False}),
    "one table": (LM, {"div_val": 1}),
    "one narrow table": (LM, {"div_val": 1, "d_embed": 16}),
    "no clusters": (LM, {"cutoffs": [], "div_val": 1}),
    "projections not shared": (LM, {"proj_share_all_but_first": False}),
    "untied": (LM, {"tie_word_embeddings": False}),
    "body alone": ("TransfoXLModel", {}),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not OLDER:
        pytest.skip("CUTAWAY_OLDER_TRANSFORMERS names no folder with transformers 4.57, which still has Transformer-XL")
    made = tmp_path_factory.mktemp("xl")
    (made / "cases.json").write_text(json.dumps([[kind, {**TINY, **more}] for kind, more in CASES.values()]))
    ask("make", made)
    for i in range(len(CASES)):
        cutaway.convert(made / str(i), made / str(i) / "ours")
    ask("answer", made)
    return made


def ask(command: str, folder: Path) -> None:
    script = Path(__file__).with_name("transformerxl_oracle.py")
    environment = {**os.environ, "PYTHONPATH": str(OLDER), "OMP_NUM_THREADS": "1"}
    command_line = [sys.executable, "-W", "ignore", script, command, folder]
    done = subprocess.run(command_line, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr


def answers(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "answers.pt", weights_only=True)


@pytest.mark.parametrize("name", CASES)
def test_published_checkpoints(name: str, folder: Path) -> None:
    """Its `.bin` loads and says the same, in one pass and with memory; what we write, it loads and says the same."""
    place = folder / str(list(CASES).index(name))
    theirs = answers(place)
    loaded = cutaway.load(place)
    ids = torch.randint(0, 99, (2, 23), generator=torch.Generator().manual_seed(1))
    state = State(2, 23)
    with torch.no_grad():
        assert error(loaded.model(ids), theirs["whole"]) < BOUND
        pieces = torch.cat([loaded.model(piece, state=state) for piece in ids.split((5, 7, 1, 1, 9), 1)], 1)
        assert error(pieces, theirs["segments"]) < BOUND
        if name != "norms before":
            zeros = ZeroMemory(2, 23, loaded.sizes.memory)
            assert error(loaded.model(ids, state=zeros), theirs["default"]) < BOUND
    again = answers(place / "ours")
    # not to the bit, which depends on where tensors lie in memory
    assert max(error(again[key], theirs[key]) for key in theirs) < 1e-6
    written = cutaway.load(place / "ours")
    assert written.sizes == loaded.sizes
    ours = dict(loaded.model.named_parameters())
    assert all(torch.equal(p, ours[name]) for name, p in written.model.named_parameters())


def test_the_published_configuration() -> None:
    """As it was released, with the keys that the training left in it."""
    config = {
        "adaptive": True, "architectures": ["TransfoXLLMHeadModel"], "attn_type": 0, "clamp_len": 1000,
        "cutoffs": [20000, 40000, 200000], "d_embed": 1024, "d_head": 64, "d_inner": 4096, "d_model": 1024, "div_val": 4,
        "dropatt": 0.0, "dropout": 0.1, "eos_token_id": 0, "ext_len": 0, "init": "normal", "init_range": 0.01,
        "init_std": 0.02, "layer_norm_epsilon": 1e-05, "mem_len": 1600, "model_type": "transfo-xl", "n_head": 16,
        "n_layer": 18, "n_token": 267735, "pre_lnorm": False, "proj_init_std": 0.01, "proj_share_all_but_first": True,
        "same_length": True, "sample_softmax": -1, "tgt_len": 128, "tie_projs": [False, True, True, True],
        "tie_weight": True, "untie_r": True, "vocab_size": 267735,
    }  # fmt: skip
    assert transformerxl.read(config) == transformerxl.PRESETS["transfo-xl-wt103"]
    for key, value in {"attn_type": 2, "sample_softmax": 5, "tie_projs": [False, True, False, True]}.items():
        with pytest.raises(ConfigError, match=key):
            transformerxl.read({**config, key: value})
    with pytest.raises(ConfigError, match="same_length needs a memory"):
        transformerxl.read({**config, "mem_len": 0})
