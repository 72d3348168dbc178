"""Padding taken out of the way of what goes from token to token: each row's real tokens first, the padding after them.

A recurrence that meets padding between tokens would have to skip it at every step. Moved to the end, it is met when
nothing real comes any more, wherever it stood.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from cutaway.axes import Bool, Float, Int, Num
from cutaway.parts.context import Context


@dataclass(frozen=True)
class Rows:
    """Where the tokens of each row go. Made once a forward: `Rows.of(ctx)`.

    `pos` are the positions as moved, (#B, T), -1 on padding. `there` and `back` are None where nothing needs to move.
    """

    pos: Int[Tensor, "#b t"]
    padded: bool
    there: Int[Tensor, "b t"] | None = None
    back: Int[Tensor, "b t"] | None = None

    @staticmethod
    def of(ctx: Context) -> Rows:
        return ctx.once("rows", lambda: Rows._of(ctx))

    @staticmethod
    def _of(ctx: Context) -> Rows:
        if ctx.packing != "any":
            return Rows(ctx.pos, ctx.packing != "none")
        there = (ctx.pos < 0).int().argsort(dim=1, stable=True)
        return Rows(ctx.pos.gather(1, there), True, there, there.argsort(dim=1))

    @property
    def real(self) -> Bool[Tensor, "#b t"]:
        return self.pos >= 0

    def compact(self, x: Num[Tensor, "b t d"]) -> Num[Tensor, "b t d"]:
        return x if self.there is None else _moved(x, self.there)

    def restore(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        return x if self.back is None else _moved(x, self.back)

    def restore_pattern(self, x: Float[Tensor, "b h t t"]) -> Float[Tensor, "b h t t"]:
        """Both axes of a pattern, where tokens stood."""
        return x if self.back is None else both_axes(x, self.back)

    def split(
        self, x: Float[Tensor, "b t d"], tokens: int
    ) -> Iterator[tuple[Float[Tensor, "b s d"], Bool[Tensor, "#b s"] | None]]:
        """So many (compact) tokens at a time, and which of them are real: None where all are."""
        parts = x.split(tokens, 1)
        yield from zip(parts, self.real.split(tokens, 1) if self.padded else [None] * len(parts), strict=True)


def last(
    before: Num[Tensor, "b k d"], x: Num[Tensor, "b t d"], real: Bool[Tensor, "#b t"] | None
) -> Num[Tensor, "b k d"]:
    """Each row's last K real tokens, of the K before these and these (compact)."""
    count = before.shape[1]
    both = torch.cat([before, x[:, -count:] if real is None and count else x], 1)
    if real is None:
        return both[:, both.shape[1] - count :]
    first = real.sum(1, keepdim=True)  # (#B, 1): as many as are real fall out at the front
    return _moved(both, first + torch.arange(count, device=x.device))


def both_axes(pattern: Float[Tensor, "b h t t"], index: Int[Tensor, "#b t"]) -> Float[Tensor, "b h t t"]:
    """A pattern whose rows and columns come in the order of `index`."""
    index = index[:, None, :, None]
    return pattern.take_along_dim(index, 2).take_along_dim(index.mT, 3)


def _moved(x: Tensor, index: Tensor) -> Tensor:
    return x.gather(1, index[..., None].expand(x.shape[0], -1, x.shape[2]))
