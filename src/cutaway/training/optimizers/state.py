"""What optimizers remember, by the names of the parameters: whatever order or process holds them, it is found again."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from cutaway.errors import CheckpointError
from cutaway.training.parallel.whole import like


def state(optimizers: Iterable[torch.optim.Optimizer], names: Mapping[Tensor, str]) -> dict[str, Tensor]:
    """`name/what` → tensor, for everything remembered of each parameter."""
    found = {}
    for optimizer in optimizers:
        for p, held in optimizer.state.items():
            found |= {f"{names[p]}/{what}": value for what, value in held.items()}
    return found


def load_state(
    optimizers: Iterable[torch.optim.Optimizer], names: Mapping[Tensor, str], saved: Mapping[str, Tensor]
) -> None:
    """Puts back what `state` gave.

    Raises:
        CheckpointError: it is of a parameter that is not there.
    """
    by_name: dict[str, dict[str, Tensor]] = {}
    for key, value in saved.items():
        name, _, what = key.rpartition("/")
        by_name.setdefault(name, {})[what] = value
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for p in group["params"]:
                held = by_name.pop(names[p], {})
                if held:
                    optimizer.state[p] = {what: _placed(value, p) for what, value in held.items()}
    if by_name:
        raise CheckpointError(f"the optimizer's state is of parameters that this model lacks: {', '.join(by_name)}")


def _placed(value: Tensor, p: Tensor) -> Tensor:
    """Divided as its parameter is, where it has a number for each of its."""
    return like(value, p).clone() if value.shape == p.shape else value.to(p.device).clone()
