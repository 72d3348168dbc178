"""Conversations: a decoder learns what the assistant says, and nothing of what it is told.

What is asked for are the tokens of the assistant's turns up to the one that ends each; prompts and the marks of the template
are read only. The template of the tokenizer says how a conversation is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from cutaway.generation import generate
from cutaway.parts import LanguageHead, Model
from cutaway.text import Tokenizer
from cutaway.training.batch import IGNORED, Batch, Labelled, Loss, Pairs, Rows
from cutaway.training.data import Examples
from cutaway.training.errors import DataError, TrainingError
from cutaway.training.metrics import squad
from cutaway.training.objectives.objective import given, real, words
from cutaway.training.tasks.items import Encoded, TaskItems
from cutaway.training.tasks.task import Example, Task, a_text, column, table

Messages = list[dict[str, str]]


class Instructions(Task):
    """A column "messages" of dicts with "role" and "content", the assistant's last; or columns "prompt" and "response".

    Without a chat template the response follows the prompt as it is.

    Args:
        tokens: the most that an answer has.
    """

    columns: ClassVar[tuple[str, str]] = ("prompt", "response")
    goal: ClassVar[str] = "f1"
    quick: ClassVar[bool] = False

    def __init__(
        self,
        tokenizer: Tokenizer,
        names: Sequence[str] = (),
        *,
        length: int = 512,
        segments: int = 0,
        tokens: int = 128,
    ) -> None:
        super().__init__(tokenizer, names, length=length, segments=segments)
        self.tokens = tokens

    @classmethod
    def read(cls, data: Examples, text: str | None = None, answer: str | None = None) -> list[Example]:
        if text is None and answer is None and "messages" in data.columns:
            return [_conversation(row.get("messages"), where) for where, row in table(data)]
        a, b = column(data, text, cls.columns[0], "text"), column(data, answer, cls.columns[1], "answer")
        return [
            Example([{"role": "user", "content": a_text(row.get(a), at, a)}], a_text(row.get(b), at, b), at)
            for at, row in table(data)
        ]

    def encode(self, examples: Sequence[Example]) -> TaskItems:
        rows = []
        for i, example in enumerate(examples):
            messages = [*example.text, {"role": "assistant", "content": example.answer}]
            ids, labels = self._learnt(messages)
            ids, labels = ids[: self.length], labels[: self.length]
            if any(label != IGNORED for label in labels[1:]):
                rows.append(Encoded(ids, labels, each=True, example=i))
        if not rows:
            raise DataError(f"no answer begins within {self.length} tokens; give a larger --data.length")
        return TaskItems(rows)

    def _learnt(self, messages: Messages) -> tuple[list[int], list[int]]:
        """A conversation, and of it what is asked for."""
        turns = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        whole = self._through(messages)
        labels = [IGNORED] * len(whole)
        for turn in turns:
            begin, end = self._asked(messages[:turn]), self._through(messages[: turn + 1])
            if whole[: len(begin)] != begin or whole[: len(end)] != end:
                raise TrainingError(
                    "this chat template writes a turn otherwise when others follow, so nobody can tell what the assistant "
                    "said; set another template"
                )
            said = end[len(begin) :]
            stop = next((i + 1 for i, token in enumerate(said) if token in self.tokenizer.eos_ids), len(said))
            labels[len(begin) : len(begin) + stop] = said[:stop]
        return whole, labels

    def _asked(self, messages: Messages) -> list[int]:
        """What stands before an answer."""
        if self.tokenizer.chat_template is not None:
            return self.tokenizer.encode_chat(messages)
        return [*self.prefix, *self._plain(messages[-1]["content"])]

    def _through(self, messages: Messages) -> list[int]:
        """A conversation up to the end of an answer."""
        if self.tokenizer.chat_template is not None:
            return self.tokenizer.encode_chat(messages, generate=False)
        if len(messages) != 2:
            raise TrainingError("this tokenizer has no chat template, so examples are one prompt and one response")
        end = [] if self.tokenizer.eos_id is None else [self.tokenizer.eos_id]
        return [*self._asked(messages[:1]), *self._plain(messages[1]["content"]), *end]

    def _plain(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, special=False, parse_special=False)

    def objective(self, model: nn.Module) -> Answering:
        if not isinstance(model, Model) or not model.causal or not isinstance(model.head, LanguageHead):
            raise TrainingError("instructions are for a decoder that writes, such as smollm2")
        return Answering()

    def answers(self, model: nn.Module, texts: Sequence[Any], rows: int = 32) -> list[dict[str, Any]]:
        """Of each text, or conversation, the "text" of the answer and its "score": its tokens' mean probability (geometric)."""
        self.objective(model)
        found = []
        for start in range(0, len(texts), rows):
            some = [[{"role": "user", "content": t}] if isinstance(t, str) else t for t in texts[start : start + rows]]
            asked = [self._asked(messages) for messages in some]
            said = generate(model, asked, tokenizer=self.tokenizer, max_new_tokens=self.tokens)
            for prompt, ids, text in zip(asked, said.ids, said.texts or [], strict=True):
                found.append({"text": text.strip(), "score": _chance(model, prompt, ids)})
        return found

    def score(self, answers: Sequence[dict[str, Any]], examples: Sequence[Example]) -> dict[str, float]:
        """By SQuAD's rule: whether an answer is the right one, and how many of its words are."""
        return squad.score([a["text"] for a in answers], [[e.answer] for e in examples])


class Answering:
    """Σ -log p of the tokens that are labelled, each from all before it."""

    modules: dict[str, nn.Module] = {}  # noqa: RUF012

    def batch(self, rows: Rows | Pairs | Labelled, draw: torch.Generator) -> Batch:
        if not isinstance(rows, Labelled):
            raise TrainingError("instructions take conversations")
        ids, padding = rows.rows.ids[:, :-1], rows.rows.padding
        inputs = given(ids=ids, padding=None if padding is None else padding[:, :-1])
        return Batch(inputs, rows.labels[:, 1:], int(real(rows.rows)[:, :-1].sum()))

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        return words(model, model(**batch.inputs, head=False), batch.targets)


@torch.no_grad()
def _chance(model: nn.Module, prompt: list[int], ids: list[int]) -> float:
    device = next(model.parameters()).device
    logits: Tensor = model(torch.tensor([prompt + ids[:-1]], device=device))[0, len(prompt) - 1 :]  # (new tokens, V)
    chosen = logits.float().log_softmax(-1)[torch.arange(len(ids)), torch.tensor(ids, device=device)]
    return float(chosen.mean().exp())


def _conversation(value: Any, where: str) -> Example:
    right = isinstance(value, list) and len(value) > 1
    right = right and all(isinstance(m, dict) and {"role", "content"} <= m.keys() for m in value)
    if not right or value[-1]["role"] != "assistant":
        raise DataError(
            f'{where}: messages are a list of two or more such as {{"role": "user", "content": "Hello"}}, and the last is '
            "the assistant's"
        )
    for message in value:
        a_text(message["content"], where, "messages")
    return Example(value[:-1], value[-1]["content"], where)
