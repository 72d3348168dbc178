"""Axial positions: a table of N₁·N₂ positions as the sum of a grid's rows and columns, N₁ + N₂ vectors (Reformer)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cutaway.axes import Float
from cutaway.errors import ConfigError
from cutaway.parts.context import Context


class AxialPositions(nn.Module):
    """x + [rows[pos div N₂], columns[pos mod N₂]]: one part of the D numbers says the row, the other the column.

    (Kitaev et al. 2020, published code; Ho et al. 2019.) The tables keep the published shapes, which spread over the grid.

    Args:
        shape: N₁ and N₂; texts have at most N₁·N₂ tokens.
        widths: how many of the D numbers each table fills.

    Raises:
        ConfigError: the widths are not those of the model.
    """

    def __init__(self, shape: Sequence[int], widths: Sequence[int], width: int) -> None:
        super().__init__()
        if len(shape) != 2 or len(widths) != 2 or sum(widths) != width:
            raise ConfigError(
                f"axial positions {tuple(shape)} of widths {tuple(widths)} do not make up a width of {width}"
            )
        self.rows = nn.Parameter(torch.empty(shape[0], 1, widths[0]))
        self.columns = nn.Parameter(torch.empty(1, shape[1], widths[1]))
        nn.init.normal_(self.rows)
        nn.init.normal_(self.columns)

    def forward(self, x: Float[Tensor, "b t d"], ctx: Context) -> Float[Tensor, "b t d"]:
        pos, count = ctx.pos.clamp(min=0), self.columns.shape[1]
        return x + torch.cat([self.rows[pos // count, 0], self.columns[0, pos % count]], -1)
