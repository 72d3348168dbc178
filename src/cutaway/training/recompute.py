"""Activation checkpointing (Chen et al. 2016): a block remembers its input only, and runs again when its gradient is needed."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cutaway.parts.model import Stack


def recompute(model: nn.Module) -> None:
    """Every block of the model's stacks runs so from now on, in training. The numbers stay the same, dropout's too."""
    for stack in [m for m in model.modules() if isinstance(m, Stack)]:
        for block in stack.blocks:
            block.forward = _twice(block, block.forward)  # type: ignore[method-assign]


def _twice(block: nn.Module, forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def alone(x: Tensor, ctx: Any, *more: Any) -> Tensor:
        own = copy(ctx)  # what it leaves for the blocks after it must not be there already the second time
        object.__setattr__(own, "memo", dict(ctx.memo))
        return forward(x, own, *more)

    def run(x: Tensor, ctx: Any, *more: Any) -> Tensor:
        if not (block.training and torch.is_grad_enabled()):
            return forward(x, ctx, *more)
        return checkpoint(alone, x, ctx, *more, use_reentrant=False)  # type: ignore[return-value]

    return run
