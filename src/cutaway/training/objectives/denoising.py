"""A spoilt text is written out as it was (Lewis et al. 2020, section 2.2): text infilling and sentence permutation.

Spans of Poisson(3) tokens, 30% of all tokens together, are replaced with ONE mask each, so that how many are missing has to
be found out too; a span of none is a mask put in between. Sentences stand in any order.
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


class Denoising:
    """
    Args:
        vocabulary: which id masks, which ends a text, which end a sentence.
        start: the id a target begins with.
        rate: the share of tokens that is masked.
        mean: tokens of a span, on average.
        permute: whether sentences change places.
    """

    modules: dict[str, nn.Module] = {}  # noqa: RUF012

    def __init__(
        self, vocabulary: Vocabulary, start: int, *, rate: float = 0.3, mean: float = 3.0, permute: bool = True
    ) -> None:
        if not (0 < rate <= 1 and mean > 0):
            raise TrainingError(f"rate {rate} is a share above 0 and up to 1, and mean {mean} is above 0")
        self.rate, self.mean, self.start, self.eos = rate, mean, start, vocabulary.eos
        self.mask, self.ordinary = vocabulary.mask, vocabulary.is_ordinary
        self.ends = vocabulary.ends_sentence() if permute else None

    def batch(self, rows: Rows | Pairs | Labelled, draw: torch.Generator) -> Batch:
        sources, targets = [], []
        for ids in texts(one(rows, "denoising"), "denoising"):
            ids = ids[:-1] if len(ids) and ids[-1] == self.eos else ids
            end = ids.new_tensor([] if self.eos is None else [self.eos])
            control = int((~self.ordinary[ids]).int().cumprod(0).sum())  # those that a text begins with stay
            spoilt = ids[control:] if self.ends is None else shuffled(ids[control:], self.ends, draw)
            sources.append(torch.cat([ids[:control], infilled(spoilt, self.mask, self.rate, self.mean, draw), end]))
            targets.append(torch.cat([ids, end]))
        return written(laid(sources), laid(targets), self.start)

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        return words(model, model(**batch.inputs, head=False), batch.targets)


def shuffled(ids: Int[Tensor, " t"], ends: Bool[Tensor, " v"], draw: torch.Generator) -> Int[Tensor, " t"]:
    """The sentences in another order; `ends` says which ids end one."""
    last = ends[ids]
    sentence = last.cumsum(0) - last.long()  # the number of each token's sentence
    places = torch.randperm(int(sentence.max()) + 1 if len(ids) else 0, generator=draw)
    return ids[places[sentence].argsort(stable=True)]


def infilled(ids: Int[Tensor, " t"], mask: int, rate: float, mean: float, draw: torch.Generator) -> Int[Tensor, " s"]:
    """The text with spans replaced with one mask each, anywhere: every order of spans and kept tokens is equally likely."""
    wanted, lengths = round(len(ids) * rate), torch.zeros(0)
    while lengths.sum() < wanted:
        lengths = torch.cat([lengths, torch.poisson(torch.full((max(wanted, 1),), mean), generator=draw)])
    before = lengths.cumsum(0) - lengths
    lengths = torch.minimum(lengths, wanted - before)[before < wanted].long()  # the last one is cut to fit
    pieces = len(ids) - wanted + len(lengths)  # kept tokens and spans
    is_span = torch.zeros(pieces, dtype=torch.bool)
    is_span[torch.randperm(pieces, generator=draw)[: len(lengths)]] = True
    widths = torch.ones(pieces, dtype=torch.int64)
    widths[is_span] = lengths
    first = widths.cumsum(0) - widths
    return torch.full_like(widths, mask).where(is_span, ids[first.clamp(max=max(len(ids) - 1, 0))]) if pieces else ids
