"""What one comparison with a reference is: a variant of its configuration, and ways to call both."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Case:
    family: str
    variant: str
    model: str  # the reference's class
    config: dict[str, Any] = field(default_factory=dict)
    padded: bool = True  # False: the reference lets the longest row decide for the others, or cannot be padded

    @property
    def name(self) -> str:
        return f"{self.family}-{self.variant.replace(' ', '-')}"


@dataclass(frozen=True)
class Batch:
    """One way to call both: ids, and where they are padded."""

    name: str
    ids: Tensor
    padding: Tensor | None

    @property
    def real(self) -> Tensor:
        return torch.ones_like(self.ids, dtype=torch.bool) if self.padding is None else self.padding


def batches() -> Iterator[Batch]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, 90, (2, 13), generator=generator)
    left, right = torch.ones_like(ids, dtype=torch.bool), torch.ones_like(ids, dtype=torch.bool)
    left[1, :5], right[1, 8:] = False, False
    yield Batch("no padding", ids, None)
    yield Batch("left padding", ids, left)
    yield Batch("right padding", ids, right)
    yield Batch("one token", ids[:, :1], None)


def target_ids() -> Tensor:
    """What a decoder beside an encoder reads."""
    return torch.randint(3, 90, (2, 9), generator=torch.Generator().manual_seed(2))
