"""From a recipe with a task to the model, the rows it learns from, and what its answers are worth."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from cutaway import api
from cutaway.checkpoints import open_source
from cutaway.parts import EncoderDecoder
from cutaway.text import Tokenizer
from cutaway.training.adapt import adapt
from cutaway.training.data.buckets import Buckets
from cutaway.training.data.order import permuted
from cutaway.training.errors import DataError, TrainingError
from cutaway.training.loop import Trainer
from cutaway.training.objectives import Objective
from cutaway.training.recipe import Recipe
from cutaway.training.seeds import fold
from cutaway.training.streams import examples_of
from cutaway.training.tasks import TASKS
from cutaway.training.tasks.task import Example, Task, column
from cutaway.training.tasks.writing import Writing
from cutaway.training.world import World, device_for


@dataclass
class Tuned:
    """A task that could begin. `tokens`: about how many a batch has."""

    task: Task
    model: Any
    objective: Objective
    train: Buckets
    valid: Buckets | None
    held: list[Example]
    tokens: int
    rows: int  # at once, where answers are asked for

    @property
    def tokenizer(self) -> Tokenizer:
        return self.task.tokenizer

    @property
    def fingerprint(self) -> str:
        """Of all data."""
        return self.train.fingerprint + (" | " + self.valid.fingerprint if self.valid else "")

    @property
    def goal(self) -> str | None:
        return self.task.goal if self.held and self.task.quick else None

    def scorer(self, trainer: Trainer) -> Callable[[], dict[str, float]] | None:
        """What scores the trainer's weights on the examples that were kept back."""
        if self.goal is None:
            return None

        def scores() -> dict[str, float]:
            with trainer.average.in_place():
                answers = self.task.answers(self.model.eval(), [e.text for e in self.held], self.rows)
            return self.task.score(answers, self.held)

        return scores


def begins(recipe: Recipe) -> tuple[str, str]:
    """The columns of pairs that a model which begins from a preset is to learn from.

    Raises:
        TrainingError: the task needs a trained model.
    """
    kind = kind_of(recipe.task.name or "")
    if not issubclass(kind, Writing):
        raise TrainingError(f"the task {recipe.task.name} starts from a trained model: give --model.source SOURCE")
    data = examples_of(recipe.data, recipe.data.path)
    asked = (recipe.task.text, recipe.task.answer)
    names = zip(asked, kind.columns, ("text", "answer"), strict=True)
    source, target = (column(data, *name) for name in names)
    return source, target


def prepare_task(recipe: Recipe, world: World, begun: tuple[Any, Tokenizer] | None = None) -> Tuned:
    """What a task needs; `begun` is a model without a source, and its tokenizer.

    Raises `TrainingError`, `DataError` or `ConfigError` for what does not go together.
    """
    kind, source = kind_of(recipe.task.name or ""), recipe.model.source
    train, held = _divided(recipe, kind)
    if begun is not None:
        model, task = begun[0], made_for(kind, *begun, (), recipe.data.length, recipe.task.options)
    else:
        assert source is not None  # `begins` has refused the rest
        model, task = opened(
            source,
            kind,
            kind.classes([*train, *held]),
            length=recipe.data.length,
            device=recipe.loop.device,
            seed=fold(recipe.loop.seed),
            options=recipe.task.options,
        )
    adapt(model, recipe, head=kind.head is not None)
    if recipe.task.frozen:
        freeze(model, task)
    rows = recipe.loop.rows
    ranks: Any = {"rank": world.rank, "world": world.size, "tokens": recipe.loop.tokens}
    items = task.encode(train)
    batches = Buckets(items, rows, seed=fold(recipe.loop.seed, 2), **ranks)
    at_once = recipe.evaluate.rows or rows
    valid = Buckets(task.encode(held), at_once, shuffle=False, **ranks) if held else None
    tokens = recipe.loop.tokens or max(1, sum(len(row.ids) for row in items.rows) * rows // len(items))
    return Tuned(task, model, task.objective(model), batches, valid, held, tokens, at_once)


def kind_of(name: str) -> type[Task]:
    """The task of that name."""
    if name not in TASKS:
        raise TrainingError(f"no task {name!r}; there are {', '.join(TASKS)}")
    return TASKS[name]


def opened(
    source: str,
    kind: type[Task],
    classes: Sequence[str] = (),
    *,
    length: int = 256,
    device: str | None = None,
    seed: int | None = None,
    options: dict[str, Any] | None = None,
) -> tuple[Any, Task]:
    """The model of a source with the head of a task, and the task.

    Args:
        classes: that there are to tell apart. Where the checkpoint's head knows these, it is kept, with its order.
            Empty: the checkpoint's own.
        seed: of what starts afresh.

    Raises:
        TrainingError: the source has no tokenizer; no such option; classes that are none.
    """
    checkpoint = open_source(source)
    tokenizer = checkpoint.tokenizer()
    if tokenizer is None:
        raise TrainingError(f"{source} has no tokenizer, so there is nothing to read texts with")
    known = checkpoint.label_names if getattr(checkpoint.sizes, "head", None) == kind.head else ()
    names: tuple[str, ...] = tuple(classes)
    if not names or set(names) <= set(known):
        names = known
    changes: dict[str, Any] = {"head": kind.head} if kind.head is not None else {}
    if classes:
        if len(names) < 2:
            raise DataError(f"all examples are of one class, {', '.join(names)}; there is nothing to tell apart")
        changes["labels"] = names
    device = device_for(device)
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "not in the checkpoint, so starting afresh")  # that is what tuning is for
        torch.manual_seed(0 if seed is None else seed)
        model = api.load(source, "float32", device, **changes).model
    if not names and kind.head in ("sequence", "token"):
        names = tuple(f"LABEL_{i}" for i in range(model.sizes.labels))
    return model, made_for(kind, model, tokenizer, names, length, options)


def made_for(
    kind: type[Task],
    model: Any,
    tokenizer: Tokenizer,
    names: tuple[str, ...],
    length: int,
    options: dict[str, Any] | None,
) -> Task:
    """The task of a model."""
    room = length if model.max_positions is None else min(length, model.max_positions)
    segments = 0 if isinstance(model, EncoderDecoder) else model.stack.segments
    try:
        return kind(tokenizer, names, length=room, segments=segments, **(options or {}))
    except TypeError as problem:
        raise TrainingError(f"the task takes no such option: {problem}") from None


def freeze(model: nn.Module, task: Task) -> None:
    """Leaves the head, and what pools for it, to be trained."""
    if task.head is None:
        raise TrainingError(
            "this task uses the model's own head, which is no use to train alone; leave out task.frozen"
        )
    for name, p in model.named_parameters():
        p.requires_grad_(name.startswith(("head.", "pooler.")))


def _divided(recipe: Recipe, kind: type[Task]) -> tuple[list[Example], list[Example]]:
    """To learn from, and to validate with: files of their own, or groups of examples drawn from all."""
    data, columns = recipe.data, (recipe.task.text, recipe.task.answer)
    found = kind.read(examples_of(data, data.path), *columns)
    if data.valid:
        return found, kind.read(examples_of(data, data.valid), *columns)
    if not data.split:
        return found, []
    return divided(found, data.split, fold(recipe.loop.seed, 3))


def divided(found: Sequence[Example], share: float, seed: int) -> tuple[list[Example], list[Example]]:
    """Without about a `share` of the examples, and these: whole groups, drawn by the seed."""
    groups: dict[str, list[int]] = {}
    for i, example in enumerate(found):
        groups.setdefault(example.group or f"example {i}", []).append(i)
    import numpy as np

    order = permuted(np.arange(len(groups)), len(groups), seed).tolist()
    members, held = list(groups.values()), set[int]()
    for group in order:
        if len(held) >= share * len(found):
            break
        held.update(members[group])
    if len(held) == len(found) or not held:
        raise DataError(
            f"there are too few examples to keep {share} of them back: give --data.valid FILE, or --data.split 0"
        )
    return [e for i, e in enumerate(found) if i not in held], [e for i, e in enumerate(found) if i in held]
