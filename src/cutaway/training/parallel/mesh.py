"""How processes are laid out: copies of the model × what each copy is divided into × what each layer is divided into.

With 8 processes, `data=2, shard=2, tensor=2` is two copies of the model, each in two pieces, of which two processes
compute each layer. Those that send most stand next to each other, where it has the shortest way.
"""

from __future__ import annotations

import dataclasses
import logging

from torch.distributed.device_mesh import init_device_mesh

from cutaway.training import recipe
from cutaway.training.errors import TrainingError
from cutaway.training.world import World

NAMES = ("data", "shard", "tensor")


def sizes(asked: recipe.Parallel, processes: int) -> tuple[int, int, int]:
    """How many of each: what is not said is as many as are left.

    Raises:
        TrainingError: it does not come out.
    """
    divided = asked.shard * asked.tensor
    data = asked.data or max(1, processes // divided)
    if data * divided != processes:
        raise TrainingError(
            f"parallel.data {data} × parallel.shard {asked.shard} × parallel.tensor {asked.tensor} is not {processes} "
            f"process{'es' * (processes > 1)}: start as many with torchrun --nproc-per-node, or choose others"
        )
    return data, asked.shard, asked.tensor


def laid_out(world: World, asked: recipe.Parallel, device: str) -> World:
    """The world with its mesh, where there is more to it than copies."""
    found = sizes(asked, world.size)
    if found[1:] == (1, 1):
        return world
    # gathering what is divided twice takes two turns, of which it would warn each time
    logging.getLogger("torch.distributed.tensor._redistribute").setLevel(logging.ERROR)
    mesh = init_device_mesh(device, found, mesh_dim_names=NAMES)
    rows = mesh["data", "shard"]._flatten("rows").get_group()
    return dataclasses.replace(world, mesh=mesh, tensor=found[2], rows=rows)
