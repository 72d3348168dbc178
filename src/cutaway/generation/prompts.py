"""What a user hands over as a prompt, in whatever form, as plain lists of ids; and lists packed into a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cutaway.errors import CapacityError, CutawayError

Prompt = str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]] | Tensor


def as_rows(
    prompt: Prompt,
    padding: Tensor | None = None,
    *,
    vocab: int,
    tokenizer: Any = None,
    bos: int | None = None,
    name: str = "prompt",
) -> list[list[int]]:
    """One list of real tokens a row, B rows, from any of these:

    a text or a list of texts (with a tokenizer) · a list of ids · a ragged list of lists · a tensor (T,) or (B, T),
    with `padding` Bool of the same shape, True on real tokens, wherever they are. An empty row becomes `[bos]`.
    Raises `CutawayError`: an empty row without `bos`, an id outside the vocabulary, a wrong shape or type.
    """
    rows = _lists(prompt, padding, tokenizer, name)
    if not rows:
        raise CutawayError(f"{name}: there is no row; give at least one.")
    for i, row in enumerate(rows):
        if not row and bos is not None:
            row.append(bos)
        if not row:
            raise CutawayError(f"{name}: row {i} is empty; give it a token, or say bos= which one begins a text.")
        for token in row:
            if isinstance(token, bool) or not isinstance(token, int):
                raise CutawayError(f"{name}: row {i} holds {token!r}; token ids are whole numbers.")
            if not 0 <= token < vocab:
                raise CutawayError(f"{name}: token {token} in row {i} is outside the vocabulary of {vocab}.")
    return rows


def pack(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Lists of ids -> ids (B, T) and padding (B, T), on the right, or None where all rows are equally long.

    The right side, because a causal model then needs no mask at all for its first look at the prompts.
    """
    lengths = torch.tensor([len(row) for row in rows], device=device)
    longest = max(len(row) for row in rows)
    ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], device=device)
    if min(len(row) for row in rows) == longest:
        return ids, None
    return ids, torch.arange(longest, device=device) < lengths[:, None]


def limits(rows: Sequence[Sequence[int]], wanted: int, positions: int | None) -> list[int]:
    """How many new tokens each row may have: `wanted`, or fewer where the model's positions end before.

    The last new token needs no position: it is not fed. Raises `CapacityError` for a row that has no room at all.
    """
    if positions is None:
        return [wanted] * len(rows)
    for i, row in enumerate(rows):
        if len(row) > positions:
            raise CapacityError(
                f"the prompt in row {i} has {len(row):,} tokens, and the model has {positions:,} positions; "
                f"shorten it by at least {len(row) - positions:,}."
            )
    return [min(wanted, positions - len(row) + 1) for row in rows]


def _lists(prompt: Prompt, padding: Tensor | None, tokenizer: Any, name: str) -> list[list[int]]:
    if isinstance(prompt, Tensor):
        return _tensor_rows(prompt, padding, name)
    if padding is not None:
        raise CutawayError(f"{name}: padding goes with a tensor of ids; lists may have rows of unequal length.")
    if isinstance(prompt, str):
        prompt = [prompt]
    if not isinstance(prompt, Sequence):
        raise CutawayError(f"{name}: must be text, token ids, or a tensor of them, not {type(prompt).__name__}.")
    if any(isinstance(row, str) for row in prompt):
        if tokenizer is None:
            raise CutawayError(f"{name}: text needs a tokenizer; give tokenizer=, or token ids.")
        return [list(tokenizer.encode(row)) for row in prompt]
    if not prompt or not all(isinstance(row, (Sequence, Tensor)) for row in prompt):
        return [list(prompt)]  # type: ignore[list-item]
    return [row.tolist() if isinstance(row, Tensor) else list(row) for row in prompt]  # type: ignore[arg-type]


def _tensor_rows(ids: Tensor, padding: Tensor | None, name: str) -> list[list[int]]:
    if ids.dim() not in (1, 2) or ids.is_floating_point() or ids.dtype == torch.bool:
        raise CutawayError(f"{name}: must be whole numbers (T,) or (B, T), not {ids.dtype} {tuple(ids.shape)}.")
    if padding is None:
        return torch.atleast_2d(ids).tolist()
    if padding.shape != ids.shape or padding.dtype != torch.bool:
        raise CutawayError(
            f"{name}: padding must be bool {tuple(ids.shape)}, True on real tokens, "
            f"not {padding.dtype} {tuple(padding.shape)}."
        )
    return [row[real].tolist() for row, real in zip(torch.atleast_2d(ids), torch.atleast_2d(padding), strict=True)]
