"""Classes of texts: sentiment, topics, and of pairs of texts: whether one follows from the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import nn

from cutaway.training.data import Examples
from cutaway.training.errors import DataError
from cutaway.training.metrics.classification import accuracy, f1
from cutaway.training.tasks.items import Encoded, TaskItems
from cutaway.training.tasks.labels import Labels
from cutaway.training.tasks.task import Example, Task, a_text, column, outputs, table


class Classification(Task):
    """A class a text, the probability of each in the answer. Long texts lose their ends.

    Labels are texts or whole numbers; they are told apart by how they are written.
    """

    head: ClassVar[str | None] = "sequence"
    goal: ClassVar[str] = "accuracy"

    @classmethod
    def read(cls, data: Examples, text: str | None = None, answer: str | None = None) -> list[Example]:
        read = column(data, text, cls.columns[0], "text")
        asked = column(data, answer, cls.columns[1], "answer")
        found = []
        for where, row in table(data):
            label = row.get(asked)
            if not (isinstance(label, str) and label.strip()) and type(label) is not int:
                raise DataError(f"{where}: column {asked!r} must be a label, a text or a whole number, not {label!r}")
            found.append(Example(a_text(row.get(read), where, read), str(label), where))
        return found

    @classmethod
    def classes(cls, examples: Sequence[Example]) -> tuple[str, ...]:
        return tuple(sorted({example.answer for example in examples}, key=_natural))

    def encode(self, examples: Sequence[Example]) -> TaskItems:
        number = {name: i for i, name in enumerate(self.names)}
        return TaskItems([Encoded(self._ids(e.text), [number[e.answer]], example=i) for i, e in enumerate(examples)])

    def _ids(self, text: str) -> list[int]:
        return self.cut(self.tokenizer.encode(text, special=False, parse_special=False))

    def objective(self, model: nn.Module) -> Labels:
        return Labels(model)

    def answers(self, model: nn.Module, texts: Sequence[Any], rows: int = 32) -> list[dict[str, Any]]:
        items = TaskItems([Encoded(self._ids(text), [0], example=i) for i, text in enumerate(texts)])
        found: list[dict[str, Any]] = [{}] * len(texts)
        for row, logits in outputs(model, items, rows):
            chances = logits.softmax(-1).tolist()
            best = max(range(len(chances)), key=chances.__getitem__)
            scores = dict(zip(self.names, chances, strict=True))
            found[row.example] = {"label": self.names[best], "score": chances[best], "scores": scores}
        return found

    def score(self, answers: Sequence[dict[str, Any]], examples: Sequence[Example]) -> dict[str, float]:
        said, right = [a["label"] for a in answers], [e.answer for e in examples]
        return {"accuracy": accuracy(said, right), "f1": f1(said, right, self.names)}


def _natural(name: str) -> tuple[bool, int, str]:
    """Numbers by their size, before texts."""
    number = name.lstrip("-").isdecimal()
    return (not number, int(name) if number else 0, name)
