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
) -> Context:
    """Where every token of this call stands, after checking that the call makes sense."""
    check(ids, vocab, padding, "ids")
    if state is not None and state.batch != ids.shape[0]:
        raise ConfigError(f"a state of {state.batch} rows cannot take {ids.shape[0]}")
    packing = where_padding(padding)
    fresh = state is None or state.calls == 0
    if positions is not None:
        if state is not None:
            raise ConfigError("a state counts positions itself; give one or the other")
        check(positions, 2**31, padding, "positions", like=ids if positions.shape[0] != 1 else ids[:1])
        pos = positions if packing == "none" else torch.where(padding, positions, -1)  # type: ignore[arg-type]
    elif state is not None:
        pos = state.advance(ids.shape[1], None if packing == "none" else padding)
    else:
        pos = count(ids.shape[1], None if packing == "none" else padding, ids.device)
    fed = ids.shape[1] if state is None else state.fed
    may_exceed = max_positions is not None and (positions is not None or fed > max_positions)
    if may_exceed and not torch.compiler.is_compiling():
        check_length(int(pos.max()) + 1, max_positions)
    # given positions need not grow from left to right, which the fast causal path relies on
    return Context(pos, packing if positions is None else "any", state, fresh)


def check(ids: Tensor, below: int, padding: Tensor | None, name: str, like: Tensor | None = None) -> None:
    """One clear error instead of the kernel's: shape (B, T), whole numbers, all of them known."""
    if ids.ndim != 2 or ids.is_floating_point() or ids.dtype == torch.bool or not ids.shape[1]:
        raise ConfigError(f"{name} are whole numbers (B, T) with T >= 1, not {ids.dtype} {tuple(ids.shape)}")
    if like is not None and ids.shape != like.shape:
        raise ConfigError(f"{name} are {tuple(ids.shape)}, but ids are {tuple(like.shape)}")
    if padding is not None and (padding.shape != ids.shape or padding.dtype != torch.bool) and like is None:
        raise ConfigError(
            f"padding is bool {tuple(ids.shape)}, True on real tokens, not {padding.dtype} {tuple(padding.shape)}"
        )
    # reading the ids would make a GPU wait; there the kernel's own assertion must do
    if ids.device.type == "cpu" and not torch.compiler.is_compiling() and ids.numel():
        low, high = (int(x) for x in ids.aminmax())
        if low < 0 or high >= below:
            raise ConfigError(f"{name} run from {low} to {high}; this model knows 0 to {below - 1}")


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
