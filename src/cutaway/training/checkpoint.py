"""One checkpoint of a run: a folder that is there whole or not at all, however the machine stops.

model/               the weights as every command reads them, with the tokenizer
trainer.safetensors  weights, averages, what the optimizers remember
trainer.json         the step and what else the run knows of itself
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cutaway import api, families
from cutaway.checkpoints import safetensors
from cutaway.checkpoints.folder import whole_folder
from cutaway.errors import CheckpointError, ConfigError
from cutaway.parts import lora
from cutaway.training.world import World

MODEL, TENSORS, FACTS = "model", "trainer.safetensors", "trainer.json"


@dataclass(frozen=True)
class Position:
    """Where a run is."""

    step: int = 0
    best: float | None = None  # the lowest validation loss, or the highest score of a task
    best_step: int | None = None
    tokens: int = 0  # read so far
    seconds: float = 0.0  # spent so far
    data: str = ""  # fingerprint


def layout(model: Any) -> api.Layout:
    """An adapter alone, in PEFT's; the Hugging Face layout where the family is published in it and it can say these sizes;
    else our own.
    """
    if lora.names(model):
        return "peft"
    module = families.get(model.family)
    if not module.MODEL_TYPES or model.swaps:
        return "cutaway"
    try:
        module.write(model.sizes)
    except ConfigError:
        return "cutaway"
    return "huggingface"


def write(folder: Path, model: Any, tokenizer: Any, tensors: dict[str, Tensor], position: Position) -> None:
    """Raises `CheckpointError` where it cannot be written; there is then no such folder."""
    with whole_folder(folder) as made:
        api.save(model, made / MODEL, layout=layout(model), tokenizer=tokenizer)
        parts = [safetensors.Part(n, tuple(x.shape), x.dtype, lambda x=x: x) for n, x in tensors.items()]
        safetensors.write(made / TENSORS, parts, {"format": "pt"})
        (made / FACTS).write_text(json.dumps(asdict(position), indent=2) + "\n", encoding="utf-8")


def read(folder: Path) -> tuple[dict[str, Tensor], Position]:
    """What `write` wrote, the model's folder aside.

    Raises:
        CheckpointError: it is broken; going on from an earlier one is then possible.
    """
    try:
        facts = safetensors.parse_json((folder / FACTS).read_bytes(), folder / FACTS)
        return {name: x.read() for name, x in safetensors.read(folder / TENSORS).items()}, Position(**facts)
    except (CheckpointError, OSError, TypeError) as error:
        raise CheckpointError(f"{error}; delete {folder} to go on from the checkpoint before it") from None


def shared(folder: Path, world: World) -> tuple[Mapping[str, Tensor], Position]:
    """What `read` gives, where only the main process can read the folder; the tensors are sent as they are asked for.

    All processes must ask for the same ones in the same order.
    """
    if world.size == 1:
        return read(folder)
    held: dict[str, Tensor] = {}

    def there() -> dict[str, Any]:
        tensors, position = read(folder)
        held.update(tensors)
        shapes = {name: [str(x.dtype).removeprefix("torch."), list(x.shape)] for name, x in tensors.items()}
        return {"tensors": shapes, "position": asdict(position)}

    said = world.told(there)
    return _Sent(held, said["tensors"], world), Position(**said["position"])


class _Sent(Mapping[str, Tensor]):
    """Tensors of the main process, which the others get when they ask."""

    def __init__(self, held: dict[str, Tensor], shapes: dict[str, Any], world: World) -> None:
        self.held, self.shapes, self.world = held, shapes, world

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)

    def __getitem__(self, name: str) -> Tensor:
        dtype, shape = self.shapes[name]
        x = self.held[name] if self.world.main else torch.empty(shape, dtype=getattr(torch, dtype))
        self.world.same([x])
        return x
