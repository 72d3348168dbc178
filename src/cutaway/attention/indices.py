"""The tables of sparse patterns: which tokens stand together in a block, and which keys they look at.

All give `rows` (R, n, b) and `columns` (R, H, n, c) for T tokens, as indices of tokens; T stands for none.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from cutaway.axes import Bool, Int

Tables = tuple[Int[Tensor, "#r n b"], Int[Tensor, "#r #h #n c"]]
BLOCK = 64  # queries that look at the same keys, where a pattern leaves it open


def strides(step: int, before: int | None, after: int | None, pos: Int[Tensor, "#r t"]) -> Tables:
    """Every `step`-th token, in blocks; beside it all of the column's tokens, or those `before` and `after` positions away."""
    tokens = pos.shape[1]
    long = -(-tokens // step)
    many = min(long, 2 * BLOCK if before is None else BLOCK)
    inside = torch.arange(-(-long // many) * many, device=pos.device).unflatten(0, (-1, many))  # (n, b) within a column
    if before is None or after is None:
        beside = torch.arange(long, device=pos.device).expand(len(inside), -1)
    else:
        span = torch.arange(-(before // step), many + after // step, device=pos.device)
        beside = inside[:, :1] + span
    column = torch.arange(step, device=pos.device)[:, None, None]
    rows, keys = (
        torch.where(j >= 0, j * step + column, tokens).clamp(max=tokens).flatten(0, 1) for j in (inside, beside)
    )
    return rows[None], keys[None, None]


def local(size: int, pos: Int[Tensor, "#r t"]) -> Tables:
    """Blocks of tokens that look at one another."""
    rows = _spans(pos.shape[1], size, pos.device)
    return rows[None], rows[None, None]


def columns(allowed: Bool[Tensor, "#r t"], pos: Int[Tensor, "#r t"]) -> Tables:
    """All tokens, and the keys that each looks at wherever it stands."""
    tokens, most = pos.shape[1], int(allowed.sum(1).max())
    first = allowed.int().argsort(dim=1, descending=True, stable=True)[:, :most]
    keys = torch.where(allowed.gather(1, first), first, tokens)
    return _spans(tokens, BLOCK * 4, pos.device)[None], keys[:, None, None]


def leading(size: int, pos: Int[Tensor, "#r t"]) -> Tables:
    """The first `size` tokens, and all keys."""
    rows = _spans(min(size, pos.shape[1]), BLOCK, pos.device)
    rows = rows.masked_fill(rows >= size, pos.shape[1])
    return rows[None], torch.arange(pos.shape[1], device=pos.device)[None, None, None]


def blocks(layout: Tensor, size: int, pos: Int[Tensor, "#r t"]) -> list[Tables]:
    """Blocks of `size` tokens and the blocks that each looks at: those that look at many apart from those at few.

    A block that counts several times stands there several times.
    """
    tokens = pos.shape[1]
    inside = F.pad(_spans(tokens, size, pos.device), (0, 0, 0, 1), value=tokens)  # (N + 1, size); the last is empty
    count = len(inside) - 1
    layout = layout[(None,) * (4 - layout.ndim)][:, :, :count, :count].long()  # (R, H, N, N)
    width = layout.sum(-1).amax(1)  # (R, N)
    order = width.argsort(dim=1, descending=True, stable=True)
    many = int((width > 2 * width.median(1, keepdim=True).values).sum(1).max())
    found = []
    for chosen in (order[:, :many], order[:, many:]):
        some = layout.take_along_dim(chosen[:, None, :, None], 2)  # (R, H, n, N)
        most = int(some.sum(-1).max()) if some.numel() else 0
        if most:
            place = torch.arange(most, device=pos.device).expand(*some.shape[:3], most).contiguous()
            keys = torch.searchsorted(some.cumsum(-1), place, right=True)  # (R, H, n, m); N past the last
            found.append((inside[chosen], inside[keys].flatten(-2)))
    return found


def _spans(tokens: int, size: int, device: torch.device) -> Int[Tensor, "n b"]:
    """0 to tokens - 1 in blocks of `size`; what is over is `tokens`."""
    size = min(size, tokens)
    return torch.arange(-(-tokens // size) * size, device=device).clamp(max=tokens).unflatten(0, (-1, size))
