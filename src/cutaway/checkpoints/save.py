"""Writing a model as the Hugging Face layout, so that `transformers` loads it and gives the same numbers."""

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cutaway import families
from cutaway.checkpoints import safetensors
from cutaway.checkpoints.folder import whole_folder
from cutaway.checkpoints.safetensors import Part
from cutaway.layout import Entry, expand

SHARD = 5 * 10**9  # bytes in one file before the weights are spread over several


def save_huggingface(
    model: nn.Module,
    family: str,
    sizes: Any,
    folder: str | os.PathLike[str],
    *,
    tokenizer: Any = None,
    generation: dict[str, Any] | None = None,
    label_names: Sequence[str] = (),
    overwrite: bool = False,
    shard: int = SHARD,
) -> Path:
    """Writes `config.json`, safetensors (tied weights once), tokenizer and generation settings. All of it, or nothing.

    Raises:
        ConfigError: the family has no published format.
        CheckpointError: the folder holds something already, or cannot be written.
    """
    module = families.get(family)
    parameters = dict(model.named_parameters())
    dtype = next(iter(parameters.values())).dtype
    # what the family writes comes last: RoBERTa counts positions from the padding's id
    config = {"dtype": str(dtype).removeprefix("torch."), **_ids(tokenizer, generation), **module.write(sizes)}
    if label_names:
        config |= {"id2label": dict(enumerate(label_names)), "label2id": {n: i for i, n in enumerate(label_names)}}
    parts = [_part(entry, parameters) for entry in expand(module.weights(sizes), parameters)]
    with whole_folder(folder, overwrite) as made:
        _write_json(made / "config.json", config)
        _write_weights(made, parts, shard)
        if model_generates(model):
            start = {name: config[name] for name in ("decoder_start_token_id",) if name in config}
            _write_json(made / "generation_config.json", {**start, **_ids(tokenizer, generation), **(generation or {})})
        if getattr(sizes, "head", None) in ("mean", "cls"):
            length = getattr(tokenizer, "max_length", None) or sizes.context
            _write_pooling(made, sizes, min(length, sizes.context))
        if tokenizer is not None:
            tokenizer.save(made)
    return Path(folder)


def model_generates(model: nn.Module) -> bool:
    from cutaway.parts import LanguageHead

    return bool(getattr(model, "causal", False)) and isinstance(getattr(model, "head", None), LanguageHead)


def _part(entry: Entry, parameters: dict[str, nn.Parameter]) -> Part:
    ours = [parameters[name] for name in entry.ours]

    def make() -> Tensor:
        with torch.no_grad():
            return entry.op.write(ours)

    return Part(entry.theirs, entry.op.theirs_shape([p.shape for p in ours]), ours[0].dtype, make)


def _write_weights(folder: Path, parts: Sequence[Part], shard: int) -> None:
    """One file, or several and an index, none larger than `shard` bytes unless a tensor is."""
    groups: list[list[Part]] = [[]]
    for part in parts:
        if groups[-1] and sum(p.size for p in groups[-1]) + part.size > shard:
            groups.append([])
        groups[-1].append(part)
    if len(groups) == 1:
        safetensors.write(folder / "model.safetensors", parts, {"format": "pt"})
        return
    names = [f"model-{i + 1:05d}-of-{len(groups):05d}.safetensors" for i in range(len(groups))]
    for name, group in zip(names, groups, strict=True):
        safetensors.write(folder / name, group, {"format": "pt"})
    places = {part.name: name for name, group in zip(names, groups, strict=True) for part in group}
    index = {"metadata": {"total_size": sum(part.size for part in parts)}, "weight_map": places}
    _write_json(folder / "model.safetensors.index.json", index)


def _ids(tokenizer: Any, generation: dict[str, Any] | None) -> dict[str, Any]:
    """Beginning, end and padding ids: as published beside the weights, else the tokenizer's."""
    found = {k: v for k, v in (generation or {}).items() if k in ("bos_token_id", "eos_token_id", "pad_token_id")}
    if tokenizer is not None:
        ends = sorted(tokenizer.eos_ids)
        found.setdefault("bos_token_id", tokenizer.bos_id)
        found.setdefault("eos_token_id", ends[0] if len(ends) == 1 else ends or None)
        found.setdefault("pad_token_id", tokenizer.pad_id)
    return {name: value for name, value in found.items() if value is not None}


def _write_pooling(folder: Path, sizes: Any, length: int) -> None:
    """What sentence-transformers needs to know: where to cut a text, how to pool, whether vectors have length 1."""
    chain = {"Transformer": "", "Pooling": "1_Pooling"} | ({"Normalize": "2_Normalize"} if sizes.normalise else {})
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(chain.items())
    ]
    for path in chain.values():
        (folder / path).mkdir(exist_ok=True)
    pooling = {
        "word_embedding_dimension": sizes.width,
        "pooling_mode_cls_token": sizes.head == "cls",
        "pooling_mode_mean_tokens": sizes.head == "mean",
    }
    (folder / "modules.json").write_text(json.dumps(modules, indent=2) + "\n", encoding="utf-8")
    _write_json(folder / "1_Pooling" / "config.json", pooling)
    _write_json(folder / "sentence_bert_config.json", {"max_seq_length": length, "do_lower_case": False})


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, default=dataclasses.asdict) + "\n", encoding="utf-8")
