"""A recipe: everything that decides what a run computes, as one value; read from TOML, from a command line, and written back.

Two runs of equal recipes, data and software are the same run.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, Literal

from cutaway.training.errors import TrainingError


def key(default: Any, about: str, least: float | None = None, most: float | None = None) -> Any:
    """A key of a section: its default, what it means, and the range of its numbers."""
    return field(default=default, metadata={"about": about, "least": least, "most": most})


@dataclass(frozen=True)
class Data:
    path: tuple[str, ...] = key((), "files, folders, patterns or data sets of a hub (hub:NAME) to learn from")
    weights: tuple[float, ...] = key((), "how often each of path is drawn, in any unit; by their sizes if not given", 0)
    limit: int | None = key(None, "texts at most, of each file or data set of a hub; all if not given", 1)
    valid: tuple[str, ...] = key((), "what to validate with; else the end of path")
    split: float = key(0.1, "how much of path is kept for validation where valid is empty; 0: nothing", 0, 0.9)
    kind: str | None = key(None, "text, jsonl, json, csv, tsv, conll, parquet; by the names of the files if not given")
    column: str | None = key(None, "which column holds the text")
    columns: tuple[str, ...] = key(
        (), "names of the columns, where the first line of a CSV or TSV file is data already"
    )
    document: str = key("file", "what one text of a text file is: file, line or paragraph")
    tokenizer: str = key("byte", "char, byte, bpe:8000, wordpiece:8000, unigram:8000, or a source that has one")
    length: int = key(256, "tokens a row, as the model reads them", 1)
    rows: Literal["stream", "packed", "texts"] = key(
        "stream",
        "stream: all texts one after another; packed: whole texts, which do not see each other; texts: one a row",
    )
    shards: str | None = key(None, "a folder for the tokens, written once and mapped from then on; else in memory")
    place: Literal["fixed", "shifted", "random"] = key("shifted", "where rows of a stream begin, epoch by epoch")


@dataclass(frozen=True)
class Model:
    preset: str | None = key(None, "a preset or a family; further keys are its sizes (width, layers, …)")
    source: str | None = key(None, "a source whose weights training starts from, in place of a preset")
    norm: str | None = key(None, "another norm than the family's")
    position: str | None = key(None, "other positions")
    feedforward: str | None = key(None, "another feed-forward network")
    mixer: tuple[str, ...] = key((), "other mixers of tokens, in turn")
    embedding: str | None = key(None, "what is added to the embeddings: ngrams:5, of up to five tokens together")
    sizes: dict[str, Any] = field(default_factory=dict, metadata={"about": "sizes that differ from the preset's"})


@dataclass(frozen=True)
class Objective:
    name: str = key("auto", "what is learnt: causal, masked, …; auto is the family's own")
    options: dict[str, Any] = field(default_factory=dict, metadata={"about": "the objective's own options"})


@dataclass(frozen=True)
class Task:
    name: Literal["classification", "tokens", "questions", "translation", "summarisation", "instructions"] | None = key(
        None, "what a model with a source is tuned for; translation and summarisation may begin from a preset"
    )
    text: str | None = key(None, "the column that is read; the task's own if not given")
    answer: str | None = key(None, "the column of what should come out; the task's own if not given")
    frozen: bool = key(False, "train the head alone")
    options: dict[str, Any] = field(default_factory=dict, metadata={"about": "the task's own options"})


@dataclass(frozen=True)
class Lora:
    rank: int | None = key(None, "train detours of this rank beside the matrices of the source, in place of them", 1)
    alpha: float | None = key(None, "what they are scaled by, times the rank; twice the rank if not given", 0)
    targets: tuple[str, ...] = key(("all",), "beside which matrices: q, k, v, out, up, …; all in the blocks")
    dropout: float = key(0.0, "of what the detours read", 0, 0.99)


@dataclass(frozen=True)
class Optimizer:
    name: Literal["adamw", "muon", "adafactor"] = key("adamw", "adamw; muon (matrices; adamw for the rest); adafactor")
    rate: float = key(3e-4, "the highest learning rate", 0)
    matrix_rate: float | None = key(None, "of the matrices that Muon turns; rate if not given", 0)
    table_rate: float | None = key(None, "of embeddings; rate if not given", 0)
    decay: float = key(0.1, "weight decay of matrices; norms and biases have none", 0)
    table_decay: float = key(0.0, "weight decay of embeddings", 0)
    betas: tuple[float, float] = key((0.9, 0.95), "AdamW's two means", 0, 1)
    eps: float = key(1e-8, "AdamW's epsilon", 0)
    momentum: float = key(0.95, "Muon's", 0, 1)
    rounds: int = key(5, "of Newton-Schulz in Muon", 1)
    layer_decay: float = key(1.0, "each layer's rate, as a part of that of the layer above it", 0, 1)
    clip: float | None = key(1.0, "the largest norm of the gradient", 0)


@dataclass(frozen=True)
class Schedule:
    name: Literal["cosine", "linear", "wsd", "noam", "constant"] = key("cosine", "how the rate changes")
    warmup: float = key(100, "steps in which the rate grows from 0; below 1, the part of all steps", 0)
    final: float = key(0.1, "the last rate, as a part of the highest (cosine, linear, wsd)", 0, 1)
    cooldown: float = key(0.2, "the part of the steps in which wsd goes down", 0, 1)


@dataclass(frozen=True)
class Loop:
    steps: int = key(1000, "updates of the weights", 1)
    epochs: float | None = key(None, "passes over the data, in place of steps", 0)
    rows: int = key(32, "rows at once, of all processes together", 1)
    tokens: int | None = key(
        None, "tokens at once, padding included, in place of rows: where texts differ in length", 1
    )
    batch: int | None = key(
        None, "tokens an update, gathered over as many times rows as it takes; one time if not given", 1
    )
    seed: int = key(0, "of everything that is random", 0, 2**63 - 1)
    dtype: Literal["float32", "bfloat16", "float16"] = key(
        "float32", "of the products of matrices; weights are float32"
    )
    recompute: bool = key(False, "keep no activations inside blocks: less memory, a third more work")
    compile: bool = key(False, "let torch.compile make kernels for the model")
    patience: int | None = key(None, "stop after so many evaluations without a better one", 1)
    spike: float | None = key(None, "leave out updates whose gradient is so many times larger than of late", 1)
    device: str | None = key(None, "cpu, cuda, …; a GPU where there is one")
    ema: float = key(0.0, "the decay of an exponential average of the weights, which is what is saved; 0: none", 0, 1)


@dataclass(frozen=True)
class Evaluate:
    every: int | None = key(None, "steps between evaluations; an epoch, or a tenth of all, if not given", 1)
    rows: int | None = key(None, "rows at once; as in training if not given", 1)
    batches: int | None = key(None, "how many batches; all of the validation data if not given", 1)


@dataclass(frozen=True)
class Save:
    every: int | None = key(None, "steps between checkpoints, besides one after each evaluation", 1)
    minutes: float | None = key(10.0, "minutes after which one is written in any case", 0)
    last: int = key(1, "how many of the latest are kept; the best always is", 1)


@dataclass(frozen=True)
class Parallel:
    data: int | None = key(
        None, "copies of the model, each of which reads other rows; all that are left if not given", 1
    )
    shard: int = key(1, "processes that divide the weights, gradients and optimizer of a copy among them", 1)
    tensor: int = key(
        1, "processes that divide each layer among them, by heads and hidden neurons; they read the same", 1
    )


@dataclass(frozen=True)
class Watching:
    prompt: str | None = key(None, "write what the model says to this at each evaluation into samples.txt")
    tokens: int = key(200, "how much it says", 1)
    tensorboard: bool = key(False, "write event files into RUN/tensorboard")
    wandb: str | None = key(None, "the Weights & Biases project to log to")
    curves: bool = key(True, "draw RUN/curves.png at the end")


@dataclass(frozen=True)
class Recipe:
    data: Data = Data()
    model: Model = Model()
    objective: Objective = Objective()
    task: Task = Task()
    lora: Lora = Lora()
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    loop: Loop = Loop()
    evaluate: Evaluate = Evaluate()
    save: Save = Save()
    watch: Watching = Watching()
    parallel: Parallel = Parallel()

    def flat(self) -> dict[str, Any]:
        """Every key by its full name, `section.key`."""
        found = {}
        for section in dataclasses.fields(self):
            value = getattr(self, section.name)
            for each in dataclasses.fields(value):
                inner = getattr(value, each.name)
                if each.name in FREE:
                    found |= {f"{section.name}.{name}": x for name, x in inner.items()}
                else:
                    found[f"{section.name}.{each.name}"] = inner
        return found


FREE = ("sizes", "options")  # keys of these are the section's too, and are checked where they are used
SECTIONS = tuple(f.name for f in dataclasses.fields(Recipe))
UNMATHEMATICAL = (
    "data.shards",
    "save.",
    "watch.",
    "loop.device",
    "parallel.",
)  # a run may go on with another of these: no number depends on them


def differences(old: Recipe, new: Recipe) -> list[str]:
    """Where two recipes describe different runs, in words."""
    a, b = old.flat(), new.flat()
    names = [n for n in {**a, **b} if not n.startswith(UNMATHEMATICAL) and a.get(n) != b.get(n)]
    return [f"{name} was {a.get(name)!r} and is {b.get(name)!r}" for name in names]


def read(sections: Mapping[str, Any], base: Recipe | None = None) -> Recipe:
    """A recipe from plain values: `{"loop": {"steps": 100}}`. What is not given is as in `base`, but that steps take the
    place of its epochs.

    Raises:
        TrainingError: an unknown section or key (the message names the nearest), a value of another type or out of range.
    """
    recipe = base or Recipe()
    for section, values in sections.items():
        if section not in SECTIONS:
            raise TrainingError(f"a recipe has no section {section!r}{_near(section, SECTIONS)}")
        if not isinstance(values, Mapping):
            raise TrainingError(
                f"{section} is a section of a recipe, so it holds keys, as in [{section}]; not {values!r}"
            )
        if section == "loop" and "steps" in values:
            values = {"epochs": None, **values}
        recipe = dataclasses.replace(recipe, **{section: _section(getattr(recipe, section), section, values)})
    return recipe


def _section(old: Any, section: str, values: Mapping[str, Any]) -> Any:
    known = {f.name: f for f in dataclasses.fields(old) if f.name not in FREE}
    free = next((f.name for f in dataclasses.fields(old) if f.name in FREE), None)
    unknown = {name: value for name, value in values.items() if name not in known}
    if unknown and not free:
        name = next(iter(unknown))
        raise TrainingError(f"{section} has no key {name!r}{_near(name, known)}")
    hints = _hints(type(old))
    new = {
        name: _fit(f"{section}.{name}", hints[name], known[name].metadata, value)
        for name, value in values.items()
        if name in known
    }
    if free:
        new[free] = {**getattr(old, free), **unknown}
    return dataclasses.replace(old, **new)


@lru_cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def hint(section: str, name: str) -> Any:
    """The type of a key; Any where the section is open and does not know it."""
    kind = type(getattr(Recipe(), section, None))
    return _hints(kind).get(name, Any) if dataclasses.is_dataclass(kind) else Any


def _fit(where: str, hint: Any, limits: Mapping[str, Any], value: Any) -> Any:
    """The value as the type `hint`; a lone value is a list of one."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return None if value is None else _fit(where, inner[0], limits, value)
    if origin is Literal:
        if value not in inner:
            raise TrainingError(f"{where} cannot be {value!r}{_near(str(value), inner)}")
        return value
    if origin is tuple:
        values = list(value) if isinstance(value, (list, tuple)) else [value]
        if Ellipsis not in inner and len(values) != len(inner):
            raise TrainingError(f"{where} is {len(inner)} values, not {value!r}")
        return tuple(_fit(where, inner[0], limits, each) for each in values)
    if hint is float and type(value) is int:
        value = float(value)
    if type(value) is not hint:
        raise TrainingError(f"{where} cannot be {value!r}; {KINDS[hint]} is needed")
    least, most = limits["least"], limits["most"]
    if hint in (int, float) and (
        not abs(value) < float("inf") or (least is not None and value < least) or (most is not None and value > most)
    ):
        wanted = f"from {least}" + (f" to {most}" if most is not None else "")
        raise TrainingError(f"{where} cannot be {value}; a number {wanted} is needed")
    return value


KINDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}


def _near(name: str, known: typing.Iterable[Any]) -> str:
    names = [str(each) for each in known]
    near = get_close_matches(name, names, n=1)
    return f" (did you mean {near[0]}?)" if near else f"; there are {', '.join(names)}"
