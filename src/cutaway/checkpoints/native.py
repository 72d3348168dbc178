"""cutaway's own folder: `cutaway.json` (family, sizes), `model.safetensors` under our names, the tokenizer."""

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from cutaway import families
from cutaway.checkpoints import huggingface, safetensors
from cutaway.checkpoints.checkpoint import Checkpoint
from cutaway.checkpoints.folder import whole_folder
from cutaway.errors import CheckpointError, ConfigError

CARD, WEIGHTS, FORMAT = "cutaway.json", "model.safetensors", 1


def save(
    model: nn.Module,
    family: str,
    sizes: Any,
    folder: str | os.PathLike[str],
    *,
    tokenizer: Any = None,
    generation: dict[str, Any] | None = None,
    swaps: dict[str, Any] | None = None,
    label_names: Sequence[str] = (),
    overwrite: bool = False,
) -> Path:
    """Writes a folder that `load` reads back bit for bit. It appears whole or not at all.

    Raises:
        CheckpointError: the folder holds something already, or cannot be written.
    """
    card = {
        "format": FORMAT,
        "family": family,
        "sizes": dataclasses.asdict(sizes),
        "swaps": swaps or {},
        "generation": generation or {},
        "label_names": list(label_names),
    }
    with whole_folder(folder, overwrite) as made:
        (made / CARD).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
        parts = [safetensors.Part(name, tuple(p.shape), p.dtype, lambda p=p: p) for name, p in model.named_parameters()]
        safetensors.write(made / WEIGHTS, parts, {"format": "pt"})
        if tokenizer is not None:
            tokenizer.save(made)
    return Path(folder)


def open_folder(folder: Path, source: str) -> Checkpoint:
    """Opens a folder that `save` wrote.

    Raises:
        CheckpointError, ConfigError: it is broken, or of a later format.
    """
    card = huggingface.read_json(folder / CARD)
    if card.get("format") != FORMAT:
        raise CheckpointError(
            f"{folder / CARD} is of format {card.get('format')!r}; this version reads format {FORMAT}"
        )
    family, sizes, generation = card.get("family"), card.get("sizes"), card.get("generation")
    if not isinstance(family, str) or not isinstance(sizes, dict) or not isinstance(generation, dict):
        raise CheckpointError(f"{folder / CARD} must name a family, its sizes and its generation settings")
    swaps = card.get("swaps", {})  # absent before parts could be swapped
    if not isinstance(swaps, dict):
        raise CheckpointError(f"{folder / CARD} must name its swapped parts by kind")
    if not (folder / WEIGHTS).is_file():
        raise CheckpointError(f"{folder / WEIGHTS} is missing")
    read = read_sizes(families.get(family).Sizes, sizes, str(folder / CARD))
    tensors = dict(safetensors.read(folder / WEIGHTS))
    names = card.get("label_names", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise CheckpointError(f"{folder / CARD} must name its classes by texts")
    tokenizer = lambda: huggingface.tokenizer(folder)  # noqa: E731
    return Checkpoint(source, family, read, tensors, None, tokenizer, generation, swaps, tuple(names))


def read_sizes(kind: type, values: dict[str, Any], where: str) -> Any:
    """A family's `Sizes` from plain values, which it checks.

    Raises:
        ConfigError: a name the family lacks, one it needs, or a value that cannot be.
    """
    known = {f.name: f for f in dataclasses.fields(kind)}
    for name in values:
        if name not in known:
            raise ConfigError(f"{where}: no size {name!r}; there are {', '.join(known)}")
    lacking = [n for n, f in known.items() if n not in values and f.default is dataclasses.MISSING]
    if lacking:
        raise ConfigError(f"{where} lacks {', '.join(lacking)}")
    try:
        return kind(**values)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
