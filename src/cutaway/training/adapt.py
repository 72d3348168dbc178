"""LoRA in a run: the source's weights stay, detours beside its matrices are trained, and a new head whole."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cutaway.parts import lora
from cutaway.training.errors import TrainingError
from cutaway.training.recipe import Recipe
from cutaway.training.seeds import fold


def adapt(model: Any, recipe: Recipe, *, head: bool = False) -> None:
    """Attaches the adapter that the recipe asks for, if it does.

    Args:
        head: whether the head, and what pools for it, is new, so that it is trained too.

    Raises:
        TrainingError: there is nothing to adapt, or an adapter already.
        ConfigError: no matrix is called as the recipe says.
    """
    asked, source = recipe.lora, recipe.model.source
    if lora.names(model):
        raise TrainingError(f"{source} is an adapter; make one model of it first: cutaway convert {source} FOLDER")
    if asked.rank is None:
        return
    if source is None:
        raise TrainingError("LoRA adapts a trained model: give --model.source SOURCE, or leave out lora.rank")
    if recipe.task.frozen:
        raise TrainingError("lora.rank trains detours and the head, task.frozen the head alone; leave one of them out")
    with torch.random.fork_rng():
        torch.manual_seed(fold(recipe.loop.seed, 4))
        lora.attach(
            model,
            asked.rank,
            asked.alpha,
            targets=asked.targets,
            also=("head", "pooler") if head else (),
            dropout=asked.dropout,
        )


def kept(model: Any) -> list[str]:
    """The parameters that a checkpoint of training has to hold: all, or what an adapter trains."""
    return [n for n, p in model.named_parameters() if p.requires_grad or not lora.names(model)]


def left_out(model: Any) -> Tensor:
    """The length of each parameter that a checkpoint leaves out: they tell whether the source is still what it was."""
    held = set(kept(model))
    return torch.tensor(
        [float(p.detach().double().norm()) for n, p in model.named_parameters() if n not in held], dtype=torch.float64
    )
