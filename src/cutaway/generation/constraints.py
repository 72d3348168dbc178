"""What must or must not be said next, whatever the model would rather say.

Models publish some of it beside their weights: mBART begins with the language to translate into, BART ends where the
room ends, Marian never says its padding token, whose logit is not trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from cutaway.generation.arguments import check_ids, whole

NEVER = -float("inf")


@dataclass(frozen=True)
class Constraints:
    """Each is off by default. Raises `CutawayError` for a value out of range.

    Attributes:
        forced_bos: the first new token of an answer, where no `target` begins it.
        forced_eos: the last new token of an answer that comes to its limit.
        suppress: tokens that are never said.
        no_repeat_ngram: n tokens in a row, of the prompt (of an encoder-decoder: the target) and the answer, are never
            said again in that order (Paulus et al. 2018, arXiv:1705.04304, section 2.5).
        min_new_tokens: no end token before so many others.
    """

    forced_bos: int | None = None
    forced_eos: int | None = None
    suppress: tuple[int, ...] = ()
    no_repeat_ngram: int | None = None
    min_new_tokens: int | None = None

    def __post_init__(self) -> None:
        for name in ("no_repeat_ngram", "min_new_tokens"):
            if getattr(self, name) is not None:
                whole(name, getattr(self, name))

    @classmethod
    def published(cls, generation: Mapping[str, Any]) -> Constraints:
        """Those that a checkpoint's generation settings call for; how to search is the caller's choice."""
        words = _list(generation.get("bad_words_ids"))
        never = [word[0] for word in words if isinstance(word, list) and len(word) == 1]
        first, last = (generation.get(f"forced_{side}_token_id") for side in ("bos", "eos"))
        lasts = last if isinstance(last, list) else [last]  # of several the first will do
        return cls(first, next(iter(lasts), None), (*never, *_list(generation.get("suppress_tokens"))))

    def checked(self, vocab: int, begun: bool) -> Constraints:
        """The same, after checking that its tokens are of the vocabulary; without the first, where the answer has begun."""
        ids = {"forced_bos": [self.forced_bos], "forced_eos": [self.forced_eos], "suppress": self.suppress}
        for name, tokens in ids.items():
            check_ids([token for token in tokens if token is not None], vocab, name)
        return replace(self, forced_bos=None) if begun else self

    def apply(self, scores: Tensor, new: int, limits: Tensor, eos: Tensor, said: Tensor | None) -> Tensor:
        """Scores (R, V) of new token number `new` with -inf where it may not be said.

        `limits` (R,): how many new tokens each row may have. `said` (R, T): what stands before, -1 is padding; only
        looked at for `no_repeat_ngram`.
        """
        if self.no_repeat_ngram is not None and said is not None:
            scores = scores.masked_fill(repeats(said, self.no_repeat_ngram, scores.shape[1]), NEVER)
        if self.suppress:
            scores = scores.index_fill(1, torch.tensor(self.suppress, device=scores.device), NEVER)
        if self.min_new_tokens is not None and new <= self.min_new_tokens:
            scores = scores.index_fill(1, eos, NEVER)
        if self.forced_bos is not None and new == 1:
            scores = _only(scores, self.forced_bos)
        if self.forced_eos is not None:
            scores = torch.where((limits == new)[:, None], _only(scores, self.forced_eos), scores)
        return scores


def repeats(said: Tensor, n: int, vocab: int) -> Tensor:
    """Bool (R, V): the tokens that would make the end of a row (R, T) an n-gram it already holds."""
    rows, length = said.shape
    banned = torch.zeros(rows, vocab + 1, dtype=torch.bool, device=said.device)  # one more column takes the others
    if length >= n:
        grams = said.unfold(1, n, 1)  # (R, T - n + 1, n)
        alike = (grams[..., :-1] == said[:, None, length - n + 1 :]).all(-1) & (grams >= 0).all(-1)
        banned.scatter_(1, torch.where(alike, grams[..., -1], vocab), True)
    return banned[:, :vocab]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _only(scores: Tensor, token: int) -> Tensor:
    """Certainty: the token's log-probability is 0."""
    return torch.full_like(scores, NEVER).index_fill_(1, torch.tensor([token], device=scores.device), 0.0)
