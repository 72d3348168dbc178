"""Classes of words: names of people and places, parts of speech. What is told is whole entities.

Data have a tag a word, and the model reads sub-words: the first of each word is asked for the word's tag, and the others for
nothing (Devlin et al. 2019, section 5.3). A text that is too long is read in pieces, so that no word goes without a tag.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from torch import nn

from cutaway.training.batch import IGNORED
from cutaway.training.data import Examples
from cutaway.training.errors import DataError
from cutaway.training.metrics import entities
from cutaway.training.tasks.items import Encoded, TaskItems
from cutaway.training.tasks.labels import Labels
from cutaway.training.tasks.task import Example, Task, column, outputs, table

OUTSIDE = "O"
WORD = re.compile(r"\w+|[^\w\s]")  # of a text that nobody has divided yet


class Tokens(Task):
    """A tag a word. An example is a list of words and a list of as many tags; in answers a text may be whole, too."""

    head: ClassVar[str | None] = "token"
    columns: ClassVar[tuple[str, str]] = ("tokens", "tags")
    goal: ClassVar[str] = "f1"

    @classmethod
    def read(cls, data: Examples, text: str | None = None, answer: str | None = None) -> list[Example]:
        words_in = column(data, text, cls.columns[0], "text")
        tags_in = column(data, answer, cls.columns[1], "answer")
        found = []
        for where, row in table(data):
            words, tags = _list(row.get(words_in), where, words_in), _list(row.get(tags_in), where, tags_in)
            if len(words) != len(tags):
                raise DataError(f"{where}: {len(words)} words and {len(tags)} tags; each word needs one")
            found.append(Example(words, tags, where))
        return found

    @classmethod
    def classes(cls, examples: Sequence[Example]) -> tuple[str, ...]:
        names = {tag for example in examples for tag in example.answer}
        return (*((OUTSIDE,) if OUTSIDE in names else ()), *sorted(names - {OUTSIDE}))

    def encode(self, examples: Sequence[Example]) -> TaskItems:
        number = {name: i for i, name in enumerate(self.names)}
        rows = []
        for i, example in enumerate(examples):
            tags = [number[tag] for tag in example.answer]
            for row in self._rows(*_joined(example.text), i):
                labels = [IGNORED if word == IGNORED else tags[word] for word in row.labels]
                rows.append(Encoded(row.ids, labels, each=True, example=i))
        return TaskItems(rows)

    def objective(self, model: nn.Module) -> Labels:
        return Labels(model)

    def _rows(self, text: str, words: Sequence[tuple[int, int]], example: int) -> Iterator[Encoded]:
        """The text in rows, whose labels are the number of the word that a token begins."""
        ids, spans = self.tokenizer.spans(text)
        room = self.length - len(self.prefix) - len(self.suffix)
        pieces = _of_words(spans, words)
        start = 0
        while start < len(ids):
            stop = min(start + room, len(ids))
            while start < stop < len(ids) and pieces[stop] == IGNORED:
                stop -= 1  # no word is cut, unless it is longer than a row
            stop = stop if stop > start else min(start + room, len(ids))
            labels = [*[IGNORED] * len(self.prefix), *pieces[start:stop], *[IGNORED] * len(self.suffix)]
            yield Encoded([*self.prefix, *ids[start:stop], *self.suffix], labels, each=True, example=example)
            start = stop

    def answers(self, model: nn.Module, texts: Sequence[Any], rows: int = 32) -> list[dict[str, Any]]:
        """Of each text its "words", their "tags" and "scores", and the "entities" with the characters they are of."""
        read = [_split(text) if isinstance(text, str) else _joined(list(text)) for text in texts]
        said: list[list[tuple[str, float]]] = [[(OUTSIDE, 0.0)] * len(words) for _, words in read]
        encoded = [row for i, (text, words) in enumerate(read) for row in self._rows(text, words, i)]
        for row, logits in outputs(model, TaskItems(encoded), rows) if encoded else ():
            chances, best = logits.softmax(-1).max(-1)
            for word, chance, tag in zip(row.labels, chances.tolist(), best.tolist(), strict=True):
                if word != IGNORED:
                    said[row.example][word] = self.names[tag], chance
        return [_answer(text, words, tags) for (text, words), tags in zip(read, said, strict=True)]

    def score(self, answers: Sequence[dict[str, Any]], examples: Sequence[Example]) -> dict[str, float]:
        return entities.score([a["tags"] for a in answers], [e.answer for e in examples])


def _list(value: Any, where: str, name: str) -> list[str]:
    if not isinstance(value, list) or not value or not all(isinstance(each, str) and each for each in value):
        raise DataError(f"{where}: column {name!r} must be a list of texts, not {str(value)[:40]!r}")
    return value


def _split(text: str) -> tuple[str, list[tuple[int, int]]]:
    """A text and its words, as the characters they are of."""
    return text, [match.span() for match in WORD.finditer(text)]


def _joined(words: list[str]) -> tuple[str, list[tuple[int, int]]]:
    spans, at = [], 0
    for word in words:
        spans.append((at, at + len(word)))
        at += len(word) + 1
    return " ".join(words), spans


def _of_words(tokens: Sequence[tuple[int, int]], words: Sequence[tuple[int, int]]) -> list[int]:
    """For each token the word that it begins; IGNORED for the others."""
    found, word, begun = [], 0, -1
    for start, end in tokens:
        while word < len(words) and words[word][1] <= start:
            word += 1
        inside = word < len(words) and end > words[word][0] and start < end
        found.append(word if inside and word != begun else IGNORED)
        begun = word if inside else begun
    return found


def _answer(text: str, words: list[tuple[int, int]], tags: list[tuple[str, float]]) -> dict[str, Any]:
    names = [tag for tag, _ in tags]
    found = []
    for kind, first, last in entities.spans(names):
        start, end = words[first][0], words[last][1]
        score = sum(chance for _, chance in tags[first : last + 1]) / (last + 1 - first)
        found.append({"label": kind, "text": text[start:end], "start": start, "end": end, "score": score})
    scores = [chance for _, chance in tags]
    return {"words": [text[a:b] for a, b in words], "tags": names, "scores": scores, "entities": found}
