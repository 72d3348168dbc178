"""One generation from prompts to answers: what was asked for, checked once, and the loop that does it."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from cutaway.errors import CutawayError
from cutaway.generation.answer import Answer
from cutaway.generation.arguments import end_tokens, plain, stop_strings, whole
from cutaway.generation.beam import Beams, beam_search
from cutaway.generation.constraints import Constraints
from cutaway.generation.filters import seen_tokens
from cutaway.generation.prompts import Prompt, as_rows, limits
from cutaway.generation.runner import Past, Runner
from cutaway.generation.sampling import Sampling, as_floats
from cutaway.generation.subject import evaluating, subject
from cutaway.parts.model import EncoderDecoder

SEEDS = 2**62  # below the largest seed a generator takes, with room for seed + answer number


class Session:
    """Prompts, settings and growing answers of one call. The arguments are those of `generate`."""

    def __init__(
        self,
        model: Any,
        prompt: Prompt,
        sampling: Sampling,
        *,
        padding: Tensor | None = None,
        target: Sequence[int] | Sequence[Sequence[int]] | None = None,
        max_new_tokens: int = 128,
        num_return: int = 1,
        eos: int | Iterable[int] | None = None,
        stop: str | Iterable[str] | None = (),
        tokenizer: Any = None,
        bos: int | None = None,
        cache: bool = True,
        past: Past | None = None,
        constraints: Constraints | None = None,
    ) -> None:
        published = getattr(model, "generation", None)
        model, tokenizer = subject(model, tokenizer)
        self.model, self.sampling, self.cache, self.past = model, sampling, cache, past
        vocab = int(model.vocab)
        self.num_return = whole("num_return", num_return)
        if bos is None and tokenizer is not None:
            bos = tokenizer.bos_id
        rows = as_rows(prompt, padding, vocab=vocab, tokenizer=tokenizer, bos=bos)
        self.sources: list[list[int]] | None = None
        self.prompts = rows
        positions: int | None = getattr(model, "max_positions", None)
        if isinstance(model, EncoderDecoder):
            limits(rows, 1, positions)
            self.sources = rows
            self.prompts = _targets(target, len(rows), model.start, vocab)
        elif target is not None:
            raise CutawayError(
                "target: only an encoder-decoder has one; put what the answer begins with in the prompt."
            )
        self.limits = limits(self.prompts, whole("max_new_tokens", max_new_tokens), positions)
        if min(self.limits) < max_new_tokens:
            warnings.warn(
                f"max_new_tokens lowered from {max_new_tokens:,} to {min(self.limits):,} for the longest prompt: "
                f"the model has {positions:,} positions.",
                stacklevel=3,
            )
        own = () if tokenizer is None else tokenizer.eos_ids
        self.eos = frozenset(own) if eos is None else end_tokens(eos, vocab)
        self.stop = stop_strings(stop)
        if self.stop and tokenizer is None:
            raise CutawayError("stop: strings are found in text, so they need tokenizer=; for token ids use eos=.")
        wanted = Constraints.published(published or {}) if constraints is None else constraints
        self.constraints = wanted.checked(vocab, begun=target is not None and len(target) > 0)
        self.texts = tokenizer is not None
        self.answers = [
            Answer(limit, self.eos, self.stop, tokenizer) for limit in self.limits for _ in range(self.num_return)
        ]
        self.scores: list[float] | None = None
        self.first = self.last = 0.0  # seconds from the start to the first and to the last token

    @torch.inference_mode()
    def run(self, seed: int | Sequence[int] | None = None) -> Iterator[list[tuple[int, int, str]]]:
        """Step by step: the answers that still go on, each with its new token and the text that became certain."""
        begin = time.perf_counter()
        with evaluating(self.model):
            runner, logits = self._start()
            seen, said = self._seen(logits), self._said(logits)
            most = torch.tensor(self.limits, device=logits.device).repeat_interleave(self.num_return)
            eos = self._eos(logits)
            uniform = None if self.sampling.greedy else self._uniform(seed).to(logits.device)
            if self.num_return > 1:
                spread = torch.arange(len(self.prompts), device=logits.device).repeat_interleave(self.num_return)
                logits = logits[spread]
                seen, said = (None if x is None else x[spread] for x in (seen, said))
                runner.reorder(spread)
            live = list(range(len(self.answers)))
            for step in range(max(self.limits)):
                chance = None if uniform is None else uniform[:, step]
                allowed = self.constraints.apply(as_floats(logits), step + 1, most, eos, said)
                ids = self.sampling.choose(allowed, seen, chance)
                new = [(i, token, self.answers[i].push(token)) for i, token in zip(live, ids.tolist(), strict=True)]
                self.last = time.perf_counter() - begin
                self.first = self.first or self.last
                yield new
                kept = [place for place, i in enumerate(live) if self.answers[i].finish is None]
                if not kept:
                    return
                if seen is not None:
                    seen.scatter_(1, ids[:, None], True)
                if said is not None:
                    said = torch.cat([said, ids[:, None]], 1)
                if len(kept) < len(live):  # finished rows leave, so that they cost nothing
                    live = [live[place] for place in kept]
                    index = torch.tensor(kept, device=ids.device)
                    runner.reorder(index)
                    ids, most = ids[index], most[index]
                    seen, said, uniform = (None if x is None else x[index] for x in (seen, said, uniform))
                logits = runner.next(ids)

    @torch.inference_mode()
    def search(self, beams: Beams) -> None:
        """Fill the answers with the best sequences of a beam search."""
        begin, settings = time.perf_counter(), self.sampling
        if not settings.greedy or any(x is not None for x in (settings.top_k, settings.top_p, settings.min_p)):
            raise CutawayError("beams: beam search draws nothing; leave temperature at 0, top_k, top_p, min_p out.")
        if self.num_return > beams.width:
            raise CutawayError(f"num_return: {beams.width} beams give at most {beams.width}, not {self.num_return}.")
        if self.stop:
            raise CutawayError("stop: beam search ends at eos tokens only; leave stop out, or search without beams.")
        with evaluating(self.model):
            runner, logits = self._start()
            rows = torch.tensor(self.limits, device=logits.device)
            sequences, scores = beam_search(
                runner,
                logits,
                rows,
                beams,
                self._eos(logits),
                self._seen(logits),
                settings.repetition_penalty,
                self.constraints,
                self._said(logits),
            )
        best = [ids for row in sequences for ids in row[: self.num_return]]
        self.scores = [score for row in scores for score in row[: self.num_return]]
        for answer, ids in zip(self.answers, best, strict=True):
            for token in ids:
                answer.push(token)
        self.first = self.last = time.perf_counter() - begin

    def _start(self) -> tuple[Runner, Tensor]:
        runner = Runner(self.model, self.prompts, max(self.limits), self.sources, self.cache, self.past)
        return runner, runner.first()

    def _seen(self, logits: Tensor) -> Tensor | None:
        """Which tokens each prompt has, (B, V), if anything depends on it; padding is no token."""
        if self.sampling.repetition_penalty == 1:
            return None
        return seen_tokens(self._prompts(logits), logits)

    def _said(self, logits: Tensor) -> Tensor | None:
        """What each answer stands after, (B, T), if anything depends on it."""
        return None if self.constraints.no_repeat_ngram is None else self._prompts(logits)

    def _prompts(self, logits: Tensor) -> Tensor:
        longest = max(len(row) for row in self.prompts)
        return torch.tensor([[-1] * (longest - len(row)) + row for row in self.prompts], device=logits.device)

    def _eos(self, logits: Tensor) -> Tensor:
        return torch.tensor(sorted(self.eos), dtype=torch.int64, device=logits.device)

    def _uniform(self, seed: int | Sequence[int] | None) -> Tensor:
        """The random numbers of each answer, (B * num_return, steps), from a generator of its own."""
        rows, seed = len(self.prompts), plain(seed)
        if seed is None:
            seeds: Sequence[int] = torch.randint(SEEDS, (rows,)).tolist()
        elif isinstance(seed, Sequence):
            seeds = seed
        else:
            seeds = [seed] * rows
        if len(seeds) != rows:
            raise CutawayError(f"seed: {len(seeds)} seeds for {rows} prompts; give one, or one a prompt.")
        for value in seeds:
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= SEEDS:
                raise CutawayError(f"seed must be a whole number from 0 to 2^62, not {value!r}.")
        generators = [torch.Generator().manual_seed(s + j) for s in seeds for j in range(self.num_return)]
        return torch.stack([torch.rand(max(self.limits), generator=g, dtype=torch.float64) for g in generators])


def _targets(
    target: Sequence[int] | Sequence[Sequence[int]] | None, rows: int, start: int, vocab: int
) -> list[list[int]]:
    """What each decoder row begins with: the start token, then what the answer must begin with."""
    if target is None or len(target) == 0:
        return [[start] for _ in range(rows)]
    begun = as_rows(target, vocab=vocab, bos=start, name="target")
    if len(begun) == 1:
        begun = begun * rows
    if len(begun) != rows:
        raise CutawayError(f"target: {len(begun)} rows for {rows} prompts; give one for all, or one a prompt.")
    return [row if row[0] == start else [start, *row] for row in begun]
