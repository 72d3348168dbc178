"""Each token is guessed from those before it: -Σ_t log p(x_t | x_<t) (Bengio et al. 2003; Radford et al. 2018, section 3.1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cutaway.training.batch import IGNORED, Batch, Labelled, Loss, Pairs, Rows
from cutaway.training.errors import TrainingError
from cutaway.training.objectives.objective import given, one, real, words


class Causal:
    """A row of T + 1 ids asks for T: what is read is all but the last, what should come out all but the first.

    Whether a token is asked for is a matter of where it stands, never of which it is: an end of text that is also used
    as padding is learnt. The first token of a document is not guessed from the document before it.
    """

    modules: dict[str, nn.Module] = {}  # noqa: RUF012

    def batch(self, rows: Rows | Pairs | Labelled, draw: torch.Generator) -> Batch:
        rows = one(rows, "causal")
        if rows.ids.shape[1] < 2:
            raise TrainingError("rows of one token have none that comes next; give longer ones")
        there = real(rows)
        asked = there[:, 1:] & there[:, :-1]
        if rows.documents is not None:
            asked = asked & (rows.documents[:, 1:] == rows.documents[:, :-1])

        def read(x: Tensor | None) -> Tensor | None:
            return None if x is None else x[:, :-1]

        inputs = given(
            ids=rows.ids[:, :-1],
            padding=read(rows.padding),
            positions=read(rows.positions),
            documents=read(rows.documents),
        )
        return Batch(inputs, rows.ids[:, 1:].where(asked, IGNORED), int(there[:, :-1].sum()))

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        return words(model, model(**batch.inputs, head=False), batch.targets)
