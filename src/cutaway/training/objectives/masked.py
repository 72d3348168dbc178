"""Some tokens are hidden, and guessed from all the others (Devlin et al. 2019, section 3.1).

Of the chosen ones 80% become [MASK], 10% another token, and 10% stay: what stands there must be known either way. They are
chosen anew each time a text is read (dynamic masking, Liu et al. 2019, section 4.1).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cutaway.axes import Bool, Int
from cutaway.training.batch import IGNORED, Batch, Labelled, Loss, Pairs, Rows
from cutaway.training.errors import TrainingError
from cutaway.training.objectives.objective import given, one, real, words
from cutaway.training.objectives.vocabulary import Vocabulary


class Masked:
    """
    Args:
        vocabulary: which ids are ordinary, which one masks, which begin a word.
        rate: the share of tokens that are chosen.
        masked, replaced: of these the share that becomes [MASK], and another token drawn from all ordinary ones.
        whole_words: choose words, all of whose tokens are then hidden (published with BERT's code in May 2019).
    """

    modules: dict[str, nn.Module] = {}  # noqa: RUF012

    def __init__(
        self,
        vocabulary: Vocabulary,
        *,
        rate: float = 0.15,
        masked: float = 0.8,
        replaced: float = 0.1,
        whole_words: bool = False,
    ) -> None:
        if not (0 < rate <= 1 and 0 <= masked <= 1 and 0 <= replaced <= 1 - masked + 1e-9):
            raise TrainingError(
                f"rate {rate}, masked {masked} and replaced {replaced} are shares: from 0 to 1, the last two together too"
            )
        self.vocabulary, self.rate, self.masked, self.replaced = vocabulary, rate, masked, replaced
        self.mask, self.ordinary = vocabulary.mask, vocabulary.ordinary
        self.begins = vocabulary.begins_word() if whole_words else None

    def batch(self, rows: Rows | Pairs | Labelled, draw: torch.Generator) -> Batch:
        rows = one(rows, "masked")
        there = real(rows)
        chosen = self.choose(rows, draw)
        fate = torch.rand(rows.ids.shape, generator=draw)
        others = self.ordinary[torch.randint(len(self.ordinary), rows.ids.shape, generator=draw)]
        ids = rows.ids.where(~chosen | (fate >= self.masked), self.mask)
        ids = ids.where(~chosen | (fate < self.masked) | (fate >= self.masked + self.replaced), others)
        inputs = given(ids=ids, padding=rows.padding, positions=rows.positions, documents=rows.documents)
        return Batch(inputs, rows.ids.where(chosen, IGNORED), int(there.sum()))

    def choose(self, rows: Rows, draw: torch.Generator) -> Bool[Tensor, "b t"]:
        """Which tokens are asked for: each, or each word, with probability `rate`; control tokens and padding never."""
        luck = torch.rand(rows.ids.shape, generator=draw)
        if self.begins is not None:
            luck = luck.gather(1, self._word(rows))
        return real(rows) & self.vocabulary.is_ordinary[rows.ids] & (luck < self.rate)

    def _word(self, rows: Rows) -> Int[Tensor, "b t"]:
        """The number of each token's word in its row."""
        assert self.begins is not None
        begins = self.begins[rows.ids]
        begins[:, 1:] |= ~real(rows)[:, :-1]
        if rows.documents is not None:
            begins[:, 1:] |= rows.documents[:, 1:] != rows.documents[:, :-1]
        return (begins.cumsum(1) - 1).clamp(min=0)

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        return words(model, model(**batch.inputs, head=False), batch.targets)
