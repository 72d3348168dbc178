"""`.bin` files: read through `weights_only`, mapped where they can be; what could run code is refused."""

import os
import pickle
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.checkpoints.tiny import answer, our_answer, relative_error, saved

import cutaway
from cutaway.errors import CheckpointError, CutawayError


def pickled(name: str, folder: Path, **options: bool):
    """A checkpoint as older versions of the reference library wrote it."""
    model = saved(name, folder)
    (folder / "model.safetensors").unlink()
    state = model.state_dict()
    torch.save(state, folder / "pytorch_model.bin", **options)
    return model, state


@pytest.mark.parametrize("name", ["llama-tied", "gpt2", "bert-masked", "t5"])
@pytest.mark.parametrize("new", [True, False])
def test_both_formats(name: str, new: bool, tmp_path: Path) -> None:
    model, _ = pickled(name, tmp_path, _use_new_zipfile_serialization=new)
    assert relative_error(our_answer(cutaway.load(tmp_path)), answer(model)) < 1e-5


def test_sharded(tmp_path: Path) -> None:
    import json

    model, state = pickled("llama", tmp_path)
    (tmp_path / "pytorch_model.bin").unlink()
    names = list(state)
    places = {}
    for i, group in enumerate((names[::2], names[1::2])):
        file = f"pytorch_model-{i + 1:05d}-of-00002.bin"
        torch.save({n: state[n].clone() for n in group}, tmp_path / file)
        places |= dict.fromkeys(group, file)
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))
    assert relative_error(our_answer(cutaway.load(tmp_path)), answer(model)) < 1e-5


def test_views_and_odd_strides(tmp_path: Path) -> None:
    model, state = pickled("llama", tmp_path)
    state["model.layers.0.mlp.up_proj.weight"] = state["model.layers.0.mlp.up_proj.weight"].t().contiguous().t()
    torch.save(state, tmp_path / "pytorch_model.bin")
    assert relative_error(our_answer(cutaway.load(tmp_path)), answer(model)) < 1e-5


class Bomb:
    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("write", ["pickle", "zip", "legacy"])
def test_code_is_never_run(write: str, tmp_path: Path) -> None:
    pickled("llama", tmp_path)
    path, target = tmp_path / "pytorch_model.bin", tmp_path / "exploded"
    if write == "pickle":
        path.write_bytes(pickle.dumps(Bomb(target)))
    else:
        torch.save({"w": Bomb(target)}, path, _use_new_zipfile_serialization=write == "zip")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin"):
        cutaway.load(tmp_path)
    assert not target.exists()


def test_packed_archives_are_refused(tmp_path: Path) -> None:
    """A compressed record may unpack into a thousand times the file."""
    pickled("llama", tmp_path)
    path = tmp_path / "pytorch_model.bin"
    with zipfile.ZipFile(path) as old:
        records = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name, data in records.items():
            new.writestr(name, data)
    with pytest.raises(CheckpointError, match="is packed as no file"):
        cutaway.load(tmp_path)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([torch.ones(2)], "dictionary"),
        ({"a": {"b": torch.ones(2)}}, "dictionary"),
        ({1: torch.ones(2)}, "dictionary"),
        ({"w": torch.ones(4, 4).to_sparse()}, "w is no plain tensor"),
        ({"w": torch.ones(1).expand(2**40)}, "w claims more bytes"),
        ({"w": torch.empty(2**40, device="meta")}, "w "),
    ],
)
def test_other_contents(value: object, message: str, tmp_path: Path) -> None:
    pickled("llama", tmp_path)
    torch.save(value, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=message):
        cutaway.load(tmp_path)


def test_one_tensor_again_and_again_is_no_model(tmp_path: Path) -> None:
    """A file of a few kilobytes must not grow into as many layers as it has names."""
    sizes = {"vocab": 9, "width": 32, "layers": 60, "heads": 4, "kv_heads": 4, "hidden": 32, "head_width": 8}
    model = cutaway.build("llama", **sizes, tied=True, seed=0)
    cutaway.save(model, tmp_path / "model")
    state = load_file(tmp_path / "model" / "model.safetensors")
    square, row = torch.zeros(32, 32), torch.ones(32)
    alike = {
        name: square if t.shape == square.shape else row if t.shape == row.shape else t for name, t in state.items()
    }
    (tmp_path / "model" / "model.safetensors").unlink()
    torch.save(alike, tmp_path / "model" / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin: its tensors claim more bytes"):
        cutaway.load(tmp_path / "model")
    torch.save(
        {**state, "lm_head.weight": state["model.embed_tokens.weight"]}, tmp_path / "model" / "pytorch_model.bin"
    )
    assert cutaway.load(tmp_path / "model").family == "llama"  # a tied table under both of its names


def test_broken_bytes(tmp_path: Path) -> None:
    pickled("llama", tmp_path)
    path = tmp_path / "pytorch_model.bin"
    whole = path.read_bytes()
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(3):
            data[int(torch.randint(len(data), (), generator=generator))] ^= 0x41
        path.write_bytes(data[: int(torch.randint(len(data) // 2, len(data) + 1, (), generator=generator))])
        with suppress(CutawayError):
            cutaway.load(tmp_path)
    path.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin"):
        cutaway.load(tmp_path)
