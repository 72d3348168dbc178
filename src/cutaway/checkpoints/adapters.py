"""LoRA adapters in PEFT's layout, read: `adapter_config.json` and `adapter_model.safetensors`, under the published names."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cutaway import families
from cutaway.checkpoints import huggingface, safetensors
from cutaway.checkpoints.checkpoint import Checkpoint
from cutaway.checkpoints.compose import another_head
from cutaway.checkpoints.materialise import FLOATS
from cutaway.checkpoints.stored import Stored
from cutaway.errors import CheckpointError, ConfigError
from cutaway.layout import Entry, alternatives, expand, same
from cutaway.parts import lora

CONFIG, WEIGHTS, PREFIX = "adapter_config.json", "adapter_model.safetensors", "base_model.model."
# keys that are used, or say again what the tensors say, or how it was trained
READ = """peft_type task_type base_model_name_or_path revision lora_alpha alpha_pattern use_rslora lora_dropout r rank_pattern
    init_lora_weights target_modules exclude_modules modules_to_save fan_in_fan_out layers_to_transform layers_pattern
    auto_mapping peft_version inference_mode megatron_core qalora_group_size runtime_config eva_config
    ensure_weight_tying""".split()
HEADS = {"SEQ_CLS": "sequence", "TOKEN_CLS": "token", "QUESTION_ANS": "span"}
BEGINNINGS = (None, True, False, "gaussian", "orthogonal", "eva")  # others change the base besides


@dataclass(frozen=True)
class Adapter:
    """An adapter's folder, opened.

    Attributes:
        pairs: A and B of each published matrix, by its name without ".weight".
        wholes: tensors that take the place of the base's, by their published names.
    """

    folder: Path
    config: Mapping[str, Any]
    pairs: Mapping[str, tuple[Stored, Stored]]
    wholes: Mapping[str, Stored]

    @property
    def base(self) -> str:
        """The source that the adapter was trained on.

        Raises:
            ConfigError: it names none.
        """
        base, revision = self.config.get("base_model_name_or_path"), self.config.get("revision")
        if not isinstance(base, str) or not base:
            raise ConfigError(
                f"{self.folder / CONFIG} names no base: load the base with adapter={str(self.folder)!r} (--adapter)"
            )
        return f"{base}@{revision}" if isinstance(revision, str) and revision else base

    def alpha(self, matrix: str, rank: int) -> float:
        """α as here, where the detour is scaled by α / r."""
        alpha = self.config.get("lora_alpha", 8)
        for pattern, value in (self.config.get("alpha_pattern") or {}).items():
            if re.fullmatch(rf"(.*\.)?({self._plain(pattern)})", matrix):
                alpha = value
                break
        if type(alpha) not in (int, float) or not abs(alpha) < float("inf"):
            raise CheckpointError(f"{self.folder / CONFIG} has an alpha of {alpha!r}; a number is needed")
        return alpha * (sqrt(rank) if self.config.get("use_rslora") else 1.0)  # theirs is then α / √r

    def _plain(self, pattern: str) -> str:
        """A name, perhaps with a dot or digits left open. Other expressions could keep a reader busy for ever."""
        if not re.fullmatch(r"\^?([\w.-]|\\\.|\\d\+?|\[0-9\]\+?){1,200}\$?", pattern) or pattern.count("+") > 3:
            raise ConfigError(
                f"{self.folder / CONFIG} has {pattern!r} in alpha_pattern; names of modules are read there"
            )
        return pattern.removeprefix("^").removesuffix("$")


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter, and no model of its own."""
    return (folder / CONFIG).is_file() and not any(folder.glob("model*.safetensors*"))


def open_adapter(folder: Path) -> Adapter:
    """Opens a folder that `save` of `save_adapter` or PEFT wrote.

    Raises:
        CheckpointError: a file is missing or broken.
        ConfigError: a kind of adapter that is not computed here.
    """
    if not (folder / CONFIG).is_file() or not (folder / WEIGHTS).is_file():
        raise CheckpointError(f"{folder} is no adapter: it needs {CONFIG} and {WEIGHTS}")
    config = huggingface.read_json(folder / CONFIG)
    if config.get("peft_type") != "LORA":
        raise ConfigError(f"{folder / CONFIG} has peft_type: {config.get('peft_type')!r}; only 'LORA' is read")
    if config.get("init_lora_weights") not in BEGINNINGS:
        raise ConfigError(
            f"{folder / CONFIG} has init_lora_weights: {config['init_lora_weights']!r}, which changes the base as well; "
            "let PEFT convert it (path_initial_model_for_weight_conversion)"
        )
    for key, value in config.items():
        if key not in READ and value not in (None, False, "none", [], {}, "megatron.core"):
            raise ConfigError(f"{folder / CONFIG} has {key}: {value!r}, which is not computed here")
    if not isinstance(config.get("alpha_pattern") or {}, dict):
        raise CheckpointError(f"{folder / CONFIG} has an alpha_pattern that is none")
    dropout = config.get("lora_dropout") or 0.0
    if type(dropout) not in (int, float) or not 0 <= dropout < 1:
        raise CheckpointError(
            f"{folder / CONFIG} has a lora_dropout of {dropout!r}; a number from 0 to below 1 is needed"
        )
    stored = {key.removeprefix(PREFIX): tensor for key, tensor in safetensors.read(folder / WEIGHTS).items()}
    for key, tensor in stored.items():
        if tensor.dtype not in FLOATS:
            raise CheckpointError(f"{folder / WEIGHTS}: {key} holds {tensor.dtype} numbers")
        if "lora_" in key and not re.search(r"\.lora_[AB]\.weight$", key):
            raise ConfigError(f"{folder / WEIGHTS} holds {key}, which is not computed here")
    pairs = {}
    for base in sorted({key[: -len(".lora_A.weight")] for key in stored if ".lora_" in key}):
        a, b = (stored.get(f"{base}.lora_{which}.weight") for which in "AB")
        if a is None or b is None:
            raise CheckpointError(f"{folder / WEIGHTS} lacks one half of the adapter of {base}")
        if not (len(a.shape) == len(b.shape) == 2 and a.shape[0] == b.shape[1] > 0):
            raise CheckpointError(
                f"{folder / WEIGHTS}: {base} has A {a.shape} and B {b.shape}, which do not go together"
            )
        pairs[base] = (a, b)
    if not pairs:
        raise CheckpointError(f"{folder / WEIGHTS} holds no matrices A and B")
    return Adapter(folder, config, pairs, {key: tensor for key, tensor in stored.items() if ".lora_" not in key})


def load(model: Any, folder: Path | str, name: str = "default") -> list[str]:
    """Puts a saved adapter beside the matrices of a model (or of what `load` returned) and uses it. Returns their paths.

    The model is touched last.

    Raises:
        CheckpointError: a file is missing or broken, or tells of matrices that this model lacks, or of other sizes.
        ConfigError: a kind of adapter that is not computed here; a name in use.
    """
    net, adapter = getattr(model, "model", model), open_adapter(Path(folder).expanduser())
    where = adapter.folder / WEIGHTS
    try:
        known = {f"{base}.weight" for base in adapter.pairs} | adapter.wholes.keys()
        entries = {entry.theirs: entry for entry in published(net, known)}
    except CheckpointError as error:
        raise CheckpointError(f"{where} is an adapter of another model: {error}") from error
    detours = [
        detour
        for base, pair in adapter.pairs.items()
        for detour in _detours(net, adapter, entries[f"{base}.weight"], pair)
    ]
    wholes: dict[str, Tensor] = {}
    for theirs, stored in adapter.wholes.items():
        entry = entries[theirs]
        shapes = [net.get_parameter(ours).shape for ours in entry.ours]
        if stored.shape != entry.op.theirs_shape(shapes):
            raise CheckpointError(f"{where}: {theirs} is {stored.shape}, which does not fit this model")
        for ours, tensor in zip(entry.ours, entry.op.read(_finite(stored, where, theirs)), strict=True):
            if ours in wholes and not torch.equal(wholes[ours], tensor):
                raise CheckpointError(f"{where}: {theirs} should equal what it is tied to, and does not")
            wholes[ours] = tensor.clone()
    lora.begin(net, name)
    dropout = adapter.config.get("lora_dropout") or 0.0
    for path, a, b, alpha in detours:
        lora.put(net, path, name, b.shape[1], alpha, dropout, a).b.data.copy_(b)
    lora.give(net, name, wholes)
    lora.use(net, name)
    return [path for path, *_ in detours]


def _detours(
    net: nn.Module, adapter: Adapter, entry: Entry, pair: tuple[Stored, Stored]
) -> Iterator[tuple[str, nn.Parameter, Tensor, float]]:
    """Of each of our matrices that a published one holds: its path, A, B and α. They share A."""
    where, theirs = adapter.folder / WEIGHTS, entry.theirs.removesuffix(".weight")
    paths = [ours.removesuffix(".weight") for ours in entry.ours]
    if not all(isinstance(net.get_submodule(path), nn.Linear) and lora.offered(net, path) for path in paths):
        raise ConfigError(f"{where} adapts {theirs}, beside which no detour can be put here")
    if (outputs := entry.op.outputs) is None:
        raise ConfigError(f"{where} adapts {theirs}, which is laid out in a way that no adapter can follow")
    weights = [net.get_parameter(ours) for ours in entry.ours]
    expected = (weights[0].shape[1], sum(w.shape[0] for w in weights))
    if (found := (pair[0].shape[1], pair[1].shape[0])) != expected:
        raise CheckpointError(f"{where}: the adapter of {theirs} leads from {found[0]} to {found[1]} numbers; "
                              f"this model from {expected[0]} to {expected[1]}")  # fmt: skip
    a, b = (_finite(stored, where, theirs) for stored in pair)
    shared = nn.Parameter(a.to(weights[0]))
    alpha = adapter.alpha(theirs, a.shape[0])
    for path, each in zip(paths, outputs.read(b), strict=True):
        yield path, shared, each, alpha


def _finite(stored: Stored, where: Path, what: str) -> Tensor:
    tensor = stored.read()
    if not tensor.isfinite().all():
        raise CheckpointError(f"{where}: {what} holds numbers that are not finite")
    return tensor


def published(net: Any, more: Collection[str] = ()) -> list[Entry]:
    """The published tensors and our parameters, those named in `more` under the spelling used there.

    A family or composition that is published nowhere has our names.

    Raises:
        CheckpointError: a name in `more` is unknown.
    """
    module = families.get(net.family)
    parameters = [name for name, _ in net.named_parameters() if ".detours." not in name]
    if not module.MODEL_TYPES or net.swaps:
        if unknown := set(more) - set(parameters):
            raise CheckpointError(f"there is no {', '.join(sorted(unknown)[:5])} in it")
        return [Entry(name, (name,), same) for name in parameters]
    rules = module.weights(net.sizes)
    usual = {entry.theirs for entry in expand(rules, parameters)}
    return list(expand(rules, parameters, usual | set(more)))


def on_base(adapter: Adapter, base: Checkpoint) -> Checkpoint:
    """The checkpoint of the base with the adapter to be put beside it, and the head for which that was trained."""
    own, tokenizer = adapter.folder, base.tokenizer
    beside: dict[str, Any] = {"adapter": own, "tokenizer": lambda: huggingface.tokenizer(own) or tokenizer()}
    head = HEADS.get(str(adapter.config.get("task_type")))
    if head is not None and base.rules is not None and hasattr(base.sizes, "head"):
        rules = families.get(base.family).weights(dataclasses.replace(base.sizes, head=head))
        outs = [f"{name}.weight" for rule in rules if rule.ours == "head.out" for name in alternatives(rule.theirs)]
        found = [
            adapter.wholes[name].shape[0] for name in outs if name in adapter.wholes and adapter.wholes[name].shape
        ]
        if found:  # else the head is the base's
            sizes, read = another_head(base, head, None if head == "span" else found[0])
            card = huggingface.read_json(own / huggingface.CONFIG) if (own / huggingface.CONFIG).is_file() else {}
            beside |= {"sizes": sizes, "rules": read, "label_names": huggingface.label_names(card, sizes)}
    return dataclasses.replace(base, **beside)
