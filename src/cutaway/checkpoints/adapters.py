"""LoRA adapters in PEFT's layout: `adapter_config.json` and `adapter_model.safetensors`, under the published names.

Where the publisher keeps several of our matrices as one (GPT-2's q, k, v), their detours become one too: they share A where they are
equal, and else stand side by side, r wide each, in one of the rank of all together.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from math import sqrt
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cutaway import families
from cutaway.checkpoints import huggingface, safetensors
from cutaway.checkpoints.folder import whole_folder
from cutaway.errors import CheckpointError, ConfigError
from cutaway.layout import Entry, expand, same, split, split_heads, split_transposed, transpose
from cutaway.parts import lora

CONFIG, WEIGHTS, PREFIX = "adapter_config.json", "adapter_model.safetensors", "base_model.model."
TASKS = {"lm": "CAUSAL_LM", "sequence": "SEQ_CLS", "token": "TOKEN_CLS", "span": "QUESTION_ANS"}
# what changes the numbers and is not computed here
ONLY = {"use_dora": False, "bias": "none", "lora_bias": False, "peft_type": "LORA", "layer_replication": None}


def save(model: Any, folder: str | os.PathLike[str], name: str = "default", *, overwrite: bool = False) -> Path:
    """Writes one adapter of a model (or of what `load` returned), and whatever else is trained in it, such as a new head.

    Raises:
        ConfigError: there is no such adapter; the family has no published names.
        CheckpointError: the folder holds something already, or cannot be written.
    """
    net = getattr(model, "model", model)
    if name not in lora.names(net):
        raise ConfigError(f"no adapter {name!r} here; there are {', '.join(lora.names(net)) or 'none'}")
    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    alphas: dict[str, float] = {}
    heads: dict[str, Tensor] = {}
    trained = {n for n, p in net.named_parameters() if p.requires_grad and ".detours." not in n}
    for entry in _entries(net):
        path = entry.theirs.rpartition(".")[0]
        detours = [_detour(net, ours, name) for ours in entry.ours]
        if any(detours) and entry.theirs.endswith(".weight"):
            a, b, alpha = _joined(entry, detours, [net.get_parameter(n) for n in entry.ours])
            tensors[f"{path}.lora_A.weight"], tensors[f"{path}.lora_B.weight"] = a, b
            ranks[path], alphas[path] = a.shape[0], alpha
        if trained & set(entry.ours):
            heads[entry.theirs] = entry.op.write([net.get_parameter(n).detach() for n in entry.ours])
    rank, alpha = max(set(ranks.values()), key=list(ranks.values()).count), max(alphas.values(), key=list(alphas.values()).count)
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": getattr(model, "source", None),
        "task_type": TASKS.get(getattr(net.sizes, "head", "none"), "FEATURE_EXTRACTION"),
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": next(linear.detours[name].dropout for _, linear in lora.adapted(net) if name in linear.detours),
        "target_modules": sorted(ranks),
        "rank_pattern": {path: r for path, r in ranks.items() if r != rank},
        "alpha_pattern": {path: value for path, value in alphas.items() if value != alpha},
        "modules_to_save": sorted({theirs.rpartition(".")[0] for theirs in heads}) or None,
        "fan_in_fan_out": any(isinstance(e.op, (type(transpose), split_transposed)) for e in _entries(net)),
        "bias": "none",
        "inference_mode": True,
    }
    parts = {PREFIX + key: tensor.detach().contiguous() for key, tensor in {**tensors, **heads}.items()}
    with whole_folder(folder, overwrite) as made:
        (made / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        written = [safetensors.Part(key, tuple(t.shape), t.dtype, lambda t=t: t) for key, t in parts.items()]
        safetensors.write(made / WEIGHTS, written, {"format": "pt"})
    return Path(folder)


@torch.no_grad()
def load(model: Any, folder: str | os.PathLike[str], name: str = "default") -> list[str]:
    """Puts a saved adapter (of `save` or of PEFT) beside the matrices of a model and uses it. Returns the paths it adapts.

    Raises:
        CheckpointError: a file is missing or broken, or tells of matrices that this model lacks, or of other sizes.
        ConfigError: a kind of adapter that is not computed here; a name in use.
    """
    net, folder = getattr(model, "model", model), Path(folder)
    if not (folder / CONFIG).is_file() or not (folder / WEIGHTS).is_file():
        raise CheckpointError(f"{folder} is no adapter: it needs {CONFIG} and {WEIGHTS}")
    if name in lora.names(net):
        raise ConfigError(f"this model has an adapter {name!r} already; give another name, or detach that one first")
    config = huggingface.read_json(folder / CONFIG)
    for key, only in ONLY.items():
        if config.get(key, only) != only:
            raise ConfigError(f"{folder / CONFIG} has {key}: {config[key]!r}; only {only!r} is read")
    stored = {key.removeprefix(PREFIX): tensor for key, tensor in safetensors.read(folder / WEIGHTS).items()}
    bases = {re.sub(r"\.lora_[AB]\.weight$", "", key) for key in stored if ".lora_" in key}
    whole = {key for key in stored if ".lora_" not in key}
    entries = {entry.theirs: entry for entry in _entries(net, {f"{base}.weight" for base in bases} | whole)}
    plan: list[tuple[str, Tensor, Tensor, float]] = []
    for base in sorted(bases):
        pair = [stored.get(f"{base}.lora_{which}.weight") for which in "AB"]
        if None in pair:
            raise CheckpointError(f"{folder / WEIGHTS} lacks one half of the adapter of {base}")
        a, b = (tensor.read() for tensor in pair)  # type: ignore[union-attr]
        entry, scale = entries[f"{base}.weight"], _alpha(config, base, folder)
        bs = _outputs(entry).read(b) if a.ndim == b.ndim == 2 else []
        for ours, b_ in zip(entry.ours, bs, strict=False):
            weight = net.get_parameter(ours)
            if (b_.shape[0], a.shape[1]) != tuple(weight.shape) or a.shape[0] != b_.shape[1] or not a.shape[0]:
                bs = []
                break
            if not (a.isfinite().all() and b_.isfinite().all()):
                raise CheckpointError(f"{folder / WEIGHTS}: the adapter of {base} holds numbers that are not finite")
            alpha = scale * (sqrt(a.shape[0]) if config.get("use_rslora") else 1.0)  # theirs is then α / √r
            plan.append((ours.removesuffix(".weight"), a, b_, alpha))
        if not bs:
            raise CheckpointError(
                f"{folder / WEIGHTS}: the adapter of {base} has matrices {tuple(a.shape)} and {tuple(b.shape)}, which do not "
                "fit this model"
            )
    for theirs in sorted(whole):
        for ours, tensor in zip(entries[theirs].ours, entries[theirs].op.read(stored[theirs].read()), strict=True):
            if tensor.shape != net.get_parameter(ours).shape:
                raise CheckpointError(f"{folder / WEIGHTS}: {theirs} is {tuple(tensor.shape)}, which does not fit this model")
    for path, a, b_, alpha in plan:
        detour = lora.put(net, path, name, a.shape[0], alpha, float(config.get("lora_dropout") or 0.0))
        detour.a.copy_(a)
        detour.b.copy_(b_)
    for theirs in whole:
        for ours, tensor in zip(entries[theirs].ours, entries[theirs].op.read(stored[theirs].read()), strict=True):
            net.get_parameter(ours).copy_(tensor)
    lora.use(net, name)
    return [path for path, *_ in plan]


def _entries(net: nn.Module, more: set[str] = frozenset()) -> Iterator[Entry]:  # type: ignore[assignment]
    """The published tensors and ours, those named in `more` under the spelling used there."""
    module = families.get(net.family)  # type: ignore[arg-type]
    if not module.MODEL_TYPES:
        raise ConfigError(f"the {net.family} family has no published names, by which adapters are kept")
    parameters = [name for name, _ in net.named_parameters() if ".detours." not in name]
    rules = module.weights(net.sizes)
    first = {entry.theirs for entry in expand(rules, parameters)}
    yield from expand(rules, parameters, first | more)


def _detour(net: nn.Module, ours: str, name: str) -> lora.Detour | None:
    linear = net.get_submodule(ours.rpartition(".")[0])
    return linear.detours[name] if isinstance(linear, lora.LoRALinear) and name in linear.detours else None  # type: ignore[return-value]


def _joined(entry: Entry, detours: list[Any], weights: list[Tensor]) -> tuple[Tensor, Tensor, float]:
    """A, B and α of one published matrix."""
    there = [d for d in detours if d is not None]
    if len(detours) == 1 or all(d is not None and torch.equal(d.a, there[0].a) and d.scale == there[0].scale for d in detours):
        return there[0].a, _outputs(entry).write([d.b for d in there]), there[0].alpha
    rank, blocks = sum(d.rank for d in there), []
    a, reached = torch.cat([d.a for d in there]), 0
    for detour, weight in zip(detours, weights, strict=True):
        block = weight.new_zeros(weight.shape[0], rank)
        if detour is not None:
            block[:, reached : reached + detour.rank] = detour.b * detour.scale
            reached += detour.rank
        blocks.append(block)
    return a, _outputs(entry).write(blocks), float(rank)


def _outputs(entry: Entry) -> Any:
    """The op as it acts on B, which has the outputs in front whichever way the weight lies."""
    op = entry.op
    if isinstance(op, split_transposed):
        return split(op.parts)
    if op is transpose:
        return same
    if op is same or isinstance(op, split_heads) or (isinstance(op, split) and op.axis == 0):
        return op
    raise ConfigError(f"{entry.theirs} is laid out in a way that no adapter can follow; choose other targets")


def _alpha(config: Mapping[str, Any], base: str, folder: Path) -> float:
    patterns = config.get("alpha_pattern") or {}
    for pattern, value in patterns.items():
        if base == pattern or base.endswith(f".{pattern}") or re.fullmatch(rf"(.*\.)?({pattern})", base):
            return float(value)
    alpha = config.get("lora_alpha", 8)
    if type(alpha) not in (int, float):
        raise CheckpointError(f"{folder / CONFIG} has lora_alpha: {alpha!r}; a number is needed")
    return float(alpha)


