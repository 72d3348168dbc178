"""Answers that stand in a text: where they begin and where they end (Rajpurkar et al. 2016; Devlin et al. 2019, section 4.2).

    P(begin at i, end at j) ∝ exp(S·T_i + E·T_j), i ≤ j

A text that is too long is read in windows that overlap. In one that does not hold the whole answer, the first token is to
be pointed at; the answer is the best of all windows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cutaway.text import Tokenizer
from cutaway.training.batch import Batch, Labelled, Loss, Pairs, Rows
from cutaway.training.data import Examples
from cutaway.training.errors import DataError, TrainingError
from cutaway.training.metrics import squad
from cutaway.training.objectives.objective import real
from cutaway.training.tasks.items import Encoded, TaskItems
from cutaway.training.tasks.task import Example, Task, a_text, column, inputs_of, outputs, table

BEST = 20  # of each window


class Questions(Task):
    """An example's text is a question and the text that answers it; its answer, where that may begin, and what it says.

    Args:
        stride: how many tokens two windows share; at most half of them.
        longest: tokens of an answer.
        question: tokens of a question; the rest of a longer one is left out.
        unanswerable: whether the text may not hold the answer, which is then "".
    """

    head: ClassVar[str | None] = "span"
    columns: ClassVar[tuple[str, str]] = ("question", "answers")
    goal: ClassVar[str] = "f1"

    def __init__(
        self,
        tokenizer: Tokenizer,
        names: Sequence[str] = (),
        *,
        length: int = 384,
        segments: int = 0,
        stride: int = 128,
        longest: int = 30,
        question: int = 64,
        unanswerable: bool = False,
    ) -> None:
        super().__init__(tokenizer, names, length=length, segments=segments)
        self.frame = tokenizer.around(pair=True)
        self.stride, self.longest, self.question, self.unanswerable = stride, longest, question, unanswerable
        if stride < 0 or longest < 1 or question < 1:
            raise TrainingError("task.stride is at least 0, and task.longest and task.question at least 1")

    @classmethod
    def read(cls, data: Examples, text: str | None = None, answer: str | None = None) -> list[Example]:
        """SQuAD's own JSON, whose groups are articles; or columns question, context and answers, with groups by context."""
        if "paragraphs" in data.columns:
            return [each for where, row in table(data) for each in _article(row, where)]
        asked, column_of = column(data, text, cls.columns[0], "text"), column(data, answer, cls.columns[1], "answer")
        column(data, None, "context", "text")
        found = []
        for where, row in table(data):
            given = row.get(column_of)
            if isinstance(given, dict) and {"text", "answer_start"} <= given.keys():  # columns of a hub's data set
                texts, starts = given["text"], given["answer_start"]
                given = [{"text": t, "answer_start": s} for t, s in zip(texts, starts, strict=False)]
            found.append(_example(row.get(asked), row.get("context"), given, where, ""))
        return found

    def encode(self, examples: Sequence[Example]) -> TaskItems:
        rows = []
        for i, example in enumerate(examples):
            begin, answer = (example.answer or [(0, "")])[0]
            question, context = example.text
            for row in self._windows(question, context, i):
                labels = _ends(row.spans or [], begin, begin + len(answer))
                rows.append(Encoded(row.ids, labels, row.segments, example=i))
        return TaskItems(rows)

    def _windows(self, question: str, context: str, example: int) -> Iterator[Encoded]:
        """The text in rows, each behind the question."""
        before, between, after = self.frame
        asked = self.tokenizer.encode(question, special=False, parse_special=False)[: self.question]
        ids, spans = self.tokenizer.spans(context)
        head = [*before, *asked, *between]
        room = self.length - len(head) - len(after)
        if room < 1:
            raise TrainingError(
                f"rows of {self.length} tokens have no room behind a question; give a larger --data.length"
            )
        step = room - min(self.stride, room // 2)
        for start in range(0, max(1, len(ids) - room + step), step):
            part = ids[start : start + room]
            segments = [0] * len(head) + [1] * (len(part) + len(after)) if self.segments > 1 else None
            nowhere = [(0, 0)] * len(head), [(0, 0)] * len(after)
            placed = [*nowhere[0], *spans[start : start + room], *nowhere[1]]
            yield Encoded([*head, *part, *after], [0, 0], segments, example=example, spans=placed)

    def objective(self, model: nn.Module) -> Ends:
        return Ends(model)

    def answers(self, model: nn.Module, texts: Sequence[Any], rows: int = 32) -> list[dict[str, Any]]:
        """Of each question the "text" of the answer, the characters it is of, and its "score" among the best of all."""
        encoded = [row for i, (question, context) in enumerate(texts) for row in self._windows(question, context, i)]
        found: list[list[tuple[float, int, int]]] = [[] for _ in texts]
        nowhere = [float("inf")] * len(texts)
        for row, logits in outputs(model, TaskItems(encoded), rows):
            found[row.example] += self._best(logits, row.spans or [])
            nowhere[row.example] = min(nowhere[row.example], float(logits[0].sum()))
        return [self._answer(c, best, none) for (_, c), best, none in zip(texts, found, nowhere, strict=True)]

    def _best(self, logits: Tensor, spans: Sequence[tuple[int, int]]) -> list[tuple[float, int, int]]:
        """The best answers in a window: how good, and the characters they are of."""
        inside = torch.tensor([start < end for start, end in spans])
        scores = logits[:, :1] + logits[None, :, 1]  # (T, T)
        allowed = (inside[:, None] & inside).triu().tril(self.longest - 1)
        top = scores.where(allowed, float("-inf")).flatten().topk(min(BEST, len(spans) ** 2))
        places = ((float(value), *divmod(int(i), len(spans))) for value, i in zip(*top, strict=True))
        return [(value, spans[i][0], spans[j][1]) for value, i, j in places if value > float("-inf")]

    def _answer(self, context: str, best: list[tuple[float, int, int]], nowhere: float) -> dict[str, Any]:
        if self.unanswerable:
            best = [*best, (nowhere, 0, 0)]
        if not best:
            return {"text": "", "start": 0, "end": 0, "score": 0.0}
        best = sorted({(start, end): (value, start, end) for value, start, end in sorted(best)}.values(), reverse=True)
        score = torch.tensor([value for value, _, _ in best[:BEST]]).softmax(0)[0]
        _, start, end = best[0]
        return {"text": context[start:end], "start": start, "end": end, "score": float(score)}

    def score(self, answers: Sequence[dict[str, Any]], examples: Sequence[Example]) -> dict[str, float]:
        right = [[text for _, text in e.answer] or [""] for e in examples]
        return squad.score([a["text"] for a in answers], right)


class Ends:
    """-(log P(begin) + log P(end)) / 2 over the tokens of a row: logits (B, T, 2), targets (B, 2)."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self.modules: dict[str, nn.Module] = {}

    def batch(self, rows: Rows | Pairs | Labelled, draw: torch.Generator) -> Batch:
        if not isinstance(rows, Labelled):
            raise TrainingError("questions take labelled texts")
        return Batch(inputs_of(self._model, rows.rows), rows.labels, int(real(rows.rows).sum()))

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        logits = model(**batch.inputs).float()  # (B, T, 2)
        if "padding" in batch.inputs:
            logits = logits.masked_fill(~batch.inputs["padding"][..., None], torch.finfo(torch.float32).min)
        total = F.cross_entropy(logits.mT.flatten(0, 1), batch.targets.flatten(), reduction="sum")
        return Loss(total, (batch.targets >= 0).sum(), {"accuracy": (logits.argmax(1) == batch.targets).sum()})


def _ends(spans: Sequence[tuple[int, int]], begin: int, end: int) -> list[int]:
    """The first and the last token of an answer; the first of the row where it is not wholly there."""
    inside = [i for i, (a, b) in enumerate(spans) if a < b and a < end and b > begin]
    if not inside or spans[inside[0]][0] > begin or spans[inside[-1]][1] < end:
        return [0, 0]
    return [inside[0], inside[-1]]


def _article(row: dict[str, Any], where: str) -> Iterator[Example]:
    try:
        for paragraph in row["paragraphs"]:
            for each in paragraph["qas"]:
                given = [] if each.get("is_impossible") else each["answers"]
                yield _example(each["question"], paragraph["context"], given, where, where)
    except (TypeError, KeyError, AttributeError) as problem:
        raise DataError(f"{where}: this is no article of SQuAD ({type(problem).__name__}: {problem})") from None


def _example(question: Any, context: Any, answers: Any, where: str, group: str) -> Example:
    text = a_text(question, where, "question"), a_text(context, where, "context")
    found = []
    for each in answers if isinstance(answers, list) else [None]:
        start, said = (each.get("answer_start"), each.get("text")) if isinstance(each, dict) else (None, None)
        if type(start) is not int or not isinstance(said, str) or not said:
            raise DataError(f'{where}: answers are a list such as [{{"text": "Paris", "answer_start": 3}}]')
        if text[1][start : start + len(said)] != said:
            raise DataError(f"{where}: the text has no {said[:40]!r} at character {start}")
        found.append((start, said))
    return Example(text, found, where, group or text[1])
