"""How published tensors and our parameters lay out the same numbers: small operations, each with its inverse."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


class Op:
    """How one tensor of theirs and the parameters of ours hold the same numbers; here: alike."""

    whole = True  # the tensor is used as it stands, so that it can be read straight into the parameter

    def read(self, theirs: Tensor) -> list[Tensor]:
        return [theirs]

    def write(self, ours: Sequence[Tensor]) -> Tensor:
        return ours[0]

    @property
    def outputs(self) -> "Op | None":
        """The same for matrices of the same outputs, always in front, and other inputs; None: the outputs lie in no axis."""
        return self

    def theirs_shape(self, shapes: Sequence[Sequence[int]]) -> tuple[int, ...]:
        """Their tensor's shape, given the shapes of our parameters."""
        return tuple(self.write([torch.empty(tuple(shape), device="meta") for shape in shapes]).shape)


class _Transpose(Op):
    whole = False

    @property
    def outputs(self) -> Op:
        return same

    def read(self, theirs: Tensor) -> list[Tensor]:
        return [_turn(theirs)]

    def write(self, ours: Sequence[Tensor]) -> Tensor:
        return _turn(ours[0])


def _turn(tensor: Tensor) -> Tensor:
    return tensor.t() if tensor.ndim == 2 else tensor  # a bias has nothing to turn


class _Row(Op):
    """They keep a vector (N,) as a matrix of one row (1, N)."""

    whole = False

    @property
    def outputs(self) -> None:
        return None

    def read(self, theirs: Tensor) -> list[Tensor]:
        return [theirs[0]]

    def write(self, ours: Sequence[Tensor]) -> Tensor:
        return ours[0][None]


@dataclass(frozen=True)
class split(Op):
    """Their tensor holds several of ours along `axis`: `parts` equal ones, or ones of the given sizes."""

    parts: int | tuple[int, ...]
    axis: int = 0
    whole = False

    @property
    def outputs(self) -> Op | None:
        return self if self.axis == 0 else None

    def read(self, theirs: Tensor) -> list[Tensor]:
        if isinstance(self.parts, int):
            return list(theirs.chunk(self.parts, self.axis))
        return list(theirs.split(list(self.parts), self.axis))

    def write(self, ours: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(ours), self.axis)


@dataclass(frozen=True)
class split_transposed(Op):
    """As `split` along the output axis, for weights kept as (in, out): GPT-2's `Conv1D`."""

    parts: int | tuple[int, ...]
    whole = False

    @property
    def outputs(self) -> Op:
        return split(self.parts)

    def read(self, theirs: Tensor) -> list[Tensor]:
        return split(self.parts).read(_turn(theirs))

    def write(self, ours: Sequence[Tensor]) -> Tensor:
        return _turn(split(self.parts).write(ours))


@dataclass(frozen=True)
class split_heads(Op):
    """They keep each head's q, k and v side by side (q of head 0, k of head 0, v of head 0, q of head 1, …)."""

    heads: int
    parts: int = 3
    whole = False

    def read(self, theirs: Tensor) -> list[Tensor]:
        return [each.flatten(0, 1) for each in theirs.unflatten(0, (self.heads, self.parts, -1)).unbind(1)]

    def write(self, ours: Sequence[Tensor]) -> Tensor:
        return torch.stack([each.unflatten(0, (self.heads, -1)) for each in ours], 1).flatten(0, 2)


@dataclass(frozen=True)
class permute(Op):
    """They keep rotary pairs side by side (x0, y0, x1, y1, …), we as halves (x0, x1, …, y0, y1, …)."""

    heads: int
    whole = False

    def read(self, theirs: Tensor) -> list[Tensor]:
        return [theirs.unflatten(0, (self.heads, -1, 2)).transpose(1, 2).flatten(0, 2)]

    def write(self, ours: Sequence[Tensor]) -> Tensor:
        return ours[0].unflatten(0, (self.heads, 2, -1)).transpose(1, 2).flatten(0, 2)


@dataclass(frozen=True)
class by_head(Op):
    """They keep a projection as (D, H, E); ours is (H·E, D), or (D, H·E) where it leads `out` of the heads."""

    heads: int
    out: bool = False
    whole = False

    @property
    def outputs(self) -> None:
        return None

    def read(self, theirs: Tensor) -> list[Tensor]:
        return [theirs.flatten(1) if self.out else theirs.flatten(1).t()]

    def write(self, ours: Sequence[Tensor]) -> Tensor:
        return (ours[0] if self.out else ours[0].t()).unflatten(1, (self.heads, -1))


same, transpose, row = Op(), _Transpose(), _Row()
