"""What a user hands over as a prompt, in whatever form, as plain lists of ids; and lists packed into a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cutaway.errors import CapacityError, CutawayError
from cutaway.generation.arguments import check_ids, plain

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

    a text or a list of texts (with a tokenizer) · a list of ids · a ragged list of lists · a tensor or numpy array
    (T,) or (B, T), with `padding` Bool of the same shape, True on real tokens, wherever they are. An empty row becomes
    `[bos]`. Raises `CutawayError`: an empty row without `bos`, an id outside the vocabulary, a wrong shape or type.
    """
    if padding is not None:
        prompt = _unpadded(prompt, padding, name)
    rows = _lists(plain(prompt), tokenizer, name)
    if not rows:
        raise CutawayError(f"{name}: there is no row; give at least one.")
    for i, row in enumerate(rows):
        if not row and bos is not None:
            row.append(plain(bos))
        if not row:
            raise CutawayError(f"{name}: row {i} is empty; give it a token, or say bos= which one begins a text.")
        check_ids(row, vocab, f"{name}: row {i}")
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


def _lists(prompt: Any, tokenizer: Any, name: str) -> list[list[int]]:
    if isinstance(prompt, (str, bytes)):
        prompt = [prompt]
    if not isinstance(prompt, Sequence):
        raise CutawayError(f"{name}: must be text, token ids, or a tensor of them, not {type(prompt).__name__}.")
    rows = [plain(row) for row in prompt]
    texts = [isinstance(row, (str, bytes)) for row in rows]
    if any(texts):
        if tokenizer is None:
            raise CutawayError(f"{name}: text needs a tokenizer; give tokenizer=, or token ids.")
        if not all(texts):
            raise CutawayError(f"{name}: give texts or token ids, not both in one list.")
        return [list(tokenizer.encode(row)) for row in rows]
    if rows and all(isinstance(row, Sequence) for row in rows):
        return [[plain(token) for token in row] for row in rows]
    return [rows]


def _unpadded(prompt: Any, padding: Any, name: str) -> list[list[int]]:
    """The real tokens of each row of a tensor (T,) or (B, T)."""
    if not hasattr(prompt, "shape"):
        raise CutawayError(f"{name}: padding goes with a tensor of ids; lists may have rows of unequal length.")
    ids, real = torch.as_tensor(prompt), torch.as_tensor(padding)
    if real.shape != ids.shape or real.dtype != torch.bool or ids.dim() > 2:
        raise CutawayError(
            f"{name}: padding must be bool (B, T) like the ids, True on real tokens, "
            f"not {real.dtype} {tuple(real.shape)} for {tuple(ids.shape)}."
        )
    return [row[kept].tolist() for row, kept in zip(torch.atleast_2d(ids), torch.atleast_2d(real), strict=True)]
