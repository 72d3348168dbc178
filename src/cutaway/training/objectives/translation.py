"""One text is written for another: -Σ_t log p(y_t | y_<t, x) (Sutskever et al. 2014), with label smoothing.

Label smoothing asks for 1 - ε + ε/V of the target and ε/V of every other token (Vaswani et al. 2017, section 5.4: ε = 0.1);
`Loss.extra["nll"]` is the loss without it, which perplexity goes by.
"""

from __future__ import annotations

import torch
from torch import nn

from cutaway.training.batch import Batch, Labelled, Loss, Pairs, Rows
from cutaway.training.errors import TrainingError
from cutaway.training.objectives.objective import words
from cutaway.training.objectives.ragged import texts, written


class Translation:
    """The data say where a text ends: a target that is to stop ends with the end-of-text token.

    Args:
        start: the id a target begins with.
        smoothing: ε.
    """

    modules: dict[str, nn.Module] = {}  # noqa: RUF012

    def __init__(self, start: int, *, smoothing: float = 0.1) -> None:
        if not 0 <= smoothing < 1:
            raise TrainingError(f"smoothing cannot be {smoothing}; it is from 0 to below 1")
        self.start, self.smoothing = start, smoothing

    def batch(self, rows: Rows | Pairs | Labelled, draw: torch.Generator) -> Batch:
        if not isinstance(rows, Pairs):
            raise TrainingError(
                "the objective translation takes pairs of texts: give --task.name translation; of single ones, an "
                "encoder with a decoder learns by 'spans' or 'denoising'"
            )
        for side in (rows.source, rows.target):
            texts(side, "translation")
        return written(rows.source, rows.target, self.start)

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        return words(model, model(**batch.inputs, head=False), batch.targets, self.smoothing)
