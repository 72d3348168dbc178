"""Weights, gradients and optimizer divided among processes (Rajbhandari et al. 2020, ZeRO, stage 3), by `fully_shard`.

A block's weights are gathered when its turn comes and let go after it; its gradients are added up and divided in one go.
With several copies (hybrid, Zhao et al. 2023, section 3.2.2) the sums of a part go over the copies as well.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

from cutaway.parts.model import Stack


def shard(model: nn.Module, mesh: DeviceMesh) -> None:
    """Divides the parameters of a model over the mesh's dimension `shard`; gradients are summed over `data` too."""
    chosen: Any = mesh["data", "shard"] if mesh["data"].size() > 1 else mesh["shard"]
    blocks = units(model)
    uses = Counter(id(p) for block in blocks for p in set(block.parameters()))
    shared = {p for p in model.parameters() if uses[id(p)] > 1}  # T5's biases, DeBERTa's table: small, and left whole
    for unit in [*blocks, model]:
        made = fully_shard(unit, mesh=chosen, ignored_params=shared)
        made.set_gradient_divide_factor(1.0)  # the loop divides by what was asked
        made.set_force_sum_reduction_for_comms(True)
    if hasattr(model, "permuted"):  # what XLNet's objective calls in place of the model
        register_fsdp_forward_method(model, "permuted")


def units(model: nn.Module) -> list[nn.Module]:
    """Blocks that are gathered one by one. A block that is used twice is gathered with the rest, as is a reversible
    stack's, whose gradients are made by a function of its own."""
    stacks = [m for m in model.modules() if type(m) is Stack]
    uses = Counter(id(block) for stack in stacks for block in stack.blocks)
    return [block for stack in stacks for block in stack.blocks if uses[id(block)] == 1]


def let_go(model: nn.Module) -> None:
    """Nothing gathered is kept, as after an evaluation, whose weights may have been others."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
