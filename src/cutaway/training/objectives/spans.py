"""Spans are cut out of a text, and written after the marks they left (Raffel et al. 2020, section 3.1.4).

    Thank you <X> me to your party <Y> week.    →    <X> for inviting <Y> last

15% of the tokens are cut out in spans of 3 on average; a text ends with a span, so no mark closes the target (published
code). Both sides end with the tokenizer's end of text.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cutaway.axes import Bool, Int
from cutaway.training.batch import Batch, Labelled, Loss, Pairs, Rows
from cutaway.training.errors import TrainingError
from cutaway.training.objectives.objective import one, words
from cutaway.training.objectives.ragged import laid, texts, written
from cutaway.training.objectives.vocabulary import Vocabulary


class Spans:
    """
    Args:
        vocabulary: which ids are marks, and which ends a text.
        start: the id a target begins with.
        rate: the share of tokens that is cut out.
        mean: tokens of a span, on average.
    """

    modules: dict[str, nn.Module] = {}  # noqa: RUF012

    def __init__(self, vocabulary: Vocabulary, start: int, *, rate: float = 0.15, mean: float = 3.0) -> None:
        if not (0 < rate < 1 and mean >= 1):
            raise TrainingError(f"rate {rate} is a share between 0 and 1, and mean {mean} at least one token")
        self.rate, self.mean, self.start = rate, mean, start
        self.marks, self.eos = vocabulary.sentinels(), vocabulary.eos

    def batch(self, rows: Rows | Pairs | Labelled, draw: torch.Generator) -> Batch:
        sources, targets = [], []
        for ids in texts(one(rows, "spans"), "spans"):
            ids = ids[:-1] if len(ids) and ids[-1] == self.eos else ids
            cut = spans(len(ids), self.rate, self.mean, draw)
            sources.append(self._ended(self._marked(ids, cut)))
            targets.append(self._ended(self._marked(ids, ~cut) if cut.any() else ids[:0]))
        return written(laid(sources), laid(targets), self.start)

    def _marked(self, ids: Int[Tensor, " t"], cut: Bool[Tensor, " t"]) -> Int[Tensor, " s"]:
        """The text with one mark in each cut span's place."""
        first = cut & ~torch.cat([cut.new_zeros(1), cut[:-1]])
        number = first.cumsum(0)
        if len(cut) and number[-1] > len(self.marks):
            raise TrainingError(
                f"a row of {len(ids)} tokens has {number[-1]} spans, and there are marks for {len(self.marks)}: "
                "shorter rows or longer spans need fewer, and a larger vocab than the tokenizer's gives more"
            )
        return ids.where(~first, self.marks[(number - 1).clamp(min=0)])[~cut | first]

    def _ended(self, ids: Int[Tensor, " t"]) -> Int[Tensor, " s"]:
        return ids if self.eos is None else torch.cat([ids, ids.new_tensor([self.eos])])

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        return words(model, model(**batch.inputs, head=False), batch.targets)


def spans(length: int, rate: float, mean: float, draw: torch.Generator) -> Bool[Tensor, " t"]:
    """True on `rate` of the tokens, in spans of `mean` tokens on average, the last one at the end.

    Every way to divide the chosen tokens into so many spans is equally likely, and so is every way to put them.
    """
    chosen = min(max(round(length * rate), 1), length - 1)
    if chosen < 1:
        return torch.zeros(length, dtype=torch.bool)
    count = min(max(round(chosen / mean), 1), length - chosen)
    kept, cut = (divided(total, count, draw) for total in (length - chosen, chosen))
    return torch.tensor([False, True]).repeat(count).repeat_interleave(torch.stack([kept, cut], 1).flatten())


def divided(total: int, parts: int, draw: torch.Generator) -> Int[Tensor, " n"]:
    """`total` as a sum of so many numbers of at least 1."""
    ends = torch.randperm(total - 1, generator=draw)[: parts - 1].sort().values + 1
    return torch.diff(ends, prepend=ends.new_zeros(1), append=ends.new_tensor([total]))
