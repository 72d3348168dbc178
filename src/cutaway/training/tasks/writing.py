"""One text is written for another: translations and summaries, by an encoder with a decoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import nn

from cutaway.generation import generate
from cutaway.parts import EncoderDecoder, LanguageHead
from cutaway.text import Tokenizer
from cutaway.training import objectives
from cutaway.training.data import Examples
from cutaway.training.errors import TrainingError
from cutaway.training.metrics import rouge, translation
from cutaway.training.objectives.objective import given
from cutaway.training.objectives.ragged import written
from cutaway.training.tasks.items import Encoded, TaskItems, laid
from cutaway.training.tasks.task import Example, Task, a_text, column, table


class Writing(Task):
    """What is learnt is the other text, and where it ends.

    Args:
        prefix: put before each text that is read, as T5 was taught: "translate English to French: ".
        tokens: the most that are written, the end of text included.
        beams: of the search for an answer; 1 takes the likeliest token each time.
        smoothing: of labels.
    """

    goal: ClassVar[str] = "chrf"
    quick: ClassVar[bool] = False

    def __init__(
        self,
        tokenizer: Tokenizer,
        names: Sequence[str] = (),
        *,
        length: int = 256,
        segments: int = 0,
        prefix: str = "",
        tokens: int = 128,
        beams: int = 4,
        smoothing: float = 0.1,
    ) -> None:
        super().__init__(tokenizer, names, length=length, segments=segments)
        self.begin, self.tokens, self.beams, self.smoothing = prefix, tokens, beams, smoothing
        if tokenizer.eos_id is None or not tokenizer.encodes_targets:
            lacks = (
                "no token that ends a text" if tokenizer.eos_id is None else "one side only, so it cannot read answers"
            )
            raise TrainingError(f"this model's tokenizer has {lacks}; take another model")
        if tokens < 2 or beams < 1:
            raise TrainingError("task.tokens is at least 2, and task.beams at least 1")

    @classmethod
    def read(cls, data: Examples, text: str | None = None, answer: str | None = None) -> list[Example]:
        a, b = column(data, text, cls.columns[0], "text"), column(data, answer, cls.columns[1], "answer")
        return [Example(a_text(row.get(a), at, a), a_text(row.get(b), at, b), at) for at, row in table(data)]

    def encode(self, examples: Sequence[Example]) -> TaskItems:
        end = self.tokenizer.eos_id
        assert end is not None
        rows = []
        for i, example in enumerate(examples):
            target = self.tokenizer.encode(example.answer, special=False, parse_special=False)[: self.tokens - 1]
            rows.append(Encoded(self._ids(example.text), [], example=i, target=[*target, end]))
        return TaskItems(rows)

    def _ids(self, text: str) -> list[int]:
        return self.cut(self.tokenizer.encode(self.begin + text, special=False, parse_special=False))

    def objective(self, model: nn.Module) -> objectives.Translation:
        if not isinstance(model, EncoderDecoder) or not isinstance(model.head, LanguageHead):
            raise TrainingError(
                "this task is for an encoder with a decoder that writes, such as T5, BART or a translator"
            )
        return objectives.Translation(model.start, smoothing=self.smoothing)

    def answers(self, model: nn.Module, texts: Sequence[Any], rows: int = 32) -> list[dict[str, Any]]:
        """Of each text the "text" that is written, and its "score": the geometric mean of its tokens' probabilities."""
        self.objective(model)  # that it can write
        sources = [self._ids(text) for text in texts]
        order = sorted(range(len(texts)), key=lambda i: len(sources[i]))
        found: list[dict[str, Any]] = [{}] * len(texts)
        for start in range(0, len(order), rows):
            here = order[start : start + rows]
            asked = [sources[i] for i in here]
            said = generate(model, asked, tokenizer=self.tokenizer, max_new_tokens=self.tokens, beams=self.beams)
            chances = self._chances(model, asked, said.ids)
            for i, text, score in zip(here, said.texts or [], chances, strict=True):
                found[i] = {"text": text.strip(), "score": score}
        return found

    @torch.no_grad()
    def _chances(self, model: Any, sources: list[list[int]], targets: list[list[int]]) -> list[float]:
        batch = written(laid(sources), laid(targets), model.start)
        device = next(model.parameters()).device
        logits = model(**given(**{name: x.to(device) for name, x in batch.inputs.items()})).float().cpu()
        chosen = logits.log_softmax(-1).gather(-1, batch.targets.clamp(min=0)[..., None])[..., 0]
        asked = batch.targets >= 0
        return ((chosen * asked).sum(1) / asked.sum(1)).exp().tolist()


class Translation(Writing):
    """sacreBLEU and chrF, from 0 to 100."""

    columns: ClassVar[tuple[str, str]] = ("source", "target")

    def score(self, answers: Sequence[dict[str, Any]], examples: Sequence[Example]) -> dict[str, float]:
        return translation.score([a["text"] for a in answers], [e.answer for e in examples])


class Summarisation(Writing):
    """ROUGE, from 0 to 1."""

    columns: ClassVar[tuple[str, str]] = ("text", "summary")
    goal: ClassVar[str] = "rougeL"

    def score(self, answers: Sequence[dict[str, Any]], examples: Sequence[Example]) -> dict[str, float]:
        return rouge.score([a["text"] for a in answers], [e.answer for e in examples])
