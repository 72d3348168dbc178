"""What a task is, and what all have in common."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from cutaway.parts import EncoderDecoder
from cutaway.text import Tokenizer
from cutaway.training.batch import Labelled, Pairs, Rows
from cutaway.training.data import Examples
from cutaway.training.errors import DataError, TrainingError
from cutaway.training.objectives import Objective
from cutaway.training.tasks.items import Encoded, TaskItems


@dataclass(frozen=True)
class Example:
    """One of the data: what is read, what should come out, and where it stands in the files.

    Examples of one `group` never stand on both sides of a split.
    """

    text: Any
    answer: Any = None
    where: str = ""
    group: str = ""


class Task(ABC):
    """One task of one model.

    Args:
        tokenizer: the model's.
        names: of the classes, in the order of the model's head; empty where the task has none.
        length: T, the most tokens a row has.
        segments: how many segments the model tells apart.

    Attributes:
        head: which head a model needs for it; None where the model's own is used.
        columns: what is read and what should come out, where the data do not call them otherwise.
        goal: the score that says how good a model is; the higher, the better.
        quick: whether scoring costs no more than a pass over the data, so that it is done at each evaluation.
    """

    head: ClassVar[str | None] = None
    columns: ClassVar[tuple[str, str]] = ("text", "label")
    goal: ClassVar[str] = ""
    quick: ClassVar[bool] = True

    def __init__(
        self, tokenizer: Tokenizer, names: Sequence[str] = (), *, length: int = 256, segments: int = 0
    ) -> None:
        self.tokenizer, self.names, self.length, self.segments = tokenizer, tuple(names), length, segments
        self.prefix, self.suffix = tokenizer.around()
        if length < len(self.prefix) + len(self.suffix) + 1:
            raise TrainingError(f"rows of {length} tokens have no room for a text; give a larger --data.length")

    @classmethod
    @abstractmethod
    def read(cls, data: Examples, text: str | None = None, answer: str | None = None) -> list[Example]:
        """The examples of the data, from the columns `text` and `answer`, or the task's own.

        Raises:
            DataError: a column that is not there, or holds something else; with its file and line.
        """

    @classmethod
    def classes(cls, examples: Sequence[Example]) -> tuple[str, ...]:
        """What there is to tell apart: the names of the classes in the data, sorted."""
        return ()

    def check(self, examples: Sequence[Example]) -> None:
        """Warns of classes that the model does not know, whose examples it cannot get right.

        Raises:
            DataError: it knows not one that the examples are of.
        """
        found = self.classes(examples)
        strange = [name for name in found if name not in self.names]
        if not strange:
            return
        said = f"the model does not know {', '.join(strange[:5])}: its classes are {', '.join(self.names[:20])}"
        if len(strange) == len(found):
            raise DataError(said)
        warnings.warn(f"{said}; examples of others count as wrong", stacklevel=2)

    @abstractmethod
    def encode(self, examples: Sequence[Example]) -> TaskItems:
        """Rows of token ids for the model to learn from."""

    @abstractmethod
    def objective(self, model: nn.Module) -> Objective:
        """What is asked of the model, and how its answers are judged."""

    @abstractmethod
    def answers(self, model: nn.Module, texts: Sequence[Any], rows: int = 32) -> list[dict[str, Any]]:
        """What the model says of texts, each as the `text` of an example, `rows` at once: plain values, with scores."""

    @abstractmethod
    def score(self, answers: Sequence[dict[str, Any]], examples: Sequence[Example]) -> dict[str, float]:
        """How good answers are, from 0 to 1 or as the measure is usually given."""

    def cut(self, ids: list[int]) -> list[int]:
        """A text that is too long loses its end; control tokens stand around it."""
        room = self.length - len(self.prefix) - len(self.suffix)
        return [*self.prefix, *ids[:room], *self.suffix]


def table(data: Examples) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of the data, and where each stands."""
    for part in data.parts:
        for line, row in part.rows():
            yield f"{part.name}, {part.unit} {line}", row


def column(data: Examples, asked: str | None, usual: str, key: str) -> str:
    """The name of a column that is there.

    Args:
        key: of the recipe, by which another one is chosen.
    """
    for part in data.parts:
        if part.pieces is not None:
            raise DataError(f"{part.name} is plain text; a task needs columns: TSV, CSV, JSONL, CoNLL or Parquet")
    name = asked or usual
    if name not in data.columns:
        have = ", ".join(repr(each[:40]) for each in data.columns)
        raise DataError(
            f"{data.name} has no column {name!r}: it has {have}. Choose one of these by --task.{key}; if they are data, the "
            "file has no line of names: give --data.columns, such as label,text"
        )
    return name


def a_text(value: Any, where: str, name: str) -> str:
    """A text that is not empty."""
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{where}: column {name!r} must be a text, not {str(value)[:40]!r}")
    return value


def inputs_of(model: nn.Module, rows: Rows) -> dict[str, Tensor]:
    """The arguments of a model that reads rows."""
    given = {"ids": rows.ids, "padding": rows.padding}
    if isinstance(model, EncoderDecoder):  # which reads a text as source, and makes its target of it
        given = {f"source_{name}": value for name, value in given.items()}
    else:
        given |= {"segments": rows.segments}
    return {name: value for name, value in given.items() if value is not None}


@torch.no_grad()
def outputs(model: nn.Module, items: TaskItems, rows: int) -> Iterator[tuple[Encoded, Tensor]]:
    """What the model gives for each row, without its padding where it gives something for each token."""
    device = next(model.parameters()).device
    lengths = [len(row.ids) for row in items.rows]
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    for start in range(0, len(order), rows):
        here = order[start : start + rows]
        batch = items.batch(here)
        assert isinstance(batch, Labelled)
        inputs = inputs_of(model, batch.rows)
        found = model(**{name: value.to(device) for name, value in inputs.items()}).float().cpu()
        whole = found.ndim == 3 and not isinstance(batch, Pairs)
        for i, x in zip(here, found, strict=True):
            yield items.rows[i], x[: lengths[i]] if whole else x
