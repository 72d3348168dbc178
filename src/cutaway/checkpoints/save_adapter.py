"""LoRA adapters in PEFT's layout, written.

Where the publisher keeps several of our matrices as one (GPT-2's q, k, v), their detours become one too: they share A
where they do so here, and else stand side by side in one of the rank of all together.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cutaway import families
from cutaway.checkpoints import safetensors
from cutaway.checkpoints.adapters import CONFIG, PREFIX, WEIGHTS, published
from cutaway.checkpoints.folder import whole_folder
from cutaway.errors import ConfigError
from cutaway.layout import Entry, split_transposed, transpose
from cutaway.parts import EncoderDecoder, lora

TASKS = {"lm": "CAUSAL_LM", "sequence": "SEQ_CLS", "token": "TOKEN_CLS", "span": "QUESTION_ANS"}


def save_adapter(
    net: Any,
    folder: str | os.PathLike[str],
    base: str | None = None,
    *,
    tokenizer: Any = None,
    label_names: Sequence[str] = (),
    overwrite: bool = False,
) -> Path:
    """Writes the adapter in use, and what it trains whole.

    Args:
        base: the source that it belongs to.
        label_names: of the classes of its head; a `config.json` beside the adapter keeps them.

    Raises:
        ConfigError: no adapter is in use; a matrix is published in a way that no adapter can follow.
        CheckpointError: the folder holds something already, or cannot be written.
    """
    name = lora.used(net)
    if name is None:
        raise ConfigError(f"no adapter is in use here; there are {', '.join(lora.names(net)) or 'none'}")
    own = net.adapters.wholes[name]
    pairs: dict[str, tuple[Tensor, Tensor, float]] = {}
    wholes: dict[str, Tensor] = {}
    turned = False
    for entry in published(net):
        detours = [_detour(net, ours, name) for ours in entry.ours]
        if any(detour is not None for detour in detours):
            pairs[entry.theirs.removesuffix(".weight")] = _joined(net, entry, detours)
            turned |= isinstance(entry.op, (type(transpose), split_transposed))
        if not own.keys().isdisjoint(entry.ours):
            wholes[entry.theirs] = entry.op.write([net.get_parameter(ours).detach() for ours in entry.ours])
    rank, alpha = (_most([f(pair) for pair in pairs.values()]) for f in (lambda p: p[0].shape[0], lambda p: p[2]))
    kind = "SEQ_2_SEQ_LM" if isinstance(net, EncoderDecoder) else TASKS.get(getattr(net.sizes, "head", ""))
    kind = kind if wholes or kind in ("CAUSAL_LM", "SEQ_2_SEQ_LM") else None  # of the other kinds PEFT expects a head
    base, _, revision = (base or "").partition("@")
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": str(Path(base).absolute()) if base and Path(base).exists() else base or None,
        "revision": revision or None,
        "task_type": kind,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": next(linear.detours[name].dropout for _, linear in lora.adapted(net) if name in linear.detours),
        "target_modules": sorted(pairs),
        "rank_pattern": {path: a.shape[0] for path, (a, _, _) in pairs.items() if a.shape[0] != rank},
        "alpha_pattern": {path: each for path, (_, _, each) in pairs.items() if each != alpha},
        "modules_to_save": sorted({theirs.rpartition(".")[0] for theirs in wholes}) or None,
        "fan_in_fan_out": turned,
        "bias": "none",
        "inference_mode": True,
    }
    tensors = {PREFIX + theirs: tensor for theirs, tensor in wholes.items()}
    for path, (a, b, _) in pairs.items():
        tensors |= {f"{PREFIX}{path}.lora_A.weight": a, f"{PREFIX}{path}.lora_B.weight": b}
    parts = [safetensors.Part(n, tuple(x.shape), x.dtype, lambda x=x: x) for n, x in tensors.items()]
    with whole_folder(folder, overwrite) as made:
        (made / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        safetensors.write(made / WEIGHTS, parts, {"format": "pt"})
        if label_names:
            (made / "config.json").write_text(json.dumps(_card(net, label_names), indent=2) + "\n", encoding="utf-8")
        if tokenizer is not None:
            tokenizer.save(made)
    return Path(folder)


def _card(net: Any, label_names: Sequence[str]) -> dict[str, Any]:
    names = {"id2label": dict(enumerate(label_names)), "label2id": {name: i for i, name in enumerate(label_names)}}
    return {**families.get(net.family).write(net.sizes), **names}


def _most(values: Sequence[Any]) -> Any:
    """What most of them are."""
    return Counter(values).most_common(1)[0][0]


def _detour(net: nn.Module, ours: str, name: str) -> lora.Detour | None:
    linear = net.get_submodule(ours.rpartition(".")[0])
    adapted = isinstance(linear, lora.LoRALinear) and ours.endswith(".weight") and name in linear.detours
    return linear.detours[name] if adapted else None  # type: ignore[return-value,index]


@torch.no_grad()
def _joined(net: nn.Module, entry: Entry, detours: Sequence[lora.Detour | None]) -> tuple[Tensor, Tensor, float]:
    """A, B and α of one published matrix."""
    if (outputs := entry.op.outputs) is None:
        raise ConfigError(f"{entry.theirs} is laid out in a way that no adapter can follow; choose other targets")
    there = [detour for detour in detours if detour is not None]
    first = there[0]
    if len(there) == len(detours) and all(d.a is first.a and d.alpha == first.alpha for d in there):
        return first.a.detach(), outputs.write([d.b for d in there]), first.alpha
    rank, reached, blocks = sum(d.rank for d in there), 0, []
    for detour, ours in zip(detours, entry.ours, strict=True):
        block = first.b.new_zeros(net.get_parameter(ours).shape[0], rank)
        if detour is not None:
            block[:, reached : reached + detour.rank] = detour.b * detour.scale
            reached += detour.rank
        blocks.append(block)
    return torch.cat([d.a for d in there]), outputs.write(blocks), float(rank)
