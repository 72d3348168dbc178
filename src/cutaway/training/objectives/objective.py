"""What an objective is, and what most of them share."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from cutaway.axes import Bool, Float, Int
from cutaway.training.batch import IGNORED, Batch, Labelled, Loss, Pairs, Rows
from cutaway.training.cross_entropy import cross_entropy
from cutaway.training.errors import TrainingError


class Objective(Protocol):
    """What a model learns from: how texts become a task, and how its answers are judged.

    `modules`: what is trained besides the model, by name; it may share parameters with it.
    """

    modules: dict[str, nn.Module]

    def batch(self, rows: Rows | Pairs | Labelled, draw: torch.Generator) -> Batch:
        """The task made of these texts. All that is random comes from `draw`, a generator on the CPU."""
        ...

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        """The sum over what is asked, and how much was asked."""
        ...


def real(rows: Rows) -> Bool[Tensor, "b t"]:
    """True on real tokens."""
    return torch.ones_like(rows.ids, dtype=torch.bool) if rows.padding is None else rows.padding


def one(rows: Rows | Pairs | Labelled, objective: str) -> Rows:
    """Texts that stand alone."""
    if isinstance(rows, Labelled):
        raise TrainingError(f"the objective {objective} takes running text; labelled texts go with a task")
    if isinstance(rows, Pairs):
        raise TrainingError(f"the objective {objective} takes texts, not pairs of them; pairs go with translation")
    return rows


def given(**inputs: Tensor | None) -> dict[str, Tensor]:
    """The arguments that are there."""
    return {name: value for name, value in inputs.items() if value is not None}


def words(model: nn.Module, x: Float[Tensor, "b t d"], targets: Int[Tensor, "b t"], smoothing: float = 0.0) -> Loss:
    """How well the model's head guesses the targets from its states `x`. Where smoothed, `extra` has the plain sum too."""
    total, plain = cross_entropy(model.head, x, targets, smoothing=smoothing)  # type: ignore[arg-type]
    return Loss(total, (targets != IGNORED).sum(), {"nll": plain} if smoothing else {})
