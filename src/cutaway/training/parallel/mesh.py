"""How processes are laid out: copies of the model × what each copy is divided into.

With 8 processes, `data=2, shard=4` is two copies of the model, each in four pieces. Those of a copy stand next to
each other, where what they send has the shortest way.
"""

from __future__ import annotations

import dataclasses

from torch.distributed.device_mesh import init_device_mesh

from cutaway.training import recipe
from cutaway.training.errors import TrainingError
from cutaway.training.world import World

NAMES = ("data", "shard")


def sizes(asked: recipe.Parallel, processes: int) -> tuple[int, int]:
    """How many of each: what is not said is as many as are left.

    Raises:
        TrainingError: it does not come out.
    """
    data = asked.data or max(1, processes // asked.shard)
    if data * asked.shard != processes:
        raise TrainingError(
            f"parallel.data {data} × parallel.shard {asked.shard} is not {processes} process{'es' * (processes > 1)}: "
            "start as many with torchrun --nproc-per-node, or choose others"
        )
    return data, asked.shard


def laid_out(world: World, asked: recipe.Parallel, device: str) -> World:
    """The world with its mesh, where there is more to it than copies."""
    found = sizes(asked, world.size)
    if found[1] == 1:
        return world
    return dataclasses.replace(world, mesh=init_device_mesh(device, found, mesh_dim_names=NAMES))
