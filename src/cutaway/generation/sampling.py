"""From next-token logits to a token: the exact distribution that the settings leave, and a draw from it.

    logits -> repetition penalty -> temperature -> top-k -> top-p -> min-p -> softmax -> draw

`probabilities` is the definition; `sample` draws from exactly that. The order of the filters is the one most
libraries share, so the same settings mean the same distribution there.
"""

import math
import numbers
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cutaway.errors import CutawayError
from cutaway.generation.filters import draw, keep_min_p, keep_top_k, keep_top_p, penalise, scale, seen_tokens


@dataclass(frozen=True)
class Sampling:
    """How a token is chosen: checked once, used at every step. Raises `CutawayError` where out of range."""

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= _number(self.temperature) < math.inf:
            raise _out_of_range("temperature", "a finite number of at least 0 (0 is greedy)", self.temperature)
        if not 0 < _number(self.repetition_penalty) < math.inf:
            raise _out_of_range("repetition_penalty", "a finite number above 0 (1 is off)", self.repetition_penalty)
        if self.top_k is not None and not (isinstance(self.top_k, numbers.Integral) and _number(self.top_k) >= 1):
            raise _out_of_range("top_k", "a whole number of at least 1, or None to keep all tokens", self.top_k)
        for name in ("top_p", "min_p"):
            value = getattr(self, name)
            if value is not None and not 0 <= _number(value) <= 1:
                raise _out_of_range(name, "a number from 0 to 1, or None to keep all tokens", value)

    @property
    def greedy(self) -> bool:
        return self.temperature == 0

    def filtered(self, logits: Tensor) -> Tensor:
        """(B, V) -> (B, V): temperature and the filters after it; the penalty comes before."""
        logits = scale(logits, self.temperature)
        if self.top_k is not None:
            logits = keep_top_k(logits, self.top_k)
        if self.top_p is not None:
            logits = keep_top_p(logits, self.top_p)
        if self.min_p is not None:
            logits = keep_min_p(logits, self.min_p)
        return logits

    def choose(self, logits: Tensor, seen: Tensor | None = None, uniform: Tensor | None = None) -> Tensor:
        """(B, V) logits -> (B,) ids: the most likely tokens, or those that `uniform` (B,) in [0, 1) picks."""
        logits = penalise(logits, seen, self.repetition_penalty)
        if uniform is None:
            best, ids = logits.max(-1)
            check_best(best)
            return ids
        check_best(logits.amax(-1))
        return draw(self.filtered(logits).softmax(-1), uniform)


def sample(
    logits: Tensor,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    repetition_penalty: float = 1.0,
    previous: Tensor | None = None,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
) -> Tensor:
    """Draw one token a row from `probabilities(...)` of the same arguments: (B, V) logits -> Int (B,).

    `previous` Int (B, T): the tokens that the penalty applies to, negative = padding. `generator`: one for
    all rows, or one a row. Temperature 0 takes the first of the most likely tokens.
    Raises `CutawayError` for a setting out of range, and for a row with NaN, +inf, or nothing but -inf.
    """
    settings = Sampling(temperature, top_k, top_p, min_p, repetition_penalty)
    logits = as_floats(logits)
    seen = seen_tokens(previous, logits)
    if settings.greedy:
        return settings.choose(logits, seen)
    rows = len(logits)
    if isinstance(generator, Sequence):
        if len(generator) != rows:
            raise CutawayError(f"generator: {len(generator)} generators for {rows} rows; give one, or one a row.")
        uniform = torch.cat([torch.rand(1, generator=g, dtype=torch.float64) for g in generator])
    else:
        device = generator.device if generator is not None else logits.device
        uniform = torch.rand(rows, generator=generator, dtype=torch.float64, device=device)
    return settings.choose(logits, seen, uniform.to(logits.device))


def probabilities(
    logits: Tensor,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    repetition_penalty: float = 1.0,
    previous: Tensor | None = None,
) -> Tensor:
    """The exact distribution that `sample` draws from: (B, V) -> (B, V), rows sum to 1. Errors as there."""
    settings = Sampling(temperature, top_k, top_p, min_p, repetition_penalty)
    logits = as_floats(logits)
    logits = penalise(logits, seen_tokens(previous, logits), repetition_penalty)
    best, ids = logits.max(-1, keepdim=True)
    check_best(best)
    if settings.greedy:
        return torch.zeros_like(logits).scatter(-1, ids, 1.0)
    return settings.filtered(logits).softmax(-1)


def check_best(best: Tensor) -> None:
    """Raise unless every row's largest logit is a number: any choice among others would be nonsense."""
    if bool(best.isfinite().all()):
        return
    values = best.flatten().tolist()
    row, value = next((i, v) for i, v in enumerate(values) if not math.isfinite(v))
    problem = {math.inf: "+inf", -math.inf: "nothing but -inf (every token is ruled out)"}.get(value, "NaN")
    raise CutawayError(f"logits: row {row} has {problem}: there is no distribution to choose a token from.")


def as_floats(logits: Tensor) -> Tensor:
    """(B, V) logits of any type -> float32, or float64 where they were; other shapes raise `CutawayError`."""
    if logits.dim() != 2 or logits.shape[-1] == 0:
        raise CutawayError(f"logits: must be (B, V), one row a sequence, not {tuple(logits.shape)}.")
    return logits if logits.dtype == torch.float64 else logits.float()


def _number(value: object) -> float:
    """The value as a float; NaN, which is in no range, for what is no number."""
    return float(value) if isinstance(value, numbers.Real) and not isinstance(value, bool) else math.nan


def _out_of_range(name: str, expected: str, value: object) -> CutawayError:
    return CutawayError(f"{name} must be {expected}, not {value!r}.")
