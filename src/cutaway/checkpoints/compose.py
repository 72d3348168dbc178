"""From what a checkpoint says of itself to a model of that shape, without memory for it yet."""

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from math import prod
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from cutaway import families, swaps
from cutaway.checkpoints.checkpoint import Checkpoint
from cutaway.errors import CheckpointError, ConfigError
from cutaway.layout import Rule, ignore

FEW = 100  # layers that cost next to nothing to compose, whatever tensors there are


def compose_meta(checkpoint: Checkpoint, sizes: Any) -> nn.Module:
    """The model on `meta`: names and shapes without memory.

    Sizes that the tensors there cannot bear out are refused before anything is made of them.
    """
    tensors = checkpoint.tensors.values()
    numbers = sum(prod(tensor.shape) for tensor in tensors)
    most = dict.fromkeys(("layers", "decoder_layers"), max(len(tensors), FEW))  # they may share their tensors
    most |= dict.fromkeys(("vocab", "width", "table_width", "heads", "kv_heads", "hidden", "head_width"), numbers)
    for name, limit in most.items():
        if (getattr(sizes, name, None) or 0) > limit:
            described = f"{name} is described as {getattr(sizes, name)}"
            raise CheckpointError(
                f"{checkpoint.source}: {described}, but there are only {len(tensors)} tensors of {numbers} numbers"
            )
    return compose(checkpoint.family, sizes, checkpoint.source, torch.device("meta"), checkpoint.swaps)


class _Unfilled(TorchFunctionMode):
    """Leaves out the drawing of numbers, of which `meta` has none: torch would import its compiler for it (1 s)."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in ("normal_", "uniform_", "trunc_normal_"):
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


def compose(
    family: str, sizes: Any, what: str, device: torch.device, swapped: Mapping[str, Any] | None = None
) -> nn.Module:
    """The family's model, parts swapped, on a device; `ConfigError` naming `what` where the sizes fit no model."""
    try:
        with device, _Unfilled() if device.type == "meta" else nullcontext():
            return swaps.compose(families.get(family), swapped or {}, sizes)
    except ConfigError as error:
        raise ConfigError(f"{what}: {error}") from error
    except (MemoryError, OverflowError, RuntimeError, TypeError, ValueError, ZeroDivisionError, KeyError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"{what}: no {family} can be built of these sizes ({first})") from error


def another_head(
    checkpoint: Checkpoint, head: str | None, labels: int | Sequence[str] | None
) -> tuple[Any, list[Rule] | None]:
    """Sizes and rules for a model whose head is not, or not wholly, in the checkpoint.

    Where `labels` are names and the checkpoint's classes have others, the layer that tells them apart is left out.
    """
    renamed = not isinstance(labels, int | None) and tuple(labels) != checkpoint.label_names
    labels = labels if isinstance(labels, int | None) else len(labels)
    if checkpoint.rules is None:
        sizes = checkpoint.sizes
        if renamed or (head or sizes.head, labels or sizes.labels) != (sizes.head, sizes.labels):
            raise ConfigError(f"{checkpoint.source} was saved by cutaway with its head; load it as it is")
        return sizes, None
    changes = {name: value for name, value in (("head", head), ("labels", labels)) if value is not None}
    known = {f.name for f in dataclasses.fields(checkpoint.sizes)}
    if unknown := set(changes) - known:
        raise ConfigError(f"the {checkpoint.family} family has no choice of {' or '.join(sorted(unknown))}")
    sizes = dataclasses.replace(checkpoint.sizes, **changes)
    if labels is not None and sizes.head not in ("sequence", "token"):
        raise ConfigError(f'labels={labels} goes with head="sequence" or head="token", not with head="{sizes.head}"')
    if sizes == checkpoint.sizes and not renamed:
        return sizes, list(checkpoint.rules)
    rules = families.get(checkpoint.family).weights(sizes)
    rules = [dataclasses.replace(rule, optional=True) if _of_head(rule) else rule for rule in rules]
    if renamed or getattr(sizes, "labels", 0) != getattr(checkpoint.sizes, "labels", 0):
        rules = [
            _unread(rule) if rule.ours == "head.out" else rule for rule in rules
        ]  # its numbers are of other classes
    left = [ignore(f"{r.theirs}(.weight|.bias|.gamma|.beta|)") for r in checkpoint.rules if _of_head(r)]
    return sizes, rules + left


def _unread(rule: Rule) -> Rule:
    """A rule that no tensor answers to."""
    return dataclasses.replace(rule, theirs=f"(no tensor).{rule.theirs}", optional=True)


def _of_head(rule: Rule) -> bool:
    ours = (rule.ours,) if isinstance(rule.ours, str) else rule.ours
    return any(name.startswith(("head.", "pooler.")) for name in ours)
