"""Positions in a grid: N₁·N₂·… of them said by N₁ + N₂ + … vectors, one for each coordinate.

AxialPositions    x + [rows[pos div N₂], columns[pos mod N₂]]       side by side    Reformer
GridPositions     x + Σᵢ tableᵢ[coordinateᵢ(pos)]                   added up        Sparse Transformer
"""

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


class GridPositions(nn.Module):
    """x + Σᵢ tableᵢ[coordinateᵢ(pos)], the last coordinate counting fastest (Child et al. 2019, section 5.3).

    A picture of 64 × 64 pixels of 3 colours, written byte by byte, has the grid (64, 64, 3); a text that is looked at
    with a stride of 128 has rows of 128.

    Args:
        shape: how many of each coordinate there are; texts have at most as many tokens as the grid has places.
    """

    def __init__(self, shape: Sequence[int], width: int) -> None:
        super().__init__()
        self.tables = nn.ParameterList(torch.empty(count, width) for count in shape)
        for table in self.tables:
            nn.init.normal_(table, std=0.02)

    def forward(self, x: Float[Tensor, "b t d"], ctx: Context) -> Float[Tensor, "b t d"]:
        rest = ctx.pos.clamp(min=0)
        for table in reversed(self.tables):
            x, rest = x + table[rest % len(table)], rest // len(table)
        return x
