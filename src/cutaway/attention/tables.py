"""Masks given as tensors, looked up by position: `Documents`, and any pattern at all, `Dense`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cutaway.attention.masks import Mask
from cutaway.axes import Int
from cutaway.errors import ConfigError


@dataclass(frozen=True, eq=False)
class Documents(Mask):
    """A token looks only within its own document. `ids` (B, T) names the document at each position."""

    ids: Tensor

    def __post_init__(self) -> None:
        if self.ids.ndim != 2:
            raise ConfigError(f"documents are named by ids (B, T), not {tuple(self.ids.shape)}")

    @property
    def length(self) -> int:
        return self.ids.shape[1]

    def allowed(self, q_pos: Tensor, k_pos: Tensor) -> Tensor:
        def document(pos: Tensor) -> Tensor:  # (B|1, n) -> (B, n)
            rows = max(len(self.ids), len(pos))  # positions come as one row where all stand alike
            return self.ids.expand(rows, -1).gather(1, _index(pos, self).expand(rows, -1))

        return document(q_pos.flatten(1))[:, None, :, None] == document(k_pos.flatten(1))[:, None, None, :]


@dataclass(frozen=True, eq=False)
class Dense(Mask):
    """Any pattern, as a matrix indexed by positions: `table` is Bool (T, T), (H, T, T) or (B, H, T, T)."""

    table: Tensor

    def __post_init__(self) -> None:
        shape, dtype = tuple(self.table.shape), self.table.dtype
        if dtype != torch.bool or len(shape) not in (2, 3, 4) or shape[-1] != shape[-2]:
            raise ConfigError(f"a dense mask is boolean (T, T), (H, T, T) or (B, H, T, T), not {dtype} {shape}")

    @property
    def length(self) -> int:
        return self.table.shape[-1]

    def allowed(self, q_pos: Tensor, k_pos: Tensor) -> Tensor:
        table = self.table[(None,) * (4 - self.table.ndim)]  # (B|1, H|1, T, T)
        batch = torch.arange(table.shape[0], device=table.device)[:, None, None, None]
        head = torch.arange(table.shape[1], device=table.device)[None, :, None, None]
        return table[batch, head, _index(q_pos, self), _index(k_pos, self)]


def _index(pos: Int[Tensor, "..."], mask: Documents | Dense) -> Int[Tensor, "..."]:
    """Positions as indices into what the mask was given; padding looks anything up, since it is masked besides."""
    # reading positions would make a GPU wait; there the kernel's own assertion must do
    if pos.device.type == "cpu" and not torch.compiler.is_compiling() and pos.numel() and int(pos.max()) >= mask.length:
        raise ConfigError(
            f"{type(mask).__name__} was given {mask.length} positions, but a token stands at {int(pos.max())}"
        )
    return pos.clamp(min=0)
