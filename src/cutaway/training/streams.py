"""From the data of a recipe to the batches that a run draws from them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cutaway.training import objectives
from cutaway.training.data import Examples, Loader, Tokens, Windows, examples, tokenise
from cutaway.training.data.buckets import Buckets
from cutaway.training.data.packing import Items
from cutaway.training.data.texts import Packed, Texts
from cutaway.training.errors import TrainingError
from cutaway.training.loop import Batches
from cutaway.training.recipe import Data, Recipe
from cutaway.training.seeds import fold
from cutaway.training.watch import Watch
from cutaway.training.world import World


@dataclass
class Streams:
    """What is learnt from and what is validated with. `tokens`: about how many a batch has."""

    train: Batches
    valid: Batches | None
    tokens: int


def examples_of(data: Data, path: tuple[str, ...]) -> Examples:
    """What there is in these files, read as the recipe says."""
    return examples(path, kind=data.kind, names=data.columns or None, document=data.document, limit=data.limit)


def sources(data: Data) -> list[Examples]:
    """What is learnt from: each path by itself where they are mixed by weights, else all as one.

    Raises:
        TrainingError: other than one weight for each path.
    """
    if data.weights and len(data.weights) != len(data.path):
        raise TrainingError(
            f"data.weights has {len(data.weights)} numbers for the {len(data.path)} of data.path: give one for each, in "
            "their order"
        )
    return [examples_of(data, paths) for paths in ([(path,) for path in data.path] if data.weights else [data.path])]


def streams(
    recipe: Recipe, found: list[Examples], tokenizer: Any, objective: Any, world: World, watch: Watch
) -> Streams:
    """Batches of running text. `found`: what `sources` gave."""
    data, loop = recipe.data, recipe.loop
    train = [_tokens(data, each, tokenizer, world, watch) for each in found]
    valid: list[Tokens] = []
    if data.valid:
        valid = [_tokens(data, examples_of(data, data.valid), tokenizer, world, watch)]
    elif data.split:
        train, valid = (list(side) for side in zip(*(each.split(data.split) for each in train), strict=True))
    overlap = 1 if isinstance(objective, objectives.Causal) else 0  # the last target is the next row's first input
    length = data.length + overlap

    def items(tokens: Tokens, place: Any) -> Items:
        if data.rows == "stream":
            return Windows(tokens, length, overlap=overlap, place=place, seed=fold(loop.seed, 1))
        return (Packed if data.rows == "packed" else Texts)(tokens, length, overlap=overlap)

    drawn, held = [items(each, data.place) for each in train], [items(each, "fixed") for each in valid]
    ranks: Any = {"rank": world.share, "world": world.shares}
    if data.rows == "texts":
        if len(drawn) > 1:
            raise TrainingError("data.weights mix rows of one length: say data.rows packed, or leave the weights out")
        batches = Buckets(drawn[0], loop.rows, tokens=loop.tokens, seed=fold(loop.seed, 2), **ranks)
        at_once: Any = {"rows": recipe.evaluate.rows or loop.rows, "tokens": loop.tokens}
        return Streams(
            batches,
            Buckets(held[0], **at_once, shuffle=False, **ranks) if held else None,
            loop.tokens or max(1, len(train[0]) * loop.rows // len(drawn[0])),
        )
    rows = loop.rows if loop.tokens is None else max(1, loop.tokens // data.length)
    return Streams(
        Loader(drawn, rows, seed=fold(loop.seed, 2), weights=data.weights or None, **ranks),
        Loader(held, recipe.evaluate.rows or rows, shuffle=False, **ranks) if held else None,
        rows * data.length,
    )


def _tokens(data: Data, found: Examples, tokenizer: Any, world: World, watch: Watch) -> Tokens:
    size, read, made = found.size, 0, 0

    def seen(characters: int, tokens: int) -> None:
        nonlocal read, made
        read, made = read + characters, made + tokens
        watch.reading(found.name, made, size and min(read / size, 0.99))  # what is not text in a file is read too

    def tokens() -> Tokens:
        folder = Path(data.shards) if data.shards else None
        return tokenise(found, tokenizer, data.column, folder=folder, seen=seen)

    if data.shards and world.size > 1:
        world.told(lambda: len(tokens()))  # the main one writes, and then all map
    there = tokens()
    if made:
        watch.reading(found.name, made, 1.0)
    return there
