"""Rows of different lengths: what a decoder is to write about what an encoder read."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cutaway.axes import Bool, Int
from cutaway.parts.call import behind
from cutaway.training.batch import IGNORED, Batch, Rows
from cutaway.training.errors import TrainingError
from cutaway.training.objectives.objective import given, real


def texts(rows: Rows, objective: str) -> list[Int[Tensor, " t"]]:
    """The real tokens of each row.

    Raises:
        TrainingError: several documents share a row.
    """
    if rows.documents is not None and bool((rows.documents != rows.documents[:, :1])[real(rows)].any()):
        raise TrainingError(f"the objective {objective} takes one text a row: say --data.rows texts")
    return [ids[there] for ids, there in zip(rows.ids, real(rows), strict=True)]


def laid(rows: Sequence[Int[Tensor, " t"]]) -> Rows:
    """One under another, with padding on the right where they are shorter than the longest."""
    lengths = torch.tensor([len(row) for row in rows])
    width = max(1, int(lengths.max()))
    ids = torch.stack([torch.nn.functional.pad(row, (0, width - len(row))) for row in rows])
    padding: Bool[Tensor, "b t"] = torch.arange(width) < lengths[:, None]
    return Rows(ids, None if padding.all() else padding)


def written(source: Rows, target: Rows, start: int) -> Batch:
    """The decoder reads `start` and the target but its last token, and is asked for each of its tokens.

    What is asked goes by the target's own padding, whatever the source's.
    """
    inputs = given(
        source_ids=source.ids,
        target_ids=behind(start, target.ids, target.padding),
        source_padding=source.padding,
        target_padding=target.padding,
    )
    there = real(target)
    return Batch(inputs, target.ids.where(there, IGNORED), int(real(source).sum() + there.sum()))
