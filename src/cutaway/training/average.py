"""An exponential average of the weights, which often does better than the last of them (Polyak & Juditsky 1992)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor


class Average:
    """a ← da + (1-d)w after each step n, with d at most (1+n)/(10+n) so that the first weights are soon forgotten."""

    def __init__(self, weights: Mapping[str, Tensor], decay: float) -> None:
        self.weights, self.decay = dict(weights), decay
        self.values = {name: w.detach().clone() for name, w in weights.items()} if decay else {}

    @torch.no_grad()
    def update(self, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, value in self.values.items():
            value.lerp_(self.weights[name], 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The model has the averages as its weights while the body runs."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, value in self.values.items():
            held = self.weights[name].clone()
            self.weights[name].copy_(value)
            value.copy_(held)
