"""Text from a model, token by token: greedy, sampled or by beam search, whole (`generate`) or as it comes (`stream`)."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from cutaway.errors import CutawayError
from cutaway.generation.answer import Finish
from cutaway.generation.beam import Beams, EarlyStopping
from cutaway.generation.constraints import Constraints
from cutaway.generation.prompts import Prompt
from cutaway.generation.runner import Past
from cutaway.generation.sampling import Sampling
from cutaway.generation.session import Session

if TYPE_CHECKING:
    from cutaway.api import Loaded


@dataclass(frozen=True)
class Generation:
    """What came out. Row `r` of the prompt has the entries `r * num_return` and following of each list."""

    ids: list[list[int]]  # the new tokens; the end token that stopped a row is its last
    finish: list[Finish | None]  # why each stopped: "eos", "stop" (a stop string), "length"; None while it goes on
    texts: list[str] | None  # up to the stop string; None without a tokenizer
    scores: list[float] | None  # of beam search: log-probability / length^length_penalty
    seconds: float  # from the call to the last token
    seconds_to_first: float  # from the call to the first token

    @property
    def tokens(self) -> int:
        return sum(len(row) for row in self.ids)

    @property
    def tokens_per_second(self) -> float:
        """New tokens of all rows a second: after each row's first, or over all where there are no more."""
        later = self.tokens - len(self.ids)
        if later <= 0 or self.seconds <= self.seconds_to_first:
            return self.tokens / self.seconds if self.seconds > 0 else 0.0
        return later / (self.seconds - self.seconds_to_first)


def generate(
    model: nn.Module | Loaded,
    prompt: Prompt,
    *,
    padding: Tensor | None = None,
    target: Sequence[int] | Sequence[Sequence[int]] | None = None,
    max_new_tokens: int = 128,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    repetition_penalty: float = 1.0,
    beams: int = 1,
    length_penalty: float = 1.0,
    early_stopping: EarlyStopping = False,
    num_return: int = 1,
    eos: int | Iterable[int] | None = None,
    stop: str | Iterable[str] | None = (),
    tokenizer: Any = None,
    bos: int | None = None,
    seed: int | Sequence[int] | None = None,
    cache: bool = True,
    constraints: Constraints | None = None,
) -> Generation:
    """Continue each prompt; for an encoder-decoder, answer each source.

    Args:
        model: a decoder, an encoder-decoder, or what `cutaway.load` returned, which brings its tokenizer.
        prompt: text or texts (with a tokenizer), ids, a ragged list of lists of ids, or a tensor (B, T) with
            `padding` (B, T), True on real tokens, on any side. A row's answer does not depend on the others.
        target: what the answers of an encoder-decoder begin with, after its start token; not part of `ids`.
        max_new_tokens: at most so many; fewer, with a warning, where the model's positions end before.
        temperature, top_k, top_p, min_p, repetition_penalty: as in `sample`; temperature 0 is greedy.
        beams, length_penalty, early_stopping: beam search when beams > 1, see `Beams`.
        num_return: answers a prompt: independent samples, or the best beams.
        eos: tokens that end a row; the tokenizer's own by default.
        stop: strings that end a row (they need a tokenizer, and may span tokens).
        bos: the token an empty prompt begins with; the tokenizer's own by default.
        seed: one for all rows or one a row; answer `j` of a prompt uses seed + j. Equal prompts with equal seeds get
            equal answers, alone or in any batch. None draws seeds from torch's global generator.
        cache: False recomputes all tokens at every step (slow; the result is the same).
        constraints: what must or must not be said, see `Constraints`; by default what `cutaway.load` found published:
            forced first and last tokens, and those never to be said. `Constraints()` is none.

    Raises:
        CutawayError: a setting out of range, an empty prompt, an unknown token, a model that writes no text.
        CapacityError: a prompt longer than the model's positions.
    """
    sampling = Sampling(temperature, top_k, top_p, min_p, repetition_penalty)
    search = Beams(beams, length_penalty, early_stopping)
    session = Session(
        model,
        prompt,
        sampling,
        padding=padding,
        target=target,
        max_new_tokens=max_new_tokens,
        num_return=num_return,
        eos=eos,
        stop=stop,
        tokenizer=tokenizer,
        bos=bos,
        cache=cache,
        constraints=constraints,
    )
    if beams > 1:
        session.search(search)
    else:
        if sampling.greedy and num_return > 1:
            raise CutawayError("num_return: greedy answers are all alike; set a temperature above 0, or beams.")
        for _ in session.run(seed):
            pass
    return _result(session)


class Stream:
    """An iterator over one answer as it comes: pieces of text, or ids without a tokenizer; made by `stream`.

    `result` is the `Generation` so far, complete when the iterator has ended.
    """

    def __init__(self, session: Session, seed: int | None) -> None:
        self._session, self._pieces = session, _pieces(session, seed)

    def __iter__(self) -> Iterator[str | int]:
        return self

    def __next__(self) -> str | int:
        return next(self._pieces)

    def close(self) -> None:
        """End it early; the model is as it was before. Dropping the iterator does the same."""
        self._pieces.close()

    @property
    def result(self) -> Generation:
        return _result(self._session)


def _pieces(session: Session, seed: int | None) -> Generator[str | int, None, None]:
    for [(_, token, text)] in session.run(seed):
        if not session.texts:
            yield token
        elif text:
            yield text


def stream(
    model: nn.Module | Loaded,
    prompt: Prompt,
    *,
    padding: Tensor | None = None,
    target: Sequence[int] | None = None,
    max_new_tokens: int = 128,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    repetition_penalty: float = 1.0,
    eos: int | Iterable[int] | None = None,
    stop: str | Iterable[str] | None = (),
    tokenizer: Any = None,
    bos: int | None = None,
    seed: int | None = None,
    cache: bool = True,
    constraints: Constraints | None = None,
    past: Past | None = None,
) -> Stream:
    """`generate` for one prompt, as it comes: an iterator of text pieces, or of ids without a tokenizer.

    Text is held back while it could be the beginning of a stop string or half a character. The pieces together are
    `result.texts[0]`. Arguments and errors are those of `generate`; errors in them are raised by the call itself.
    `past`: a `Past()` kept from call to call, in a conversation: what the prompt shares with it is not read again.
    """
    session = Session(
        model,
        prompt,
        Sampling(temperature, top_k, top_p, min_p, repetition_penalty),
        padding=padding,
        target=target,
        max_new_tokens=max_new_tokens,
        eos=eos,
        stop=stop,
        tokenizer=tokenizer,
        bos=bos,
        cache=cache,
        constraints=constraints,
        past=past,
    )
    if len(session.prompts) != 1:
        raise CutawayError(f"stream: takes one prompt, not {len(session.prompts)}; generate takes several.")
    return Stream(session, seed)


def _result(session: Session) -> Generation:
    answers = session.answers
    return Generation(
        ids=[answer.ids for answer in answers],
        finish=[answer.finish for answer in answers],
        texts=["".join(answer.pieces) for answer in answers] if session.texts else None,
        scores=session.scores,
        seconds=session.last,
        seconds_to_first=session.first,
    )
