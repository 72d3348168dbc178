"""What an objective has to know of the ids it works with: which are words, which mask or mark, where words begin."""

from __future__ import annotations

import torch
from torch import Tensor

from cutaway.axes import Bool, Int
from cutaway.text import Tokenizer
from cutaway.training.errors import TrainingError

MARKS = 100  # that T5 has


class Vocabulary:
    """The ids of a tokenizer, and those that a model has beyond them.

    A tokenizer that has no mask or no sentinels, such as one of characters, can still be used: build the model with a
    larger `vocab`, and the ids behind the tokenizer's are taken, from the last one down.

    Args:
        size: V, how many ids the model has.
        mask, eos: the ids, where the tokenizer does not say or says otherwise.

    Raises:
        TrainingError: the tokenizer has more ids than the model.
    """

    def __init__(self, tokenizer: Tokenizer, size: int, *, mask: int | None = None, eos: int | None = None) -> None:
        if tokenizer.vocab_size > size:
            raise TrainingError(
                f"the tokenizer has {tokenizer.vocab_size} ids and the model {size}: build it with vocab={tokenizer.vocab_size}"
            )
        self.tokenizer, self.size = tokenizer, size
        self.eos = tokenizer.eos_id if eos is None else eos
        self._mask = tokenizer.mask_id if mask is None else mask
        ordinary = torch.ones(size, dtype=torch.bool)
        ordinary[tokenizer.vocab_size :] = False
        special = [*tokenizer.special_ids, *(i for i in (self._mask, self.eos) if i is not None)]
        ordinary[special] = False
        self.is_ordinary: Bool[Tensor, " v"] = ordinary  # not a control token, and one the tokenizer has
        self.ordinary: Int[Tensor, " n"] = ordinary.nonzero()[:, 0]
        if not len(self.ordinary):
            raise TrainingError("the tokenizer has control tokens only")

    @property
    def mask(self) -> int:
        """The id that hides a token."""
        if self._mask is not None:
            return self._mask
        return self._spare(1, "a mask")[0]

    def sentinels(self) -> Int[Tensor, " n"]:
        """Ids that stand for what was cut out: T5's <extra_id_0>, <extra_id_1>, …, or the model's last ones, downwards."""
        return torch.tensor(named_marks(self.tokenizer) or self._spare(self.size, "marks"))

    def _spare(self, count: int, what: str) -> list[int]:
        """The model's last ids but those in use, downwards; as many as there are up to `count`."""
        taken = {self._mask, self.eos}
        spare = [i for i in range(self.size - 1, self.tokenizer.vocab_size - 1, -1) if i not in taken]
        if not spare:
            raise TrainingError(
                f"this tokenizer has no ids for {what}, and the model none beyond the tokenizer's: "
                f"build it with vocab={self.size + 1} or more"
            )
        return spare[:count]

    def begins_word(self) -> Bool[Tensor, " v"]:
        """True on the ids that begin a word, control tokens too: all but ##ing of WordPiece; elsewhere those with a space."""
        labels = self.tokenizer.tokens(range(self.tokenizer.vocab_size))
        pieces = any(label.startswith("##") for label in labels)
        begins = torch.ones(self.size, dtype=torch.bool)
        begins[: len(labels)] = torch.tensor(
            [not label.startswith("##") if pieces else label.startswith("▁") for label in labels]
        )
        return begins | ~self.is_ordinary

    def ends_sentence(self) -> Bool[Tensor, " v"]:
        """True on the ids that end a sentence: those whose text ends with a full stop, ! or ?, and the end of text."""
        labels = self.tokenizer.tokens(range(self.tokenizer.vocab_size))
        ends = torch.zeros(self.size, dtype=torch.bool)
        ends[: len(labels)] = torch.tensor([label.endswith((".", "!", "?", "。")) for label in labels])
        if self.eos is not None:
            ends[self.eos] = True
        return ends


def named_marks(tokenizer: Tokenizer) -> list[int]:
    """The ids of <extra_id_0>, <extra_id_1>, …, as many as the tokenizer has."""
    found: list[int] = []
    while len(ids := tokenizer.encode(f"<extra_id_{len(found)}>", special=False)) == 1:
        if ids[0] not in tokenizer.special_ids or ids[0] in found:
            break
        found += ids
    return found
