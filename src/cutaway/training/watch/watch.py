"""What an onlooker is told. Nothing that one does can change a number of the run."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cutaway.training.loop import Step, Trainer


@dataclass(frozen=True)
class Start:
    """A run that begins, or goes on after step `done`."""

    folder: Path
    trainer: Trainer
    tokenizer: Any
    steps: int
    done: int = 0


class Watch:
    """This one does not care; others override what they want to know."""

    def reading(self, name: str, tokens: int, share: float | None) -> None:
        """The data `name` are cut into tokens: so many by now, of about this share; 1 is the end, None is not known."""

    def began(self, start: Start) -> None: ...

    def stepped(self, step: Step, seconds: float) -> None: ...

    def evaluated(self, step: int, loss: float) -> None: ...

    def scored(self, step: int, scores: dict[str, float]) -> None:
        """What answers to a task's validation data are worth."""

    def saved(self, step: int) -> None: ...

    def noticed(self, step: int, what: str) -> None: ...

    def ended(self) -> None: ...


class Several(Watch):
    """All are told everything, in their order."""

    def __init__(self, *watches: Watch) -> None:
        self.watches = watches

    def reading(self, name: str, tokens: int, share: float | None) -> None:
        for each in self.watches:
            each.reading(name, tokens, share)

    def began(self, start: Start) -> None:
        for each in self.watches:
            each.began(start)

    def stepped(self, step: Step, seconds: float) -> None:
        for each in self.watches:
            each.stepped(step, seconds)

    def evaluated(self, step: int, loss: float) -> None:
        for each in self.watches:
            each.evaluated(step, loss)

    def scored(self, step: int, scores: dict[str, float]) -> None:
        for each in self.watches:
            each.scored(step, scores)

    def saved(self, step: int) -> None:
        for each in self.watches:
            each.saved(step)

    def noticed(self, step: int, what: str) -> None:
        for each in self.watches:
            each.noticed(step, what)

    def ended(self) -> None:
        for each in self.watches:
            each.ended()


class Speed:
    """Tokens a second, over about the last twenty steps; the clock's own noise is smaller than that of one step."""

    def __init__(self) -> None:
        self.tokens = self.seconds = 0.0

    def add(self, tokens: int, seconds: float) -> float:
        self.tokens = 0.95 * self.tokens + tokens
        self.seconds = 0.95 * self.seconds + max(seconds, 1e-9)
        return self.tokens / self.seconds


def fastest(trainer: Trainer) -> float:
    """Floating-point operations a second of a large product of matrices on the device of the model: what can be reached."""
    import torch

    device = next(iter(trainer.weights.values())).device
    size = 1024 if device.type == "cpu" else 8192
    x = torch.randn(size, size, device=device, dtype=trainer.dtype)
    best = float("inf")
    for _ in range(4):
        began = time.perf_counter()
        torch.mm(x, x)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best


def work(trainer: Trainer) -> float | None:
    """Floating-point operations a token of a training step: three forward passes' (Chowdhery et al. 2022, appendix B).

    None for an encoder with a decoder, whose two halves read different tokens.
    """
    from cutaway.errors import CutawayError
    from cutaway.lab.card import describe

    model: Any = trainer.model
    try:
        card = describe(model.family, model.sizes, context=trainer.recipe.data.length, swaps=model.swaps)
    except CutawayError:
        return None
    return None if card.flops_per_source_token is not None else 3.0 * card.flops_per_token
