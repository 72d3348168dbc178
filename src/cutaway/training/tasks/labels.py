"""The objective of tasks that choose among classes: -Σ log p(class), of rows or of tokens."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from cutaway.training.batch import IGNORED, Batch, Labelled, Loss, Pairs, Rows
from cutaway.training.errors import TrainingError
from cutaway.training.objectives.objective import real
from cutaway.training.tasks.task import inputs_of


class Labels:
    """Each row, or each token of a row, is of one class: logits (B, C) or (B, T, C)."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self.modules: dict[str, nn.Module] = {}

    def batch(self, rows: Rows | Pairs | Labelled, draw: torch.Generator) -> Batch:
        if not isinstance(rows, Labelled):
            raise TrainingError("this task takes labelled texts")
        return Batch(inputs_of(self._model, rows.rows), rows.labels, int(real(rows.rows).sum()))

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        logits = model(**batch.inputs).float().flatten(0, -2)  # (n, C)
        targets = batch.targets.flatten()
        total = F.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum")
        return Loss(total, (targets != IGNORED).sum(), {"accuracy": (logits.argmax(-1) == targets).sum()})
