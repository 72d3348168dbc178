"""The words a user types first: load, build, save, convert. Here the layers below are joined."""

import dataclasses
import gc
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from cutaway import families
from cutaway.checkpoints import adapters, main_dtype, materialise, open_source
from cutaway.checkpoints import native as native_folder
from cutaway.checkpoints.compose import another_head, compose, compose_meta
from cutaway.checkpoints.folder import check_target
from cutaway.checkpoints.save import save_huggingface
from cutaway.checkpoints.save_adapter import save_adapter
from cutaway.checkpoints.target import check_device, check_dtype
from cutaway.errors import CheckpointError, ConfigError
from cutaway.families.sizes import derived
from cutaway.parts import lora

if TYPE_CHECKING:
    from cutaway.text import Tokenizer

Layout = Literal["huggingface", "cutaway", "peft"]


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
        label_names: what the classes of its head are called; empty where nobody named them.
    """

    model: Any
    tokenizer: "Tokenizer | None"
    family: str
    sizes: Any
    source: str
    generation: dict[str, Any] = field(default_factory=dict)
    label_names: tuple[str, ...] = ()


@contextmanager
def _no_collection() -> Iterator[None]:
    """Leaves the search for garbage until later: a load makes a hundred thousand objects, and they stay."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


@_no_collection()
def load(
    source: str | os.PathLike[str],
    dtype: torch.dtype | str | None = None,
    device: torch.device | str | None = None,
    *,
    head: str | None = None,
    labels: int | Sequence[str] | None = None,
    adapter: str | os.PathLike[str] | None = None,
) -> Loaded:
    """A published or saved model, ready to run.

    Args:
        source: a folder, a `.gguf` file, `smollm2`, `minilm`, or `owner/name[@revision]` on the hub; the folder of a training
            run, or of a LoRA adapter.
        dtype: of the parameters; the checkpoint's own by default (float32 where it is quantised).
        device: "cpu" by default.
        head: another head than the checkpoint's ("sequence", "token", "none", …); what it lacks starts afresh.
        labels: how many classes a new head tells apart, or their names: a head whose classes have others starts afresh.
        adapter: a LoRA adapter in PEFT's layout that is put beside the matrices (`cutaway.parts.lora` says more).

    Raises:
        SourceError: the source leads nowhere.
        ConfigError: it describes a model that cannot be built.
        CheckpointError: its weights are not whole, not finite, or not those of the model it describes.
    """
    device = check_device(device)
    wanted = None if dtype is None else check_dtype(dtype)
    checkpoint = open_source(source, adapter)
    sizes, rules = checkpoint.sizes, checkpoint.rules
    if head is not None or labels is not None:
        sizes, rules = another_head(checkpoint, head, labels)
    model = compose_meta(checkpoint, sizes)
    wanted = wanted or main_dtype(checkpoint.tensors.values())
    with warnings.catch_warnings():
        if checkpoint.adapter is not None:  # which has the head
            warnings.filterwarnings("ignore", "not in the checkpoint, so starting afresh")
        materialise(model, rules, checkpoint.tensors, wanted, device, checkpoint.source)
    tokenizer = checkpoint.tokenizer()
    name = os.fspath(source)
    if labels is None:
        names = checkpoint.label_names if sizes == checkpoint.sizes else ()
    else:
        names = () if isinstance(labels, int) else tuple(labels)
    _identified(model, checkpoint.family, sizes, checkpoint.swaps, names, checkpoint.source)
    if checkpoint.adapter is not None:
        adapters.load(model, checkpoint.adapter)
    return Loaded(model, tokenizer, checkpoint.family, sizes, name, checkpoint.generation, names)


def build(
    preset: str,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | str | None = None,
    seed: int | None = None,
    norm: str | None = None,
    position: str | None = None,
    feedforward: str | None = None,
    mixer: str | Sequence[str] | None = None,
    embedding: str | None = None,
    **sizes: Any,
) -> Any:
    """A model of published sizes with fresh weights: `build("gpt2")`, `build("llama", vocab=1000, width=64, …)`.

    Args:
        preset: the name of a preset, or of a family, whose vocab, width, layers and heads are then given.
        device: "cpu" by default; "meta" gives shapes without memory.
        dtype: float32 by default.
        seed: makes the weights repeatable; the global random state is left alone.
        norm, position, feedforward, mixer: the name of a part to put in place of the family's own; several mixers
            alternate over the blocks, and "window:256" gives one its number. `cutaway.swaps` holds the names.
        embedding: what is added to the embeddings: "ngrams:5", of up to five tokens together.
        sizes: sizes that differ from the preset's. What follows from them and is not given follows: with another
            width or number of heads `head_width` is width / heads; `hidden` stays in proportion to width, and
            `kv_heads` to heads.

    Raises:
        SourceError: no such preset; the message names the nearest.
        ConfigError: no such size or part, or sizes or parts that do not go together.
    """
    swapped = {"norm": norm, "position": position, "feedforward": feedforward, "mixer": mixer}
    swapped["embedding"] = embedding
    swapped = {kind: name for kind, name in swapped.items() if name is not None}
    where = torch.device("meta") if str(device) == "meta" else check_device(device)
    kind = torch.float32 if dtype is None else check_dtype(dtype)
    if seed is not None and not (type(seed) is int and 0 <= seed < 2**63):
        raise ConfigError(f"seed cannot be {seed!r}; a whole number from 0 is needed")
    family = preset if preset in families.FAMILIES else families.by_preset(preset)
    module, given = families.get(family), _named(family, sizes)
    known = _of_family(family, given) if preset == family else _values(module.PRESETS[preset])
    chosen = native_folder.read_sizes(module.Sizes, derived(module.Sizes, known, given), preset)
    with torch.random.fork_rng(devices=[where] if where.type == "cuda" else [], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        model = compose(family, chosen, preset, where, swapped)
    return _identified(model.to(kind), family, chosen, swapped)


def _of_family(family: str, given: dict[str, Any]) -> dict[str, Any]:
    """The sizes of a family as far as they are known without a preset: its defaults, and what width and heads imply.

    Raises:
        ConfigError: too little is given.
    """
    module = families.get(family)
    fields = dataclasses.fields(module.Sizes)
    known = {f.name: f.default for f in fields if f.default is not dataclasses.MISSING}
    lacking = [f.name for f in fields if f.name not in known and f.name not in given]
    first = derived(module.Sizes, _values(next(iter(module.PRESETS.values()))), given)  # whose proportions it takes
    known.update({name: first[name] for name in lacking if name in ("hidden", "kv_heads", "head_width")})
    if lacking := [name for name in lacking if name not in known]:
        presets = list(module.PRESETS)
        raise ConfigError(
            f"{family} is a family of many sizes: give {', '.join(lacking)} too, or choose a preset "
            f"({', '.join(presets[:4])}{', …' if presets[4:] else ''})"
        )
    return known


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
            "cutaway" keeps every family and all its sizes; "peft" keeps the LoRA adapter in use alone.
        tokenizer: saved beside it; that of `load` by default.
        overwrite: replace a checkpoint that is there. A folder that holds anything else is never touched.

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
    swaps: dict[str, Any] = getattr(net, "swaps", {})
    beside: dict[str, Any] = {"label_names": getattr(net, "label_names", ()), "overwrite": overwrite}
    beside["tokenizer"] = tokenizer if tokenizer is not None else getattr(model, "tokenizer", None)
    if layout == "peft":
        return save_adapter(net, folder, getattr(net, "source", None), **beside)
    if lora.names(net):
        raise ConfigError(
            f"this model has adapters ({', '.join(lora.names(net))}): layout='peft' keeps the one in use alone, and "
            "cutaway.parts.lora.merge(model) makes it part of the weights"
        )
    layout = layout or ("huggingface" if families.get(family).MODEL_TYPES and not swaps else "cutaway")
    if layout not in ("huggingface", "cutaway"):
        raise ConfigError(f"no layout {layout!r}; there are huggingface, cutaway and peft")
    beside["generation"] = getattr(model, "generation", None)
    if layout == "cutaway":
        return native_folder.save(net, family, sizes, folder, swaps=swaps, **beside)
    if swaps:
        raise ConfigError(f"a {family} with another {' and '.join(swaps)} has no published form; use layout='cutaway'")
    return save_huggingface(net, family, sizes, folder, **beside)


def convert(
    source: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    layout: Layout | None = None,
    dtype: torch.dtype | str | None = None,
    adapter: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
) -> Path:
    """`load` and `save` in one: any source to a folder that `transformers` loads. Raises what they raise.

    An adapter becomes part of the weights.
    """
    check_target(folder, overwrite)  # before the work of loading
    loaded = load(source, dtype, adapter=adapter)
    lora.merge(loaded.model)
    return save(loaded, folder, layout=layout, overwrite=overwrite)


def _identified(
    model: nn.Module,
    family: str,
    sizes: Any,
    swaps: dict[str, Any],
    label_names: tuple[str, ...] = (),
    source: str | None = None,
) -> nn.Module:
    """The model knows what it is, so that it can be saved."""
    model.family, model.sizes, model.swaps, model.label_names = family, sizes, swaps, label_names  # type: ignore[assignment]
    model.source = source  # type: ignore[assignment]
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
