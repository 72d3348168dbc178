"""From a recipe to what it names: tokenizer, data, model, objective."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

from torch import nn

from cutaway import api, families
from cutaway.checkpoints import open_source
from cutaway.errors import CutawayError
from cutaway.text import Tokenizer
from cutaway.text.files import from_directory
from cutaway.training import objectives, run
from cutaway.training.adapt import adapt
from cutaway.training.data import Examples, learn
from cutaway.training.data.vocabularies import KINDS
from cutaway.training.errors import TrainingError
from cutaway.training.loop import Batches, Trainer
from cutaway.training.parallel.divide import divide
from cutaway.training.parallel.mesh import laid_out
from cutaway.training.recipe import Recipe
from cutaway.training.seeds import fold
from cutaway.training.streams import examples_of, sources, streams
from cutaway.training.watch import Watch
from cutaway.training.world import World, device_for


@dataclass
class Prepared:
    """A run that could begin."""

    trainer: Trainer
    valid: Batches | None
    tokenizer: Tokenizer
    fingerprint: str  # of all data
    copy: nn.Module | None  # of the whole model on the CPU, in the main process: what is written to the disk
    scores: Callable[[], dict[str, float]] | None = None  # of the validation data, where a task has such
    goal: str | None = None  # which of them says how good the model is; its loss does if None


def prepare(
    recipe: Recipe, world: World | None = None, folder: Path | None = None, watch: Watch | None = None
) -> Prepared:
    """What a run needs; a tokenizer that was learnt for the one in `folder` is its tokenizer.

    Raises `TrainingError`, `DataError` or `ConfigError` for what does not go together.
    """
    world = world or World()
    if not recipe.data.path:
        raise TrainingError("there is nothing to learn from: give --data.path FILE")
    if recipe.task.name:
        return _tuned(recipe, world, folder)
    found = sources(recipe.data)
    tokenizer = _tokenizer(recipe, found, world, folder)
    device = device_for(recipe.loop.device)
    world = laid_out(world, recipe.parallel, device)
    # what is divided is so a block at a time, and is never whole on a device
    model = _model(recipe, tokenizer, device if world.mesh is None else "cpu")
    adapt(model, recipe)
    if recipe.data.rows == "packed" and model.mixes_documents:
        raise TrainingError(f"{model.family} cannot keep texts that share a row apart: say --data.rows texts")
    objective = objectives.named(
        recipe.objective.name, model, model.family, model.sizes, tokenizer, **recipe.objective.options
    )
    copied = copy.deepcopy(model).cpu() if world.main else None
    divide(model, objective, recipe, world, device)
    made = streams(recipe, found, tokenizer, objective, world, watch or Watch())
    accumulate = max(1, -(-(recipe.loop.batch or 1) // made.tokens))
    recipe = in_steps(recipe, len(made.train), accumulate)
    trainer = Trainer(model, objective, made.train, recipe, accumulate=accumulate, world=world)
    fingerprint = made.train.fingerprint + (" | " + made.valid.fingerprint if made.valid else "")
    return Prepared(trainer, made.valid, tokenizer, fingerprint, copied)


def in_steps(recipe: Recipe, batches: int, accumulate: int) -> Recipe:
    """The recipe with its epochs, of so many batches each, as steps."""
    if recipe.loop.epochs is None:
        return recipe
    steps = max(1, math.ceil(recipe.loop.epochs * batches / accumulate))
    every = recipe.evaluate.every or max(1, batches // accumulate)
    return dataclasses.replace(
        recipe,
        loop=dataclasses.replace(recipe.loop, steps=steps),
        evaluate=dataclasses.replace(recipe.evaluate, every=every),
    )


def _tuned(recipe: Recipe, world: World, folder: Path | None) -> Prepared:
    """A model with a source, or one that is to write and begins from a preset, and its task."""
    from cutaway.training.tasks.setup import begins, prepare_task

    if recipe.parallel.shard > 1 or recipe.parallel.tensor > 1:
        raise TrainingError(
            "a task is learnt by whole copies of the model: leave parallel.shard and parallel.tensor at 1"
        )
    for name in ("weights", "rows", "shards"):
        if getattr(recipe.data, name) != getattr(Recipe().data, name):
            raise TrainingError(f"data.{name} is for running text; a task makes its own rows: leave it out")
    begun = None
    if recipe.model.source is None:
        columns = begins(recipe)
        tokenizer = _tokenizer(recipe, [examples_of(recipe.data, recipe.data.path)], world, folder, columns)
        device = device_for(recipe.loop.device)
        begun = _model(recipe, tokenizer, device), tokenizer
    made = prepare_task(recipe, world, begun)
    accumulate = max(1, -(-(recipe.loop.batch or 1) // made.tokens))
    chosen = in_steps(recipe, len(made.train), accumulate)
    trainer = Trainer(made.model, made.objective, made.train, chosen, accumulate=accumulate, world=world)
    copied = copy.deepcopy(made.model).cpu() if world.main else None
    return Prepared(trainer, made.valid, made.tokenizer, made.fingerprint, copied, made.scorer(trainer), made.goal)


def _tokenizer(
    recipe: Recipe, found: list[Examples], world: World, folder: Path | None, columns: tuple[str, ...] = ()
) -> Tokenizer:
    """`columns`: it is learnt from, where that is not the one of `data`."""
    name = recipe.data.tokenizer
    kind, _, size = name.partition(":")
    if recipe.model.source:
        name = recipe.model.source
    elif kind in KINDS:
        if size and not (size.isdecimal() and int(size)):
            raise TrainingError(f"data.tokenizer {kind}:N takes how many tokens it may have, not {size!r}")
        last = run.named_in(folder, "last") if folder else None
        # what several threads learn need not be the same twice: once for all processes, and once for the run
        written = world.told(
            lambda: _written(
                from_directory(last / "model")
                if last
                else learn(
                    kind,
                    (t for each in found for row, _ in each.texts(*columns or (recipe.data.column,)) for t in row),
                    int(size or 8000),
                )
            )
        )
        with TemporaryDirectory() as temporary:
            for file, text in written.items():
                (Path(temporary) / file).write_text(text, encoding="utf-8")
            return from_directory(temporary)
    try:
        read = open_source(name).tokenizer()
    except CutawayError as error:
        raise TrainingError(f"data.tokenizer is {', '.join(KINDS)} or a source that has one; {error}") from None
    if read is None:
        raise TrainingError(f"{name} has no tokenizer")
    return read


def _written(tokenizer: Tokenizer) -> dict[str, str]:
    """The files of a tokenizer, by name."""
    with TemporaryDirectory() as temporary:
        tokenizer.save(temporary)
        return {file.name: file.read_text(encoding="utf-8") for file in Path(temporary).iterdir()}


def _model(recipe: Recipe, tokenizer: Tokenizer, device: str) -> Any:
    chosen = recipe.model
    if (chosen.preset is None) == (chosen.source is None):
        raise TrainingError(
            "what is to be trained? Give --model.preset NAME (`cutaway models`) or --model.source SOURCE"
        )
    if chosen.source:
        if chosen.sizes:
            raise TrainingError(f"{chosen.source} has its sizes already: leave out model.{next(iter(chosen.sizes))}")
        return api.load(chosen.source, "float32", device).model
    preset = chosen.preset or ""
    family = preset if preset in families.FAMILIES else families.by_preset(preset)
    module = families.get(family)
    of = module.PRESETS.get(preset, module.Sizes)  # the class has the defaults
    known = {f.name: getattr(of, f.name) for f in dataclasses.fields(of) if hasattr(of, f.name)}
    likely = SimpleNamespace(**{**known, **chosen.sizes})
    learnt = "translation" if recipe.task.name else recipe.objective.name
    sizes = objectives.sizes_for(learnt, family, likely, tokenizer, recipe.data.length)
    swaps: dict[str, Any] = {kind: getattr(chosen, kind) for kind in ("norm", "position", "feedforward", "embedding")}
    mixer = list(chosen.mixer) or None
    return api.build(
        preset, device=device, seed=fold(recipe.loop.seed), mixer=mixer, **swaps, **{**sizes, **chosen.sizes}
    )
