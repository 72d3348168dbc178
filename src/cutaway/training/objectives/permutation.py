"""Tokens are guessed in any order, each from those that came before it in that order (Yang et al. 2019, section 2.2).

Only the last sixth of the order is guessed (section 2.3, "partial prediction", K = 6), in spans; all other tokens are given
and see each other (published code).
"""

from __future__ import annotations

import torch
from torch import nn

from cutaway.training.batch import IGNORED, Batch, Labelled, Loss, Pairs, Rows
from cutaway.training.errors import TrainingError
from cutaway.training.objectives.objective import given, one, real, words
from cutaway.training.objectives.ragged import texts
from cutaway.training.objectives.spans import spans
from cutaway.training.objectives.vocabulary import Vocabulary


class Permutation:
    """
    Args:
        vocabulary: which ids are ordinary; control tokens are always given.
        rate: the share of tokens that is guessed.
        mean: tokens of a span, on average.
    """

    modules: dict[str, nn.Module] = {}  # noqa: RUF012

    def __init__(self, vocabulary: Vocabulary, *, rate: float = 1 / 6, mean: float = 3.0) -> None:
        if not (0 < rate < 1 and mean >= 1):
            raise TrainingError(f"rate {rate} is a share between 0 and 1, and mean {mean} at least one token")
        self.rate, self.mean, self.ordinary = rate, mean, vocabulary.is_ordinary

    def batch(self, rows: Rows | Pairs | Labelled, draw: torch.Generator) -> Batch:
        rows = one(rows, "permutation")
        there, order, columns = real(rows), torch.zeros_like(rows.ids), []
        for row, ids in enumerate(texts(rows, "permutation")):
            shift = int(torch.randint(max(len(ids), 1), (1,), generator=draw))  # spans need not end where the text does
            guessed = spans(len(ids), self.rate, self.mean, draw).roll(shift) & self.ordinary[ids]
            columns.append(there[row].nonzero()[guessed, 0])
            order[row, columns[-1]] = 1 + torch.randperm(len(columns[-1]), generator=draw)
        width = max(1, *(len(each) for each in columns))
        targets = torch.stack([torch.nn.functional.pad(each, (0, width - len(each))) for each in columns])
        asked = torch.arange(width) < torch.tensor([len(each) for each in columns])[:, None]
        inputs = given(ids=rows.ids, order=order, targets=targets, padding=rows.padding)
        return Batch(inputs, rows.ids.gather(1, targets).where(asked, IGNORED), int(there.sum()))

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        return words(model, model.permuted(**batch.inputs, head=False), batch.targets)  # type: ignore[operator]
