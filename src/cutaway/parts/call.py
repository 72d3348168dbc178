"""How a model was called: ids and padding are checked once, and become the positions that every part works by."""

from __future__ import annotations

import torch
from torch import Tensor

from cutaway.attention.scores import Packing
from cutaway.axes import Bool, Int
from cutaway.errors import ConfigError
from cutaway.parts.context import Context
from cutaway.parts.position import check_length
from cutaway.parts.state import State


def context(
    vocab: int,
    ids: Tensor,
    padding: Tensor | None,
    positions: Tensor | None,
    state: State | None,
    max_positions: int | None,
    segments: Tensor | None = None,
    documents: Tensor | None = None,
) -> Context:
    """Where every token of this call stands, after checking that the call makes sense. Refused, it leaves `state` alone."""
    check(ids, vocab, "ids")
    check_padding(padding, ids.shape)
    if state is not None and state.batch != ids.shape[0]:
        raise ConfigError(f"a state of {state.batch} rows cannot take {ids.shape[0]}")
    packing = where_padding(padding)
    if documents is not None:
        if state is not None:
            raise ConfigError("a state goes on with one text a row; leave documents out")
        check(documents, 2**31, "documents", ids)
        positions = within(documents, padding) if positions is None else positions
    fresh = state is None or state.calls == 0
    if positions is not None:
        if state is not None:
            raise ConfigError("a state counts positions itself; give one or the other")
        check(positions, 2**31, "positions", ids)
        pos = positions if packing == "none" else torch.where(padding, positions, -1)  # type: ignore[arg-type]
    elif state is not None:
        pos = state.advance(ids.shape[1], None if packing == "none" else padding, max_positions)
    else:
        pos = count(ids.shape[1], None if packing == "none" else padding, ids.device)
    may_exceed = max_positions is not None and state is None and (positions is not None or ids.shape[1] > max_positions)
    if may_exceed and not torch.compiler.is_compiling():
        check_length(int(pos.max()) + 1, max_positions)
    # given positions need not grow from left to right, which the fast causal path relies on
    packing = packing if positions is None else "any"
    return Context(pos, packing, state, fresh, documents=documents, ids=ids, segments=segments)


def check(numbers: Tensor, below: int, name: str, ids: Tensor | None = None) -> None:
    """One clear error instead of the kernel's: shape (B, T), or (1, T) beside `ids`; whole numbers, all of them known."""
    shape = tuple(numbers.shape)
    if len(shape) != 2 or numbers.dtype not in (torch.int64, torch.int32) or not shape[1]:
        raise ConfigError(f"{name} are whole numbers (B, T) with T >= 1, int64 or int32, not {numbers.dtype} {shape}")
    if ids is not None and shape != tuple(ids.shape) and shape != (1, *ids.shape[1:]):
        raise ConfigError(f"{name} are {shape}, but ids are {tuple(ids.shape)}")
    # reading the numbers would make a GPU wait; there the kernel's own assertion must do
    if numbers.device.type == "cpu" and not torch.compiler.is_compiling() and numbers.numel():
        low, high = (int(x) for x in numbers.aminmax())
        if low < 0 or high >= below:
            raise ConfigError(f"{name} run from {low} to {high}; this model knows 0 to {below - 1}")


def check_padding(padding: Tensor | None, shape: torch.Size) -> None:
    """Padding says of every token whether it is real."""
    if padding is not None and (padding.shape != shape or padding.dtype != torch.bool):
        given = f"{padding.dtype} {tuple(padding.shape)}"
        raise ConfigError(f"padding is bool {tuple(shape)}, True on real tokens, not {given}")


def where_padding(padding: Bool[Tensor, "b t"] | None) -> Packing:
    """Nowhere, only after the real tokens, or anywhere."""
    if padding is None:
        return "none"
    if torch.compiler.is_compiling():
        return "any"
    if padding.all():
        return "none"
    return "right" if not (padding[:, 1:] & ~padding[:, :-1]).any() else "any"


def count(tokens: int, padding: Bool[Tensor, "b t"] | None, device: torch.device) -> Int[Tensor, "#b t"]:
    """Positions counted over the real tokens, -1 on padding; one row where all stand alike."""
    if padding is None:
        return torch.arange(tokens, device=device)[None]
    return torch.where(padding, padding.cumsum(1) - 1, -1)


def within(documents: Int[Tensor, "#b t"], padding: Bool[Tensor, "b t"] | None) -> Int[Tensor, "#b t"]:
    """Positions counted in each document by itself, whose real tokens need not stand together; 0 on padding."""
    if padding is not None:
        documents = torch.where(padding, documents, -1)
    order = documents.argsort(dim=1, stable=True)
    there = documents.gather(1, order)
    columns = torch.arange(documents.shape[1], device=documents.device).expand_as(documents)
    begins = torch.cat([torch.ones_like(there[:, :1], dtype=torch.bool), there[:, 1:] != there[:, :-1]], 1)
    pos = columns - torch.where(begins, columns, 0).cummax(1).values
    pos = torch.empty_like(pos).scatter_(1, order, pos)
    return pos if padding is None else pos.masked_fill(~padding, 0)


def behind(start: int, ids: Int[Tensor, "b t"], padding: Bool[Tensor, "b t"] | None) -> Int[Tensor, "b t"]:
    """Each row's real tokens moved on by one, `start` first and the last one dropped; padding stays where it is."""
    columns = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    real = columns if padding is None else torch.where(padding, columns, -1)
    before = torch.cat([real.new_full((ids.shape[0], 1), -1), real.cummax(1).values[:, :-1]], 1)
    return torch.where(before < 0, start, ids.gather(1, before.clamp(min=0)))
