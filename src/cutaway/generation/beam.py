"""Beam search: keep the N likeliest unfinished sequences at each step, and the N best finished ones.

    score(y) = log p(y | x) / |y|^length_penalty                  |y| counts the new tokens, the end token included

Of all N·V continuations the best ones are taken; those that end go to the finished (if they are among the first N),
the best N that do not end go on. What is kept of a step is which beam each came from and with which token, so a step
costs the same however long the sequences are; the sequences are read off backwards at the end.

References: Sutskever et al. 2014 (arXiv:1409.3215, section 3.2); length normalisation, Wu et al. 2016
(arXiv:1609.08144, section 7) in the simpler form in use today; when to stop as in Hugging Face's implementation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from cutaway.errors import CutawayError
from cutaway.generation.arguments import whole
from cutaway.generation.constraints import Constraints
from cutaway.generation.filters import penalise
from cutaway.generation.runner import Runner
from cutaway.generation.sampling import check_best

EarlyStopping = bool | Literal["never"]


@dataclass(frozen=True)
class Beams:
    """How to search.

    `early_stopping`: True stops a row as soon as N sequences are finished; False when the best unfinished sequence
    scores, at its present length, no better than the worst of N finished ones; "never" when it could not do so at
    any length.
    """

    width: int  # N
    length_penalty: float = 1.0
    early_stopping: EarlyStopping = False

    def __post_init__(self) -> None:
        whole("beams", self.width)
        if not isinstance(self.length_penalty, (int, float)) or not math.isfinite(self.length_penalty):
            raise CutawayError(f"length_penalty must be a finite number, not {self.length_penalty!r}.")
        if self.early_stopping not in (True, False, "never"):
            raise CutawayError(f'early_stopping must be True, False or "never", not {self.early_stopping!r}.')


def beam_search(
    runner: Runner,
    logits: Tensor,
    limits: Tensor,
    settings: Beams,
    eos: Tensor,
    seen: Tensor | None = None,
    repetition_penalty: float = 1.0,
    constraints: Constraints = Constraints(),
    said: Tensor | None = None,
) -> tuple[list[list[list[int]]], list[list[float]]]:
    """The N best sequences of new tokens for each row, best first, and their scores.

    `runner` has been fed the prompts, and `logits` (B, V) are what it gave. `limits` (B,): how many new tokens a row
    may have. `eos` (n,): the tokens that end a sequence. `seen` (B, V): the tokens of each prompt, for the penalty, and
    `said` (B, T) the prompts, for the `constraints`, both of which apply to log-probabilities here.
    """
    width, batch, device = settings.width, len(limits), limits.device
    spread = torch.arange(batch, device=device).repeat_interleave(width)
    logits = logits[spread]  # (B N, V)
    runner.reorder(spread)
    seen, said = (None if x is None else x[spread] for x in (seen, said))
    vocab = logits.shape[-1]
    running = torch.full((batch, width), -math.inf, device=device)
    running[:, 0] = 0.0  # all beams are alike as yet: only the first counts
    taken = min(max(2, 1 + len(eos)) * width, width * vocab)  # enough that N of them do not end
    finished = _Finished(batch, width, device)
    live = torch.arange(batch, device=device)  # the rows that still go on; the others are dropped

    for length in range(1, int(limits.max()) + 1):
        check_best(logits.amax(-1))
        gains = penalise(logits.float().log_softmax(-1), seen, repetition_penalty)
        gains = constraints.apply(gains, length, limits[live].repeat_interleave(width), eos, said)
        totals = running[:, :, None] + gains.unflatten(0, (len(live), width))  # (B, N, V)
        scores, flat = totals.flatten(1).topk(taken, -1)
        parents, tokens = flat // vocab, flat % vocab  # (B, taken)
        ends = torch.isin(tokens, eos) | (length >= limits[live, None])
        candidates = (scores / length**settings.length_penalty).masked_fill(~ends, -math.inf)
        finished.add(live, candidates[:, :width], parents[:, :width], tokens[:, :width])

        running, best = scores.masked_fill(ends, -math.inf).topk(width, -1)
        parents, tokens = parents.gather(1, best), tokens.gather(1, best)  # (B, N)
        finished.step(live, parents, tokens)

        forever = settings.early_stopping == "never" and settings.length_penalty > 0
        hope = running[:, 0] / (limits[live] if forever else length) ** settings.length_penalty
        goes_on = hope > finished.worst[live]
        if settings.early_stopping is True:
            goes_on &= ~finished.full[live]
        kept = goes_on.nonzero()[:, 0]
        if not len(kept):
            break
        chosen = (kept[:, None] * width + parents[kept]).flatten()
        live, running, tokens = live[kept], running[kept], tokens[kept]
        runner.reorder(chosen)
        logits = runner.next(tokens.flatten())
        if seen is not None:
            seen = seen[chosen].scatter(1, tokens.view(-1, 1), True)
        if said is not None:
            said = torch.cat([said[chosen], tokens.view(-1, 1)], 1)
    return finished.sequences(), finished.scores.tolist()


class _Finished:
    """The N best finished sequences of each row, (B, N), and the steps that lead to them."""

    def __init__(self, batch: int, width: int, device: torch.device) -> None:
        self.scores = torch.full((batch, width), -math.inf, device=device)
        self.ends = torch.zeros(batch, width, 3, dtype=torch.int64, device=device)  # step, parent, last token
        self.steps: list[Tensor] = []  # at each step: parent beam and token of each beam, (B, N, 2)

    @property
    def full(self) -> Tensor:
        return self.scores[:, -1] > -math.inf

    @property
    def worst(self) -> Tensor:
        return self.scores[:, -1]

    def add(self, rows: Tensor, scores: Tensor, parents: Tensor, tokens: Tensor) -> None:
        """Candidates (R, N) of some rows, -inf where they are not finished; the best N of old and new stay."""
        ends = torch.stack([torch.full_like(parents, len(self.steps)), parents, tokens], -1)
        merged, best = torch.cat([self.scores[rows], scores], 1).topk(scores.shape[1], -1)
        self.scores[rows] = merged
        self.ends[rows] = torch.cat([self.ends[rows], ends], 1).gather(1, best[:, :, None].expand(-1, -1, 3))

    def step(self, rows: Tensor, parents: Tensor, tokens: Tensor) -> None:
        """Which beam (R, N) each unfinished sequence came from, and with which token."""
        taken = self.ends.new_zeros(*self.scores.shape, 2)
        taken[rows] = torch.stack([parents, tokens], -1)
        self.steps.append(taken)

    def sequences(self) -> list[list[list[int]]]:
        """Follow each finished sequence back through the steps to its beginning."""
        steps = torch.stack(self.steps).tolist()  # [step][row][beam] -> parent, token

        def trace(row: int, step: int, beam: int, last: int) -> list[int]:
            ids = [last]
            for earlier in reversed(steps[:step]):
                beam, token = earlier[row][beam]
                ids.append(token)
            return ids[::-1]

        return [[trace(row, *end) for end in ends] for row, ends in enumerate(self.ends.tolist())]
