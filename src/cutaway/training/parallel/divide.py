"""A model and its layout, put together; what does not go is refused in one place."""

from __future__ import annotations

from torch import nn

from cutaway.parts import lora
from cutaway.training.errors import TrainingError
from cutaway.training.objectives import Objective
from cutaway.training.parallel.shard import shard
from cutaway.training.parallel.tensor import divide_tensors
from cutaway.training.recipe import Recipe
from cutaway.training.world import World


def divide(model: nn.Module, objective: Objective, recipe: Recipe, world: World, device: str) -> None:
    """Divides the model, in place, as `world` is laid out.

    Raises:
        TrainingError: the layout does not go with the objective, the optimizer or what is watched.
    """
    if world.mesh is None:
        return
    if lora.names(model):
        raise TrainingError(
            "LoRA trains little, and copies of the model do: leave parallel.shard and parallel.tensor at 1"
        )
    if objective.modules and recipe.parallel.shard > 1:
        raise TrainingError(
            f"the objective trains {', '.join(objective.modules)} beside the model and shares parameters with it: leave "
            "parallel.shard at 1"
        )
    if recipe.optimizer.name == "adafactor":
        raise TrainingError("adafactor does not go with parallel.shard and parallel.tensor; adamw and muon do")
    if recipe.watch.prompt is not None:
        raise TrainingError("no process has the whole model to answer watch.prompt with; leave it out")
    if recipe.loop.compile:
        raise TrainingError("loop.compile does not go with parallel.shard and parallel.tensor yet; leave it out")
    if world.tensor > 1:
        for module in (model, *objective.modules.values()):
            divide_tensors(module, world.mesh["tensor"])
    if world.mesh["shard"].size() > 1:
        shard(model, world.mesh)
    model.to(device)
