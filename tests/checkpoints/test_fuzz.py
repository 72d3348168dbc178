"""Random damage to whole folders: a clean load or one clear error. Never another exception, a hang or a huge allocation."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.checkpoints.tiny import saved

import cutaway
from cutaway.errors import CutawayError

VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 3, 2**31, 2**40, 10**400, 0.5, -0.5, 1e300, float("nan"), float("inf"), "", "x", "gelu",
    "../x", [], [1], [None], {}, {"a": 1}, {"rope_type": "yarn"}, {"rope_type": 3}, {"rope_theta": "x", "factor": -1},
]  # fmt: skip


def survives(folder: Path) -> None:
    try:
        cutaway.load(folder)
    except CutawayError as error:
        assert str(error)  # noqa: PT017


@pytest.mark.filterwarnings("ignore:not in the checkpoint")
@pytest.mark.parametrize("name", ["llama-3", "gpt2", "bert-sequence", "t5"])
def test_any_value_for_any_key(name: str, tmp_path: Path) -> None:
    saved(name, tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    generator = random.Random(name)
    for key in config:
        for value in generator.sample(VALUES, 6):
            path.write_text(json.dumps({**config, key: value}))
            survives(tmp_path)
    for key in ("rope_parameters", "task_specific_params", "pruned_heads", "num_labels", "head_dim", "sliding_window"):
        for value in VALUES:
            path.write_text(json.dumps({**config, key: value}))
            survives(tmp_path)


def flipped(data: bytes, generator: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(generator.randint(1, 4)):
        changed[generator.randrange(len(changed))] = generator.randrange(256)
    return bytes(changed)


def cut(data: bytes, generator: random.Random) -> bytes:
    return data[: generator.randrange(len(data))]


@pytest.mark.filterwarnings("ignore:not in the checkpoint")
@pytest.mark.parametrize("damage", [flipped, cut])
@pytest.mark.parametrize("file", ["config.json", "model.safetensors.index.json", "shard"])
def test_damaged_files(file: str, damage: Callable[[bytes, random.Random], bytes], tmp_path: Path) -> None:
    saved("llama", tmp_path, max_shard_size="20KB")
    path = tmp_path / file if file != "shard" else sorted(tmp_path.glob("*.safetensors"))[0]
    whole, generator = path.read_bytes(), random.Random(0)
    for _ in range(80):
        path.write_bytes(damage(whole, generator))
        survives(tmp_path)
