"""The words a user types first: load, build, save, convert. Here the layers below are joined."""

import dataclasses
import os
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from cutaway import families
from cutaway.checkpoints import Checkpoint, main_dtype, materialise, open_source
from cutaway.checkpoints import native as native_folder
from cutaway.checkpoints.save import save_huggingface
from cutaway.errors import CheckpointError, ConfigError
from cutaway.layout import Rule, ignore

if TYPE_CHECKING:
    from cutaway.text import Tokenizer

DTYPES = {
    **dict.fromkeys(("float32", "f32", "fp32"), torch.float32),
    **dict.fromkeys(("bfloat16", "bf16"), torch.bfloat16),
    **dict.fromkeys(("float16", "f16", "fp16", "half"), torch.float16),
    **dict.fromkeys(("float64", "f64", "double"), torch.float64),
}
Layout = Literal["huggingface", "cutaway"]


@dataclass
class Loaded:
    """A model with what belongs to it.

    Attributes:
        model: in evaluation mode.
        tokenizer: None where the source has none.
        family: the name of its family.
        sizes: that family's `Sizes`.
        source: what it was loaded from, as given.
        generation: published generation settings, such as `eos_token_id`.
    """

    model: Any
    tokenizer: "Tokenizer | None"
    family: str
    sizes: Any
    source: str
    generation: dict[str, Any] = field(default_factory=dict)


def load(
    source: str | os.PathLike[str],
    dtype: torch.dtype | str | None = None,
    device: torch.device | str | None = None,
    *,
    head: str | None = None,
    labels: int | None = None,
) -> Loaded:
    """A published or saved model, ready to run.

    Args:
        source: a folder, a `.gguf` file, `smollm2`, `minilm`, or `owner/name[@revision]` on the hub.
        dtype: of the parameters; the checkpoint's own by default (float32 where it is quantised).
        device: "cpu" by default.
        head: another head than the checkpoint's ("sequence", "token", "none", …); what it lacks starts afresh.
        labels: how many classes a new head tells apart.

    Raises:
        SourceError: the source leads nowhere.
        ConfigError: it describes a model that cannot be built.
        CheckpointError: its weights are not whole, not finite, or not those of the model it describes.
    """
    device = check_device(device)
    wanted = None if dtype is None else check_dtype(dtype)
    checkpoint = open_source(source)
    sizes, rules = checkpoint.sizes, checkpoint.rules
    if head is not None or labels is not None:
        sizes, rules = _another_head(checkpoint, head, labels)
    model = _compose(checkpoint.family, sizes, len(checkpoint.tensors), checkpoint.source)
    wanted = wanted or main_dtype(checkpoint.tensors.values())
    materialise(model, rules, checkpoint.tensors, wanted, device, f"loading {checkpoint.source}")
    tokenizer = checkpoint.tokenizer()
    name = os.fspath(source)
    return Loaded(
        _identified(model, checkpoint.family, sizes), tokenizer, checkpoint.family, sizes, name, checkpoint.generation
    )


def build(
    preset: str,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | str | None = None,
    seed: int | None = None,
    **sizes: Any,
) -> Any:
    """A model of published sizes with fresh weights: `build("gpt2")`, `build("llama", vocab=1000, width=64, …)`.

    Args:
        preset: the name of a preset, or of a family whose sizes are then all given (or at their defaults).
        device: "cpu" by default; "meta" gives shapes without memory.
        dtype: float32 by default.
        seed: makes the weights repeatable; the global random state is left alone.
        sizes: sizes that differ from the preset's.

    Raises:
        SourceError: no such preset; the message names the nearest.
        ConfigError: no such size, or sizes that fit no model.
    """
    where = torch.device("meta") if str(device) == "meta" else check_device(device)
    kind = torch.float32 if dtype is None else check_dtype(dtype)
    if preset in families.FAMILIES:
        family, known = preset, {}
    else:
        family = families.by_preset(preset)
        known = _values(families.get(family).PRESETS[preset])
    chosen = native_folder.read_sizes(families.get(family).Sizes, {**known, **_named(family, sizes)}, preset)
    with torch.random.fork_rng(devices=[where] if where.type == "cuda" else [], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        with where:
            model = _checked_compose(family, chosen, preset)
    return _identified(model.to(kind), family, chosen)


def save(
    model: Any,
    folder: str | os.PathLike[str],
    *,
    layout: Layout | None = None,
    tokenizer: "Tokenizer | None" = None,
    overwrite: bool = False,
) -> Path:
    """Writes what `load` or `build` gave to a folder that `load` reads back bit for bit.

    Args:
        model: what `load` returned, or a model made by `load` or `build`.
        layout: "huggingface", which `transformers` reads too, is the default where the family is published in it;
            "cutaway" keeps every family.
        tokenizer: saved beside it; that of `load` by default.
        overwrite: replace what the folder holds.

    Raises:
        ConfigError: the family, or a size of it, cannot be said in the Hugging Face layout.
        CheckpointError: the folder holds something already, or cannot be written; it is then as it was.
    """
    net = getattr(model, "model", model)
    family, sizes = getattr(net, "family", None), getattr(net, "sizes", None)
    if not isinstance(net, nn.Module) or not isinstance(family, str):
        raise CheckpointError("only what `load` or `build` gave can be saved; a model composed by hand has no sizes")
    if any(parameter.is_meta for parameter in net.parameters()):
        raise CheckpointError("a model on the meta device has no weights to save")
    layout = layout or ("huggingface" if families.get(family).MODEL_TYPES else "cutaway")
    writers = {"huggingface": save_huggingface, "cutaway": native_folder.save}
    if layout not in writers:
        raise ConfigError(f"no layout {layout!r}; there are {' and '.join(writers)}")
    tokenizer = tokenizer if tokenizer is not None else getattr(model, "tokenizer", None)
    generation = getattr(model, "generation", None)
    return writers[layout](net, family, sizes, folder, tokenizer=tokenizer, generation=generation, overwrite=overwrite)


def convert(
    source: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    layout: Layout | None = None,
    dtype: torch.dtype | str | None = None,
    overwrite: bool = False,
) -> Path:
    """`load` and `save` in one: any source to a folder that `transformers` loads. Raises what they raise."""
    return save(load(source, dtype), folder, layout=layout, overwrite=overwrite)


def check_dtype(dtype: torch.dtype | str) -> torch.dtype:
    """A floating-point dtype by any of its usual names."""
    found = DTYPES.get(dtype.removeprefix("torch.")) if isinstance(dtype, str) else dtype
    if found not in DTYPES.values():
        raise ConfigError(f"no dtype {dtype!r} for a model; there are float32, bfloat16, float16 and float64")
    return found  # type: ignore[return-value]


def check_device(device: torch.device | str | None) -> torch.device:
    """A device that this machine has."""
    try:
        found = torch.device(device or "cpu")
    except (RuntimeError, TypeError) as error:
        raise ConfigError(f"no device {device!r}; cpu, cuda, cuda:1 and mps are of the kind known") from error
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(found.type, False):
        has = " and ".join(name for name, available in there.items() if available)
        raise ConfigError(f"this machine, or this build of torch, has no device {found.type}; it has {has}")
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"no device {found}: this machine has {torch.cuda.device_count()}")
    return found


def _compose(family: str, sizes: Any, tensors: int, source: str) -> nn.Module:
    """The model on `meta`: names and shapes without memory."""
    for name in ("layers", "decoder_layers"):
        if (getattr(sizes, name, None) or 0) > tensors:
            raise CheckpointError(
                f"{source}: {getattr(sizes, name)} layers are described, but {tensors} tensors are there"
            )
    with torch.device("meta"), _Unfilled():
        return _checked_compose(family, sizes, source)


class _Unfilled(TorchFunctionMode):
    """Leaves out the drawing of numbers, of which `meta` has none: torch would import its compiler for it (1 s)."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in ("normal_", "uniform_", "trunc_normal_"):
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


def _checked_compose(family: str, sizes: Any, what: str) -> nn.Module:
    try:
        return families.get(family).compose(sizes)
    except ConfigError:
        raise
    except (MemoryError, OverflowError, RuntimeError, TypeError, ValueError, ZeroDivisionError, KeyError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"{what}: no {family} can be built of these sizes ({first})") from error


def _another_head(checkpoint: Checkpoint, head: str | None, labels: int | None) -> tuple[Any, list[Rule]]:
    """Sizes and rules for a model whose head is not, or not wholly, in the checkpoint."""
    if checkpoint.rules is None:
        raise ConfigError(f"{checkpoint.source} was saved by cutaway with its head; load it as it is")
    changes = {name: value for name, value in (("head", head), ("labels", labels)) if value is not None}
    known = {f.name for f in dataclasses.fields(checkpoint.sizes)}
    if unknown := set(changes) - known:
        raise ConfigError(f"the {checkpoint.family} family has no choice of {' or '.join(sorted(unknown))}")
    sizes = dataclasses.replace(checkpoint.sizes, **changes)
    if sizes == checkpoint.sizes:
        return sizes, list(checkpoint.rules)
    rules = families.get(checkpoint.family).weights(sizes)
    rules = [dataclasses.replace(rule, optional=True) if _of_head(rule) else rule for rule in rules]
    left = [ignore(f"{r.theirs}(.weight|.bias|.gamma|.beta|)") for r in checkpoint.rules if _of_head(r)]
    return sizes, rules + left


def _of_head(rule: Rule) -> bool:
    ours = (rule.ours,) if isinstance(rule.ours, str) else rule.ours
    return any(name.startswith(("head.", "pooler.")) for name in ours)


def _identified(model: nn.Module, family: str, sizes: Any) -> nn.Module:
    """The model knows what it is, so that it can be saved."""
    model.family, model.sizes = family, sizes  # type: ignore[assignment]
    return model.eval()


def _values(sizes: Any) -> dict[str, Any]:
    return {f.name: getattr(sizes, f.name) for f in dataclasses.fields(sizes)}


def _named(family: str, sizes: dict[str, Any]) -> dict[str, Any]:
    known = [f.name for f in dataclasses.fields(families.get(family).Sizes)]
    for name in sizes:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise ConfigError(f"the {family} family has no size {name!r}{hint}; its sizes are {', '.join(known)}")
    return sizes
